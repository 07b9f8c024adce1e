// The decoder's last layer with the likelihood and its derivative: the logits never reach memory.

#include "ops/linear.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(5);
  const Shape y = expect_linear(c, true);
  c.expect(3, DType::f32);
  c.shape(3, y, "[B, D]");
  c.expect(4, DType::f32);
  c.shape(4, Shape{y[0]}, "[B]");
  if (likelihood_of(c.attrs()) == Likelihood::gaussian) sigma_of(c.attrs());
  return {{"nll", DType::f32, Shape{y[0]}}, {"dlogits", DType::f32, y}};
}

std::vector<Value> compose(ComposeContext& c) {
  const Value y = c.graph.apply("linear", c.name("linear"), {c.in(0), c.in(1), c.in(2)});
  return c.graph.add("nll_with_grad", c.name("nll"), {y, c.in(3), c.in(4)},
                     select(c.node.attrs, {"likelihood", "sigma"}));
}

}  // namespace

constinit const OpDef op_linear_nll = {
    .op = Op::linear_nll,
    .name = "linear_nll",
    .doc = "nll of the target under x w^T + b, and dnll d(nll)/d(x w^T + b)",
    .infer = infer,
    .cost = linear_cost,
    .compose = compose};

}  // namespace cuvae
