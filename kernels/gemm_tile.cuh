#pragma once
// How a matrix product is cut: C [m, n] += A [m, k] B [n, k]^T in tiles of M x N, K terms at a
// time, the operands' slabs in shared memory, Stages of them in flight.

#include <cstdint>
#include <type_traits>

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

template <int M_, int N_, int Threads_, int Stages_, int WarpsM_, int ThreadM_>
struct Tile {
  static constexpr int M = M_;
  static constexpr int N = N_;
  static constexpr int K = 32;
  static constexpr int threads = Threads_;
  static constexpr int stages = Stages_;
  // Tensor cores: warps along m and n, each with a part of the tile.
  static constexpr int warps_m = WarpsM_;
  static constexpr int warps_n = Threads_ / 32 / WarpsM_;
  static constexpr int warp_m = M / warps_m;
  static constexpr int warp_n = N / warps_n;
  // Plain FMA: each thread has thread_m x thread_n elements, from threads_m x threads_n places.
  static constexpr int thread_m = ThreadM_;
  static constexpr int threads_m = M / thread_m;
  static constexpr int threads_n = threads / threads_m;
  static constexpr int thread_n = N / threads_n;

  // A slab of an operand with `rows` rows lies in shared memory as it lies in global memory:
  // [rows][K] where k is contiguous, [K][rows] where rows are. The padding puts what the lanes of a
  // warp read together into different banks.
  static constexpr int k_stride = K + 4;
  template <int rows>
  static constexpr int row_stride = rows + 8;
  template <bool k_contiguous, int rows>
  static constexpr int slab = k_contiguous ? rows* k_stride : K* row_stride<rows>;
  static constexpr int c_stride = N + 4;  // of the finished tile, [M][c_stride]
  // The same of operands that are bf16 in memory, and stay so.
  static constexpr int k_stride_bf16 = K + 8;
  template <bool k_contiguous, int rows>
  static constexpr int slab_bf16 = k_contiguous ? rows* k_stride_bf16 : K* row_stride<rows>;

  static_assert(warp_m % 16 == 0 && warp_n % 8 == 0);
  static_assert(thread_m % 2 == 0 && thread_n % 2 == 0);
};

using SmallTile = Tile<32, 32, 128, 4, 2, 2>;
using MediumTile = Tile<64, 64, 256, 3, 4, 4>;
using LargeTile = Tile<128, 128, 256, 2, 2, 8>;

// Elements of bf16 as they are stored.
using StoredBf16 = std::uint16_t;

// Of a slab of float or StoredBf16.
template <class T, class Element, bool k_contiguous, int rows>
constexpr int slab_floats() {
  if constexpr (std::is_same_v<Element, float>)
    return T::template slab<k_contiguous, rows>;
  else
    return T::template slab_bf16<k_contiguous, rows> / 2;
}

// Floats of shared memory: the slabs of all stages, later the finished tile in their place.
template <class T, bool a_k, bool b_k, class A = float, class B = float>
constexpr int gemm_shared_floats() {
  constexpr int a = slab_floats<T, A, a_k, T::M>();
  constexpr int b = slab_floats<T, B, b_k, T::N>();
  constexpr int slabs = T::stages * (a + b);
  constexpr int c = T::M * T::c_stride;
  return slabs > c ? slabs : c;
}

// Asks for one slab: rows [row0, row0 + rows) and terms [k0, k0 + K) of an operand, with zeros
// beyond its end. Operands whose rows do not begin at multiples of 16 bytes are copied by fours of
// single elements, which takes four times the instructions. `source_row` says which row of the
// operand stands in a row of the tile, or -1.
template <class T, bool k_contiguous, int rows, class SourceRow>
__device__ __forceinline__ void load_slab(float* slab, const float* data, std::int64_t stride,
                                          int row_count, int k_count, int k0, bool aligned,
                                          SourceRow source_row) {
  constexpr int fours = rows * T::K / 4;
  for (int i = static_cast<int>(threadIdx.x); i < fours; i += T::threads) {
    float* to;
    std::int64_t from;
    int valid;  // floats
    if constexpr (k_contiguous) {
      const int row = i / (T::K / 4);
      const int k = k0 + i % (T::K / 4) * 4;
      const int source = source_row(row);
      to = slab + row * T::k_stride + i % (T::K / 4) * 4;
      from = source * stride + k;
      valid = source < 0 ? 0 : k_count - k;
    } else {
      const int k = k0 + i / (rows / 4);
      const int row = i % (rows / 4) * 4;
      const int source = source_row(row);
      to = slab + i / (rows / 4) * T::template row_stride<rows> + row;
      from = k * stride + source;
      valid = k < k_count ? row_count - source : 0;
    }
    valid = valid < 0 ? 0 : (valid > 4 ? 4 : valid);
    if (aligned) {
      device::cp_async16(to, data + (valid > 0 ? from : 0), valid * 4);
    } else {
      for (int j = 0; j < 4; ++j)
        device::cp_async4(to + j, data + (j < valid ? from + j : 0), j < valid ? 4 : 0);
    }
  }
}

// The same for bf16, eight elements to an access; one by one, and at once, where rows do not begin
// at multiples of 16 bytes: the slab is one that nobody reads before the next barrier.
template <class T, bool k_contiguous, int rows, class SourceRow>
__device__ __forceinline__ void load_slab(StoredBf16* slab, const StoredBf16* data,
                                          std::int64_t stride, int row_count, int k_count, int k0,
                                          bool aligned, SourceRow source_row) {
  constexpr int per = 8;
  constexpr int accesses = rows * T::K / per;
  for (int i = static_cast<int>(threadIdx.x); i < accesses; i += T::threads) {
    StoredBf16* to;
    std::int64_t from;
    int valid;  // elements
    if constexpr (k_contiguous) {
      const int row = i / (T::K / per);
      const int k = i % (T::K / per) * per;
      const int source = source_row(row);
      to = slab + row * T::k_stride_bf16 + k;
      from = source * stride + k0 + k;
      valid = source < 0 ? 0 : k_count - k0 - k;
    } else {
      const int k = i / (rows / per);
      const int row = i % (rows / per) * per;
      const int source = source_row(row);
      to = slab + k * T::template row_stride<rows> + row;
      from = (k0 + k) * stride + source;
      valid = k0 + k < k_count ? row_count - source : 0;
    }
    valid = valid < 0 ? 0 : (valid > per ? per : valid);
    if (aligned) {
      device::cp_async16(to, data + (valid > 0 ? from : 0), valid * 2);
    } else {
      for (int j = 0; j < per; ++j) to[j] = j < valid ? data[from + j] : StoredBf16{0};
    }
  }
}

}  // namespace CUVAE_KERNELS
