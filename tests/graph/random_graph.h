#pragma once
// Seeded random graphs over the dense, elementwise, shape and update operators.

#include "cuvae/graph.h"
#include "graph/interpreter.h"

namespace cuvae::testing {

struct RandomGraph {
  Graph graph;
  Memory memory;  // contents for its persistent values; `hyper` has rows for 8 steps
};

// Sizes include 0 and 1; some graphs have gradients and updates, readers of old and new versions of
// what is updated, values that nobody reads, outputs at random.
RandomGraph random_graph(std::uint64_t seed);

// Small contents for every persistent value of a graph; clock and hyper make sense.
Memory random_memory(const Graph& graph, std::uint64_t seed);

}  // namespace cuvae::testing
