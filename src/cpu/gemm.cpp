#include "cpu/gemm.h"

#include <cblas.h>

#include <algorithm>

#include "cpu/blas_coretype.h"

namespace cuvae {
namespace {

constexpr std::int64_t unit = 16;

std::int64_t units(std::int64_t n) {
  return (n + unit - 1) / unit;
}

// Where part i of `parts` begins.
std::int64_t boundary(std::int64_t n, std::int64_t parts, std::int64_t i) {
  return std::min(n, units(n) * i / parts * unit);
}

std::int64_t widest(std::int64_t n, std::int64_t parts) {
  return std::min(n, (units(n) + parts - 1) / parts * unit);
}

int as_int(std::int64_t n) {
  return static_cast<int>(n);
}

void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, const float* a, int lda,
          const float* b, int ldb, float beta, float* c, int ldc) {
  cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1.0F, a, lda, b, ldb, beta, c, ldc);
}

void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc) {
  cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, 1.0, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace

TileGrid::TileGrid(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t most_elements,
                   Cut cut)
    : m_(m), n_(n) {
  constexpr double least_flops = 2e6;  // about 10 us: below, a tile costs more than it gains
  constexpr std::int64_t medium = 256 * 256;
  for (;;) {
    const std::int64_t height = widest(m, rows_);
    const std::int64_t width = widest(n, columns_);
    const std::int64_t area = height * width;
    const bool enough = (tiles() >= 4 && area <= medium) || (tiles() >= 8 && area <= most_elements);
    const double flops = 2.0 * static_cast<double>(area) * static_cast<double>(k);
    if (area <= most_elements && (enough || flops < 2 * least_flops)) return;
    const bool by_rows = cut == Cut::whole_rows ? height > 64 : height >= width;
    if (by_rows && height > unit)
      rows_ *= 2;
    else if (width > unit)
      columns_ *= 2;
    else
      return;
  }
}

Tile TileGrid::tile(std::int64_t i) const noexcept {
  const std::int64_t row = i / columns_;
  const std::int64_t column = i % columns_;
  return {boundary(m_, rows_, row), boundary(m_, rows_, row + 1), boundary(n_, columns_, column),
          boundary(n_, columns_, column + 1), column};
}

std::int64_t TileGrid::largest() const noexcept {
  return widest(m_, rows_) * widest(n_, columns_);
}

template <class T>
void multiply_tile(const Product<T>& p, const Tile& tile, T* c, std::int64_t ldc) {
  const std::int64_t m = tile.rows();
  const std::int64_t n = tile.columns();
  if (m == 0 || n == 0) return;
  if (p.k == 0 && p.accumulate) return;
  if (p.k == 0) {
    for (std::int64_t i = 0; i < m; ++i) std::fill_n(c + i * ldc, n, T{});
    return;
  }
  const T* a = p.a + (p.transpose_a ? tile.m0 : tile.m0 * p.lda);
  const T* b = p.b + (p.transpose_b ? tile.n0 * p.ldb : tile.n0);
  gemm(p.transpose_a ? CblasTrans : CblasNoTrans, p.transpose_b ? CblasTrans : CblasNoTrans,
       as_int(m), as_int(n), as_int(p.k), a, as_int(p.lda), b, as_int(p.ldb),
       p.accumulate ? T{1} : T{}, c, as_int(ldc));
}

template <class T>
void multiply(Team& team, const Product<T>& product, T* c, std::int64_t ldc) {
  const TileGrid grid(product.m, product.n, product.k);
  team.parallel_for(grid.tiles(), [&](std::int64_t i, int) {
    const Tile tile = grid.tile(i);
    multiply_tile(product, tile, c + tile.m0 * ldc + tile.n0, ldc);
  });
}

template void multiply_tile(const Product<float>&, const Tile&, float*, std::int64_t);
template void multiply_tile(const Product<double>&, const Tile&, double*, std::int64_t);
template void multiply(Team&, const Product<float>&, float*, std::int64_t);
template void multiply(Team&, const Product<double>&, double*, std::int64_t);

BlasThreads::BlasThreads(int threads) {
  openblas_set_num_threads(threads);
}

BlasThreads::~BlasThreads() {
  cpu::use_single_threaded_blas();
}

}  // namespace cuvae
