// A likelihood and its derivative in one pass over the logits: what is left of the decoder's last
// layer where its product is made elsewhere.

#include "ops/rules.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(3);
  c.rank(0, 2, "[B, D]");
  same_shape(c, 0, 1);
  c.expect(2, DType::f32);
  c.shape(2, Shape{c.shape(0)[0]}, "[B]");
  if (likelihood_of(c.attrs()) == Likelihood::gaussian) sigma_of(c.attrs());
  return {{"nll", DType::f32, Shape{c.shape(0)[0]}}, {"dlogits", DType::f32, c.shape(0)}};
}

std::vector<Value> compose(ComposeContext& c) {
  const std::string& likelihood = c.node.attrs.text("likelihood");
  const Attrs attrs = select(c.node.attrs, {"sigma"});
  const Value nll = c.graph.apply(likelihood + "_nll", c.name("nll"), {c.in(0), c.in(1)}, attrs);
  const Value dlogits = c.graph.apply(likelihood + "_nll_grad", c.name("dlogits"),
                                      {c.in(2), c.in(0), c.in(1)}, attrs);
  return {nll, dlogits};
}

constexpr Slots alias[] = {{1, 0}, {1, 1}};

}  // namespace

constinit const OpDef op_nll_with_grad = {
    .op = Op::nll_with_grad,
    .name = "nll_with_grad",
    .doc = "nll of the target under the logits, and dnll d(nll)/d(logits)",
    .infer = infer,
    .cost = per_input<30>,
    .compose = compose,
    .may_alias = alias};

}  // namespace cuvae
