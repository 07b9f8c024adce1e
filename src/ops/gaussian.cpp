// Gaussian likelihood with a fixed standard deviation.

#include <fmt/format.h>

#include "ops/rules.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> nll_infer(const InferContext& c) {
  c.inputs(2);
  c.rank(0, 2, "[B, D]");
  same_shape(c, 0, 1);
  sigma_of(c.attrs());
  return {{"", DType::f32, Shape{c.shape(0)[0]}}};
}

void nll_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("gaussian_nll_grad", g.name("dmean"), {g.grad_out(0), g.in(0), g.in(1)},
                         select(g.node.attrs, {"sigma"})));
}

std::vector<OutputSpec> nll_grad_infer(const InferContext& c) {
  c.inputs(3);
  c.rank(1, 2, "[B, D]");
  same_shape(c, 1, 2);
  c.expect(0, DType::f32);
  c.shape(0, Shape{c.shape(1)[0]}, "[B]");
  sigma_of(c.attrs());
  return {{"", DType::f32, c.shape(1)}};
}

constexpr Slots grad_alias[] = {{0, 1}, {0, 2}};
constexpr int targets[] = {1};

}  // namespace

constinit const OpDef op_gaussian_nll = {
    .op = Op::gaussian_nll,
    .name = "gaussian_nll",
    .doc = "nll[b] = sum_j ((x - m) / sigma)^2 / 2 + log sigma + log(2 pi) / 2",
    .infer = nll_infer,
    .gradient = nll_gradient,
    .cost = per_input<4>,
    .constant_inputs = targets};
constinit const OpDef op_gaussian_nll_grad = {.op = Op::gaussian_nll_grad,
                                              .name = "gaussian_nll_grad",
                                              .doc = "dmean = dnll (m - x) / sigma^2",
                                              .infer = nll_grad_infer,
                                              .cost = elementwise<4>,
                                              .may_alias = grad_alias};

}  // namespace cuvae
