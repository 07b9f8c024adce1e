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

std::vector<Value> compose(Graph& graph, const Node& node, std::span<const Value> in) {
  const std::string& likelihood = node.attrs.text("likelihood");
  const Attrs attrs = select(node.attrs, {"sigma"});
  const Value y = graph.apply("linear", node.name + "/linear", {in[0], in[1], in[2]});
  const Value nll = graph.apply(likelihood + "_nll", node.name + "/nll", {y, in[3]}, attrs);
  const Value dlogits =
      graph.apply(likelihood + "_nll_grad", node.name + "/dlogits", {in[4], y, in[3]}, attrs);
  return {nll, dlogits};
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
