#include "kernels/activation.cuh"

#include "kernels/elementwise.cuh"
#include "kernels/storage.cuh"

namespace CUVAE_KERNELS {

struct Activate {
  DeviceActivation f;
  RealsIn x;
  RealsOut y;
  __device__ void operator()(std::int64_t i) const { y.set(i, activate(f, x[i])); }
  __device__ void four(std::int64_t i) const {
    const float4 in = x.four(i);
    y.set_four(i, {activate(f, in.x), activate(f, in.y), activate(f, in.z), activate(f, in.w)});
  }
};

struct ActivateGrad {
  DeviceActivation f;
  RealsIn dy;
  RealsIn saved;
  RealsOut dx;
  __device__ void operator()(std::int64_t i) const { dx.set(i, activate_grad(f, dy[i], saved[i])); }
  __device__ void four(std::int64_t i) const {
    const float4 d = dy.four(i);
    const float4 s = saved.four(i);
    dx.set_four(i, {activate_grad(f, d.x, s.x), activate_grad(f, d.y, s.y),
                    activate_grad(f, d.z, s.z), activate_grad(f, d.w, s.w)});
  }
};

using ActivationStep = OneOf<Fours<Activate>, Fours<ActivateGrad>>;

CudaKernel cuda_activation(CudaNode& node) {
  const DeviceActivation f = device_activation(activation_of(node.attrs()));
  const std::int64_t n = node.out(0).elements();
  const bool x = node.in_bf16(0), y = node.out_bf16(0);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<ActivationStep>), fours_size(args.encoder, n),
                        divide_up(n, 4),
                        one_of<ActivationStep>(
                            Fours<Activate>{n, {f, reals_in(args, 0, x), reals_out(args, 0, y)}}));
  };
}

CudaKernel cuda_activation_grad(CudaNode& node) {
  const DeviceActivation f = device_activation(activation_of(node.attrs()));
  const std::int64_t n = node.out(0).elements();
  const bool dy = node.in_bf16(0), saved = node.in_bf16(1), dx = node.out_bf16(0);
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<ActivationStep>), fours_size(args.encoder, n), divide_up(n, 4),
        one_of<ActivationStep>(Fours<ActivateGrad>{
            n, {f, reals_in(args, 0, dy), reals_in(args, 1, saved), reals_out(args, 0, dx)}}));
  };
}

CUVAE_CUDA_ALWAYS(activation)
CUVAE_CUDA_ALWAYS(activation_grad)

}  // namespace CUVAE_KERNELS
