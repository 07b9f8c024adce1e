#include "kernels/elementwise.cuh"
#include "kernels/sample.cuh"

namespace CUVAE_KERNELS {

// Four elements of the flat [B, d], which share one call of the generator.
struct SampleFours {
  Draws draws;
  std::int64_t n;
  const float* mean;
  const float* logvar;
  float* z;
  float* eps;
  __device__ void operator()(std::int64_t group) const {
    const float4 four = draw_normal4(random_key(draws), static_cast<std::uint64_t>(group));
    const float normals[4] = {four.x, four.y, four.z, four.w};
    for (int k = 0; k < 4; ++k) {
      const std::int64_t i = 4 * group + k;
      if (i >= n) return;
      eps[i] = normals[k];
      z[i] = reparameterise(mean[i], logvar[i], normals[k]);
    }
  }
};

struct SampleKeyed {
  Draws draws;
  const float* mean;
  const float* logvar;
  float* z;
  float* eps;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * draws.d + j;
    const float normal =
        draw_normal(random_key(draws), first_draw(draws, b) + static_cast<std::uint64_t>(j));
    eps[i] = normal;
    z[i] = reparameterise(mean[i], logvar[i], normal);
  }
};

struct SampleGrad {
  const float* dz;
  const float* eps;
  const float* logvar;
  float* dlogvar;
  __device__ void operator()(std::int64_t i) const {
    dlogvar[i] = sample_dlogvar(dz[i], eps[i], logvar[i]);
  }
};

using SampleStep = OneOf<SampleFours, SampleGrad>;

CudaKernel cuda_sample(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const bool keyed = node.has(3);
  const Draws prepared = prepare_draws(node, d);
  return [=](const CudaArgs& args) {
    const Draws draws = bind_draws(prepared, args, 2, 3, keyed);
    if (keyed) {
      args.encoder.launch(CUVAE_KERNEL(elementwise_rows<SampleKeyed>),
                          rows_size(args.encoder, batch, d), batch, d,
                          SampleKeyed{draws, args.in(0), args.in(1), args.out(0), args.out(1)});
      return;
    }
    const std::int64_t fours = divide_up(batch * d, 4);
    args.encoder.launch(CUVAE_KERNEL(elementwise<SampleStep>),
                        elementwise_size(args.encoder, fours), fours,
                        one_of<SampleStep>(SampleFours{draws, batch * d, args.in(0), args.in(1),
                                                       args.out(0), args.out(1)}));
  };
}

CudaKernel cuda_sample_grad(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<SampleStep>), elementwise_size(args.encoder, n), n,
        one_of<SampleStep>(SampleGrad{args.in(0), args.in(1), args.in(2), args.out(0)}));
  };
}

CUVAE_CUDA_ALWAYS(sample)
CUVAE_CUDA_ALWAYS(sample_grad)

}  // namespace CUVAE_KERNELS
