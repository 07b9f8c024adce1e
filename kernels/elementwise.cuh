#pragma once
// Kernels whose threads each make some elements, without talking to one another. What they compute
// is a functor with the operands in it. All of them wait for their producers
// first, and then let their dependents start, which wait in turn.

#include <type_traits>

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

inline constexpr int block_threads = 256;
inline constexpr int warps_of_block = block_threads / 32;

// f(i) for i in [0, n).
template <class F>
__global__ void __launch_bounds__(block_threads) elementwise(std::int64_t n, F f) {
  device::wait_for_producers();
  device::let_dependents_start();
  const std::int64_t stride = std::int64_t{gridDim.x} * block_threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * block_threads + threadIdx.x; i < n; i += stride)
    f(i);
}

// f(row, column) for rows x columns elements: a warp takes a row, and lanes its columns.
template <class F>
__global__ void __launch_bounds__(block_threads, 4)  // 4: registers rather than spills
    elementwise_rows(std::int64_t rows, std::int64_t columns, F f) {
  device::wait_for_producers();
  device::let_dependents_start();
  const std::int64_t row_stride = std::int64_t{gridDim.x} * warps_of_block;
  const std::int64_t column_stride = std::int64_t{gridDim.y} * 32;
  const std::int64_t lane = threadIdx.x % 32;
  for (std::int64_t row = std::int64_t{blockIdx.x} * warps_of_block + threadIdx.x / 32; row < rows;
       row += row_stride)
    for (std::int64_t column = std::int64_t{blockIdx.y} * 32 + lane; column < columns;
         column += column_stride)
      f(row, column);
}

// Several functors as one kernel: a launch says which one it is, so that all threads branch alike.
template <class F, class... Rest>
struct OneOf {
  bool own;
  F f;
  OneOf<Rest...> rest;

  template <class G>
  void set(const G& g) {
    own = std::is_same_v<F, G>;
    if constexpr (std::is_same_v<F, G>)
      f = g;
    else
      rest.set(g);
  }
  template <class... Index>
  __device__ void operator()(Index... i) const {
    if (own)
      f(i...);
    else
      rest(i...);
  }
};
template <class F>
struct OneOf<F> {
  F f;

  void set(const F& g) { f = g; }
  template <class... Index>
  __device__ void operator()(Index... i) const {
    f(i...);
  }
};
template <class All, class F>
All one_of(const F& f) {
  All all{};
  all.set(f);
  return all;
}

// A few waves of blocks: more only take turns.
inline cuda::LaunchSize elementwise_size(const cuda::Encoder& encoder, std::int64_t n) {
  const std::int64_t most = std::int64_t{encoder.properties().multiprocessors} * 16;
  const std::int64_t blocks = divide_up(n, block_threads);
  return {.blocks_x = blocks < most ? blocks : most, .threads = block_threads};
}

inline cuda::LaunchSize rows_size(const cuda::Encoder& encoder, std::int64_t rows,
                                  std::int64_t columns) {
  if (columns == 0) return {.blocks_x = 0};
  const std::int64_t most = std::int64_t{encoder.properties().multiprocessors} * 16;
  const std::int64_t blocks = divide_up(rows, warps_of_block);
  const std::int64_t across = divide_up(columns, 256);
  return {.blocks_x = blocks < most ? blocks : most,
          .blocks_y = across < 64 ? across : 64,
          .threads = block_threads};
}

}  // namespace CUVAE_KERNELS
