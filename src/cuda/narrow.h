#pragma once
// bf16 in memory: which values of a step are stored as bf16 where the precision is bf16 and a
// library makes the large products. Such a product rounds its operands to bf16 in any case; stored
// so, they take half the memory and half the traffic.

#include <functional>
#include <vector>

#include "graph/op.h"

namespace cuvae::cuda {

struct Narrowed {
  Graph graph;
  std::vector<DType> stored;  // by value id
};

// `library`: whether a node is a product that a library makes. Stored as bf16 are the transient
// values that only such products and the elementwise nodes around them read (activations,
// activation_grad, nll_with_grad, sample_kl_grad), and copies ("<value>.bf16", a scale node by 1)
// of other operands: weights, the data, z. Losses, statistics, logits, weights, moments, weight
// gradients and what the host reads stay f32.
[[nodiscard]] Narrowed narrow(const Graph& graph, const std::function<bool(const Node&)>& library);

}  // namespace cuvae::cuda
