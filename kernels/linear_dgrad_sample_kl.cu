// The data gradient of the layer that reads z, and what follows it down to the encoder's heads, one
// element of z at a time.

#include "kernels/latent.cuh"
#include "kernels/linear.cuh"

namespace CUVAE_KERNELS {

struct DgradSampleKlEpilogue : PlainColumns {
  static constexpr std::string_view name = "linear_dgrad_sample_kl";
  static constexpr bool bf16_a = true;
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
      const HeadsGrad grad =
          heads_grad(dz, dkl[b], mean[b * d + j], logvar[b * d + j], eps[b * d + j]);
      dheads[b * 2 * d + j] = grad.dmean;
      dheads[b * 2 * d + d + j] = grad.draw;
    });
  }
};

CudaKernel cuda_linear_dgrad_sample_kl(CudaNode& node) {
  const LinearSizes s = dgrad_sizes(node);
  const GemmPlan plan = plan_gemm<DgradSampleKlEpilogue>(node, s.batch, s.in);
  node.early_inputs = {1};
  return [=](const CudaArgs& args) {
    launch_dgrad(args, plan, s,
                 DgradSampleKlEpilogue{
                     {}, args.in(2), args.in(3), args.in(4), args.in(5), args.out(0), s.in});
  };
}

CUVAE_CUDA_PRODUCT(linear_dgrad_sample_kl, dgrad_sizes)

}  // namespace CUVAE_KERNELS
