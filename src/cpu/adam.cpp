#include <algorithm>

#include "cpu/adam_step.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_adam(CpuNode& node) {
  const AdamAttrs adam = adam_of(node.attrs());
  const std::int64_t n = node.out(0).elements();
  const bool shadow = node.has(7);
  return [=](const CpuArgs<T>& args) {
    if (!commits(args, 6)) return;
    const AdamStep<T> step = adam_step(args, adam, 4, 5);
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.adam(end - i, step, args.in(3) + i, args.out(0) + i, args.out(1) + i,
                      args.out(2) + i);
      if (shadow) std::copy(args.out(0) + i, args.out(0) + end, args.out(3) + i);
    });
  };
}

CUVAE_CPU_ALWAYS(adam)
CUVAE_CPU_OP(adam);

}  // namespace cuvae
