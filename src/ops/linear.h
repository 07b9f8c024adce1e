#pragma once
// Checks and costs that the dense layer shares with its fused forms.

#include <optional>

#include "ops/rules.h"

namespace cuvae {

// x [B, in], w [out, in], b [out] where `bias`: [B, out].
Shape expect_linear(const InferContext& c, bool bias);
// dy [B, out], w [out, in]: [B, in].
Shape expect_dgrad(const InferContext& c);
// dy [B, out], x [B, in]: [out, in].
Shape expect_wgrad(const InferContext& c);

// layer_pair's second activation, as an activation's attributes; nothing where it has none.
std::optional<Attrs> second_activation(const Attrs& attrs);
Cost linear_cost(const Graph& graph, const Node& node);
// Of dgrad and of wgrad: input 0 times the columns of input 1.
Cost dgrad_cost(const Graph& graph, const Node& node);

}  // namespace cuvae
