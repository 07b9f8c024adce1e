#pragma once
// Named tensors in host memory.

#include <map>
#include <memory>
#include <string>

#include "cpu/cpu_device.h"
#include "cpu/memory.h"

namespace cuvae {

class HostStore final : public CpuStore {
 public:
  struct Entry {
    DType dtype;   // as declared; f32 is the real type
    DType stored;  // f64 for the f32 tensors of a double device
    Shape shape;
    GuardedMemory memory;
    std::shared_ptr<const Tensor> bound;  // instead of memory
    [[nodiscard]] std::size_t bytes() const {
      return static_cast<std::size_t>(shape.elements()) * size_of(stored);
    }
    [[nodiscard]] const std::byte* data() const {
      return bound ? bound->bytes().data() : memory.data();
    }
  };

  explicit HostStore(DType real) : real_(real) {}

  [[nodiscard]] bool has(std::string_view name) const override;
  void declare(std::string_view name, DType dtype, const Shape& shape) override;
  void write(std::string_view name, const Tensor& tensor) override;
  void bind(std::string_view name, std::shared_ptr<const Tensor> tensor) override;
  [[nodiscard]] Tensor read(std::string_view name) const override;
  [[nodiscard]] std::vector<std::string> names() const override;
  [[nodiscard]] bool guards_intact() const override;

  // Changes whenever the address of a tensor may have changed.
  [[nodiscard]] std::uint64_t version() const noexcept { return version_; }
  [[nodiscard]] const std::byte* data(std::string_view name) const { return entry(name).data(); }
  // Its address for writing: a bound tensor is copied first.
  std::byte* writable(std::string_view name);

 private:
  [[nodiscard]] const Entry& entry(std::string_view name) const;
  [[nodiscard]] DType declared(DType dtype) const;
  void require(std::string_view name, const Entry& there, DType dtype, const Shape& shape) const;

  DType real_;
  std::uint64_t version_ = 1;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace cuvae
