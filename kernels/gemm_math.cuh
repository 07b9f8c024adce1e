#pragma once
// The arithmetic of a product's inner loop. Each kind holds the accumulators of its threads, adds a
// slab of K terms to them, and leaves the finished tile in shared memory as [M][c_stride] floats.
//  - Ffma: float, one fused multiply-add after the other in the order of k;
//  - Tensor<Tf32>, Tensor<Bf16>: operands rounded, tensor cores, float accumulators;
//  - Tensor<Tf32x3>: each operand as the sum of two tf32 numbers, three of whose four products are
//    added (Markidis et al., "NVIDIA tensor core programmability, performance & precision", 2018):
//    as exact as float to about 2^-22 of each product.
// Tensor cores truncate when they accumulate, which drifts over long sums: each slab is summed from
// zero, and added to the rest in float (Ootomo and Yokota, "Recovering single precision accuracy
// from tensor cores", 2022).

#include "kernels/gemm_tile.cuh"

namespace CUVAE_KERNELS {

// Element (row, k) of a slab.
template <class T, bool k_contiguous, int rows>
__device__ __forceinline__ float slab_at(const float* slab, int row, int k) {
  return k_contiguous ? slab[row * T::k_stride + k] : slab[k * T::template row_stride<rows> + row];
}

template <class T, bool k_contiguous, int rows>
__device__ __forceinline__ float slab_at(const StoredBf16* slab, int row, int k) {
  const std::uint32_t bits = k_contiguous ? slab[row * T::k_stride_bf16 + k]
                                          : slab[k * T::template row_stride<rows> + row];
  return __uint_as_float(bits << 16);
}

// The elements of a slab, for the words of fragments.
template <class T, bool k_contiguous, int rows, class Element>
struct SlabElements {
  static constexpr bool stored_bf16 = std::is_same_v<Element, StoredBf16>;
  const Element* slab;
  __device__ __forceinline__ float operator()(int row, int k) const {
    return slab_at<T, k_contiguous, rows>(slab, row, k);
  }
  // (row, k), k even, and (row, k + 1), as they are stored.
  __device__ __forceinline__ std::uint32_t pair(int row, int k) const {
    if constexpr (k_contiguous) {
      return *reinterpret_cast<const std::uint32_t*>(slab + row * T::k_stride_bf16 + k);
    } else {
      const StoredBf16* const at = slab + k * T::template row_stride<rows> + row;
      return std::uint32_t{at[0]} | std::uint32_t{at[T::template row_stride<rows>]} << 16;
    }
  }
};

template <class T, bool a_k, bool b_k>
class Ffma {
 public:
  __device__ __forceinline__ Ffma()
      : m_(static_cast<int>(threadIdx.x) / T::threads_n),
        n_(static_cast<int>(threadIdx.x) % T::threads_n) {
#pragma unroll
    for (int i = 0; i < T::thread_m; ++i)
#pragma unroll
      for (int j = 0; j < T::thread_n; ++j) sum_[i][j] = 0.0f;
  }

  __device__ __forceinline__ void add(const float* a_slab, const float* b_slab) {
#pragma unroll
    for (int k = 0; k < T::K; k += 4) {
      float a[T::thread_m][4];
      float b[T::thread_n][4];
      fetch<a_k, T::M, T::threads_m, T::thread_m>(a_slab, m_, k, a);
      fetch<b_k, T::N, T::threads_n, T::thread_n>(b_slab, n_, k, b);
#pragma unroll
      for (int kk = 0; kk < 4; ++kk)
#pragma unroll
        for (int i = 0; i < T::thread_m; ++i)
#pragma unroll
          for (int j = 0; j < T::thread_n; ++j) sum_[i][j] = fmaf(a[i][kk], b[j][kk], sum_[i][j]);
    }
  }

  __device__ __forceinline__ void store(float* c) const {
#pragma unroll
    for (int i = 0; i < T::thread_m; ++i)
#pragma unroll
      for (int j = 0; j < T::thread_n; ++j)
        c[place<a_k, T::threads_m, T::thread_m>(m_, i) * T::c_stride +
          place<b_k, T::threads_n, T::thread_n>(n_, j)] = sum_[i][j];
  }

