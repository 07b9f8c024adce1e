// The data gradient of the layer that reads z, and what follows it down to the encoder's heads, one
// element of z at a time.

#include "kernels/activation.cuh"
#include "kernels/gaussian_kl.cuh"
#include "kernels/linear.cuh"
#include "kernels/sample.cuh"

namespace CUVAE_KERNELS {

struct DgradSampleKlEpilogue : PlainColumns {
  static constexpr std::string_view name = "linear_dgrad_sample_kl";
  DeviceActivation bound;
  const float* eps;  // [m, d], as are mean and logvar
  const float* mean;
  const float* logvar;
  const float* dkl;  // [m]
  float* dheads;     // [m, 2 d]
  std::int64_t d;

  template <class T>
  __device__ void operator()(const Finished<T>& tile, const State&) const {
    each_element(tile, [&](int row, int column) {
      const std::int64_t b = tile.m0 + row;
      const std::int64_t j = tile.n0 + column;
      const float dz = tile.c[row * T::c_stride + column];
      const float lv = logvar[b * d + j];
      const float scale = dkl[b];
      const float dlogvar = gaussian_kl_dlogvar(scale, lv) + sample_dlogvar(dz, eps[b * d + j], lv);
      dheads[b * 2 * d + j] = gaussian_kl_dmean(scale, mean[b * d + j]) + dz;
      dheads[b * 2 * d + d + j] = activate_grad(bound, dlogvar, lv);
    });
  }
};

CudaKernel cuda_linear_dgrad_sample_kl(CudaNode& node) {
  const LinearSizes s = dgrad_sizes(node);
  const GemmPlan plan = plan_gemm<DgradSampleKlEpilogue>(node, s.batch, s.in);
  const DeviceActivation bound = device_activation({ActivationKind::bound_logvar, 0});
  node.early_inputs = {1};
  return [=](const CudaArgs& args) {
    launch_dgrad(args, plan, s,
                 DgradSampleKlEpilogue{
                     {}, bound, args.in(2), args.in(3), args.in(4), args.in(5), args.out(0), s.in});
  };
}

CUVAE_CUDA_PRODUCT(linear_dgrad_sample_kl, dgrad_sizes)

}  // namespace CUVAE_KERNELS
