// conv2d, conv_transpose2d and conv2d_wgrad.

#include "kernels/conv.cuh"

#include <limits>
#include <vector>

#include "kernels/reduce.cuh"

namespace CUVAE_KERNELS {

static Triple triple(std::int64_t rows, std::int64_t columns) {
  const auto least_one = [](std::int64_t n) { return n > 0 ? n : 1; };
  return {Divider(least_one(rows * columns)), Divider(least_one(columns))};
}

// A source [.., channels, h.source, w.source] at the positions or the taps of a phase.
static Side positions_side(const ConvPhase& p, std::int64_t channels) {
  return {triple(p.h.positions, p.w.positions), channels * p.h.source * p.w.source,
          static_cast<int>(p.h.stride),         static_cast<int>(p.h.start),
          static_cast<int>(p.w.stride),         static_cast<int>(p.w.start)};
}
static Side taps_side(const ConvPhase& p) {
  return {triple(p.h.taps, p.w.taps), p.h.source * p.w.source,
          static_cast<int>(p.h.step), 0,
          static_cast<int>(p.w.step), 0};
}

struct ConvProduct {
  std::vector<ConvShape> shapes;
  std::int64_t height = 0, width = 0;  // of the source
  std::int64_t m = 0, n = 0, k = 0;    // of the largest phase
  bool fits = true;
};

static ConvProduct product_of(const Graph& graph, const Node& node) {
  const Conv2d s = conv_of(graph, node);
  const bool transposed = node.op == Op::conv_transpose2d;
  const bool wgrad = node.op == Op::conv2d_wgrad;
  const std::int64_t taps = s.taps();
  const std::int64_t result_plane = s.h.out * s.w.out;
  ConvProduct all;
  for (const ConvPhase& p : conv_phases(s, transposed)) {
    const std::int64_t positions = s.batch * p.h.positions * p.w.positions;
    const std::int64_t terms = (transposed ? s.out : s.in) * p.h.taps * p.w.taps;
    const std::int64_t m = transposed ? s.in : s.out;
    const std::int64_t n = wgrad ? terms : positions;
    const std::int64_t k = wgrad ? positions : terms;
    all.height = p.h.source;
    all.width = p.w.source;
    all.m = m;
    all.n = n > all.n ? n : all.n;
    all.k = k > all.k ? k : all.k;
    all.fits = all.fits && fits_gemm(m, n, k);
    const Side at_positions = positions_side(p, transposed ? s.out : s.in);
    const Side at_taps = taps_side(p);
    ConvShape shape{.m = static_cast<int>(m),
                    .n = static_cast<int>(n),
                    .k = static_cast<int>(k),
                    .columns = wgrad ? at_taps : at_positions,
                    .terms = wgrad ? at_positions : at_taps,
                    .a = {},
                    .c = {}};
    const Strides weights{s.in * taps, {taps, s.w.kernel, 1}, 0};
    const Strides result{result_plane, {s.out * result_plane, s.w.out, 1}, 0};
    if (wgrad) {
      shape.a = result;  // dy
      shape.c = weights;
    } else if (!transposed) {
      shape.a = weights;
      shape.c = result;
    } else {
      shape.a = {taps,
                 {s.in * taps, p.h.every_tap * s.w.kernel, p.w.every_tap},
                 p.h.first_tap * s.w.kernel + p.w.first_tap};
      shape.c = {s.h.in * s.w.in,
                 {s.in * s.h.in * s.w.in, p.h.every_row * s.w.in, p.w.every_row},
                 p.h.first_row * s.w.in + p.w.first_row};
    }
    all.shapes.push_back(shape);
  }
  return all;
}

// Tiles of 64 by 64: a smaller one would only look up more addresses, and channels seldom fill a
// larger one.
using ConvTile = MediumTile;

static GemmPlan plan_conv(CudaNode& node) {
  GemmPlan plan;
  plan.tile = TileSize::medium;
  plan.math = choose_math(node, plan.tile);
  return plan;
}

template <class Math>
static void launch_conv(const CudaArgs& args, const GemmPlan& plan, const ConvLaunch& launch,
                        std::int64_t tiles, std::int64_t depth, const float* a, const float* source,
                        const float* bias, float* c) {
  static const std::string name = "convolve " + plan.str();
  const cuda::LaunchSize size = {
      .blocks_x = tiles,
      .blocks_z = depth,
      .threads = ConvTile::threads,
      .shared_bytes =
          sizeof(float) * static_cast<std::size_t>(gemm_shared_floats<ConvTile, true, false>())};
  args.encoder.launch(CUVAE_NAMED_KERNEL(name, convolve<ConvTile, Math>), size, launch, a, source,
                      bias, c);
}

// All phases; a is [m, k].
static void launch_phases(const CudaArgs& args, const GemmPlan& plan, const ConvProduct& product,
                          bool terms_are_positions, std::int64_t share, std::int64_t shares,
                          const float* a, const float* source, const float* bias, float* c) {
  for (std::size_t first = 0; first < product.shapes.size(); first += most_phases) {
    ConvLaunch launch{.phases = {},
                      .height = static_cast<int>(product.height),
                      .width = static_cast<int>(product.width),
                      .terms_are_positions = terms_are_positions,
                      .share = static_cast<int>(share)};
    std::int64_t depth = shares;
    if (share == 0) depth = std::min<std::int64_t>(most_phases, product.shapes.size() - first);
    std::int64_t tiles = 0;
    for (int i = 0; i < most_phases && first + i < product.shapes.size(); ++i) {
      const ConvShape& shape = launch.phases[i] = product.shapes[first + i];
      tiles = std::max(tiles, divide_up(shape.m, ConvTile::M) * divide_up(shape.n, ConvTile::N));
    }
    switch (plan.math) {
      case GemmMath::tf32:
        launch_conv<Tensor<Tf32>::Of<ConvTile, true, false>>(args, plan, launch, tiles, depth, a,
                                                             source, bias, c);
        break;
      case GemmMath::bf16:
        launch_conv<Tensor<Bf16>::Of<ConvTile, true, false>>(args, plan, launch, tiles, depth, a,
                                                             source, bias, c);
        break;
      default:
        launch_conv<Ffma<ConvTile, true, false>>(args, plan, launch, tiles, depth, a, source, bias,
                                                 c);
    }
  }
}

static CudaKernel forward(CudaNode& node) {
  const ConvProduct product = product_of(node.graph, node.node);
  const GemmPlan plan = plan_conv(node);
  node.algorithm = plan.str();
  const bool bias = node.has(2);
  return [=](const CudaArgs& args) {
    launch_phases(args, plan, product, false, 0, 1, args.in(1), args.in(0),
                  bias ? args.in(2) : nullptr, args.out(0));
  };
}

CudaKernel cuda_conv2d(CudaNode& node) {
  return forward(node);
}

CudaKernel cuda_conv_transpose2d(CudaNode& node) {
  return forward(node);
}

// The sum over positions is long, and the result small: blocks take shares of the positions, whose
// sums a second pass adds.
CudaKernel cuda_conv2d_wgrad(CudaNode& node) {
  constexpr std::int64_t least_terms = 512;
  constexpr std::int64_t most_shares = 64;
  const ConvProduct product = product_of(node.graph, node.node);
  const GemmPlan plan = plan_conv(node);
  const std::int64_t tiles = divide_up(product.m, ConvTile::M) * divide_up(product.n, ConvTile::N);
  const std::int64_t wanted =
      divide_up(std::int64_t{node.gpu.multiprocessors} * 2, tiles > 0 ? tiles : 1);
  std::int64_t shares = std::min({wanted, divide_up(product.k, least_terms), most_shares});
  shares = std::max<std::int64_t>(shares, 1);
  const std::int64_t share =
      std::max(divide_up(divide_up(product.k, shares), ConvTile::K), std::int64_t{1}) * ConvTile::K;
  shares = std::max(divide_up(product.k, share), std::int64_t{1});
  const std::int64_t n = node.out(0).elements();
  if (shares > 1) node.workspace_bytes = shares * n * static_cast<std::int64_t>(sizeof(float));
  node.algorithm = plan.str() + ", " + std::to_string(shares) + " shares";
  return [=](const CudaArgs& args) {
    float* parts = shares > 1 ? reinterpret_cast<float*>(args.workspace) : args.out(0);
    launch_phases(args, plan, product, true, share, shares, args.in(0), args.in(1), nullptr, parts);
    if (shares > 1) launch_row_sum(args, shares, n, 1.0f, parts, args.out(0));
  };
}

static bool fits(const CudaNode& node) {
  const ConvProduct product = product_of(node.graph, node.node);
  return product.fits && product.height <= std::numeric_limits<int>::max() / 2 &&
         product.width <= std::numeric_limits<int>::max() / 2;
}

bool cuda_supports_conv2d(const CudaNode& node) {
  return fits(node);
}
bool cuda_supports_conv_transpose2d(const CudaNode& node) {
  return fits(node);
}
bool cuda_supports_conv2d_wgrad(const CudaNode& node) {
  return fits(node);
}
}  // namespace CUVAE_KERNELS