 private:
  // The row of a thread's i-th element. Where k is contiguous, neighbours take neighbouring rows;
  // where rows are, a thread takes as many of them together as it can load at once.
  template <bool k_contiguous, int places, int count>
  __device__ static __forceinline__ int place(int thread, int i) {
    constexpr int together = k_contiguous ? 1 : (count < 4 ? count : 4);
    return i / together * together * places + thread * together + i % together;
  }

  template <bool k_contiguous, int rows, int places, int count>
  __device__ static __forceinline__ void fetch(const float* slab, int thread, int k,
                                               float (&to)[count][4]) {
    if constexpr (k_contiguous) {
#pragma unroll
      for (int i = 0; i < count; ++i) {
        const float4 four = *reinterpret_cast<const float4*>(
            slab + place<true, places, count>(thread, i) * T::k_stride + k);
        to[i][0] = four.x;
        to[i][1] = four.y;
        to[i][2] = four.z;
        to[i][3] = four.w;
      }
    } else {
      constexpr int together = count < 4 ? count : 4;
#pragma unroll
      for (int kk = 0; kk < 4; ++kk)
#pragma unroll
        for (int i = 0; i < count; i += together) {
          const float* from = slab + (k + kk) * T::template row_stride<rows> +
                              place<false, places, count>(thread, i);
          if constexpr (together == 4) {
            const float4 four = *reinterpret_cast<const float4*>(from);
            to[i][kk] = four.x;
            to[i + 1][kk] = four.y;
            to[i + 2][kk] = four.z;
            to[i + 3][kk] = four.w;
          } else {
            const float2 two = *reinterpret_cast<const float2*>(from);
            to[i][kk] = two.x;
            to[i + 1][kk] = two.y;
          }
        }
    }
  }

  int m_;
  int n_;
  float sum_[T::thread_m][T::thread_n];
};

// The formats of operands on tensor cores: k terms of one instruction, elements in each 32-bit
// word, and the numbers that one element becomes. word(at, row, k, to) makes the word that begins
// with element (row, k).
struct Tf32 {
  static constexpr int k = 8;
  static constexpr int parts = 1;
  static constexpr int per_word = 1;
  template <class At>
  __device__ static __forceinline__ void word(At at, int row, int k, std::uint32_t (&to)[1]) {
    to[0] = device::to_tf32(at(row, k));
  }
  __device__ static __forceinline__ void multiply(float (&d)[4], const std::uint32_t (&a)[1][4],
                                                  const std::uint32_t (&b)[1][2]) {
    device::mma_tf32(d, a[0], b[0]);
  }
};

struct Tf32x3 {
  static constexpr int k = 8;
  static constexpr int parts = 2;  // what tf32 holds, and the rest
  static constexpr int per_word = 1;
  template <class At>
  __device__ static __forceinline__ void word(At at, int row, int k, std::uint32_t (&to)[2]) {
    const float value = at(row, k);
    to[0] = device::to_tf32(value);
    to[1] = device::to_tf32(value - __uint_as_float(to[0]));
  }
  __device__ static __forceinline__ void multiply(float (&d)[4], const std::uint32_t (&a)[2][4],
                                                  const std::uint32_t (&b)[2][2]) {
    device::mma_tf32(d, a[1], b[0]);
    device::mma_tf32(d, a[0], b[1]);
    device::mma_tf32(d, a[0], b[0]);
  }
};

struct Bf16 {
  static constexpr int k = 16;
  static constexpr int parts = 1;
  static constexpr int per_word = 2;
  template <class At>
  __device__ static __forceinline__ void word(At at, int row, int k, std::uint32_t (&to)[1]) {
    if constexpr (requires { requires At::stored_bf16; })
      to[0] = at.pair(row, k);
    else
      to[0] = device::pack_bf16(at(row, k), at(row, k + 1));
  }
  __device__ static __forceinline__ void multiply(float (&d)[4], const std::uint32_t (&a)[1][4],
                                                  const std::uint32_t (&b)[1][2]) {
    device::mma_bf16(d, a[0], b[0]);
  }
};

template <class Format>
struct Tensor {
  // Fragments as the PTX documentation lays them out for m16n8k8 (tf32) and m16n8k16 (bf16): lane
  // l has rows l / 4 and l / 4 + 8 of A, column l / 4 of B, and words l % 4 and l % 4 + 4 of k.
  template <class T, bool a_k, bool b_k>
  class Of {
    static constexpr int tiles_m = T::warp_m / 16;
    static constexpr int tiles_n = T::warp_n / 8;

