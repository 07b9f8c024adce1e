// The decoder's last layer with the likelihood and its derivative: the logits never reach memory.

#include "kernels/likelihood.cuh"
#include "kernels/linear.cuh"
#include "kernels/reduction.cuh"
#include "ops/gaussian_constant.h"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

struct NllEpilogue : PlainColumns {
  static constexpr std::string_view name = "linear_nll";
  bool bernoulli;
  float inverse_sigma;
  float constant;       // of a row
  const float* bias;    // [n]
  const float* target;  // [m, n]
  const float* dnll;    // [m]
  float* nll;           // [m]
  float* dlogits;       // [m, n]
  float* parts;         // [tiles_n, m]: the sums of the tiles' rows
  unsigned* counters;   // one for each row of tiles
  std::int64_t m, n;

  template <class T>
  __device__ void operator()(const Finished<T>& tile, const State&) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = static_cast<int>(threadIdx.x) / 32; row < tile.rows; row += T::threads / 32) {
      const std::int64_t b = tile.m0 + row;
      const float scale = dnll[b];
      float sum = 0.0f;
      for (int column = lane; column < tile.columns; column += 32) {
        const std::int64_t at = b * n + tile.n0 + column;
        const float logit = tile.c[row * T::c_stride + column] + bias[tile.n0 + column];
        const NllTerm term = bernoulli ? bernoulli_term(logit, target[at])
                                       : gaussian_term(logit, target[at], inverse_sigma);
        dlogits[at] = scale * term.grad;
        sum += term.nll;
      }
      sum = warp_sum(sum);
      if (lane == 0) parts[tile.tile_n * m + b] = sum;
    }
    if (!last_to_arrive(counters + tile.tile_m, static_cast<unsigned>(tile.tiles_n))) return;
    for (int row = static_cast<int>(threadIdx.x); row < tile.rows; row += T::threads) {
      float sum = 0.0f;
      for (int part = 0; part < tile.tiles_n; ++part) sum += parts[part * m + tile.m0 + row];
      nll[tile.m0 + row] = constant + sum;
    }
  }
};

CudaKernel cuda_linear_nll(CudaNode& node) {
  const LinearSizes s = forward_sizes(node);
  const GemmPlan plan = plan_gemm<NllEpilogue>(node, s.batch, s.out);
  const bool bernoulli = likelihood_of(node.attrs()) == Likelihood::bernoulli;
  const double sigma = bernoulli ? 1.0 : sigma_of(node.attrs());
  const auto inverse_sigma = static_cast<float>(1.0 / sigma);
  const auto constant = bernoulli ? 0.0f : static_cast<float>(gaussian_constant(s.out, sigma));
  node.workspace_bytes = plan.tiles_n * s.batch * static_cast<std::int64_t>(sizeof(float));
  node.counters = plan.tiles_m;
  node.early_inputs = {1};
  return [=](const CudaArgs& args) {
    launch_forward(args, plan, s,
                   NllEpilogue{{},
                               bernoulli,
                               inverse_sigma,
                               constant,
                               args.in(2),
                               args.in(3),
                               args.in(4),
                               args.out(0),
                               args.out(1),
                               reinterpret_cast<float*>(args.workspace),
                               args.counters,
                               s.batch,
                               s.out});
  };
}

CUVAE_CUDA_PRODUCT(linear_nll, forward_sizes)

}  // namespace CUVAE_KERNELS
