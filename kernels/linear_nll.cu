// The decoder's last layer with the likelihood and its derivative: the logits never reach memory.

#include "kernels/gather_gemm.cuh"
#include "kernels/likelihood.cuh"
#include "kernels/reduction.cuh"
#include "ops/gaussian_constant.h"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

struct NllEpilogue : PlainColumns {
  static constexpr std::string_view name = "linear_nll";
  // The tile's target as bytes, which are asked for before the product.
  static constexpr int most_bytes = MediumTile::M * MediumTile::N;
  struct State {
    alignas(16) std::uint8_t target[most_bytes];
  };
  bool bernoulli;
  bool gathered;  // the target is the rows, else `target`
  float inverse_sigma;
  float constant;       // of a row
  const float* bias;    // [n]
  const float* target;  // [m, n]
  WindowRows rows;      // [m, n]
  const float* dnll;    // [m]
  float* nll;           // [m]
  float* dlogits;       // [m, n]
  float* parts;         // [tiles_n, m]: the sums of the tiles' rows
  unsigned* counters;   // one for each row of tiles
  std::int64_t m, n;

  template <class T>
  __device__ void prefetch(int tile_m, int tile_n, bool later, State& state) const {
    if constexpr (T::M * T::N <= most_bytes) {
      constexpr int across = T::N / 16;
      static_assert(T::M * across <= 2 * T::threads);
      if (!gathered) return;
      for (int i = static_cast<int>(threadIdx.x); i < T::M * across; i += T::threads) {
        const int b = tile_m * T::M + i / across;
        rows.copy16(state.target + i * 16, rows.begin_of(b, rows.entry_of(b)),
                    tile_n * T::N + i % across * 16, later);
      }
    }
  }

  // Of column `column` of the tile's row `row`, which is element `at`.
  template <class T>
  __device__ __forceinline__ float target_of(const State& state, int row, int column,
                                             std::int64_t at) const {
    if constexpr (T::M * T::N <= most_bytes)
      if (gathered) return rows.value(state.target[row * T::N + column], 0);
    return target[at];
  }

  template <class T>
  __device__ void operator()(const Finished<T>& tile, const State& state) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = static_cast<int>(threadIdx.x) / 32; row < tile.rows; row += T::threads / 32) {
      const std::int64_t b = tile.m0 + row;
      const float scale = dnll[b];
      float sum = 0.0f;
      for (int column = lane; column < tile.columns; column += 32) {
        const std::int64_t at = b * n + tile.n0 + column;
        const float logit = tile.c[row * T::c_stride + column] + bias[tile.n0 + column];
        const float x = target_of<T>(state, row, column, at);
        const NllTerm term =
            bernoulli ? bernoulli_term(logit, x) : gaussian_term(logit, x, inverse_sigma);
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

// The inputs of either form, from `first` on: x, w, b, then dnll at its own place.
static CudaKernel nll(CudaNode& node, const LinearSizes& s, int first, int dnll, bool gathers) {
  const GemmPlan plan = plan_gemm<NllEpilogue>(node, s.batch, s.out);
  const bool bernoulli = likelihood_of(node.attrs()) == Likelihood::bernoulli;
  const double sigma = bernoulli ? 1.0 : sigma_of(node.attrs());
  const auto inverse_sigma = static_cast<float>(1.0 / sigma);
  const auto constant = bernoulli ? 0.0f : static_cast<float>(gaussian_constant(s.out, sigma));
  node.workspace_bytes = plan.tiles_n * s.batch * static_cast<std::int64_t>(sizeof(float));
  node.counters = plan.tiles_m;
  node.early_inputs = {first + 1};
  WindowRows rows{};
  if (gathers) {
    rows = prepare_rows(node);
    node.early_inputs.insert(node.early_inputs.end(), {0, 1});
  }
  return [=](const CudaArgs& args) {
    launch_gemm<true, true>(args, plan, forward_shape(s, args.early), args.in(first),
                            args.in(first + 1),
                            NllEpilogue{{},
                                        bernoulli,
                                        gathers,
                                        inverse_sigma,
                                        constant,
                                        args.in(first + 2),
                                        gathers ? nullptr : args.in(3),
                                        gathers ? bind_rows(rows, args) : rows,
                                        args.in(dnll),
                                        args.out(0),
                                        args.out(1),
                                        reinterpret_cast<float*>(args.workspace),
                                        args.counters,
                                        s.batch,
                                        s.out});
  };
}

CudaKernel cuda_linear_nll(CudaNode& node) {
  return nll(node, forward_sizes(node), 0, 4, false);
}

CUVAE_CUDA_PRODUCT(linear_nll, forward_sizes)

static LinearSizes gathered_sizes(const CudaNode& node) {
  return {node.in(2)[0], node.in(2)[1], node.in(3)[0]};
}

CudaKernel cuda_linear_gather_nll(CudaNode& node) {
  return nll(node, gathered_sizes(node), 2, 5, true);
}

bool cuda_supports_linear_gather_nll(const CudaNode& node) {
  const LinearSizes s = gathered_sizes(node);
  return supports_gathered(node, s, s.batch, s.out);
}

}  // namespace CUVAE_KERNELS
