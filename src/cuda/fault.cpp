#include "cuda/fault.h"

#include <fmt/format.h>

#include "graph/op.h"

namespace cuvae::cuda {

Error fault_error(const Graph& graph, unsigned code) {
  const auto kind = static_cast<FaultKind>(code & 0xff);
  const auto& nodes = graph.nodes();
  const Node* node = code >> 8 < nodes.size() ? &nodes[code >> 8] : nullptr;
  const std::string where =
      node ? fmt::format("node `{}` ({})", node->name, op_def(node->op).name) : "program";
  if (node && kind == FaultKind::position)
    return {Status::failed,
            fmt::format("positions beyond the {} rows", node->attrs.integer("rows", 0)), where,
            "a run stays within one epoch"};
  if (node && kind == FaultKind::row)
    return {Status::failed,
            fmt::format("a row outside a window of {} rows", graph[node->inputs.at(0)].shape[0]),
            where, "the clock's base and the window must agree"};
  if (node && kind == FaultKind::key)
    return {Status::failed, "random numbers of an impossible index", where,
            "indices are not negative and fit 2^42 elements"};
  if (kind == FaultKind::stuck)
    return {Status::device, "blocks of a persistent kernel waited in vain for others", "persistent",
            "use --exec graph, and report it: this is a bug"};
  return {Status::failed, fmt::format("a kernel reports the unknown fault {:#x}", code), where,
          "this is a bug: please report it"};
}

}  // namespace cuvae::cuda
