#include "cpu/kernel.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_bernoulli_nll(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      args.out(0)[b] = args.loops.bernoulli_nll(d, args.in(0) + b * d, args.in(1) + b * d);
    });
  };
}

template <class T>
CpuKernel<T> cpu_bernoulli_nll_grad(CpuNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      args.loops.bernoulli_nll_grad(d, args.in(0)[b], args.in(1) + b * d, args.in(2) + b * d,
                                    args.out(0) + b * d);
    });
  };
}

CUVAE_CPU_ALWAYS(bernoulli_nll)
CUVAE_CPU_ALWAYS(bernoulli_nll_grad)
CUVAE_CPU_OP(bernoulli_nll);
CUVAE_CPU_OP(bernoulli_nll_grad);

}  // namespace cuvae
