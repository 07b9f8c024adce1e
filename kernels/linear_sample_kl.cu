// The encoder's heads with the sample and the KL term: mean and logvar of a latent are made by one
// tile, which takes its columns from both halves of the weights.

#include "kernels/activation.cuh"
#include "kernels/gaussian_kl.cuh"
#include "kernels/linear.cuh"
#include "kernels/reduction.cuh"
#include "kernels/sample.cuh"

namespace CUVAE_KERNELS {

struct SampleKlEpilogue {
  static constexpr std::string_view name = "linear_sample_kl";
  static constexpr bool sums_a = false;
  static constexpr bool bf16_a = true;
  static constexpr bool bf16_b = false;
  struct State {};
  const float* bias;  // [2 d]
  Draws draws;
  float* mean;  // [m, d], as are logvar, z and eps
  float* logvar;
  float* z;
  float* eps;
  float* kl;           // [m]
  float* parts;        // [tiles_n, m]
  unsigned* counters;  // one for each row of tiles
  std::int64_t m;

  template <class T>
  __host__ __device__ static int tiles_n(int n) {
    constexpr int half = T::N / 2;
    return n > 0 ? (n / 2 + half - 1) / half : 1;
  }
  template <class T>
  __device__ static int b_row(int tile_n, int row, int n) {
    constexpr int half = T::N / 2;
    const int j = tile_n * half + row % half;
    return j >= n / 2 ? -1 : (row < half ? j : n / 2 + j);
  }
  __device__ bool idle() const { return false; }
  __device__ void begin(State&) const {}
  template <class T>
  __device__ void prefetch(int, int, bool, State&) const {}

  template <class T>
  __device__ void operator()(const Finished<T>& tile, const State&) const {
    constexpr int half = T::N / 2;
    const std::int64_t d = draws.d;
    const RandomKey key = random_key(draws);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = static_cast<int>(threadIdx.x) / 32; row < tile.rows; row += T::threads / 32) {
      const std::int64_t b = tile.m0 + row;
      float sum = 0.0f;
      for (int column = lane; column < half; column += 32) {
        const std::int64_t j = tile.tile_n * half + column;
        if (j >= d) break;
        const float* c = tile.c + row * T::c_stride + column;
        const float mu = c[0] + bias[j];
        const float lv = bound_logvar(c[half] + bias[d + j]);
        const float normal = draw_normal(key, first_draw(draws, b) + static_cast<std::uint64_t>(j));
        const std::int64_t at = b * d + j;
        mean[at] = mu;
        logvar[at] = lv;
        eps[at] = normal;
        z[at] = reparameterise(mu, lv, normal);
        sum += gaussian_kl_term(mu, lv);
      }
      sum = warp_sum(sum);
      if (lane == 0) parts[tile.tile_n * m + b] = sum;
    }
    if (!last_to_arrive(counters + tile.tile_m, static_cast<unsigned>(tile.tiles_n))) return;
    for (int row = static_cast<int>(threadIdx.x); row < tile.rows; row += T::threads) {
      float sum = 0.0f;
      for (int part = 0; part < tile.tiles_n; ++part) sum += parts[part * m + tile.m0 + row];
      kl[tile.m0 + row] = sum;
    }
  }
};

CudaKernel cuda_linear_sample_kl(CudaNode& node) {
  const LinearSizes s = forward_sizes(node);
  const GemmPlan plan = plan_gemm<SampleKlEpilogue>(node, s.batch, s.out);
  const Draws prepared = prepare_draws(node, s.out / 2);
  const bool keyed = node.has(4);
  node.workspace_bytes = plan.tiles_n * s.batch * static_cast<std::int64_t>(sizeof(float));
  node.counters = plan.tiles_m;
  node.early_inputs = {1};
  return [=](const CudaArgs& args) {
    launch_forward(
        args, plan, s,
        SampleKlEpilogue{args.in(2), bind_draws(prepared, args, 3, 4, keyed), args.out(0),
                         args.out(1), args.out(2), args.out(3), args.out(4),
                         reinterpret_cast<float*>(args.workspace), args.counters, s.batch});
  };
}

CUVAE_CUDA_PRODUCT(linear_sample_kl, forward_sizes)

}  // namespace CUVAE_KERNELS
