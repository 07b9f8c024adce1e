#pragma once
// A warp's share of a matrix product whose operands stand anywhere: 16 rows of A against some tiles
// of 8 rows of B. gemm.cuh is for operands in memory; this is for kernels that hold them on chip,
// and for operands that wait in L2.

#include "kernels/lane_words.cuh"

namespace CUVAE_KERNELS {

// Operands as they are kept: rounded once by who makes them, not by each warp that reads them, and
// with nothing lost. Tensor cores look at the upper 19 bits of a tf32 word only: with half a unit
// of the last of these added they see the rounded number (ties away from zero, as to_tf32), and the
// number itself comes back by subtraction. The other formats keep it as it is, and products
// convert. What was only ever zeroed is a zero for products, but not for original().
template <class Format>
inline constexpr bool keeps_words = Format::per_word == 1 && Format::parts == 1;

template <class Format>
__device__ __forceinline__ float stored(float x) {
  if constexpr (keeps_words<Format>)
    return __uint_as_float(x != x ? 0x7fffffffu : __float_as_uint(x) + 0x1000);
  return x;
}
template <class Format>
__device__ __forceinline__ float original(float kept) {
  if constexpr (keeps_words<Format>) return __uint_as_float(__float_as_uint(kept) - 0x1000);
  return kept;
}
// What a product makes of a stored element; 3xTF32 as good as keeps it.
template <class Format>
__device__ __forceinline__ float rounded(float kept) {
  if constexpr (Format::per_word == 2) return __uint_as_float(device::pack_bf16(kept, 0.0f) << 16);
  if constexpr (keeps_words<Format>) return __uint_as_float(__float_as_uint(kept) & 0xffffe000);
  return kept;
}

// Terms k to k + 3 of a row that lies in memory: aligned to 16 bytes.
__device__ __forceinline__ float4 four_terms(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}
// The same of a matrix whose rows of terms lie `ld` apart.
__device__ __forceinline__ float4 four_terms(const float* at, int ld) {
  return make_float4(at[0], at[ld], at[2 * ld], at[3 * ld]);
}

// The same of two such rows side by side, aligned to 8 bytes.
__device__ __forceinline__ void two_rows(float4 (&rows)[2], const float* at, int ld) {
  const auto pair = [=](int i) { return *reinterpret_cast<const float2*>(at + i * ld); };
  const float2 t0 = pair(0);
  const float2 t1 = pair(1);
  const float2 t2 = pair(2);
  const float2 t3 = pair(3);
  rows[0] = make_float4(t0.x, t1.x, t2.x, t3.x);
  rows[1] = make_float4(t0.y, t1.y, t2.y, t3.y);
}

// part[j] += A B_j^T over product_terms terms, of which the lane has four of each row.
template <class Format, bool a_exact, bool b_exact, int tiles>
__device__ __forceinline__ void multiply_rows(float (&part)[tiles][4], const float4 (&rows)[2],
                                              const float4 (&columns)[tiles]) {
  const LaneWords<Format, a_exact || keeps_words<Format>> low(rows[0]);
  const LaneWords<Format, a_exact || keeps_words<Format>> high(rows[1]);
#pragma unroll
  for (int j = 0; j < tiles; ++j) {
    const LaneWords<Format, b_exact || keeps_words<Format>> b(columns[j]);
    multiply_words(part[j], low, high, b);
  }
}

template <int tiles>
__device__ __forceinline__ void add_to(float (&sum)[tiles][4], const float (&part)[tiles][4]) {
#pragma unroll
  for (int j = 0; j < tiles; ++j)
#pragma unroll
    for (int element = 0; element < 4; ++element) sum[j][element] += part[j][element];
}

inline constexpr int slab_terms = 2 * product_terms;  // that are summed from zero

// sum[j] (16 x 8) += A B_j^T over `terms`, a multiple of product_terms; 32 are summed from zero and
// then added: gemm_math.cuh says why. load_a(k, rows) gives terms k to k + 3 of A's rows `group`
// and `group + 8`, as they are kept; load_b(k, columns) those of row `group` of each B_j, or of
// whichever row shall be column `group` of the result. All lanes of the warp must call it. Format:
// Tf32, Tf32x3 or Bf16; a_exact, b_exact: it holds the operand's elements as they are.
template <class Format, bool a_exact = false, bool b_exact = false, bool few = false, int tiles,
          class A, class B>
__device__ __forceinline__ void warp_product(float (&sum)[tiles][4], int terms, A load_a,
                                             B load_b) {
  const TilePlace at;
  const auto add = [&](float(&part)[tiles][4], int k) {
    float4 rows[2];
    float4 columns[tiles];
    load_a(k, rows);
    load_b(k, columns);
    multiply_rows<Format, a_exact, b_exact>(part, rows, columns);
  };
  // One tile leaves tensor cores waiting for themselves: two sums side by side, but for `few`
  // terms.
  constexpr int slabs = tiles == 1 && !few ? 2 : 1;
  int k = 4 * at.place;
  int left = terms;
  // Not unrolled: the kernels that use it want their registers for what they hold.
#pragma unroll 1
  for (; left >= slabs * slab_terms; left -= slabs * slab_terms) {
    float part[slabs][tiles][4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int slab = 0; slab < slabs; ++slab)
        add(part[slab], k + slab * slab_terms + half * product_terms);
#pragma unroll
    for (int slab = 0; slab < slabs; ++slab) add_to(sum, part[slab]);
    k += slabs * slab_terms;
  }
#pragma unroll 1
  for (; left > 0; left -= product_terms) {
    float part[tiles][4] = {};
    add(part, k);
    add_to(sum, part);
    k += product_terms;
  }
}

// The same where A's rows lie in L2: its words go from there into the registers of those who
// multiply them, `depth` slabs ahead. row0, row1: A's rows `group` and `group + 8`, aligned to 16
// bytes.
template <class Format, int depth, int tiles, class B>
__device__ __forceinline__ void far_product(float (&sum)[tiles][4], int terms, const float* row0,
                                            const float* row1, B load_b) {
  const int own = 4 * TilePlace().place;
  float4 rows[depth][2][2];
  const auto ask = [&](float4(&slab)[2][2], int k) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (const int first = k + half * product_terms; first < terms) {
        slab[half][0] = four_terms(row0 + first + own);
        slab[half][1] = four_terms(row1 + first + own);
      }
  };
#pragma unroll
  for (int slab = 0; slab < depth; ++slab) ask(rows[slab], slab * slab_terms);
#pragma unroll 1
  for (int k0 = 0; k0 < terms; k0 += depth * slab_terms) {
#pragma unroll
    for (int slab = 0; slab < depth; ++slab) {
      const int k = k0 + slab * slab_terms;
      if (k >= terms) break;
      float part[tiles][4] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int first = k + half * product_terms;
        if (first >= terms) break;
        float4 columns[tiles];
        load_b(first + own, columns);
        multiply_rows<Format, false, false>(part, rows[slab][half], columns);
      }
      add_to(sum, part);
      ask(rows[slab], k + depth * slab_terms);
    }
  }
}

}  // namespace CUVAE_KERNELS
