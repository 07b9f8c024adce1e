#pragma once
// Matrix products as fixed tiles, each a single-threaded CBLAS call over the whole inner
// dimension. The grid depends on shapes only, so the bits do not depend on the number of threads.

#include <cstdint>

#include "cpu/team.h"

namespace cuvae {

// c [m, n] = op(a) [m, k] op(b) [k, n], row-major (or += that); op transposes where the flag is
// set.
template <class T>
struct Product {
  bool transpose_a = false;
  bool transpose_b = false;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  const T* a = nullptr;
  std::int64_t lda = 0;  // row stride as stored
  const T* b = nullptr;
  std::int64_t ldb = 0;
  bool accumulate = false;  // c += ..
};

struct Tile {
  std::int64_t m0, m1;  // rows
  std::int64_t n0, n1;  // columns
  std::int64_t column;  // which column of tiles
  [[nodiscard]] std::int64_t rows() const { return m1 - m0; }
  [[nodiscard]] std::int64_t columns() const { return n1 - n0; }
};

// Boundaries are multiples of 16. Measured on Zen 5 with OpenBLAS's SkylakeX kernels: 128 x 128
// tiles reach 93 % of one call's rate at batch 128, 512 x 512 all of it at 4096.
class TileGrid {
 public:
  // whole_rows: columns are cut only where 64 rows would still be too large, for epilogues that
  // stream through memory of their own beside the tile.
  enum class Cut : std::uint8_t { squares, whole_rows };
  TileGrid(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t most_elements = 512 * 512,
           Cut cut = Cut::squares);
  [[nodiscard]] std::int64_t tiles() const noexcept { return rows_ * columns_; }
  [[nodiscard]] std::int64_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::int64_t columns() const noexcept { return columns_; }
  [[nodiscard]] Tile tile(std::int64_t i) const noexcept;
  [[nodiscard]] std::int64_t largest() const noexcept;  // elements of the largest tile

 private:
  std::int64_t m_, n_;
  std::int64_t rows_ = 1;
  std::int64_t columns_ = 1;
};

// One tile into c, whose first element is that of the tile.
template <class T>
void multiply_tile(const Product<T>& product, const Tile& tile, T* c, std::int64_t ldc);

// The whole product into c, tile by tile on the team.
template <class T>
void multiply(Team& team, const Product<T>& product, T* c, std::int64_t ldc);

// Lets OpenBLAS use its own threads while it lives (the bench's ceiling). Not for use beside a
// running program.
class BlasThreads {
 public:
  explicit BlasThreads(int threads);
  ~BlasThreads();
  BlasThreads(const BlasThreads&) = delete;
  BlasThreads& operator=(const BlasThreads&) = delete;
};

}  // namespace cuvae
