#include "ops/pool.h"

#include <algorithm>

#include "cpu/kernel.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

struct Range {
  Int begin, end;
};
// The rows or columns that a window covers.
Range window(const PoolAxis& axis, Int out) {
  const Int begin = out * axis.stride - axis.before;
  return {std::max<Int>(begin, 0), std::min(axis.in, begin + axis.kernel)};
}

// f(plane, worker's place in x, its place in y) for all planes.
template <class T, class F>
CpuKernel<T> by_planes(const Pool2d& s, F f) {
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, s.planes, s.h.in * s.w.in, [&](Int plane) { f(args, plane); });
  };
}

// y = scale * the sum of each window of x.
template <class T>
CpuKernel<T> sum_windows(const Pool2d& s, T scale) {
  return by_planes<T>(s, [=](const CpuArgs<T>& args, Int plane) {
    const T* x = args.in(0) + plane * s.h.in * s.w.in;
    T* y = args.out(0) + plane * s.h.out * s.w.out;
    for (Int h = 0; h < s.h.out; ++h)
      for (Int w = 0; w < s.w.out; ++w) {
        const Range rows = window(s.h, h), columns = window(s.w, w);
        T sum{};
        for (Int i = rows.begin; i < rows.end; ++i)
          for (Int j = columns.begin; j < columns.end; ++j) sum += x[i * s.w.in + j];
        *y++ = sum * scale;
      }
  });
}

// dx = scale * the sum of dy over the windows that cover each element.
template <class T>
CpuKernel<T> spread_windows(const Pool2d& s, T scale) {
  return by_planes<T>(s, [=](const CpuArgs<T>& args, Int plane) {
    const T* dy = args.in(0) + plane * s.h.out * s.w.out;
    T* dx = args.out(0) + plane * s.h.in * s.w.in;
    std::fill_n(dx, s.h.in * s.w.in, T{});
    for (Int h = 0; h < s.h.out; ++h)
      for (Int w = 0; w < s.w.out; ++w) {
        const T value = *dy++ * scale;
        const Range rows = window(s.h, h), columns = window(s.w, w);
        for (Int i = rows.begin; i < rows.end; ++i)
          for (Int j = columns.begin; j < columns.end; ++j) dx[i * s.w.in + j] += value;
      }
  });
}

// Where the largest of a window is: the first of equals; a NaN, as PyTorch has it, the last of
// them.
template <class T>
Int largest(const Pool2d& s, const T* x, Int h, Int w) {
  const Range rows = window(s.h, h), columns = window(s.w, w);
  Int best = rows.begin * s.w.in + columns.begin;
  for (Int i = rows.begin; i < rows.end; ++i)
    for (Int j = columns.begin; j < columns.end; ++j) {
      const Int at = i * s.w.in + j;
      if (x[at] > x[best] || x[at] != x[at]) best = at;
    }
  return best;
}

double mean_factor(const Pool2d& s) {
  return 1.0 / static_cast<double>(s.h.kernel * s.w.kernel);
}

}  // namespace

template <class T>
CpuKernel<T> cpu_max_pool2d(CpuNode& node) {
  const Pool2d s = pool_of(node.graph, node.node);
  return by_planes<T>(s, [=](const CpuArgs<T>& args, Int plane) {
    const T* x = args.in(0) + plane * s.h.in * s.w.in;
    T* y = args.out(0) + plane * s.h.out * s.w.out;
    for (Int h = 0; h < s.h.out; ++h)
      for (Int w = 0; w < s.w.out; ++w) *y++ = x[largest(s, x, h, w)];
  });
}

template <class T>
CpuKernel<T> cpu_max_pool2d_grad(CpuNode& node) {
  const Pool2d s = pool_of(node.graph, node.node);
  return by_planes<T>(s, [=](const CpuArgs<T>& args, Int plane) {
    const T* dy = args.in(0) + plane * s.h.out * s.w.out;
    const T* x = args.in(1) + plane * s.h.in * s.w.in;
    T* dx = args.out(0) + plane * s.h.in * s.w.in;
    std::fill_n(dx, s.h.in * s.w.in, T{});
    for (Int h = 0; h < s.h.out; ++h)
      for (Int w = 0; w < s.w.out; ++w) dx[largest(s, x, h, w)] += *dy++;
  });
}

template <class T>
CpuKernel<T> cpu_avg_pool2d(CpuNode& node) {
  const Pool2d s = pool_of(node.graph, node.node);
  return sum_windows<T>(s, static_cast<T>(mean_factor(s)));
}

template <class T>
CpuKernel<T> cpu_avg_pool2d_grad(CpuNode& node) {
  const Pool2d s = pool_of(node.graph, node.node);
  return spread_windows<T>(s, static_cast<T>(mean_factor(s)));
}

template <class T>
CpuKernel<T> cpu_upsample2d(CpuNode& node) {
  return spread_windows<T>(pool_of(node.graph, node.node), T{1});
}

template <class T>
CpuKernel<T> cpu_upsample2d_grad(CpuNode& node) {
  return sum_windows<T>(pool_of(node.graph, node.node), T{1});
}

template <class T>
CpuKernel<T> cpu_reshape(CpuNode& node) {
  const Int n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    if (args.in(0) == args.out(0)) return;
    for_elements(args.team, n, [&](Int i, Int end) {
      std::copy(args.in(0) + i, args.in(0) + end, args.out(0) + i);
    });
  };
}

CUVAE_CPU_ALWAYS(max_pool2d)
CUVAE_CPU_ALWAYS(max_pool2d_grad)
CUVAE_CPU_ALWAYS(avg_pool2d)
CUVAE_CPU_ALWAYS(avg_pool2d_grad)
CUVAE_CPU_ALWAYS(upsample2d)
CUVAE_CPU_ALWAYS(upsample2d_grad)
CUVAE_CPU_ALWAYS(reshape)
CUVAE_CPU_OP(max_pool2d);
CUVAE_CPU_OP(max_pool2d_grad);
CUVAE_CPU_OP(avg_pool2d);
CUVAE_CPU_OP(avg_pool2d_grad);
CUVAE_CPU_OP(upsample2d);
CUVAE_CPU_OP(upsample2d_grad);
CUVAE_CPU_OP(reshape);

}  // namespace cuvae
