// The gradient that a dense layer passes on, times the derivative of the activation before it.

#include "ops/activation.h"
#include "ops/linear.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(3);
  const Shape dx = expect_dgrad(c);
  c.expect(2, DType::f32);
  c.shape(2, dx, "[B, in]");
  activation_of(c.attrs());
  return {{"", DType::f32, dx}};
}

std::vector<Value> compose(Graph& graph, const Node& node, std::span<const Value> in) {
  const Value dy = graph.apply("linear_dgrad", node.name + "/dgrad", {in[0], in[1]});
  return {graph.apply("activation_grad", node.name + "/activation_grad", {dy, in[2]},
                      select(node.attrs, {"kind", "alpha"}))};
}

}  // namespace

constinit const OpDef op_linear_dgrad_activation = {.op = Op::linear_dgrad_activation,
                                                    .name = "linear_dgrad_activation",
                                                    .doc = "dx = (dy w) f'(saved)",
                                                    .infer = infer,
                                                    .cost = dgrad_cost,
                                                    .compose = compose};

}  // namespace cuvae
