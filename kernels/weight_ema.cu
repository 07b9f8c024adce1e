#include "ops/weight_ema.h"

#include "kernels/elementwise.cuh"
#include "kernels/hyper.cuh"

namespace CUVAE_KERNELS {

// In place. Without the commit flag nothing is written at all.
struct WeightEma {
  EmaAttrs ema;
  int step;
  const std::int64_t* clock;
  const std::int64_t* commit;
  const float* w;
  float* s;
};

__global__ void __launch_bounds__(block_threads)
    weight_ema_kernel(std::int64_t n, WeightEma average) {
  device::wait_for_producers();
  device::let_dependents_start();
  if (*average.commit == 0) return;
  CUVAE_SHARED(float, gain, [1]);
  if (threadIdx.x == 0)
    gain[0] = static_cast<float>(
        ema_gain(average.ema, static_cast<double>(average.clock[clock_step] + average.step + 1)));
  __syncthreads();
  const std::int64_t stride = std::int64_t{gridDim.x} * block_threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * block_threads + threadIdx.x; i < n; i += stride)
    average.s[i] = ema_update(gain[0], average.s[i], average.w[i]);
}

CudaKernel cuda_weight_ema(CudaNode& node) {
  const EmaAttrs ema = ema_of(node.attrs());
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(weight_ema_kernel), elementwise_size(args.encoder, n), n,
                        WeightEma{ema, args.step, args.in<std::int64_t>(2),
                                  args.in<std::int64_t>(3), args.in(1), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(weight_ema)

}  // namespace CUVAE_KERNELS
