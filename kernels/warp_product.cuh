#pragma once
// A warp's share of a matrix product whose operands stand anywhere: 16 rows of A against some tiles
// of 8 rows of B. gemm.cuh is for operands in memory; this is for kernels that hold them on chip.

#include "kernels/gemm_math.cuh"

namespace CUVAE_KERNELS {

// Where the running lane's four elements of a 16 x 8 tile stand: rows group and group + 8, columns
// 2 place and 2 place + 1, in the order of mma's accumulators.
struct TilePlace {
  int group = static_cast<int>(threadIdx.x) % 32 / 4;
  int place = static_cast<int>(threadIdx.x) % 4;
  [[nodiscard]] __device__ __forceinline__ int row(int element) const {
    return group + element / 2 * 8;
  }
  [[nodiscard]] __device__ __forceinline__ int column(int element) const {
    return 2 * place + element % 2;
  }
};

inline constexpr int product_terms = 16;  // summed from zero, then added: gemm_math.cuh says why

// sum[j] (16 x 8) += A B_j^T over `terms`, a multiple of product_terms. a_at(row, k), b_at(j, row,
// k): elements as floats. All lanes of the warp must call it. Format: Tf32, Tf32x3 or Bf16.
template <class Format, int tiles, class A, class B>
__device__ __forceinline__ void warp_product(float (&sum)[tiles][4], int terms, A a_at, B b_at) {
  const TilePlace at;
  constexpr int half = Format::k / 2;
  constexpr int steps = product_terms / Format::k;
  // Not unrolled: the kernels that use it want their registers for what they hold.
#pragma unroll 1
  for (int k0 = 0; k0 < terms; k0 += product_terms) {
    std::uint32_t a[steps][Format::parts][4];
#pragma unroll
    for (int step = 0; step < steps; ++step)
#pragma unroll
      for (int word = 0; word < 4; ++word) {
        std::uint32_t parts[Format::parts];
        Format::word(a_at, at.group + word % 2 * 8,
                     k0 + step * Format::k + at.place * Format::per_word + word / 2 * half, parts);
#pragma unroll
        for (int p = 0; p < Format::parts; ++p) a[step][p][word] = parts[p];
      }
#pragma unroll
    for (int j = 0; j < tiles; ++j) {
      const auto b_of_tile = [=](int row, int term) { return b_at(j, row, term); };
      float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        std::uint32_t b[Format::parts][2];
#pragma unroll
        for (int word = 0; word < 2; ++word) {
          std::uint32_t parts[Format::parts];
          Format::word(b_of_tile, at.group,
                       k0 + step * Format::k + at.place * Format::per_word + word * half, parts);
#pragma unroll
          for (int p = 0; p < Format::parts; ++p) b[p][word] = parts[p];
        }
        Format::multiply(part, a[step], b);
      }
#pragma unroll
      for (int element = 0; element < 4; ++element) sum[j][element] += part[element];
    }
  }
}

}  // namespace CUVAE_KERNELS
