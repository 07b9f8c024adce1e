// Batch, layer and group norms: all are statistics of classes of elements (src/ops/norm.h), which
// one kernel sums whatever the kind; and channel_sum, which is such a sum by itself.

#include "ops/norm.h"

#include "kernels/divider.cuh"
#include "kernels/reduction.cuh"

namespace CUVAE_KERNELS {

struct DeviceClasses {
  WideDivider inner;
  WideDivider count;
  std::int64_t outer = 0;
  DeviceClasses() = default;
  DeviceClasses(const Classes& c, std::int64_t n)
      : inner(c.inner, n), count(c.count, n), outer(c.outer) {}
  // The class of element i.
  __device__ __forceinline__ std::int64_t of(std::int64_t i) const {
    const std::int64_t segment = inner(i);
    return segment - count(segment) * count.by;
  }
};

// Where the threads of a block stand: a block for each class, or, where the elements of a class lie
// apart, for 32 of them side by side.
struct Stand {
  std::int64_t at;     // the class
  std::int64_t first;  // term
  int step;            // from term to term
  bool across;
  __device__ __forceinline__ Stand(const DeviceClasses& c, bool across_) : across(across_) {
    const auto thread = static_cast<int>(threadIdx.x);
    at = across ? std::int64_t{blockIdx.x} * 32 + thread % 32 : std::int64_t{blockIdx.x};
    first = across ? thread / 32 : thread;
    step = across ? warps_of_block : block_threads;
    if (at >= c.count.by) first = c.outer * c.inner.by;  // nothing
  }
  // The element that is term e of the class.
  __device__ __forceinline__ std::int64_t element(const DeviceClasses& c, std::int64_t e) const {
    const std::int64_t segment = c.inner(e);
    return (segment * c.count.by + at) * c.inner.by + (e - segment * c.inner.by);
  }
  // Who writes what the class has come to.
  __device__ __forceinline__ bool writes(const DeviceClasses& c) const {
    return threadIdx.x < (across ? 32 : 1) && at < c.count.by;
  }
  // The sum over the class's threads, in all of them. All threads of the block must call it.
  __device__ __forceinline__ float sum(float value) const {
    CUVAE_SHARED(float, parts, [warps_of_block][33]);
    const auto lane = static_cast<int>(threadIdx.x % 32);
    if (!across) value = warp_sum(value);
    __syncthreads();  // the parts of the sum before are no longer read
    parts[threadIdx.x / 32][lane] = value;
    __syncthreads();
    float all = 0.0f;
    for (int warp = 0; warp < warps_of_block; ++warp) all += parts[warp][lane];
    return all;
  }
};

// Mean and biased variance of each class, in two passes; the second corrects the mean of the first.
__global__ void __launch_bounds__(block_threads, 4)  // 4: registers rather than spills
    class_moments(DeviceClasses classes, bool across, const float* x, float* mean, float* var) {
  device::wait_for_producers();
  device::let_dependents_start();
  const Stand stand(classes, across);
  const std::int64_t n = classes.outer * classes.inner.by;
  const float share = 1.0f / static_cast<float>(n);
  float sum = 0.0f;
  for (std::int64_t e = stand.first; e < n; e += stand.step) sum += x[stand.element(classes, e)];
  const float middle = stand.sum(sum) * share;
  float rest = 0.0f;
  float squares = 0.0f;
  for (std::int64_t e = stand.first; e < n; e += stand.step) {
    const float d = x[stand.element(classes, e)] - middle;
    rest += d;
    squares = fmaf(d, d, squares);
  }
  rest = stand.sum(rest) * share;
  squares = stand.sum(squares) * share;
  if (!stand.writes(classes)) return;
  mean[stand.at] = middle + rest;
  const float variance = fmaf(-rest, rest, squares);
  var[stand.at] = variance < 0.0f ? 0.0f : variance;  // NaN stays
}

__device__ __forceinline__ float inverse_deviation(float var, float eps) {
  return 1.0f / sqrtf(var + eps);
}

// d = dy, or dy times the weight, and xhat = (x - mean) / deviation.
struct NormBackward {
  DeviceClasses groups;
  DeviceClasses channels;
  float eps;
  const float* dy;
  const float* x;
  const float* mean;
  const float* var;
  const float* weight;  // or null
  __device__ __forceinline__ float d(std::int64_t i, bool weighted) const {
    return weighted ? dy[i] * weight[channels.of(i)] : dy[i];
  }
  __device__ __forceinline__ float xhat(std::int64_t i, std::int64_t group) const {
    return (x[i] - mean[group]) * inverse_deviation(var[group], eps);
  }
};

// For each class the sums of d and, where `products` is given, of d xhat.
__global__ void __launch_bounds__(block_threads)
    class_pair_sums(DeviceClasses classes, bool across, bool weighted, NormBackward back,
                    float* sums, float* products) {
  device::wait_for_producers();
  device::let_dependents_start();
  const Stand stand(classes, across);
  const std::int64_t n = classes.outer * classes.inner.by;
  float sum = 0.0f;
  float product = 0.0f;
  for (std::int64_t e = stand.first; e < n; e += stand.step) {
    const std::int64_t i = stand.element(classes, e);
    const float d = back.d(i, weighted);
    sum += d;
    if (products != nullptr) product = fmaf(d, back.xhat(i, back.groups.of(i)), product);
  }
  sum = stand.sum(sum);
  product = stand.sum(product);
  if (!stand.writes(classes)) return;
  sums[stand.at] = sum;
  if (products != nullptr) products[stand.at] = product;
}

struct NormApply {
  DeviceClasses groups;
  DeviceClasses channels;
  float eps;
  const float* x;
  const float* mean;
  const float* var;
  const float* weight;  // or null
  const float* bias;
  float* y;
  __device__ void operator()(std::int64_t i) const {
    const std::int64_t group = groups.of(i);
    float value = (x[i] - mean[group]) * inverse_deviation(var[group], eps);
    if (weight != nullptr) {
      const std::int64_t channel = channels.of(i);
      value = fmaf(value, weight[channel], bias[channel]);
    }
    y[i] = value;
  }
};

// dx = (d - (sum of d + xhat sum of d xhat) / n) / deviation, the sums over the group.
struct NormGrad {
  NormBackward back;
  const float* sums;
  const float* products;
  bool scaled;  // the sums are of dy, to be multiplied by the weight, which the group has in common
  float share;  // 1 / n
  float* dx;
  __device__ void operator()(std::int64_t i) const {
    const std::int64_t group = back.groups.of(i);
    const float by = scaled ? back.weight[group] : 1.0f;
    const float d = back.d(i, back.weight != nullptr);
    const float common = by * fmaf(back.xhat(i, group), products[group], sums[group]);
    dx[i] = inverse_deviation(back.var[group], back.eps) * (d - common * share);
  }
};

struct RunningStats {
  float keep, take, take_var;
  const std::int64_t* commit;
  const float* mean;
  const float* var;
  float* running_mean;
  float* running_var;
  std::int64_t* tracked;
  __device__ void operator()(std::int64_t c) const {
    if (*commit == 0) return;
    running_mean[c] = keep * running_mean[c] + take * mean[c];
    running_var[c] = keep * running_var[c] + take_var * var[c];
    if (c == 0) ++*tracked;
  }
};

static bool across_of(const Classes& c) {
  return c.inner < 8 && c.outer > 1;
}
static cuda::LaunchSize classes_size(const Classes& c) {
  return {.blocks_x = across_of(c) ? divide_up(c.count, 32) : c.count, .threads = block_threads};
}

using NormStep = OneOf<NormApply, NormGrad, RunningStats>;

CudaKernel cuda_norm(CudaNode& node) {
  const Norm norm = norm_of(node.attrs(), node.in(0));
  const std::int64_t n = node.in(0).elements();
  const DeviceClasses groups(norm.groups, n), channels(norm.channels, n);
  const bool affine = node.has(1);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(class_moments), classes_size(norm.groups), groups,
                        across_of(norm.groups), args.in(0), args.out(1), args.out(2));
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<NormStep>), elementwise_size(args.encoder, n), n,
        one_of<NormStep>(NormApply{groups, channels, static_cast<float>(norm.eps), args.in(0),
                                   args.out(1), args.out(2), affine ? args.in(1) : nullptr,
                                   affine ? args.in(2) : nullptr, args.out(0)}));
  };
}

