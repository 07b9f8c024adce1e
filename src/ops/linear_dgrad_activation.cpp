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
  if (!flag_of(c.attrs(), "bias")) return {{"", DType::f32, dx}};
  return {{"dx", DType::f32, dx}, {"db", DType::f32, Shape{dx[1]}}};
}

std::vector<Value> compose(ComposeContext& c) {
  const Value dy = c.graph.apply("linear_dgrad", c.name("dgrad"), {c.in(0), c.in(1)});
  const Value dx = c.graph.apply("activation_grad", c.name("activation_grad"), {dy, c.in(2)},
                                 select(c.node.attrs, {"kind", "alpha"}));
  if (!flag_of(c.node.attrs, "bias")) return {dx};
  return {dx, c.graph.apply("reduce", c.name("bias"), {dx},
                            {{"axis", std::string("rows")}, {"op", std::string("sum")}})};
}

}  // namespace

constinit const OpDef op_linear_dgrad_activation = {
    .op = Op::linear_dgrad_activation,
    .name = "linear_dgrad_activation",
    .doc = "dx = (dy w) f'(saved); with bias also db = column sums of dx",
    .infer = infer,
    .cost = dgrad_cost,
    .compose = compose};

}  // namespace cuvae
