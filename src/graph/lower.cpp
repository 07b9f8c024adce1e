#include <fmt/format.h>

#include <algorithm>

#include "cuvae/error.h"
#include "graph/rewrite.h"

namespace cuvae {

namespace {

using Supports = std::function<bool(const Graph&, const Node&)>;
using DefinitionOf = std::function<Definition(Op)>;

bool to_be_lowered(const Graph& graph, const Node& node, const Supports& supports,
                   const DefinitionOf& definition_of) {
  return definition_of(node.op) != nullptr && !supports(graph, node);
}

Rewritten lower_once(const Graph& graph, const Supports& supports,
                     const DefinitionOf& definition_of) {
  Rewriter rewriter(graph);
  for (const Node& node : graph.nodes()) {
    if (to_be_lowered(graph, node, supports, definition_of))
      rewriter.compose(node, definition_of(node.op));
    else
      rewriter.copy(node);
  }
  return rewriter.finish();
}

}  // namespace

Rewritten lower(const Graph& graph, const Supports& supports, const DefinitionOf& definition_of) {
  Rewritten result = lower_once(graph, supports, definition_of);
  // A definition may hold fused operators in its turn, each level of them simpler ones.
  for (int level = 1;; ++level) {
    const auto nodes = result.graph.nodes();
    const auto left = std::find_if(nodes.begin(), nodes.end(), [&](const Node& node) {
      return to_be_lowered(result.graph, node, supports, definition_of);
    });
    if (left == nodes.end()) return result;
    if (level > static_cast<int>(Op::count))
      throw Error(Status::failed, "the definition leads back to itself",
                  fmt::format("node `{}` ({})", left->name, op_def(left->op).name));
    Rewritten next = lower_once(result.graph, supports, definition_of);
    for (Value& value : result.map)
      if (value) value = next.map[value.id];
    result.graph = std::move(next.graph);
  }
}

Rewritten lower(const Graph& graph, const Supports& supports) {
  return lower(graph, supports, [](Op op) { return op_def(op).compose; });
}

}  // namespace cuvae
