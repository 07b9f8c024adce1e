#pragma once
// What profiles of every backend end with.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "cuvae/device.h"
#include "graph/op.h"

namespace cuvae {

// The node's work and the median of its measured seconds, of which there is one at least.
[[nodiscard]] inline NodeTime node_time(const Graph& graph, const Node& node, int step,
                                        std::vector<double> seconds) {
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  const OpDef& def = op_def(node.op);
  const Cost cost = def.cost(graph, node);
  return {step, node.name, std::string(def.name), *middle, cost.flops, cost.bytes};
}

}  // namespace cuvae
