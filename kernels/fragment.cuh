#pragma once
// Products with few rows: y^T [n, 8] = W [n, k] x^T [k, 8], a block of threads for 8 rows of x.
// Every weight is read once in a block, so there is nothing to gain from shared memory: warps load
// them straight into the registers from which tensor cores take them. That can be asked for before
// the kernel waits for its producers; after the wait only the activations are loaded.
//
// An instruction takes 16 rows of W and 8 of x, whose terms lane_words.cuh puts in order. Sums are
// kept as gemm_math.cuh keeps them: 32 terms from zero, then float.

#include "kernels/lane_words.cuh"

namespace CUVAE_KERNELS {

inline constexpr int fragment_rows = 8;  // of x
inline constexpr int fragment_threads = 256;
inline constexpr int fragment_warps = fragment_threads / 32;

struct FragmentPlace : TilePlace {
  int warp = static_cast<int>(threadIdx.x) / 32;
  int lane = static_cast<int>(threadIdx.x) % 32;
};

// A matrix in memory. Weights where terms lie side by side: (row, term) at row * stride + term;
// where rows do: at term * stride + row.
struct Operand {
  const float* data;
  std::int64_t stride;
  int rows;
  int terms;
  bool aligned;  // four elements can be loaded at once
};

__device__ __forceinline__ void load_four(float (&to)[4], const float* from) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}
// Of which the first `valid` exist.
__device__ __forceinline__ void load_four(float (&to)[4], const float* from, int valid,
                                          bool aligned) {
  if (aligned && valid >= 4) return load_four(to, from);
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] = i < valid ? from[i] : 0.0f;
}

// d += a b over 16 terms: a two rows of weights (group and group + 8), b one of x.
template <class Format>
__device__ __forceinline__ void multiply_terms(float (&d)[4], const float (&a)[2][4],
                                               const float (&b)[4]) {
  multiply_words(d, LaneWords<Format>(a[0]), LaneWords<Format>(a[1]), LaneWords<Format>(b));
}

// The weights that one warp holds: rows_ rows (a multiple of 32) by terms_ terms (of 32).
template <bool terms_contiguous, int rows_, int terms_>
class Weights {
 public:
  static constexpr int rows = rows_;
  static constexpr int terms = terms_;
  static_assert(rows % 32 == 0 && terms % 32 == 0);

  // From row `row0` and term `k0` of an operand on, with zeros beyond its end. Loads follow one
  // another without a branch where all of them exist.
  __device__ __forceinline__ void load(const Operand& w, int row0, int k0) {
    if (w.aligned && row0 + rows <= w.rows && k0 + terms <= w.terms)
      load_all<true>(w, row0, k0);
    else
      load_all<false>(w, row0, k0);
  }

  // Sums of `rows` rows of weights with the 8 of x; those of a row and its neighbour in x together.
  struct Sums {
    float at[rows / 32][4][2] = {};
  };
  // The row of a lane's sums [r][i], counted from row0.
  __device__ static __forceinline__ int row_of(int r, int i) {
    const FragmentPlace at;
    return 32 * r + (terms_contiguous ? 8 * i + at.group : 4 * at.group + i);
  }

  // x: the lane's terms from `k` on, of row `group` of x; 32 of all lanes.
  template <class Format>
  __device__ __forceinline__ void multiply(Sums& sums, int k, const float (&x)[2][4]) const {
#pragma unroll
    for (int r = 0; r < rows / 32; ++r)
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        multiply_terms<Format>(sum, w_[r][k / 16][tile], x[0]);
        multiply_terms<Format>(sum, w_[r][k / 16 + 1][tile], x[1]);
#pragma unroll
        for (int word = 0; word < 4; ++word) sums.at[r][2 * tile + word / 2][word % 2] += sum[word];
      }
  }

 private:
  template <bool whole>
  __device__ __forceinline__ void load_all(const Operand& w, int row0, int k0) {
    const FragmentPlace at;
#pragma unroll
    for (int r = 0; r < rows / 32; ++r)
#pragma unroll
      for (int k = 0; k < terms / 16; ++k) {
        const int term = k0 + 16 * k + 4 * at.place;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float four[4];
          if constexpr (terms_contiguous) {
            const int row = row0 + row_of(r, i);
            const float* from = w.data + row * w.stride + term;
            if constexpr (whole)
              load_four(four, from);
            else
              load_four(four, from, row < w.rows ? w.terms - term : 0, w.aligned);
#pragma unroll
            for (int j = 0; j < 4; ++j) w_[r][k][i / 2][i % 2][j] = four[j];
          } else {
            const int row = row0 + 32 * r + 4 * at.group;
            const float* from = w.data + (term + i) * w.stride + row;
            if constexpr (whole)
              load_four(four, from);
            else
              load_four(four, from, term + i < w.terms ? w.rows - row : 0, w.aligned);
#pragma unroll
            for (int j = 0; j < 4; ++j) w_[r][k][j / 2][j % 2][i] = four[j];
          }
        }
      }
  }

  float w_[rows / 32][terms / 16][2][2][4];
};

