#include "cpu/sample_kl.h"

#include <cstring>

namespace cuvae {

template <class T>
CpuKernel<T> cpu_sample_kl(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1] / 2;
  const bool keyed = node.has(2);
  const Draws draws(node, d);
  return [=](const CpuArgs<T>& args) {
    const auto* clock = args.template in<std::int64_t>(1);
    const auto* key = keyed ? args.template in<std::int64_t>(2) : nullptr;
    const Activation bound{ActivationKind::bound_logvar, 0};
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      const T* heads = args.in(0) + b * 2 * d;
      T* mean = args.out(0) + b * d;
      T* logvar = args.out(1) + b * d;
      T* eps = args.out(3) + b * d;
      if (d > 0) std::memcpy(mean, heads, static_cast<std::size_t>(d) * sizeof(T));
      args.loops.activation(bound, d, heads + d, logvar);
      draws(args, clock, key, b, b + 1, eps);
      args.loops.sample(d, mean, logvar, eps, args.out(2) + b * d);
      args.out(4)[b] = args.loops.gaussian_kl(d, mean, logvar);
    });
  };
}

template <class T>
CpuKernel<T> cpu_sample_kl_grad(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  node.scratch = d * static_cast<std::int64_t>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    args.team.parallel_for(divide_up(batch, 32), [&](std::int64_t chunk, int worker) {
      T* of_z = args.scratch(worker);  // [d]
      const std::int64_t end = batch - chunk * 32 < 32 ? batch : (chunk + 1) * 32;
      for (std::int64_t b = chunk * 32; b < end; ++b)
        heads_grad_row(args.loops, d, args.in(4)[b], args.in(0) + b * d, args.in(1) + b * d,
                       args.in(2) + b * d, args.in(3) + b * d, of_z, args.out(0) + b * 2 * d);
    });
  };
}

CUVAE_CPU_ALWAYS(sample_kl)
CUVAE_CPU_ALWAYS(sample_kl_grad)
CUVAE_CPU_OP(sample_kl);
CUVAE_CPU_OP(sample_kl_grad);

}  // namespace cuvae
