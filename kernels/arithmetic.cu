#include "kernels/elementwise.cuh"
#include "kernels/hyper.cuh"
#include "kernels/storage.cuh"

namespace CUVAE_KERNELS {

struct Add {
  const float* a;
  const float* b;
  float* y;
  __device__ void operator()(std::int64_t i) const { y[i] = a[i] + b[i]; }
};

struct Mul {
  const float* a;
  const float* b;
  float* y;
  __device__ void operator()(std::int64_t i) const { y[i] = a[i] * b[i]; }
};

// By factor, and by *scheduled where there is one.
struct Scale {
  float factor;
  const float* scheduled;
  RealsIn x;
  RealsOut y;
  __device__ void operator()(std::int64_t i) const {
    y.set(i, x[i] * (scheduled != nullptr ? factor * *scheduled : factor));
  }
  __device__ void four(std::int64_t i) const {
    const float by = scheduled != nullptr ? factor * *scheduled : factor;
    const float4 in = x.four(i);
    y.set_four(i, {in.x * by, in.y * by, in.z * by, in.w * by});
  }
};

// The value, times *scheduled where there is one.
struct Fill {
  float value;
  const float* scheduled;
  float* y;
  __device__ void operator()(std::int64_t i) const {
    y[i] = scheduled != nullptr ? value * *scheduled : value;
  }
};

struct Copy {
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t i) const { y[i] = x[i]; }
};

struct LogCount {
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t i) const { y[i] = logf(fmaxf(x[i], 1.0f)); }
};

using Simple = OneOf<Add, Mul, Fill, Copy, LogCount>;

CudaKernel cuda_add(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<Simple>), elementwise_size(args.encoder, n), n,
                        one_of<Simple>(Add{args.in(0), args.in(1), args.out(0)}));
  };
}

CudaKernel cuda_mul(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<Simple>), elementwise_size(args.encoder, n), n,
                        one_of<Simple>(Mul{args.in(0), args.in(1), args.out(0)}));
  };
}

CudaKernel cuda_scale(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  const auto factor = static_cast<float>(node.attrs().real("factor", 1.0));
  const bool has_hyper = node.has(1);
  const std::int64_t slot = has_hyper ? node.attrs().integer("slot") : 0;
  const bool bf16 = node.out_bf16(0);
  return [=](const CudaArgs& args) {
    const float* scheduled = has_hyper ? hyper_row(args, 1) + slot : nullptr;
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<Fours<Scale>>), fours_size(args.encoder, n), divide_up(n, 4),
        Fours<Scale>{n, {factor, scheduled, reals_in(args, 0, false), reals_out(args, 0, bf16)}});
  };
}

CudaKernel cuda_fill(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  const auto value = static_cast<float>(node.attrs().real("value"));
  const bool has_hyper = node.has(0);
  const std::int64_t slot = has_hyper ? node.attrs().integer("slot") : 0;
  return [=](const CudaArgs& args) {
    const float* scheduled = has_hyper ? hyper_row(args, 0) + slot : nullptr;
    args.encoder.launch(CUVAE_KERNEL(elementwise<Simple>), elementwise_size(args.encoder, n), n,
                        one_of<Simple>(Fill{value, scheduled, args.out(0)}));
  };
}

CudaKernel cuda_detach(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    if (args.in(0) == args.out(0)) return;
    args.encoder.launch(CUVAE_KERNEL(elementwise<Simple>), elementwise_size(args.encoder, n), n,
                        one_of<Simple>(Copy{args.in(0), args.out(0)}));
  };
}

CudaKernel cuda_log_count(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<Simple>), elementwise_size(args.encoder, n), n,
                        one_of<Simple>(LogCount{args.in(0), args.out(0)}));
  };
}

CudaKernel cuda_reshape(CudaNode& node) {
  return cuda_detach(node);
}

CUVAE_CUDA_ALWAYS(add)
CUVAE_CUDA_ALWAYS(mul)
CUVAE_CUDA_ALWAYS(scale)
CUVAE_CUDA_ALWAYS(fill)
CUVAE_CUDA_ALWAYS(detach)
CUVAE_CUDA_ALWAYS(log_count)
CUVAE_CUDA_ALWAYS(reshape)

}  // namespace CUVAE_KERNELS