// Floats of shared memory for a block's rows of `terms` terms each, as they are read for a product:
// neighbours in different banks, zeros up to a multiple of `chunk` terms.
[[nodiscard]] __host__ __device__ constexpr int fragment_stride(int terms, int chunk) {
  return (terms + chunk - 1) / chunk * chunk + 16;
}

// The whole product of 8 rows of x with many terms: warps take chunks of the terms in turn. `first`
// holds the warp's first weights. sums [8, stride] in shared memory gets the sums of row b, weight
// row r at b * stride + r; parts [fragment_parts<W>] is used in between. All threads must call it;
// the sums are there after the next barrier.
template <class W>
inline constexpr int fragment_parts = fragment_warps* fragment_rows*(W::rows + 4);

template <class Format, class W>
__device__ __forceinline__ void split_product(W& first, const Operand& w, const Operand& x, int b0,
                                              float* sums, int stride, float* parts) {
  constexpr int part_stride = W::rows + 4;
  const FragmentPlace at;
  const int k_first = at.warp * W::terms;
  const int b = b0 + at.group;
  for (int row0 = 0; row0 < w.rows; row0 += W::rows) {
    if (row0 > 0) __syncthreads();  // the parts of the rows before are no longer read
    typename W::Sums sum;
    for (int k0 = k_first; k0 < w.terms; k0 += fragment_warps * W::terms) {
      if (row0 > 0 || k0 > k_first) first.load(w, row0, k0);
      const bool whole = x.aligned && b0 + fragment_rows <= x.rows && k0 + W::terms <= x.terms;
#pragma unroll
      for (int k = 0; k < W::terms; k += 32) {
        const int term = k0 + k + 4 * at.place;
        const float* from = x.data + b * x.stride + term;
        float terms[2][4];
        if (whole) {
          load_four(terms[0], from);
          load_four(terms[1], from + 16);
        } else {
          load_four(terms[0], from, b < x.rows ? x.terms - term : 0, x.aligned);
          load_four(terms[1], from + 16, b < x.rows ? x.terms - term - 16 : 0, x.aligned);
        }
        first.template multiply<Format>(sum, k, terms);
      }
    }
    float* part = parts + at.warp * fragment_rows * part_stride;
#pragma unroll
    for (int r = 0; r < W::rows / 32; ++r)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j)
          part[(2 * at.place + j) * part_stride + W::row_of(r, i)] = sum.at[r][i][j];
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < fragment_rows * W::rows;
         i += fragment_threads) {
      const int row = i % W::rows;
      const float* from = parts + i / W::rows * part_stride + row;
      float all = 0.0f;
#pragma unroll
      for (int warp = 0; warp < fragment_warps; ++warp)
        all += from[warp * fragment_rows * part_stride];
      if (row0 + row < w.rows) sums[i / W::rows * stride + row0 + row] = all;
    }
  }
}

// The product of 8 rows of x in shared memory (fragment_stride apart) with few terms: warps take
// units of W::rows rows of the weights in turn, from `unit` on to `end`. `first` holds the weights
// of the warp's first unit. Then f(sums, first row of the unit).
template <class Format, class W, class F>
__device__ __forceinline__ void whole_product(W& first, const Operand& w, const float* x,
                                              int x_stride, int unit, int end, F f) {
  const FragmentPlace at;
  const float* mine = x + at.group * x_stride + 4 * at.place;
  bool loaded = true;
  for (; unit < end; unit += fragment_warps) {
    typename W::Sums sum;
    for (int k0 = 0; k0 < w.terms; k0 += W::terms) {
      if (!loaded) first.load(w, unit * W::rows, k0);
      loaded = false;
#pragma unroll
      for (int k = 0; k < W::terms; k += 32) {
        float terms[2][4];
        load_four(terms[0], mine + k0 + k);
        load_four(terms[1], mine + k0 + k + 16);
        first.template multiply<Format>(sum, k, terms);
      }
    }
    loaded = false;
    f(sum, unit * W::rows);
  }
}

}  // namespace CUVAE_KERNELS
