#include "kernels/gaussian_kl.cuh"

#include "kernels/reduction.cuh"

namespace CUVAE_KERNELS {

struct GaussianKl {
  std::int64_t d;
  const float* mean;
  const float* logvar;
  float* kl;
  __device__ float term(std::int64_t b, std::int64_t j) const {
    return gaussian_kl_term(mean[b * d + j], logvar[b * d + j]);
  }
  __device__ void finish(std::int64_t b, float sum) const { kl[b] = sum; }
};

struct GaussianKlGrad {
  std::int64_t d;
  const float* dkl;
  const float* mean;
  const float* logvar;
  float* dmean;
  float* dlogvar;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * d + j;
    const float scale = dkl[b];
    const float m = mean[i];
    const float v = logvar[i];
    dmean[i] = gaussian_kl_dmean(scale, m);
    dlogvar[i] = gaussian_kl_dlogvar(scale, v);
  }
};

CudaKernel cuda_gaussian_kl(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(row_sums<GaussianKl>), row_sums_size(args.encoder, batch),
                        batch, d, GaussianKl{d, args.in(0), args.in(1), args.out(0)});
  };
}

CudaKernel cuda_gaussian_kl_grad(CudaNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise_rows<GaussianKlGrad>), rows_size(args.encoder, batch, d), batch, d,
        GaussianKlGrad{d, args.in(0), args.in(1), args.in(2), args.out(0), args.out(1)});
  };
}

CUVAE_CUDA_ALWAYS(gaussian_kl)
CUVAE_CUDA_ALWAYS(gaussian_kl_grad)

}  // namespace CUVAE_KERNELS
