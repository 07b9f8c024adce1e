#pragma once
// The derivative of relu within the products of a library: a layer leaves a bit for each element
// that it passes, and the product that goes back through it reads the bits in its epilogue.

#include <functional>

#include "graph/op.h"

namespace cuvae::cuda {

// What a library offers, for nodes whose plain products it makes.
struct MaskOffers {
  // A layer, linear_activation with relu: its product that writes the mask as well.
  std::function<bool(const Node& layer)> writes;
  // A linear_dgrad: its product that reads one.
  std::function<bool(const Node& dgrad)> reads;
  // The same with the bias gradient, which the layer's linear_wgrad then need not make.
  std::function<bool(const Node& dgrad, const Node& wgrad)> reads_and_sums;
};

// linear_dgrad and activation_grad become linear_dgrad_activation where what was saved is the
// output of a layer that can leave a mask, both as offered; with the bias gradient as its second
// output where that is offered. All other nodes stay, so that of a graph that holds no
// linear_dgrad_activation each in the result reads a mask.
[[nodiscard]] Graph with_masks(const Graph& graph, const MaskOffers& offers);

}  // namespace cuvae::cuda
