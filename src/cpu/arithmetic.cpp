#include <algorithm>
#include <cmath>

#include "cpu/kernel.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_add(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.add(end - i, args.in(0) + i, args.in(1) + i, args.out(0) + i);
    });
  };
}

template <class T>
CpuKernel<T> cpu_mul(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.mul(end - i, args.in(0) + i, args.in(1) + i, args.out(0) + i);
    });
  };
}

template <class T>
CpuKernel<T> cpu_scale(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  const T factor = static_cast<T>(node.attrs().real("factor", 1.0));
  const bool scheduled = node.has(1);
  const std::int64_t slot = scheduled ? node.attrs().integer("slot") : 0;
  return [=](const CpuArgs<T>& args) {
    const T total = scheduled ? factor * hyper_row(args, 1)[slot] : factor;
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.scale(end - i, total, args.in(0) + i, args.out(0) + i);
    });
  };
}

template <class T>
CpuKernel<T> cpu_fill(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  const T value = static_cast<T>(node.attrs().real("value"));
  const bool scheduled = node.has(0);
  const std::int64_t slot = scheduled ? node.attrs().integer("slot") : 0;
  return [=](const CpuArgs<T>& args) {
    const T total = scheduled ? value * hyper_row(args, 0)[slot] : value;
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.fill(end - i, total, args.out(0) + i);
    });
  };
}

template <class T>
CpuKernel<T> cpu_detach(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    if (args.in(0) == args.out(0)) return;
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      std::copy(args.in(0) + i, args.in(0) + end, args.out(0) + i);
    });
  };
}

template <class T>
CpuKernel<T> cpu_log_count(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      for (; i < end; ++i) args.out(0)[i] = std::log(std::max(args.in(0)[i], T(1)));
    });
  };
}

CUVAE_CPU_ALWAYS(add)
CUVAE_CPU_ALWAYS(mul)
CUVAE_CPU_ALWAYS(scale)
CUVAE_CPU_ALWAYS(fill)
CUVAE_CPU_ALWAYS(detach)
CUVAE_CPU_ALWAYS(log_count)
CUVAE_CPU_OP(add);
CUVAE_CPU_OP(mul);
CUVAE_CPU_OP(scale);
CUVAE_CPU_OP(fill);
CUVAE_CPU_OP(detach);
CUVAE_CPU_OP(log_count);

}  // namespace cuvae
