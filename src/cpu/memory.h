#pragma once
// Aligned memory with guard bytes on both sides, so that tests notice what writes beside it.

#include <cstddef>
#include <cstdint>
#include <memory>

namespace cuvae {

class GuardedMemory {
 public:
  static constexpr std::size_t alignment = 64;
  GuardedMemory() = default;
  // Zeroed. Throws Error(device) where there is not enough memory, before the system would kill the
  // process for it (available_memory.h); `what` names the use.
  GuardedMemory(std::size_t bytes, const char* what);

  [[nodiscard]] std::byte* data() const noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }
  [[nodiscard]] bool intact() const noexcept;

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept;
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace cuvae
