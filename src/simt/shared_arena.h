#pragma once
// One block's shared memory: the launch's dynamic part, then static arrays in the order in which
// the block meets them, with red zones between. New memory is all ones, a NaN in every float type,
// so that a read before a write shows in the results; AddressSanitizer sees accesses to red zones,
// and red_zones_intact() sees writes to them in every build.

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace cuvae::simt {

class SharedArena {
 public:
  SharedArena() = default;
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;

  // For a new block. `capacity`: static and dynamic bytes together.
  void begin(std::size_t dynamic_bytes, std::size_t capacity);
  // The array that `key` stands for; null if it does not fit. `alignment` is at most 128.
  void* find(const void* key, std::size_t bytes, std::size_t alignment, const char* name);
  [[nodiscard]] void* dynamic() const noexcept { return memory_.get() + red_zone; }
  [[nodiscard]] std::size_t static_bytes() const noexcept { return static_bytes_; }
  // The array that something was written beside; empty if none.
  [[nodiscard]] std::string_view overrun() const noexcept;
  [[nodiscard]] bool contains(const void* address, std::size_t bytes) const noexcept;

 private:
  static constexpr std::size_t red_zone = 128;
  struct Array {
    const void* key;
    std::size_t offset;
    std::size_t bytes;
    const char* name;
  };
  struct Free {
    void operator()(std::byte* memory) const;
  };
  void place(const void* key, std::size_t offset, std::size_t bytes, const char* name);

  std::unique_ptr<std::byte[], Free> memory_;
  std::size_t size_ = 0;
  std::size_t used_ = 0;
  std::size_t dynamic_bytes_ = 0;
  std::size_t static_bytes_ = 0;
  std::size_t capacity_ = 0;
  std::vector<Array> arrays_;
};

}  // namespace cuvae::simt
