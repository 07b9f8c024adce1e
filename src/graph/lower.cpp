#include "graph/rewrite.h"

namespace cuvae {

Rewritten lower(const Graph& graph,
                const std::function<bool(const Graph&, const Node&)>& supports) {
  Rewriter rewriter(graph);
  for (const Node& node : graph.nodes()) {
    if (op_def(node.op).compose && !supports(graph, node))
      rewriter.compose(node);
    else
      rewriter.copy(node);
  }
  return rewriter.finish();
}

}  // namespace cuvae
