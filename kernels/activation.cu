#include "kernels/activation.cuh"

#include "kernels/elementwise.cuh"
#include "kernels/storage.cuh"

namespace CUVAE_KERNELS {

struct Activate {
  DeviceActivation f;
  RealsIn x;
  RealsOut y;
  __device__ void operator()(std::int64_t i) const { y.set(i, activate(f, x[i])); }
};

struct ActivateGrad {
  DeviceActivation f;
  RealsIn dy;
  RealsIn saved;
  RealsOut dx;
  __device__ void operator()(std::int64_t i) const { dx.set(i, activate_grad(f, dy[i], saved[i])); }
};

CudaKernel cuda_activation(CudaNode& node) {
  const DeviceActivation f = device_activation(activation_of(node.attrs()));
  const std::int64_t n = node.out(0).elements();
  const bool x = node.in_bf16(0), y = node.out_bf16(0);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<Activate>), elementwise_size(args.encoder, n), n,
                        Activate{f, reals_in(args, 0, x), reals_out(args, 0, y)});
  };
}

CudaKernel cuda_activation_grad(CudaNode& node) {
  const DeviceActivation f = device_activation(activation_of(node.attrs()));
  const std::int64_t n = node.out(0).elements();
  const bool dy = node.in_bf16(0), saved = node.in_bf16(1), dx = node.out_bf16(0);
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<ActivateGrad>), elementwise_size(args.encoder, n), n,
        ActivateGrad{f, reals_in(args, 0, dy), reals_in(args, 1, saved), reals_out(args, 0, dx)});
  };
}

CUVAE_CUDA_ALWAYS(activation)
CUVAE_CUDA_ALWAYS(activation_grad)

}  // namespace CUVAE_KERNELS
