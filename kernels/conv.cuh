#pragma once
// Convolutions as implicit matrix products, C [m, n] = A [m, k] B [n, k]^T, on the tiles and the
// arithmetic of gemm.cuh. B is the source read through a window: never in memory, its elements are
// found and copied straight into a slab. One kernel does all three products:
//   conv2d            C [out, positions],  A weights [out, taps],      B source at (position, tap)
//   conv_transpose2d  C [in, positions],   A weights [in, taps],       ... for each phase
//   conv2d_wgrad      C [out, taps],       A dy [out, positions],      B source at (tap, position)
// where a position is (image, row, column) and a tap (channel, row, column). Lanes stand side by
// side along the positions, which lie side by side in the source and in the result.

#include "kernels/divider.cuh"
#include "kernels/gemm.cuh"
#include "ops/conv.h"

namespace CUVAE_KERNELS {

// Numbers as (first, row, column).
struct Triple {
  Divider plane;  // rows times columns
  Divider line;   // columns
  __device__ __forceinline__ void split(unsigned n, int (&to)[3]) const {
    const unsigned first = plane(n);
    const unsigned rest = n - first * plane.by;
    const unsigned row = line(rest);
    to[0] = static_cast<int>(first);
    to[1] = static_cast<int>(row);
    to[2] = static_cast<int>(rest - row * line.by);
  }
};

// What a position or a tap adds to the place in the source that both together read.
struct Spot {
  std::int64_t offset;
  int h;
  int w;
};
struct Side {
  Triple number;
  std::int64_t stride;  // of its first part: of images or of channels
  int h, h0, w, w0;     // factors of row and column, and where they begin
  __device__ __forceinline__ Spot spot(unsigned n, int width) const {
    int part[3];
    number.split(n, part);
    const int row = part[1] * h + h0;
    const int column = part[2] * w + w0;
    return {part[0] * stride + std::int64_t{row} * width + column, row, column};
  }
};

// Where a matrix that is addressed by (row, number) has its elements.
struct Strides {
  std::int64_t row;
  std::int64_t part[3];
  std::int64_t origin;
  __device__ __forceinline__ std::int64_t at(const int (&number)[3]) const {
    return origin + number[0] * part[0] + number[1] * part[1] + number[2] * part[2];
  }
};

// One phase of a convolution.
struct ConvShape {
  int m, n, k;
  Side columns;  // n's numbers
  Side terms;    // k's
  Strides a;     // by (m, k)
  Strides c;     // by (m, n)
};

inline constexpr int most_phases = 16;

struct ConvLaunch {
  ConvShape phases[most_phases];  // by blockIdx.z
  int height, width;              // of the source
  bool terms_are_positions;
  int share = 0;  // terms of a block, blockIdx.z says which; 0: all, and blockIdx.z is the phase
};

template <class T, class Math>
__global__ void __launch_bounds__(T::threads, 1)
    convolve(ConvLaunch launch, const float* a, const float* source, const float* bias, float* c) {
  constexpr int a_floats = T::template slab<true, T::M>;
  constexpr int stage_floats = a_floats + T::template slab<false, T::N>;
  constexpr int warps = T::threads / 32;
  static_assert(T::K == 32, "a lane for each term");
  CUVAE_DYNAMIC_SHARED(float, shared);
  device::wait_for_producers();
  device::let_dependents_start();

  const ConvShape& s = launch.phases[launch.share > 0 ? 0 : blockIdx.z];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int tiles_n = (s.n + T::N - 1) / T::N;
  const int m0 = static_cast<int>(blockIdx.x) / tiles_n * T::M;
  const int n0 = static_cast<int>(blockIdx.x) % tiles_n * T::N;
  if (m0 >= s.m) return;  // of a phase that is smaller than others
  const int k_first = launch.share > 0 ? static_cast<int>(blockIdx.z) * launch.share : 0;
  const int k_end = launch.share > 0 ? min(s.k, k_first + launch.share) : s.k;
  const int slabs = (k_end - k_first + T::K - 1) / T::K;

  const auto copy = [&](float* to, const Spot& x, const Spot& y, bool there) {
    there = there && static_cast<unsigned>(x.h + y.h) < static_cast<unsigned>(launch.height) &&
            static_cast<unsigned>(x.w + y.w) < static_cast<unsigned>(launch.width);
    device::cp_async4(to, source + (there ? x.offset + y.offset : 0), there ? 4 : 0);
  };
  const int own = n0 + thread % T::N;  // where lanes stand along the columns
  const Spot mine = s.columns.spot(static_cast<unsigned>(own < s.n ? own : 0), launch.width);

  const auto load = [&](int slab) {
    float* to = shared + slab % T::stages * stage_floats;
    const int k0 = k_first + slab * T::K;
    const int k = k0 + lane;
    const bool there = k < k_end;
    int term[3];
    s.terms.number.split(static_cast<unsigned>(there ? k : 0), term);
    const std::int64_t from = s.a.at(term);
    for (int row = warp; row < T::M; row += warps) {
      const bool exists = there && m0 + row < s.m;
      device::cp_async4(to + row * T::k_stride + lane,
                        a + (exists ? (m0 + row) * s.a.row + from : 0), exists ? 4 : 0);
    }
    to += a_floats;
    if (launch.terms_are_positions) {
      const Spot at = s.terms.spot(static_cast<unsigned>(there ? k : 0), launch.width);
      for (int column = warp; column < T::N; column += warps) {
        const bool exists = there && n0 + column < s.n;
        copy(to + lane * T::template row_stride<T::N> + column, at,
             s.columns.spot(static_cast<unsigned>(exists ? n0 + column : 0), launch.width), exists);
      }
    } else {
      for (int i = thread / T::N; i < T::K; i += T::threads / T::N) {
        const bool exists = k0 + i < k_end;
        copy(to + i * T::template row_stride<T::N> + thread % T::N, mine,
             s.terms.spot(static_cast<unsigned>(exists ? k0 + i : 0), launch.width),
             exists && own < s.n);
      }
    }
  };

  constexpr int ahead = T::stages - 1;
  for (int slab = 0; slab < ahead; ++slab) {
    if (slab < slabs) load(slab);
    device::cp_async_commit();
  }
  Math math;
  for (int slab = 0; slab < slabs; ++slab) {
    device::cp_async_wait<ahead - 1>();
    __syncthreads();  // the slab is there for all, and the one before is no longer read
    if (slab + ahead < slabs) load(slab + ahead);
    device::cp_async_commit();
    const float* a_slab = shared + slab % T::stages * stage_floats;
    math.add(a_slab, a_slab + a_floats);
  }
  // No copy is under way: the groups that the last wait left hold none.
  __syncthreads();  // the slabs give their place to the tile
  math.store(shared);
  __syncthreads();

  if (launch.share > 0) c += std::int64_t{blockIdx.z} * s.m * s.n;
  for (int i = thread; i < T::M * T::N; i += T::threads) {
    const int row = m0 + i / T::N;
    const int column = n0 + i % T::N;
    if (row >= s.m || column >= s.n) continue;
    int number[3];
    s.columns.number.split(static_cast<unsigned>(column), number);
    const float value = shared[i / T::N * T::c_stride + i % T::N];
    c[row * s.c.row + s.c.at(number)] = bias != nullptr ? value + bias[row] : value;
  }
}

}  // namespace CUVAE_KERNELS