CudaKernel cuda_norm_grad(CudaNode& node) {
  const Norm norm = norm_of(node.attrs(), node.in(0));
  const std::int64_t n = node.in(0).elements();
  const DeviceClasses groups(norm.groups, n), channels(norm.channels, n);
  const bool affine = node.has(4);
  // The sums that belong to the weight are the group's own, but for that weight.
  const bool scaled = affine && norm.kind == NormKind::batch;
  const std::int64_t count = norm.groups.count;
  if (!scaled) node.workspace_bytes = 2 * count * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t terms = norm.groups.elements();
  const float share = static_cast<float>(1.0 / static_cast<double>(terms > 0 ? terms : 1));
  return [=](const CudaArgs& args) {
    const NormBackward back{
        groups,     channels,   static_cast<float>(norm.eps), args.in(0), args.in(1),
        args.in(2), args.in(3), affine ? args.in(4) : nullptr};
    if (affine)
      args.encoder.launch(CUVAE_KERNEL(class_pair_sums), classes_size(norm.channels), channels,
                          across_of(norm.channels), false, back, args.out(2), args.out(1));
    float* sums = scaled ? args.out(2) : reinterpret_cast<float*>(args.workspace);
    float* products = scaled ? args.out(1) : sums + count;
    if (!scaled)
      args.encoder.launch(CUVAE_KERNEL(class_pair_sums), classes_size(norm.groups), groups,
                          across_of(norm.groups), affine, back, sums, products);
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<NormStep>), elementwise_size(args.encoder, n), n,
        one_of<NormStep>(NormGrad{back, sums, products, scaled, share, args.out(0)}));
  };
}

