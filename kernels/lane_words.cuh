#pragma once
// Operands of tensor cores from registers. A sum does not ask in which order its terms come: of
// each 16 terms a lane takes four that lie side by side, where mma's own order would have it fetch
// them one by one. Both operands have to agree; the layout is otherwise that of gemm_math.cuh.

#include "kernels/gemm_math.cuh"

namespace CUVAE_KERNELS {

inline constexpr int product_terms = 16;  // of all four lanes that share a row

// Where the running lane's four elements of a 16 x 8 tile stand: rows group and group + 8, columns
// 2 place and 2 place + 1, in the order of mma's accumulators. It has terms 4 place to 4 place + 3.
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

__device__ __forceinline__ float element_of(const float4& four, int i) {
  return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w;
}
__device__ __forceinline__ float element_of(const float (&four)[4], int i) {
  return four[i];
}

// The words of a lane's four terms of one row. `exact`: the terms need no rounding.
template <class Format, bool exact = false>
struct LaneWords {
  static constexpr int steps = product_terms / Format::k;
  std::uint32_t word[steps][Format::parts][2];

  template <class Four>
  __device__ __forceinline__ explicit LaneWords(const Four& four) {
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

// d (16 x 8) += a b over 16 terms: `low` and `high` of a's rows group and group + 8, b of column
// `group`. All lanes of the warp must call it.
template <class Format, bool a_exact, bool b_exact>
__device__ __forceinline__ void multiply_words(float (&d)[4], const LaneWords<Format, a_exact>& low,
                                               const LaneWords<Format, a_exact>& high,
                                               const LaneWords<Format, b_exact>& b) {
#pragma unroll
  for (int step = 0; step < product_terms / Format::k; ++step) {
    std::uint32_t a[Format::parts][4];
#pragma unroll
    for (int p = 0; p < Format::parts; ++p)
#pragma unroll
      for (int word = 0; word < 4; ++word)
        a[p][word] = (word % 2 == 0 ? low : high).word[step][p][word / 2];
    Format::multiply(d, a, b.word[step]);
  }
}

}  // namespace CUVAE_KERNELS
