// A dense layer's weight gradient and its update: the gradient never reaches memory.

#include "kernels/adam.cuh"
#include "kernels/gather_gemm.cuh"

namespace CUVAE_KERNELS {

struct WgradAdamEpilogue : PlainColumns {
  static constexpr std::string_view name = "linear_wgrad_adam";
  static constexpr bool sums_a = true;
  static constexpr bool bf16_a = true;
  static constexpr bool bf16_b = true;
  using State = AdamStep;
  Adam adam;
  float* w;  // [m, n], as are m and v; updated in place
  float* m;
  float* v;
  float* bias;  // [out] or null, with its moments
  float* bias_m;
  float* bias_v;
  std::int64_t n;

  // Without the commit flag nothing is written at all.
  __device__ bool idle() const { return *adam.commit == 0; }
  __device__ void begin(State& step) const { step = adam_step(adam); }

  template <class T>
  __device__ void operator()(const Finished<T>& tile, const State& step) const {
    each_element(tile, [&](int row, int column) {
      const std::int64_t at = (tile.m0 + row) * n + tile.n0 + column;
      adam_update(adam, step, tile.c[row * T::c_stride + column], w[at], m[at], v[at]);
    });
    const int row = static_cast<int>(threadIdx.x);
    if (bias == nullptr || tile.tile_n != 0 || row >= tile.rows) return;
    const int at = tile.m0 + row;
    adam_update(adam, step, tile.a_sum, bias[at], bias_m[at], bias_v[at]);
  }
};

static WgradAdamEpilogue bind_update(const Adam& adam, const CudaArgs& args, bool bias,
                                     std::int64_t n) {
  return {{},
          adam,
          args.out(0),
          args.out(1),
          args.out(2),
          bias ? args.out(3) : nullptr,
          bias ? args.out(4) : nullptr,
          bias ? args.out(5) : nullptr,
          n};
}

CudaKernel cuda_linear_wgrad_adam(CudaNode& node) {
  const LinearSizes s = wgrad_sizes(node);
  const GemmPlan plan = plan_gemm<WgradAdamEpilogue>(node, s.out, s.in);
  const Adam prepared = prepare_adam(adam_of(node.attrs()));
  const bool bias = node.has(5);
  return [=](const CudaArgs& args) {
    launch_wgrad(args, plan, s, bind_update(bind_adam(prepared, args, 8, 9, 10), args, bias, s.in));
  };
}

CUVAE_CUDA_PRODUCT(linear_wgrad_adam, wgrad_sizes)

static LinearSizes gathered_sizes(const CudaNode& node) {
  return {node.in(1)[0], node.in(0)[1], node.in(2)[1]};
}

CudaKernel cuda_linear_gather_wgrad_adam(CudaNode& node) {
  const LinearSizes s = gathered_sizes(node);
  const GemmPlan plan = plan_gemm<WgradAdamEpilogue>(node, s.out, s.in);
  const Adam prepared = prepare_adam(adam_of(node.attrs()));
  const WindowRows rows = prepare_rows(node);
  const bool bias = node.has(6);
  node.early_inputs = {0, 1, 11};
  return [=](const CudaArgs& args) {
    GemmShape shape = wgrad_shape(s);
    shape.early = args.early;
    launch_gathered<false>(args, plan, shape, bind_rows(rows, args), args.in(2),
                           bind_update(bind_adam(prepared, args, 9, 10, 11), args, bias, s.in));
  };
}

bool cuda_supports_linear_gather_wgrad_adam(const CudaNode& node) {
  const LinearSizes s = gathered_sizes(node);
  return supports_gathered(node, s, s.out, s.in);
}

}  // namespace CUVAE_KERNELS
