// Dense layer and activation; the activation happens while the product's tile is in cache.

#include "ops/activation.h"
#include "ops/linear.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(2, 3);
  activation_of(c.attrs());
  const Shape y = expect_linear(c, c.has(2));
  if (!flag_of(c.attrs(), "save_input")) return {{"", DType::f32, y}};
  return {{"y", DType::f32, y}, {"pre", DType::f32, y}};
}

std::vector<Value> compose(ComposeContext& c) {
  std::vector<Value> inputs(c.inputs.begin(), c.inputs.end());
  const Value pre = c.graph.apply("linear", c.name("linear"), std::move(inputs));
  const Value y = c.graph.apply("activation", c.name("activation"), {pre},
                                select(c.node.attrs, {"kind", "alpha"}));
  if (!flag_of(c.node.attrs, "save_input")) return {y};
  return {y, pre};
}

}  // namespace

constinit const OpDef op_linear_activation = {
    .op = Op::linear_activation,
    .name = "linear_activation",
    .doc = "y = f(x w^T + b); with save_input also pre = x w^T + b",
    .infer = infer,
    .cost = linear_cost,
    .compose = compose};

}  // namespace cuvae
