#pragma once
// Sums in an order that depends on shapes only. A sum over several blocks goes in two stages: each
// block leaves its part in the workspace, and the last one to arrive adds the parts in order.

#include "kernels/elementwise.cuh"

namespace CUVAE_KERNELS {

inline constexpr std::int64_t sum_chunk = 8192;  // elements that one block adds

// The sum over the warp's lanes, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

// The largest, likewise.
__device__ __forceinline__ float warp_max(float value) {
  for (int offset = 16; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(~0u, value, offset));
  return value;
}

// The sum over a block of block_threads threads, in thread 0. All threads must call it; between two
// calls the block meets at a barrier, because thread 0 may still read the parts.
template <class T>
__device__ __forceinline__ T block_sum(T value) {
  CUVAE_SHARED(T, parts, [warps_of_block]);
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < warps_of_block; ++warp) sum += parts[warp];
  return sum;
}

// Whether this block is the last of `blocks` to arrive at the counter, which it leaves at zero.
// What the others wrote before they arrived is then visible to all threads of this one. All
// threads must call it.
__device__ __forceinline__ bool last_to_arrive(unsigned* counter, unsigned blocks) {
  CUVAE_SHARED(int, last, [1]);
  __syncthreads();  // this block's parts are written
  if (threadIdx.x == 0) {
    last[0] = device::add_acq_rel(counter, 1) == blocks - 1 ? 1 : 0;
    if (last[0] != 0) *counter = 0;
  }
  __syncthreads();
  return last[0] != 0;
}

// f.finish(row, sum of f.term(row, column) over the columns); a warp for each row.
template <class F>
__global__ void __launch_bounds__(block_threads)
    row_sums(std::int64_t rows, std::int64_t columns, F f) {
  device::wait_for_producers();
  device::let_dependents_start();
  const std::int64_t stride = std::int64_t{gridDim.x} * warps_of_block;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (std::int64_t row = std::int64_t{blockIdx.x} * warps_of_block + threadIdx.x / 32; row < rows;
       row += stride) {
    float sum = 0.0f;
    for (std::int64_t column = lane; column < columns; column += 32) sum += f.term(row, column);
    sum = warp_sum(sum);
    if (lane == 0) f.finish(row, sum);
  }
}

inline cuda::LaunchSize row_sums_size(const cuda::Encoder& encoder, std::int64_t rows) {
  const std::int64_t most = std::int64_t{encoder.properties().multiprocessors} * 16;
  const std::int64_t blocks = divide_up(rows, warps_of_block);
  return {.blocks_x = blocks < most ? blocks : most, .threads = block_threads};
}

}  // namespace CUVAE_KERNELS
