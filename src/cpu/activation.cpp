#include "ops/activation.h"

#include "cpu/kernel.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_activation(CpuNode& node) {
  const Activation f = activation_of(node.attrs());
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.activation(f, end - i, args.in(0) + i, args.out(0) + i);
    });
  };
}

template <class T>
CpuKernel<T> cpu_activation_grad(CpuNode& node) {
  const Activation f = activation_of(node.attrs());
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.activation_grad(f, end - i, args.in(0) + i, args.in(1) + i, args.out(0) + i);
    });
  };
}

CUVAE_CPU_ALWAYS(activation)
CUVAE_CPU_ALWAYS(activation_grad)
CUVAE_CPU_OP(activation);
CUVAE_CPU_OP(activation_grad);

}  // namespace cuvae
