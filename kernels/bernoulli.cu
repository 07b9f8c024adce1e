#include "kernels/likelihood.cuh"
#include "kernels/reduction.cuh"

namespace CUVAE_KERNELS {

struct BernoulliNll {
  std::int64_t d;
  const float* logits;
  const float* target;
  float* nll;
  __device__ float term(std::int64_t b, std::int64_t j) const {
    return bernoulli_term(logits[b * d + j], target[b * d + j]).nll;
  }
  __device__ void finish(std::int64_t b, float sum) const { nll[b] = sum; }
};

struct BernoulliNllGrad {
  std::int64_t d;
  const float* dnll;
  const float* logits;
  const float* target;
  float* dlogits;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * d + j;
    dlogits[i] = dnll[b] * bernoulli_term(logits[i], target[i]).grad;
  }
};

CudaKernel cuda_bernoulli_nll(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(row_sums<BernoulliNll>), row_sums_size(args.encoder, batch),
                        batch, d, BernoulliNll{d, args.in(0), args.in(1), args.out(0)});
  };
}

CudaKernel cuda_bernoulli_nll_grad(CudaNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise_rows<BernoulliNllGrad>),
                        rows_size(args.encoder, batch, d), batch, d,
                        BernoulliNllGrad{d, args.in(0), args.in(1), args.in(2), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(bernoulli_nll)
CUVAE_CUDA_ALWAYS(bernoulli_nll_grad)

}  // namespace CUVAE_KERNELS
