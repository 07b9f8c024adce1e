#include "kernels/likelihood.cuh"
#include "kernels/reduction.cuh"
#include "ops/gaussian_constant.h"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

struct GaussianNll {
  std::int64_t d;
  float inverse_sigma;
  float constant;  // of a row
  const float* mean;
  const float* target;
  float* nll;
  __device__ float term(std::int64_t b, std::int64_t j) const {
    return gaussian_term(mean[b * d + j], target[b * d + j], inverse_sigma).nll;
  }
  __device__ void finish(std::int64_t b, float sum) const { nll[b] = constant + sum; }
};

struct GaussianNllGrad {
  std::int64_t d;
  float inverse_sigma;
  const float* dnll;
  const float* mean;
  const float* target;
  float* dmean;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * d + j;
    dmean[i] = dnll[b] * gaussian_term(mean[i], target[i], inverse_sigma).grad;
  }
};

CudaKernel cuda_gaussian_nll(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const double sigma = sigma_of(node.attrs());
  const auto inverse_sigma = static_cast<float>(1.0 / sigma);
  const auto constant = static_cast<float>(gaussian_constant(d, sigma));
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(row_sums<GaussianNll>), row_sums_size(args.encoder, batch), batch, d,
        GaussianNll{d, inverse_sigma, constant, args.in(0), args.in(1), args.out(0)});
  };
}

CudaKernel cuda_gaussian_nll_grad(CudaNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  const auto inverse_sigma = static_cast<float>(1.0 / sigma_of(node.attrs()));
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise_rows<GaussianNllGrad>), rows_size(args.encoder, batch, d), batch,
        d, GaussianNllGrad{d, inverse_sigma, args.in(0), args.in(1), args.in(2), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(gaussian_nll)
CUVAE_CUDA_ALWAYS(gaussian_nll_grad)

}  // namespace CUVAE_KERNELS
