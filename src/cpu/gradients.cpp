#include "ops/gradients.h"

#include <cmath>

#include "cpu/kernel.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_add_penalty(CpuNode& node) {
  const PenaltyAttrs penalty = penalty_of(node.attrs());
  const T l1 = static_cast<T>(penalty.l1), l2 = static_cast<T>(penalty.l2);
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      for (; i < end; ++i) {
        const T w = args.in(1)[i];
        const T slope = w > 0 ? l1 : w < 0 ? -l1 : T(0);
        args.out(0)[i] = args.in(0)[i] + l2 * w + slope;
      }
    });
  };
}

// Parts of all gradients, in order, then their sum.
template <class T>
CpuKernel<T> cpu_clip_norm(CpuNode& node) {
  using namespace clip_input;
  const double limit = clip_of(node.attrs()).limit;
  struct Part {
    int input;
    std::int64_t begin, end;
  };
  std::vector<Part> parts;
  for (std::size_t i = first; i < node.node.inputs.size(); ++i) {
    const std::int64_t n = node.in(i).elements();
    for (std::int64_t begin = 0; begin < n; begin += chunk_elements)
      parts.push_back({static_cast<int>(i), begin, std::min(n, begin + chunk_elements)});
  }
  const auto count = static_cast<std::int64_t>(parts.size());
  node.shared = count * static_cast<std::int64_t>(sizeof(double));
  return [=, parts = std::move(parts)](const CpuArgs<T>& args) {
    auto* sums = reinterpret_cast<double*>(args.shared_base);
    args.team.parallel_for(count, [&](std::int64_t i, int) {
      const Part& part = parts[static_cast<std::size_t>(i)];
      sums[i] = args.loops.sum_squares(part.end - part.begin, args.in(part.input) + part.begin);
    });
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += sums[i];
    const double norm = std::sqrt(sum);
    const Clipping clip = clipping(norm, limit);
    const bool wanted = args.template in<std::int64_t>(commit)[0] != 0;
    *args.out(0) = static_cast<T>(norm);
    *args.out(1) = static_cast<T>(clip.factor);
    *args.template out<std::int64_t>(2) = wanted && clip.finite ? 1 : 0;
    if (wanted && !clip.finite) ++*args.template out<std::int64_t>(3);
  };
}

template <class T>
CpuKernel<T> cpu_scale_by(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    const T factor = *args.in(1);
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      args.loops.scale(end - i, factor, args.in(0) + i, args.out(0) + i);
    });
  };
}

CUVAE_CPU_ALWAYS(add_penalty)
CUVAE_CPU_ALWAYS(clip_norm)
CUVAE_CPU_ALWAYS(scale_by)
CUVAE_CPU_OP(add_penalty);
CUVAE_CPU_OP(clip_norm);
CUVAE_CPU_OP(scale_by);

}  // namespace cuvae
