#include "kernels/activation.cuh"

#include "kernels/elementwise.cuh"

namespace CUVAE_KERNELS {

struct Activate {
  DeviceActivation f;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t i) const { y[i] = activate(f, x[i]); }
};

struct ActivateGrad {
  DeviceActivation f;
  const float* dy;
  const float* saved;
  float* dx;
  __device__ void operator()(std::int64_t i) const { dx[i] = activate_grad(f, dy[i], saved[i]); }
};

CudaKernel cuda_activation(CudaNode& node) {
  const DeviceActivation f = device_activation(activation_of(node.attrs()));
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<Activate>), elementwise_size(args.encoder, n), n,
                        Activate{f, args.in(0), args.out(0)});
  };
}

CudaKernel cuda_activation_grad(CudaNode& node) {
  const DeviceActivation f = device_activation(activation_of(node.attrs()));
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<ActivateGrad>), elementwise_size(args.encoder, n),
                        n, ActivateGrad{f, args.in(0), args.in(1), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(activation)
CUVAE_CUDA_ALWAYS(activation_grad)

}  // namespace CUVAE_KERNELS
