// Two dense layers for very few rows: each block makes all of the hidden layer in shared memory,
// and with it a few outputs. The first weights are read by every block, from the L2 cache; in
// return the blocks never meet, and one sample takes one launch.

#include "kernels/activation.cuh"
#include "kernels/reduction.cuh"
#include "ops/linear.h"

namespace CUVAE_KERNELS {

constexpr int pair_rows = 4;       // at most so many rows
constexpr int pair_hidden = 8192;  // floats of shared memory
constexpr int lanes_of_unit = 8;   // that add up one hidden unit

struct LayerPair {
  int batch, in, hidden, out;
  DeviceActivation f, g;
  const float* x;   // [B, in]
  const float* w1;  // [hidden, in]
  const float* w2;  // [out, hidden]
  const float* b1;  // [hidden]
  const float* b2;  // [out]
  float* y;         // [B, out]
};

__global__ void __launch_bounds__(block_threads) layer_pair(LayerPair p) {
  CUVAE_DYNAMIC_SHARED(float, units);  // [B, hidden]
  device::wait_for_producers();
  device::let_dependents_start();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  constexpr int units_of_warp = 32 / lanes_of_unit;
  for (int first = warp * units_of_warp; first < p.batch * p.hidden;
       first += warps_of_block * units_of_warp) {
    const int unit = first + lane / lanes_of_unit;
    const bool there = unit < p.batch * p.hidden;
    const int b = there ? unit / p.hidden : 0;
    const int j = there ? unit % p.hidden : 0;
    float sum = 0.0f;
    if (there)
      for (int k = lane % lanes_of_unit; k < p.in; k += lanes_of_unit)
        sum = fmaf(p.x[std::int64_t{b} * p.in + k], p.w1[std::int64_t{j} * p.in + k], sum);
    for (int offset = lanes_of_unit / 2; offset > 0; offset /= 2)
      sum += __shfl_xor_sync(~0u, sum, offset);
    if (there && lane % lanes_of_unit == 0) units[unit] = activate(p.f, sum + p.b1[j]);
  }
  __syncthreads();
  const int o = static_cast<int>(blockIdx.x) * warps_of_block + warp;
  if (o >= p.out) return;
  float sums[pair_rows] = {};
  for (int k = lane; k < p.hidden; k += 32) {
    const float w = p.w2[std::int64_t{o} * p.hidden + k];
#pragma unroll
    for (int b = 0; b < pair_rows; ++b)
      if (b < p.batch) sums[b] = fmaf(units[b * p.hidden + k], w, sums[b]);
  }
#pragma unroll
  for (int b = 0; b < pair_rows; ++b) {
    if (b >= p.batch) break;
    const float sum = warp_sum(sums[b]);
    if (lane == 0) p.y[std::int64_t{b} * p.out + o] = activate(p.g, sum + p.b2[o]);
  }
}

CudaKernel cuda_layer_pair(CudaNode& node) {
  LayerPair prepared = {};
  prepared.batch = static_cast<int>(node.in(0)[0]);
  prepared.in = static_cast<int>(node.in(0)[1]);
  prepared.hidden = static_cast<int>(node.in(1)[0]);
  prepared.out = static_cast<int>(node.in(2)[0]);
  prepared.f = device_activation(activation_of(node.attrs()));
  if (const auto last = second_activation(node.attrs()))
    prepared.g = device_activation(activation_of(*last));
  return [=](const CudaArgs& args) {
    if (prepared.batch == 0) return;
    LayerPair p = prepared;
    p.x = args.in(0);
    p.w1 = args.in(1);
    p.w2 = args.in(2);
    p.b1 = args.in(3);
    p.b2 = args.in(4);
    p.y = args.out(0);
    args.encoder.launch(CUVAE_KERNEL(layer_pair),
                        {.blocks_x = divide_up(p.out, warps_of_block),
                         .threads = block_threads,
                         .shared_bytes = sizeof(float) * static_cast<std::size_t>(p.batch) *
                                         static_cast<std::size_t>(p.hidden)},
                        p);
  };
}

// In float whatever the precision: it is memory that takes the time. Where the hidden layer is
// large, or its weights are, making it again and again costs more than a launch.
bool cuda_supports_layer_pair(const CudaNode& node) {
  constexpr std::int64_t most_weights = 1 << 16;
  constexpr std::int64_t most = std::int64_t{1} << 30;
  const Shape& w1 = node.in(1);
  return node.in(0)[0] <= pair_rows && node.in(0)[0] * w1[0] <= pair_hidden &&
         w1.elements() <= most_weights && w1[1] < most && node.in(2)[0] < most;
}

}  // namespace CUVAE_KERNELS
