#include "ops/objective.h"

#include <algorithm>

#include "cpu/kernel.h"

namespace cuvae {
namespace {

constexpr std::int64_t block = 256;  // elements whose exponentials stand on the stack

// The column `slot` of this unrolled step.
template <class T>
T capacity(const CpuArgs<T>& args, int hyper, std::int64_t columns, std::int64_t slot) {
  return args.in(hyper)[args.step * columns + slot];
}

}  // namespace

template <class T>
CpuKernel<T> cpu_gaussian_kl_elements(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t begin, std::int64_t end) {
      T grown[block];
      const T *mean = args.in(0), *logvar = args.in(1);
      for (; begin < end; begin += block) {
        const std::int64_t some = std::min(block, end - begin);
        args.loops.math(MathFunction::expm1, some, logvar + begin, grown);
        for (std::int64_t k = 0; k < some; ++k) {
          const T m = mean[begin + k], v = logvar[begin + k];
          args.out(0)[begin + k] = T(0.5) * (m * m + (grown[k] - v));
        }
      }
    });
  };
}

template <class T>
CpuKernel<T> cpu_gaussian_kl_elements_grad(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t begin, std::int64_t end) {
      T grown[block];
      const T *dkl = args.in(0), *mean = args.in(1);
      for (; begin < end; begin += block) {
        const std::int64_t some = std::min(block, end - begin);
        args.loops.math(MathFunction::expm1, some, args.in(2) + begin, grown);
        for (std::int64_t k = 0; k < some; ++k) {
          const T d = dkl[begin + k], m = mean[begin + k];
          args.out(0)[begin + k] = d * m;
          args.out(1)[begin + k] = d * (T(0.5) * grown[k]);
        }
      }
    });
  };
}

template <class T>
CpuKernel<T> cpu_floor(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  const T level = static_cast<T>(level_of(node.attrs()));
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T x = args.in(0)[i];
        args.out(0)[i] = x < level ? level : x;  // NaN stays
      }
    });
  };
}

template <class T>
CpuKernel<T> cpu_floor_grad(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  const T level = static_cast<T>(level_of(node.attrs()));
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        args.out(0)[i] = args.in(1)[i] <= level ? T{} : args.in(0)[i];
    });
  };
}

template <class T>
CpuKernel<T> cpu_capacity_gap(CpuNode& node) {
  const std::int64_t columns = node.in(1)[1], slot = node.attrs().integer("slot");
  return [=](const CpuArgs<T>& args) {
    const T gap = *args.in(0) - capacity(args, 1, columns, slot);
    *args.out(0) = gap < 0 ? -gap : gap;
  };
}

template <class T>
CpuKernel<T> cpu_capacity_gap_grad(CpuNode& node) {
  const std::int64_t columns = node.in(2)[1], slot = node.attrs().integer("slot");
  return [=](const CpuArgs<T>& args) {
    const T dy = *args.in(0), x = *args.in(1), target = capacity(args, 2, columns, slot);
    *args.out(0) = x < target ? -dy : x == target ? T{} : dy;
  };
}

CUVAE_CPU_ALWAYS(gaussian_kl_elements)
CUVAE_CPU_ALWAYS(gaussian_kl_elements_grad)
CUVAE_CPU_ALWAYS(floor)
CUVAE_CPU_ALWAYS(floor_grad)
CUVAE_CPU_ALWAYS(capacity_gap)
CUVAE_CPU_ALWAYS(capacity_gap_grad)
CUVAE_CPU_OP(gaussian_kl_elements);
CUVAE_CPU_OP(gaussian_kl_elements_grad);
CUVAE_CPU_OP(floor);
CUVAE_CPU_OP(floor_grad);
CUVAE_CPU_OP(capacity_gap);
CUVAE_CPU_OP(capacity_gap_grad);

}  // namespace cuvae
