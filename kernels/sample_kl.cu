// The sample and the KL term from the encoder's heads, and what comes back to the heads.

#include "kernels/latent.cuh"
#include "kernels/reduction.cuh"
#include "kernels/storage.cuh"

namespace CUVAE_KERNELS {

struct SampleKl {
  Draws draws;
  const float* heads;  // [B, 2 d]
  float* mean;         // [B, d], as are logvar, z and eps
  float* logvar;
  float* z;
  float* eps;
  float* kl;  // [B]
  __device__ float term(std::int64_t b, std::int64_t j) const {
    const float* head = heads + b * 2 * draws.d + j;
    const float mu = head[0];
    const float lv = bound_logvar(head[draws.d]);
    const float normal =
        draw_normal(random_key(draws), first_draw(draws, b) + static_cast<std::uint64_t>(j));
    const std::int64_t at = b * draws.d + j;
    mean[at] = mu;
    logvar[at] = lv;
    eps[at] = normal;
    z[at] = reparameterise(mu, lv, normal);
    return gaussian_kl_term(mu, lv);
  }
  __device__ void finish(std::int64_t b, float sum) const { kl[b] = sum; }
};

struct SampleKlGrad {
  std::int64_t d;
  RealsIn dz;  // [B, d], as are eps, mean and logvar
  const float* eps;
  const float* mean;
  const float* logvar;
  const float* dkl;  // [B]
  RealsOut dheads;   // [B, 2 d]
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const std::int64_t at = b * d + j;
    const HeadsGrad grad = heads_grad(dz[at], dkl[b], mean[at], logvar[at], eps[at]);
    dheads.set(b * 2 * d + j, grad.dmean);
    dheads.set(b * 2 * d + d + j, grad.draw);
  }
};

CudaKernel cuda_sample_kl(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1] / 2;
  const bool keyed = node.has(2);
  const Draws prepared = prepare_draws(node, d);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(row_sums<SampleKl>), row_sums_size(args.encoder, batch), batch,
                        d,
                        SampleKl{bind_draws(prepared, args, 1, 2, keyed), args.in(0), args.out(0),
                                 args.out(1), args.out(2), args.out(3), args.out(4)});
  };
}

CudaKernel cuda_sample_kl_grad(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const bool dz = node.in_bf16(0), dheads = node.out_bf16(0);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise_rows<SampleKlGrad>),
                        rows_size(args.encoder, batch, d), batch, d,
                        SampleKlGrad{d, reals_in(args, 0, dz), args.in(1), args.in(2), args.in(3),
                                     args.in(4), reals_out(args, 0, dheads)});
  };
}

CUVAE_CUDA_ALWAYS(sample_kl)
CUVAE_CUDA_ALWAYS(sample_kl_grad)

}  // namespace CUVAE_KERNELS
