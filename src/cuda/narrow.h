#pragma once
// bf16 in memory: which values of a step are stored as bf16 where the precision is bf16 and a
// library makes the large products. Such a product rounds its operands to bf16 in any case; stored
// so, they take half the memory and half the traffic.

#include <functional>
#include <vector>

#include "graph/op.h"

namespace cuvae::cuda {

struct Narrowed {
  // A weight's copy of bf16: a state of that graph, which Adam writes with the weight.
  struct Shadow {
    Value shadow;
    Value weight;
  };
  Graph graph;
  std::vector<DType> stored;  // by value id
  std::vector<Shadow> shadows;
};

// `library`: whether a node is a product that a library makes. Stored as bf16 are the transient
// values that only such products and the elementwise nodes around them read (activations,
// activation_grad, nll_with_grad, sample_kl_grad), and copies ("<value>.bf16") of other operands.
// Copies of weights are shadows, which whoever runs the graph must make before a run wherever
// anything else has written to the weight; where an update other than `adam` writes to it, and of
// the data and z, they are made anew in each step, by a scale node by 1. Losses, statistics,
// logits, weights, moments, weight gradients and what the host reads stay f32.
[[nodiscard]] Narrowed narrow(const Graph& graph, const std::function<bool(const Node&)>& library);

}  // namespace cuvae::cuda
