// Pools and upsampling, by one thread for each element of the result.

#include "kernels/divider.cuh"
#include "kernels/elementwise.cuh"
#include "ops/pool.h"

namespace CUVAE_KERNELS {

struct DevicePool {
  int in_h, in_w, out_h, out_w;
  int kernel_h, kernel_w, stride_h, stride_w, top, left;
  // The window of (h, w), cut at the edges.
  __device__ __forceinline__ void window(int h, int w, int (&rows)[2], int (&columns)[2]) const {
    rows[0] = max(h * stride_h - top, 0);
    rows[1] = min(in_h, h * stride_h - top + kernel_h);
    columns[0] = max(w * stride_w - left, 0);
    columns[1] = min(in_w, w * stride_w - left + kernel_w);
  }
  // Where the largest of a window of a plane is: the first of equals; the last NaN.
  __device__ __forceinline__ int largest(const float* x, int h, int w) const {
    int rows[2];
    int columns[2];
    window(h, w, rows, columns);
    int best = rows[0] * in_w + columns[0];
    float most = x[best];
    for (int i = rows[0]; i < rows[1]; ++i)
      for (int j = columns[0]; j < columns[1]; ++j) {
        const float value = x[i * in_w + j];
        if (value > most || value != value) {
          most = value;
          best = i * in_w + j;
        }
      }
    return best;
  }
};

// y: the largest of each window, or `scale` times its sum.
struct PoolWindows {
  DevicePool pool;
  bool largest;
  float scale;
  PlaneSplit split;  // of y
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t i) const {
    std::int64_t plane;
    int h, w;
    split(i, plane, h, w);
    const float* from = x + plane * pool.in_h * pool.in_w;
    if (largest) {
      y[i] = from[pool.largest(from, h, w)];
      return;
    }
    int rows[2];
    int columns[2];
    pool.window(h, w, rows, columns);
    float sum = 0.0f;
    for (int row = rows[0]; row < rows[1]; ++row)
      for (int column = columns[0]; column < columns[1]; ++column)
        sum += from[row * pool.in_w + column];
    y[i] = sum * scale;
  }
};

// dx: the sum of dy over the windows that cover an element, times `scale`, or over those of which
// it is the largest of x.
struct SpreadWindows {
  DevicePool pool;
  float scale;
  PlaneSplit split;  // of dx
  const float* dy;
  const float* x;  // or null
  float* dx;
  __device__ static __forceinline__ int first(int at, int before, int kernel, int stride) {
    const int from = at + before - kernel + 1;
    return from > 0 ? (from + stride - 1) / stride : 0;
  }
  __device__ void operator()(std::int64_t i) const {
    std::int64_t plane;
    int row, column;
    split(i, plane, row, column);
    const float* from = dy + plane * pool.out_h * pool.out_w;
    const float* values = x != nullptr ? x + plane * pool.in_h * pool.in_w : nullptr;
    const int h_end = min(pool.out_h - 1, (row + pool.top) / pool.stride_h);
    const int w_end = min(pool.out_w - 1, (column + pool.left) / pool.stride_w);
    float sum = 0.0f;
    for (int h = first(row, pool.top, pool.kernel_h, pool.stride_h); h <= h_end; ++h)
      for (int w = first(column, pool.left, pool.kernel_w, pool.stride_w); w <= w_end; ++w)
        if (values == nullptr || pool.largest(values, h, w) == row * pool.in_w + column)
          sum += from[h * pool.out_w + w];
    dx[i] = sum * scale;
  }
};

static DevicePool device_pool(const Pool2d& s) {
  const auto to_int = [](std::int64_t n) { return static_cast<int>(n); };
  return {to_int(s.h.in),     to_int(s.w.in),     to_int(s.h.out),    to_int(s.w.out),
          to_int(s.h.kernel), to_int(s.w.kernel), to_int(s.h.stride), to_int(s.w.stride),
          to_int(s.h.before), to_int(s.w.before)};
}

static float mean_factor(const Pool2d& s) {
  return static_cast<float>(1.0 / static_cast<double>(s.h.kernel * s.w.kernel));
}

using Windows = OneOf<PoolWindows, SpreadWindows>;

static CudaKernel pool_windows(CudaNode& node, bool largest, bool mean) {
  const Pool2d s = pool_of(node.graph, node.node);
  const std::int64_t n = node.out(0).elements();
  const PlaneSplit split(n, s.h.out, s.w.out);
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<Windows>), elementwise_size(args.encoder, n), n,
        one_of<Windows>(PoolWindows{device_pool(s), largest, mean ? mean_factor(s) : 1.0f, split,
                                    args.in(0), args.out(0)}));
  };
}

static CudaKernel spread_windows(CudaNode& node, bool largest, bool mean) {
  const Pool2d s = pool_of(node.graph, node.node);
  const std::int64_t n = node.out(0).elements();
  const PlaneSplit split(n, s.h.in, s.w.in);
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<Windows>), elementwise_size(args.encoder, n), n,
        one_of<Windows>(SpreadWindows{device_pool(s), mean ? mean_factor(s) : 1.0f, split,
                                      args.in(0), largest ? args.in(1) : nullptr, args.out(0)}));
  };
}

CudaKernel cuda_max_pool2d(CudaNode& node) {
  return pool_windows(node, true, false);
}
CudaKernel cuda_max_pool2d_grad(CudaNode& node) {
  return spread_windows(node, true, false);
}
CudaKernel cuda_avg_pool2d(CudaNode& node) {
  return pool_windows(node, false, true);
}
CudaKernel cuda_avg_pool2d_grad(CudaNode& node) {
  return spread_windows(node, false, true);
}
CudaKernel cuda_upsample2d(CudaNode& node) {
  return spread_windows(node, false, false);
}
CudaKernel cuda_upsample2d_grad(CudaNode& node) {
  return pool_windows(node, false, false);
}

// Places in a plane are 32-bit.
#define CUVAE_CUDA_POOL(name)                                                          \
  bool cuda_supports_##name(const CudaNode& node) {                                    \
    const Pool2d s = pool_of(node.graph, node.node);                                   \
    return s.h.in < (1 << 30) && s.w.in < (1 << 30) &&                                 \
           s.h.in * s.w.in < (std::int64_t{1} << 31) && s.h.kernel < (1 << 30) &&      \
           s.w.kernel < (1 << 30) && s.h.stride < (1 << 30) && s.w.stride < (1 << 30); \
  }
CUVAE_CUDA_POOL(max_pool2d)
CUVAE_CUDA_POOL(max_pool2d_grad)
CUVAE_CUDA_POOL(avg_pool2d)
CUVAE_CUDA_POOL(avg_pool2d_grad)
CUVAE_CUDA_POOL(upsample2d)
CUVAE_CUDA_POOL(upsample2d_grad)

}  // namespace CUVAE_KERNELS
