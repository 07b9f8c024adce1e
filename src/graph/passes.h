#pragma once
// Graph-to-graph transformations. Each returns a new graph and what became of every old value.

#include <functional>
#include <vector>

#include "cuvae/graph.h"

namespace cuvae {

struct Rewritten {
  Graph graph;
  std::vector<Value> map;  // by old value id; no value: it no longer exists (fused away)
};

struct FuseOptions {
  bool constants = true;  // what is made of fill nodes alone becomes one
  bool linear_activation = true;
  bool linear_sample_kl = true;
  bool linear_bottleneck = true;  // linear_sample_kl and linear_activation, where both fuse
  bool linear_nll = true;
  bool linear_dgrad_activation = true;
  bool linear_dgrad_sample_kl = true;
  bool linear_dgrad_bottleneck = true;  // linear_dgrad_sample_kl and linear_dgrad_activation
  bool linear_wgrad_adam = true;
  bool elbo = true;
  bool layer_pair = true;  // of at most 4 rows
};

// Rewrites patterns into fused operators. Names of surviving values are kept. Legality, for every
// pattern, is one predicate: no value inside the pattern is a graph output or read outside it
// unless the fused operator also returns it, no input of the fused node is made inside the pattern
// or depends on one of its outputs, and what the fused node updates it reads as the value to update
// only. dW + update fuses only where the gradient has no other reader.
Rewritten fuse(const Graph& graph, const FuseOptions& options = {});

// Lets what reads a gathered batch read the window's rows through their indices itself (the
// operators linear_gather_*), node by node where `supports` takes the new one. Where nothing is
// left that reads the batch as a matrix, prune() drops the gather. After lower(), so that only
// nodes that stay as they are can change.
Rewritten fuse_gather(const Graph& graph,
                      const std::function<bool(const Graph&, const Node&)>& supports);

// Replaces the fused nodes that a backend does not support by their composed definitions, and what
// these hold in its turn. Nodes of a definition are called "<node>/<part>", made unique.
Rewritten lower(const Graph& graph, const std::function<bool(const Graph&, const Node&)>& supports);

// Drops nodes that no output and no update depends on.
Rewritten prune(const Graph& graph);

}  // namespace cuvae