CudaKernel cuda_channel_sum(CudaNode& node) {
  const Shape& x = node.in(0);
  const std::int64_t plane = x[2] * x[3];
  const Classes classes{plane > 0 ? plane : 1, x[1], plane > 0 ? x[0] : 0};
  const DeviceClasses channels(classes, x.elements());
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(class_pair_sums), classes_size(classes), channels, across_of(classes), false,
        NormBackward{channels, channels, 0.0f, args.in(0), nullptr, nullptr, nullptr, nullptr},
        args.out(0), nullptr);
  };
}

CudaKernel cuda_batch_norm_eval(CudaNode& node) {
  Attrs attrs = select(node.attrs(), {"eps"});
  attrs.set("kind", std::string("batch"));
  const Norm norm = norm_of(attrs, node.in(0));
  const std::int64_t n = node.in(0).elements();
  const DeviceClasses channels(norm.channels, n);
  const bool affine = node.has(3);
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<NormStep>), elementwise_size(args.encoder, n), n,
        one_of<NormStep>(NormApply{channels, channels, static_cast<float>(norm.eps), args.in(0),
                                   args.in(1), args.in(2), affine ? args.in(3) : nullptr,
                                   affine ? args.in(4) : nullptr, args.out(0)}));
  };
}

CudaKernel cuda_running_stats(CudaNode& node) {
  const std::int64_t channels = node.in(0).elements();
  const double momentum = node.attrs().real("momentum", 0.1);
  const auto count = static_cast<double>(node.attrs().integer("count"));
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<NormStep>), elementwise_size(args.encoder, channels), channels,
        one_of<NormStep>(RunningStats{
            static_cast<float>(1 - momentum), static_cast<float>(momentum),
            static_cast<float>(momentum * (count / (count - 1))), args.in<std::int64_t>(5),
            args.in(3), args.in(4), args.out(0), args.out(1), args.out<std::int64_t>(2)}));
  };
}

CUVAE_CUDA_ALWAYS(channel_sum)
CUVAE_CUDA_ALWAYS(norm)
CUVAE_CUDA_ALWAYS(norm_grad)
CUVAE_CUDA_ALWAYS(batch_norm_eval)
CUVAE_CUDA_ALWAYS(running_stats)

}  // namespace CUVAE_KERNELS
