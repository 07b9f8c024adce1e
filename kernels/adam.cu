#include "kernels/adam.cuh"

#include "kernels/elementwise.cuh"

namespace CUVAE_KERNELS {

// Updates in place. Without the commit flag nothing is written at all.
__global__ void __launch_bounds__(block_threads)
    adam_kernel(std::int64_t n, Adam adam, const float* g, float* w, float* m, float* v) {
  device::wait_for_producers();
  device::let_dependents_start();
  if (*adam.commit == 0) return;
  CUVAE_SHARED(AdamStep, step, [1]);
  if (threadIdx.x == 0) step[0] = adam_step(adam);
  __syncthreads();
  const std::int64_t stride = std::int64_t{gridDim.x} * block_threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * block_threads + threadIdx.x; i < n; i += stride)
    adam_update(adam, step[0], g[i], w[i], m[i], v[i]);
}

CudaKernel cuda_adam(CudaNode& node) {
  const Adam prepared = prepare_adam(adam_of(node.attrs()));
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(adam_kernel), elementwise_size(args.encoder, n), n,
                        bind_adam(prepared, args, 4, 5, 6), args.in(3), args.out(0), args.out(1),
                        args.out(2));
  };
}

CUVAE_CUDA_ALWAYS(adam)

}  // namespace CUVAE_KERNELS
