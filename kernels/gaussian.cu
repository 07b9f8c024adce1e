#include "kernels/likelihood.cuh"
#include "kernels/reduction.cuh"
#include "ops/gaussian_constant.h"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

CudaKernel cuda_gaussian_nll(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const double sigma = sigma_of(node.attrs());
  const auto inverse_sigma = static_cast<float>(1.0 / sigma);
  const auto constant = static_cast<float>(gaussian_constant(d, sigma));
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(row_sums<RowNll>), row_sums_size(args.encoder, batch), batch, d,
        RowNll{
            d, false, inverse_sigma, constant, args.in(0), args.in(1), nullptr, args.out(0), {}});
  };
}

CudaKernel cuda_gaussian_nll_grad(CudaNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  const auto inverse_sigma = static_cast<float>(1.0 / sigma_of(node.attrs()));
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise_rows<RowNllGrad>), rows_size(args.encoder, batch, d), batch, d,
        RowNllGrad{d, false, inverse_sigma, args.in(0), args.in(1), args.in(2), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(gaussian_nll)
CUVAE_CUDA_ALWAYS(gaussian_nll_grad)

}  // namespace CUVAE_KERNELS
