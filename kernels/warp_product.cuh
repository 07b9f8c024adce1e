#pragma once
// A warp's share of a matrix product whose operands stand anywhere: 16 rows of A against some tiles
// of 8 rows of B. gemm.cuh is for operands in memory; this is for kernels that hold them on chip.

#include "kernels/lane_words.cuh"

namespace CUVAE_KERNELS {

// sum[j] (16 x 8) += A B_j^T over `terms`, a multiple of product_terms, which are summed from zero
// and then added: gemm_math.cuh says why. load_a(k, rows) gives terms
// k to k + 3 of A's rows `group` and `group + 8`; load_b(k, columns) those of row `group` of each
// B_j, or of whichever row shall be column `group` of the result. All lanes of the warp must call
// it. Format: Tf32, Tf32x3 or Bf16; a_exact, b_exact: it holds the operand's elements as they are.
template <class Format, bool a_exact = false, bool b_exact = false, int tiles, class A, class B>
__device__ __forceinline__ void warp_product(float (&sum)[tiles][4], int terms, A load_a,
                                             B load_b) {
  const TilePlace at;
  // Not unrolled: the kernels that use it want their registers for what they hold.
#pragma unroll 1
  for (int k0 = 0; k0 < terms; k0 += product_terms) {
    const int k = k0 + 4 * at.place;
    float4 rows[2];
    float4 columns[tiles];
    load_a(k, rows);
    load_b(k, columns);
    const LaneWords<Format, a_exact> low(rows[0]);
    const LaneWords<Format, a_exact> high(rows[1]);
#pragma unroll
    for (int j = 0; j < tiles; ++j) {
      const LaneWords<Format, b_exact> b(columns[j]);
      float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      multiply_words(part, low, high, b);
#pragma unroll
      for (int element = 0; element < 4; ++element) sum[j][element] += part[element];
    }
  }
}

// What a product makes of an operand's element; 3xTF32 as good as keeps it.
template <class Format>
__device__ __forceinline__ float rounded(float x) {
  if constexpr (Format::per_word == 2) return __uint_as_float(device::pack_bf16(x, 0.0f) << 16);
  if constexpr (Format::per_word == 1 && Format::parts == 1)
    return __uint_as_float(device::to_tf32(x) & 0xffffe000);  // the rest is not looked at
  return x;
}

// Terms k to k + 3 of a row that lies in memory: aligned to 16 bytes.
__device__ __forceinline__ float4 four_terms(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}
// The same of a matrix whose rows of terms lie `ld` apart.
__device__ __forceinline__ float4 four_terms(const float* at, int ld) {
  return make_float4(at[0], at[ld], at[2 * ld], at[3 * ld]);
}

}  // namespace CUVAE_KERNELS
