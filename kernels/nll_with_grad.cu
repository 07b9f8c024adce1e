// A likelihood and its derivative: logits and target are read once, the derivative is written once,
// where it may over the logits.

#include "kernels/likelihood.cuh"
#include "kernels/reduction.cuh"
#include "ops/gaussian_constant.h"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

CudaKernel cuda_nll_with_grad(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const bool bernoulli = likelihood_of(node.attrs()) == Likelihood::bernoulli;
  const double sigma = bernoulli ? 1.0 : sigma_of(node.attrs());
  const auto inverse_sigma = static_cast<float>(1.0 / sigma);
  const auto constant = bernoulli ? 0.0f : static_cast<float>(gaussian_constant(d, sigma));
  const bool bf16 = node.out_bf16(1);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(row_sums<RowNll>), row_sums_size(args.encoder, batch), batch,
                        d,
                        RowNll{d, bernoulli, inverse_sigma, constant, args.in(0), args.in(1),
                               args.in(2), args.out(0), reals_out(args, 1, bf16)});
  };
}

CUVAE_CUDA_ALWAYS(nll_with_grad)

}  // namespace CUVAE_KERNELS
