#pragma once
// Work in blocks whose bounds depend on sizes only, on several threads.

#include <cstdint>
#include <functional>

namespace cuvae {

// Calls `block` for 0 to blocks - 1, each once, in any order and side by side; each block writes to
// places of its own, and sums over blocks are taken afterwards in their order. threads 0: as many
// as the process has cores. What a block throws is thrown here, after all have ended.
void for_blocks(std::int64_t blocks, int threads, const std::function<void(std::int64_t)>& block);

// Blocks of `size` rows that cover n, the last one smaller.
struct Rows {
  std::int64_t first = 0;
  std::int64_t last = 0;  // exclusive
  [[nodiscard]] std::int64_t count() const { return last - first; }
};
[[nodiscard]] constexpr std::int64_t blocks_of(std::int64_t n, std::int64_t size) {
  return (n + size - 1) / size;
}
[[nodiscard]] constexpr Rows block_rows(std::int64_t n, std::int64_t size, std::int64_t block) {
  const std::int64_t first = block * size;
  return {first, first + size < n ? first + size : n};
}

}  // namespace cuvae
