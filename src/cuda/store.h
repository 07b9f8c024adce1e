#pragma once
// Named tensors in the memory of a GPU. A tensor's address never changes, so that captured graphs
// may hold it.

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "cuda/context.h"
#include "cuvae/device.h"

namespace cuvae::cuda {

class CudaStore final : public Store {
 public:
  explicit CudaStore(std::shared_ptr<Context> context) : context_(std::move(context)) {}
  CudaStore(const CudaStore&) = delete;
  CudaStore& operator=(const CudaStore&) = delete;
  ~CudaStore() override;

  [[nodiscard]] bool has(std::string_view name) const override;
  void declare(std::string_view name, DType dtype, const Shape& shape) override;
  // Does not wait for the device; what runs afterwards sees the new content, what was launched
  // before the old one.
  void write(std::string_view name, const Tensor& tensor) override;
  // Uploads, unless that very tensor is what the device holds already.
  void bind(std::string_view name, std::shared_ptr<const Tensor> tensor) override;
  bool share(std::string_view name, const std::shared_ptr<const Tensor>& tensor) override;
  [[nodiscard]] Tensor read(std::string_view name) const override;
  [[nodiscard]] std::vector<std::string> names() const override;

  [[nodiscard]] const std::shared_ptr<Context>& context() const noexcept { return context_; }
  [[nodiscard]] void* data(std::string_view name) const { return entry(name).memory->get(); }
  // A copy of a tensor that is there, as bf16, for programs alone: names() leaves it out, and who
  // reads it makes it first where copied() is not contents() of the tensor.
  void declare_shadow(std::string_view name, std::string_view of);
  // Counts what a tensor has held: writes of the host, and runs of programs that update it, which
  // count themselves.
  [[nodiscard]] std::uint64_t& contents(std::string_view name);
  // Which of those contents a shadow is the copy of; 0: of none.
  [[nodiscard]] std::uint64_t& copied(std::string_view shadow);
  // A program writes to it: what was bound is not what the device holds. Throws Error(usage) for
  // memory that is shared.
  void mark_updated(std::string_view name);

 private:
  struct Entry {
    DType dtype = DType::f32;
    Shape shape;
    std::shared_ptr<DeviceBuffer> memory;
    std::uint64_t contents = 1;           // see contents()
    std::string shadow_of = {};           // not empty: a shadow
    std::uint64_t copied = 0;             // see copied()
    bool updated = false;                 // by a program, at any time
    std::shared_ptr<const Tensor> bound;  // what the memory holds, if it was bound and is as it was
  };

  [[nodiscard]] const Entry& entry(std::string_view name) const;
  Entry& entry(std::string_view name, DType dtype, const Shape& shape);
  // Before the memory gets other content. Throws where another store reads it.
  void require_own(std::string_view name, const Entry& there) const;

  std::shared_ptr<Context> context_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace cuvae::cuda
