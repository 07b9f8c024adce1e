#include <algorithm>
#include <vector>

#include "cpu/kernel.h"
#include "ops/rules.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_split(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t width = node.in(0)[1];
  const std::vector<std::int64_t> sizes = sizes_of(node.attrs());
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, width, [&](std::int64_t b) {
      const T* from = args.in(0) + b * width;
      for (std::size_t part = 0; part < sizes.size(); ++part) {
        std::copy_n(from, sizes[part], args.out(static_cast<int>(part)) + b * sizes[part]);
        from += sizes[part];
      }
    });
  };
}

template <class T>
CpuKernel<T> cpu_concat(CpuNode& node) {
  const std::int64_t batch = node.out(0)[0];
  const std::int64_t width = node.out(0)[1];
  std::vector<std::int64_t> sizes;
  for (std::size_t i = 0; i < node.node.inputs.size(); ++i) sizes.push_back(node.in(i)[1]);
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, width, [&](std::int64_t b) {
      T* to = args.out(0) + b * width;
      for (std::size_t part = 0; part < sizes.size(); ++part) {
        std::copy_n(args.in(static_cast<int>(part)) + b * sizes[part], sizes[part], to);
        to += sizes[part];
      }
    });
  };
}

CUVAE_CPU_ALWAYS(split)
CUVAE_CPU_ALWAYS(concat)
CUVAE_CPU_OP(split);
CUVAE_CPU_OP(concat);

}  // namespace cuvae
