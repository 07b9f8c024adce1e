// What these operators are made of, one after the other, with x beside them in scratch memory. In a
// training step the CPU gathers once instead, for all that read x (CpuDevice::make).

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/kernel.h"

namespace cuvae {
namespace {

template <class T>
CpuKernel<T> gather_first(CpuNode& node) {
  const auto parts = std::make_shared<Graph>();
  std::vector<Value> inputs;
  for (const Value value : node.node.inputs) {
    inputs.emplace_back();
    if (!value) continue;
    const ValueInfo& info = node.graph[value];
    const Value root = node.graph.root(value);
    const std::string name = "in" + std::to_string(inputs.size());
    const Storage storage = root ? node.graph[root].storage : Storage::input;
    if (storage == Storage::parameter)
      inputs.back() = parts->parameter(name, info.shape);
    else if (storage == Storage::state)
      inputs.back() = parts->state(name, info.dtype, info.shape);
    else
      inputs.back() = parts->input(name, info.dtype, info.shape);
  }
  ComposeContext context(*parts, node.graph, node.node, inputs);
  op_def(node.node.op).compose(context);
  CpuNode first{*parts, parts->nodes()[0]};
  CpuNode second{*parts, parts->nodes()[1]};
  const CpuKernel<T> gather = cpu_kernel<T>(first);
  const CpuKernel<T> rest = cpu_kernel<T>(second);
  const Value x = first.node.outputs[0];
  const std::int64_t x_bytes =
      divide_up((*parts)[x].shape.elements() * static_cast<std::int64_t>(sizeof(T)), 64) * 64;
  const auto x_place = std::find(second.node.inputs.begin(), second.node.inputs.end(), x) -
                       second.node.inputs.begin();
  node.scratch = std::max(first.scratch, second.scratch);
  node.shared = x_bytes + std::max(first.shared, second.shared);
  const std::size_t count = node.node.inputs.size();
  return [=](const CpuArgs<T>& args) {
    CpuArgs<T> part = args;
    part.shared_base = args.shared_base + x_bytes;
    void* made = args.shared_base;
    part.outputs = &made;
    gather(part);  // its inputs are the first two
    std::vector<void*> operands(args.inputs + 2, args.inputs + count);
    operands.insert(operands.begin() + x_place, made);
    part.inputs = operands.data();
    part.outputs = args.outputs;
    rest(part);
  };
}

}  // namespace

#define CUVAE_CPU_GATHER(name)             \
  template <class T>                       \
  CpuKernel<T> cpu_##name(CpuNode& node) { \
    return gather_first<T>(node);          \
  }                                        \
  CUVAE_CPU_PRODUCT(name)                  \
  CUVAE_CPU_OP(name)

CUVAE_CPU_GATHER(linear_gather_activation);
CUVAE_CPU_GATHER(linear_gather_nll);
CUVAE_CPU_GATHER(linear_gather_wgrad_adam);

}  // namespace cuvae
