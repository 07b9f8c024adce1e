#include "cpu/kernel.h"

#include <array>
#include <limits>

namespace cuvae {
namespace {

using Supports = bool (*)(const Graph&, const Node&);
constexpr std::array<Supports, static_cast<std::size_t>(Op::count)> supports_table = {
#define CUVAE_OP(name) cpu_supports_##name,
#include "ops/ops.def"
#undef CUVAE_OP
};

template <class T>
constexpr std::array<CpuKernel<T> (*)(CpuNode&), static_cast<std::size_t>(Op::count)> kernel_table =
    {
#define CUVAE_OP(name) cpu_##name<T>,
#include "ops/ops.def"
#undef CUVAE_OP
};

}  // namespace

bool cpu_supports(const Graph& graph, const Node& node) {
  return supports_table.at(static_cast<std::size_t>(node.op))(graph, node);
}

template <class T>
CpuKernel<T> cpu_kernel(CpuNode& node) {
  return kernel_table<T>.at(static_cast<std::size_t>(node.node.op))(node);
}
template CpuKernel<float> cpu_kernel(CpuNode&);
template CpuKernel<double> cpu_kernel(CpuNode&);

bool fits_blas(const Graph& graph, const Node& node) {
  for (const Value input : node.inputs)
    if (input)
      for (const std::int64_t dim : graph[input].shape.dims())
        if (dim > std::numeric_limits<int>::max()) return false;
  return true;
}

}  // namespace cuvae
