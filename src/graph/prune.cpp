#include "graph/rewrite.h"

namespace cuvae {

Rewritten prune(const Graph& graph) {
  std::vector<bool> wanted(graph.nodes().size(), false);
  for (const Value value : graph.outputs())
    if (graph[value].producer >= 0) wanted[graph[value].producer] = true;
  for (const ValueInfo& info : graph.values())
    if (info.version_of) wanted[info.producer] = true;
  for (std::size_t n = wanted.size(); n-- > 0;) {
    if (!wanted[n]) continue;
    for (const Value in : graph.nodes()[n].inputs)
      if (in && graph[in].producer >= 0) wanted[graph[in].producer] = true;
  }
  Rewriter rewriter(graph);
  for (std::size_t n = 0; n < wanted.size(); ++n)
    if (wanted[n]) rewriter.copy(graph.nodes()[n]);
  return rewriter.finish();
}

}  // namespace cuvae
