#include "cpu/kernel.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_gaussian_kl(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      args.out(0)[b] = args.loops.gaussian_kl(d, args.in(0) + b * d, args.in(1) + b * d);
    });
  };
}

template <class T>
CpuKernel<T> cpu_gaussian_kl_grad(CpuNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      const std::int64_t at = b * d;
      args.loops.gaussian_kl_grad(d, args.in(0)[b], args.in(1) + at, args.in(2) + at,
                                  args.out(0) + at, args.out(1) + at);
    });
  };
}

CUVAE_CPU_ALWAYS(gaussian_kl)
CUVAE_CPU_ALWAYS(gaussian_kl_grad)
CUVAE_CPU_OP(gaussian_kl);
CUVAE_CPU_OP(gaussian_kl_grad);

}  // namespace cuvae
