#include "cpu/draws.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_sample(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const bool keyed = node.has(3);
  const Draws draws(node, d);
  const std::int64_t block = d >= 1024 ? 1 : 1024 / (d > 0 ? d : 1);  // rows of a chunk
  return [=](const CpuArgs<T>& args) {
    const auto* key = keyed ? args.template in<std::int64_t>(3) : nullptr;
    args.team.parallel_for(divide_up(batch, block), [&](std::int64_t chunk, int) {
      const std::int64_t b0 = chunk * block;
      const std::int64_t b1 = batch - b0 < block ? batch : b0 + block;
      T* eps = args.out(1) + b0 * d;
      draws(args, args.template in<std::int64_t>(2), key, b0, b1, eps);
      args.loops.sample((b1 - b0) * d, args.in(0) + b0 * d, args.in(1) + b0 * d, eps,
                        args.out(0) + b0 * d);
    });
  };
}

template <class T>
CpuKernel<T> cpu_sample_grad(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.sample_grad(end - i, args.in(0) + i, args.in(1) + i, args.in(2) + i,
                             args.out(0) + i);
    });
  };
}

CUVAE_CPU_ALWAYS(sample)
CUVAE_CPU_ALWAYS(sample_grad)
CUVAE_CPU_OP(sample);
CUVAE_CPU_OP(sample_grad);

}  // namespace cuvae
