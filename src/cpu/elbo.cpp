#include "cpu/kernel.h"

namespace cuvae {

// In chunks, as reduce does it.
template <class T>
CpuKernel<T> cpu_elbo(CpuNode& node) {
  const std::int64_t n = node.in(0)[0];
  const T mean = static_cast<T>(1.0 / static_cast<double>(n));
  const T factor = static_cast<T>(node.attrs().real("factor", 1.0));
  const std::int64_t slot = node.attrs().integer("slot");
  const std::int64_t chunks = divide_up(n, chunk_elements);
  node.shared = 2 * chunks * static_cast<std::int64_t>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    T* parts = args.shared();  // [2, chunks]
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      parts[i / chunk_elements] = args.loops.sum(end - i, args.in(0) + i);
      parts[chunks + i / chunk_elements] = args.loops.sum(end - i, args.in(1) + i);
    });
    const T reconstruction = args.loops.sum(chunks, parts) * mean;
    const T kl = args.loops.sum(chunks, parts + chunks) * mean;
    *args.out(0) = reconstruction;
    *args.out(1) = kl;
    *args.out(2) = reconstruction + kl * (factor * hyper_row(args, 2)[slot]);
  };
}

CUVAE_CPU_ALWAYS(elbo)
CUVAE_CPU_OP(elbo);

}  // namespace cuvae
