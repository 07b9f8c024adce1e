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

__device__ __forceinline__ float element_of(const float4& four, int i) {
  return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w;
}

// The words of a lane's four terms of one row. A sum does not ask in which order its terms come: a
// lane takes four that lie side by side, where mma's own order would have it fetch them one by one.
// `exact`: the terms need no rounding.
template <class Format, bool exact>
struct LaneWords {
  static constexpr int steps = product_terms / Format::k;
  std::uint32_t word[steps][Format::parts][2];

  __device__ __forceinline__ explicit LaneWords(const float4& four) {
    const auto at = [&](int, int i) { return element_of(four, i); };
#pragma unroll
    for (int step = 0; step < steps; ++step)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        std::uint32_t parts[Format::parts];
        if constexpr (exact && Format::per_word == 1) {
          parts[0] = __float_as_uint(element_of(four, 2 * step + half));
          if constexpr (Format::parts > 1) parts[1] = 0;
        } else {
          Format::word(at, 0, (2 * step + half) * Format::per_word, parts);
        }
#pragma unroll
        for (int p = 0; p < Format::parts; ++p) word[step][p][half] = parts[p];
      }
  }
};

// sum[j] (16 x 8) += A B_j^T over `terms`, a multiple of product_terms. load_a(k, rows) gives terms
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
#pragma unroll
      for (int step = 0; step < product_terms / Format::k; ++step) {
        std::uint32_t a[Format::parts][4];
#pragma unroll
        for (int p = 0; p < Format::parts; ++p)
#pragma unroll
          for (int word = 0; word < 4; ++word)
            a[p][word] = (word % 2 == 0 ? low : high).word[step][p][word / 2];
        Format::multiply(part, a, b.word[step]);
      }
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
