// Bernoulli likelihood from logits.

#include <fmt/format.h>

#include "ops/rules.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> nll_infer(const InferContext& c) {
  c.inputs(2);
  c.rank(0, 2, "[B, D]");
  same_shape(c, 0, 1);
  return {{"", DType::f32, Shape{c.shape(0)[0]}}};
}

void nll_gradient(GradientContext& g) {
  g.set(0,
        g.graph.apply("bernoulli_nll_grad", g.name("dlogits"), {g.grad_out(0), g.in(0), g.in(1)}));
}

std::vector<OutputSpec> nll_grad_infer(const InferContext& c) {
  c.inputs(3);
  c.rank(1, 2, "[B, D]");
  same_shape(c, 1, 2);
  c.expect(0, DType::f32);
  c.shape(0, Shape{c.shape(1)[0]}, "[B]");
  return {{"", DType::f32, c.shape(1)}};
}

constexpr Slots grad_alias[] = {{0, 1}, {0, 2}};
constexpr int targets[] = {1};

}  // namespace

constinit const OpDef op_bernoulli_nll = {
    .op = Op::bernoulli_nll,
    .name = "bernoulli_nll",
    .doc = "nll[b] = sum_j max(l, 0) - l x + log1p(exp(-|l|))",
    .infer = nll_infer,
    .gradient = nll_gradient,
    .cost = per_input<30>,
    .constant_inputs = targets};
constinit const OpDef op_bernoulli_nll_grad = {.op = Op::bernoulli_nll_grad,
                                               .name = "bernoulli_nll_grad",
                                               .doc = "dlogits = dnll (sigmoid(l) - x)",
                                               .infer = nll_grad_infer,
                                               .cost = elementwise<30>,
                                               .may_alias = grad_alias};

}  // namespace cuvae