   public:
    __device__ __forceinline__ Of()
        : m_(static_cast<int>(threadIdx.x) / 32 / T::warps_n * T::warp_m),
          n_(static_cast<int>(threadIdx.x) / 32 % T::warps_n * T::warp_n),
          group_(static_cast<int>(threadIdx.x) % 32 / 4),
          place_(static_cast<int>(threadIdx.x) % 4) {
#pragma unroll
      for (int i = 0; i < tiles_m; ++i)
#pragma unroll
        for (int j = 0; j < tiles_n; ++j)
#pragma unroll
          for (int word = 0; word < 4; ++word) sum_[i][j][word] = 0.0f;
    }

    template <class A, class B>
    __device__ __forceinline__ void add(const A* a_slab, const B* b_slab) {
      const SlabElements<T, a_k, T::M, A> a_at{a_slab};
      const SlabElements<T, b_k, T::N, B> b_at{b_slab};
      constexpr int half = Format::k / 2;
      float slab_sum[tiles_m][tiles_n][4];
#pragma unroll
      for (int i = 0; i < tiles_m; ++i)
#pragma unroll
        for (int j = 0; j < tiles_n; ++j)
#pragma unroll
          for (int word = 0; word < 4; ++word) slab_sum[i][j][word] = 0.0f;
#pragma unroll
      for (int k = 0; k < T::K; k += Format::k) {
        const int first = k + place_ * Format::per_word;
        std::uint32_t b[tiles_n][Format::parts][2];
#pragma unroll
        for (int j = 0; j < tiles_n; ++j)
#pragma unroll
          for (int word = 0; word < 2; ++word) {
            std::uint32_t parts[Format::parts];
            Format::word(b_at, n_ + 8 * j + group_, first + word * half, parts);
#pragma unroll
            for (int part = 0; part < Format::parts; ++part) b[j][part][word] = parts[part];
          }
#pragma unroll
        for (int i = 0; i < tiles_m; ++i) {
          std::uint32_t a[Format::parts][4];
#pragma unroll
          for (int word = 0; word < 4; ++word) {
            std::uint32_t parts[Format::parts];
            Format::word(a_at, m_ + 16 * i + group_ + word % 2 * 8, first + word / 2 * half, parts);
#pragma unroll
            for (int part = 0; part < Format::parts; ++part) a[part][word] = parts[part];
          }
#pragma unroll
          for (int j = 0; j < tiles_n; ++j) Format::multiply(slab_sum[i][j], a, b[j]);
        }
      }
#pragma unroll
      for (int i = 0; i < tiles_m; ++i)
#pragma unroll
        for (int j = 0; j < tiles_n; ++j)
#pragma unroll
          for (int word = 0; word < 4; ++word) sum_[i][j][word] += slab_sum[i][j][word];
    }

    __device__ __forceinline__ void store(float* c) const {
#pragma unroll
      for (int i = 0; i < tiles_m; ++i)
#pragma unroll
        for (int j = 0; j < tiles_n; ++j)
#pragma unroll
          for (int word = 0; word < 4; ++word)
            c[(m_ + 16 * i + group_ + word / 2 * 8) * T::c_stride + n_ + 8 * j + 2 * place_ +
              word % 2] = sum_[i][j][word];
    }

   private:
    int m_;
    int n_;
    int group_;
    int place_;
    float sum_[tiles_m][tiles_n][4];
  };
};

}  // namespace CUVAE_KERNELS
