#pragma once
// What orders the nodes of a graph: data, and the rule that an in-place update comes after every
// other reader of the version that it overwrites.

#include <cstdint>
#include <vector>

#include "cuvae/graph.h"

namespace cuvae {

struct Dependencies {
  std::vector<std::vector<std::int32_t>> readers;     // by value: nodes, each once, in order
  std::vector<std::int32_t> updater;                  // by persistent value: its update, or -1
  std::vector<std::vector<std::int32_t>> successors;  // by node: sorted, each once
};

// Throws Error(usage) where a reader of a persistent value depends on that value's update; names
// both nodes.
Dependencies dependencies(const Graph& graph);

}  // namespace cuvae
