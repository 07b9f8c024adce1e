#include "graph/order.h"

#include <fmt/format.h>

#include <algorithm>

#include "cuvae/error.h"
#include "graph/op.h"

namespace cuvae {

namespace {

bool reaches(const Dependencies& deps, std::int32_t from, std::int32_t to) {
  std::vector<bool> seen(deps.successors.size(), false);
  std::vector<std::int32_t> stack{from};
  while (!stack.empty()) {
    const std::int32_t node = stack.back();
    stack.pop_back();
    for (const std::int32_t next : deps.successors[node]) {
      if (next == to) return true;
      if (!seen[next]) {
        seen[next] = true;
        stack.push_back(next);
      }
    }
  }
  return false;
}

}  // namespace

Dependencies dependencies(const Graph& graph) {
  const auto nodes = graph.nodes();
  const auto values = graph.values();
  Dependencies deps;
  deps.readers.resize(values.size());
  deps.updater.assign(values.size(), -1);
  deps.successors.resize(nodes.size());
  for (std::size_t n = 0; n < nodes.size(); ++n)
    for (const Value in : nodes[n].inputs) {
      if (!in) continue;
      auto& readers = deps.readers[in.id];
      const auto reader = static_cast<std::int32_t>(n);
      if (readers.empty() || readers.back() != reader) readers.push_back(reader);
    }
  for (std::size_t v = 0; v < values.size(); ++v) {
    const ValueInfo& info = values[v];
    if (info.version_of) deps.updater[info.version_of.id] = info.producer;
    if (info.producer < 0) continue;
    auto& next = deps.successors[info.producer];
    next.insert(next.end(), deps.readers[v].begin(), deps.readers[v].end());
  }
  bool definition_order = true;
  for (std::size_t v = 0; v < values.size(); ++v) {
    const std::int32_t update = deps.updater[v];
    if (update < 0) continue;
    for (const std::int32_t reader : deps.readers[v])
      if (reader != update) {
        deps.successors[reader].push_back(update);
        definition_order &= reader < update;
      }
  }
  for (auto& next : deps.successors) {
    std::sort(next.begin(), next.end());
    next.erase(std::unique(next.begin(), next.end()), next.end());
  }
  // Data flows in definition order; only a reader defined after an update can close a cycle.
  if (definition_order) return deps;
  for (std::size_t v = 0; v < values.size(); ++v) {
    const std::int32_t update = deps.updater[v];
    if (update < 0) continue;
    for (const std::int32_t reader : deps.readers[v])
      if (reader != update && reaches(deps, update, reader))
        throw Error(
            Status::usage,
            fmt::format("node `{}` reads `{}` as it was before node `{}` updates it, but depends "
                        "on that update",
                        nodes[reader].name, values[v].name, nodes[update].name),
            fmt::format("node `{}` ({})", nodes[reader].name, op_def(nodes[reader].op).name),
            "read the updated value, or update later");
  }
  return deps;
}

}  // namespace cuvae
