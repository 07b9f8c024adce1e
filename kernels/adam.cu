#include "kernels/adam.cuh"

#include "kernels/storage.cuh"

namespace CUVAE_KERNELS {

// Updates in place; `shadow`, where it has data, is the new w as it is stored there. Without the
// commit flag nothing is written at all.
__global__ void __launch_bounds__(block_threads)
    adam_kernel(std::int64_t n, Adam adam, const float* g, float* w, float* m, float* v,
                RealsOut shadow) {
  device::wait_for_producers();
  device::let_dependents_start();
  if (*adam.commit == 0) return;
  CUVAE_SHARED(AdamStep, step, [1]);
  if (threadIdx.x == 0) step[0] = adam_step(adam);
  __syncthreads();
  const std::int64_t stride = std::int64_t{gridDim.x} * block_threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * block_threads + threadIdx.x; i < n;
       i += stride) {
    float weight = w[i];
    adam_update(adam, step[0], g[i], weight, m[i], v[i]);
    w[i] = weight;
    if (shadow.data != nullptr) shadow.set(i, weight);
  }
}

CudaKernel cuda_adam(CudaNode& node) {
  const Adam prepared = prepare_adam(adam_of(node.attrs()));
  const std::int64_t n = node.out(0).elements();
  const bool shadow = node.has(7);
  const bool bf16 = shadow && node.out_bf16(3);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(adam_kernel), elementwise_size(args.encoder, n), n,
                        bind_adam(prepared, args, 4, 5, 6), args.in(3), args.out(0), args.out(1),
                        args.out(2), shadow ? reals_out(args, 3, bf16) : RealsOut{});
  };
}

CUVAE_CUDA_ALWAYS(adam)

}  // namespace CUVAE_KERNELS
