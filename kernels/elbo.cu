// The loss of a batch and its two parts, from those of its rows.

#include "kernels/hyper.cuh"
#include "kernels/reduction.cuh"

namespace CUVAE_KERNELS {

struct Elbo {
  std::int64_t n;
  float mean;  // 1 / n
  float factor;
  const float* scheduled;  // beta
  const float* nll;        // [n]
  const float* kl;         // [n]
  float* reconstruction_mean;
  float* kl_mean;
  float* loss;
  float2* parts;  // one for each block
  unsigned* counter;
};

// Both sums over the block, in thread 0.
__device__ __forceinline__ float2 block_sums(float2 both) {
  both.x = block_sum(both.x);
  __syncthreads();  // the parts give their place to the next ones
  both.y = block_sum(both.y);
  return both;
}

__global__ void __launch_bounds__(block_threads) elbo(Elbo e) {
  device::wait_for_producers();
  device::let_dependents_start();
  const std::int64_t begin = std::int64_t{blockIdx.x} * sum_chunk;
  const std::int64_t end = min(e.n, begin + sum_chunk);
  float2 sums = {0.0f, 0.0f};
  for (std::int64_t i = begin + threadIdx.x; i < end; i += block_threads) {
    sums.x += e.nll[i];
    sums.y += e.kl[i];
  }
  sums = block_sums(sums);
  if (gridDim.x > 1) {
    if (threadIdx.x == 0) e.parts[blockIdx.x] = sums;
    if (!last_to_arrive(e.counter, gridDim.x)) return;
    sums = {0.0f, 0.0f};
    for (unsigned i = threadIdx.x; i < gridDim.x; i += block_threads) {
      sums.x += e.parts[i].x;
      sums.y += e.parts[i].y;
    }
    sums = block_sums(sums);
  }
  if (threadIdx.x != 0) return;
  const float reconstruction = sums.x * e.mean;
  const float kl = sums.y * e.mean;
  *e.reconstruction_mean = reconstruction;
  *e.kl_mean = kl;
  *e.loss = reconstruction + kl * (e.factor * *e.scheduled);
}

CudaKernel cuda_elbo(CudaNode& node) {
  const std::int64_t n = node.in(0)[0];
  const auto mean = static_cast<float>(1.0 / static_cast<double>(n));
  const auto factor = static_cast<float>(node.attrs().real("factor", 1.0));
  const std::int64_t slot = node.attrs().integer("slot");
  const std::int64_t blocks = divide_up(n, sum_chunk);
  node.workspace_bytes = blocks * static_cast<std::int64_t>(sizeof(float2));
  node.counters = 1;
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elbo), {.blocks_x = blocks, .threads = block_threads},
        Elbo{n, mean, factor, hyper_row(args, 2) + slot, args.in(0), args.in(1), args.out(0),
             args.out(1), args.out(2), reinterpret_cast<float2*>(args.workspace), args.counters});
  };
}

CUVAE_CUDA_ALWAYS(elbo)

}  // namespace CUVAE_KERNELS
