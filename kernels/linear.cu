// The dense layer, its activation, and its gradients.

#include "kernels/activation.cuh"
#include "kernels/gather_gemm.cuh"
#include "kernels/storage.cuh"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

// y = f(c + bias), and c + bias itself where the gradient will want it.
struct DenseEpilogue : PlainColumns {
  static constexpr std::string_view name = "linear";
  DeviceActivation f;
  const float* bias;  // [n] or null
  RealsOut y;         // [m, n]
  float* pre;         // [m, n] or null
  std::int64_t n;

  template <class T>
  __device__ void operator()(const Finished<T>& tile, const State&) const {
    each_element(tile, [&](int row, int column) {
      float value = tile.c[row * T::c_stride + column];
      if (bias != nullptr) value += bias[tile.n0 + column];
      const std::int64_t at = (tile.m0 + row) * n + tile.n0 + column;
      if (pre != nullptr) pre[at] = value;
      y.set(at, activate(f, value));
    });
  }
};

// dx = c f'(saved), or c.
struct DgradEpilogue : PlainColumns {
  static constexpr std::string_view name = "linear_dgrad";
  DeviceActivation f;
  RealsIn saved;  // [m, n] or no data
  RealsOut dx;    // [m, n]
  std::int64_t n;

  template <class T>
  __device__ void operator()(const Finished<T>& tile, const State&) const {
    each_element(tile, [&](int row, int column) {
      const std::int64_t at = (tile.m0 + row) * n + tile.n0 + column;
      const float value = tile.c[row * T::c_stride + column];
      dx.set(at, saved.data != nullptr ? activate_grad(f, value, saved[at]) : value);
    });
  }
};

// dw = c, and db = the sums of dy's columns, which are the rows of A.
struct WgradEpilogue : PlainColumns {
  static constexpr std::string_view name = "linear_wgrad";
  static constexpr bool sums_a = true;
  float* dw;  // [m, n]
  float* db;  // [m] or null
  std::int64_t n;

  template <class T>
  __device__ void operator()(const Finished<T>& tile, const State&) const {
    each_element(tile, [&](int row, int column) {
      dw[(tile.m0 + row) * n + tile.n0 + column] = tile.c[row * T::c_stride + column];
    });
    const int row = static_cast<int>(threadIdx.x);
    if (db != nullptr && tile.tile_n == 0 && row < tile.rows) db[tile.m0 + row] = tile.a_sum;
  }
};

// bias: the input of that number; pre: the output of that number, or -1.
static CudaKernel dense(CudaNode& node, DeviceActivation f, int pre) {
  const LinearSizes s = forward_sizes(node);
  const GemmPlan plan = plan_gemm<DenseEpilogue>(node, s.batch, s.out);
  const bool bias = node.has(2);
  const bool y = node.out_bf16(0);
  node.early_inputs = {1};
  return [=](const CudaArgs& args) {
    launch_forward(args, plan, s,
                   DenseEpilogue{{},
                                 f,
                                 bias ? args.in(2) : nullptr,
                                 reals_out(args, 0, y),
                                 pre >= 0 ? args.out(pre) : nullptr,
                                 s.out});
  };
}

CudaKernel cuda_linear(CudaNode& node) {
  return dense(node, {}, -1);
}

CudaKernel cuda_linear_activation(CudaNode& node) {
  return dense(node, device_activation(activation_of(node.attrs())),
               flag_of(node.attrs(), "save_input") ? 1 : -1);
}

static LinearSizes gathered_sizes(const CudaNode& node) {
  return {node.in(1)[0], node.in(0)[1], node.in(2)[0]};
}

CudaKernel cuda_linear_gather_activation(CudaNode& node) {
  const LinearSizes s = gathered_sizes(node);
  const GemmPlan plan = plan_gemm<DenseEpilogue>(node, s.batch, s.out);
  const WindowRows prepared = prepare_rows(node);
  const bool bias = node.has(3);
  const bool save = flag_of(node.attrs(), "save_input");
  const bool y = node.out_bf16(0);
  DeviceActivation f;
  if (node.attrs().has("kind")) f = device_activation(activation_of(node.attrs()));
  node.early_inputs = {0, 1};  // the weights are what the last node of a step has just written
  return [=](const CudaArgs& args) {
    launch_gathered<true>(args, plan, forward_shape(s, args.early), bind_rows(prepared, args),
                          args.in(2),
                          DenseEpilogue{{},
                                        f,
                                        bias ? args.in(3) : nullptr,
                                        reals_out(args, 0, y),
                                        save ? args.out(1) : nullptr,
                                        s.out});
  };
}

bool cuda_supports_linear_gather_activation(const CudaNode& node) {
  const LinearSizes s = gathered_sizes(node);
  return supports_gathered(node, s, s.batch, s.out);
}

static CudaKernel dgrad(CudaNode& node, DeviceActivation f, bool activation) {
  const LinearSizes s = dgrad_sizes(node);
  const GemmPlan plan = plan_gemm<DgradEpilogue>(node, s.batch, s.in);
  const bool saved = activation && node.in_bf16(2);
  const bool dx = node.out_bf16(0);
  node.early_inputs = {1};
  return [=](const CudaArgs& args) {
    launch_dgrad(args, plan, s,
                 DgradEpilogue{{},
                               f,
                               activation ? reals_in(args, 2, saved) : RealsIn{},
                               reals_out(args, 0, dx),
                               s.in});
  };
}

CudaKernel cuda_linear_dgrad(CudaNode& node) {
  return dgrad(node, {}, false);
}

CudaKernel cuda_linear_dgrad_activation(CudaNode& node) {
  return dgrad(node, device_activation(activation_of(node.attrs())), true);
}

CudaKernel cuda_linear_wgrad(CudaNode& node) {
  const LinearSizes s = wgrad_sizes(node);
  const GemmPlan plan = plan_gemm<WgradEpilogue>(node, s.out, s.in);
  const bool bias = flag_of(node.attrs(), "bias");
  return [=](const CudaArgs& args) {
    launch_wgrad(args, plan, s, WgradEpilogue{{}, args.out(0), bias ? args.out(1) : nullptr, s.in});
  };
}

CUVAE_CUDA_PRODUCT(linear, forward_sizes)
CUVAE_CUDA_PRODUCT(linear_activation, forward_sizes)
CUVAE_CUDA_PRODUCT(linear_dgrad, dgrad_sizes)
// With the sums of columns a library's product has it, or its definition.
bool cuda_supports_linear_dgrad_activation(const CudaNode& node) {
  return !flag_of(node.attrs(), "bias") && fits_products(dgrad_sizes(node));
}
CUVAE_CUDA_PRODUCT(linear_wgrad, wgrad_sizes)

}  // namespace CUVAE_KERNELS
