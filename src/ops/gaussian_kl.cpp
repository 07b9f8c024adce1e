// KL(N(mean, exp(logvar)) || N(0, I)) of each row (Kingma and Welling 2014, appendix B).

#include <fmt/format.h>

#include "ops/rules.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> kl_infer(const InferContext& c) {
  c.inputs(2);
  c.rank(0, 2, "[B, d]");
  same_shape(c, 0, 1);
  return {{"", DType::f32, Shape{c.shape(0)[0]}}};
}

void kl_gradient(GradientContext& g) {
  const auto grads =
      g.graph.add("gaussian_kl_grad", g.name("grad"), {g.grad_out(0), g.in(0), g.in(1)});
  g.set(0, grads[0]);
  g.set(1, grads[1]);
}

std::vector<OutputSpec> kl_grad_infer(const InferContext& c) {
  c.inputs(3);
  c.rank(1, 2, "[B, d]");
  same_shape(c, 1, 2);
  c.expect(0, DType::f32);
  c.shape(0, Shape{c.shape(1)[0]}, "[B]");
  return {{"dmean", DType::f32, c.shape(1)}, {"dlogvar", DType::f32, c.shape(1)}};
}

constexpr Slots kl_grad_alias[] = {{0, 1}, {1, 2}};

}  // namespace

constinit const OpDef op_gaussian_kl = {
    .op = Op::gaussian_kl,
    .name = "gaussian_kl",
    .doc = "kl[b] = sum_j (mean^2 + exp(logvar) - logvar - 1) / 2",
    .infer = kl_infer,
    .gradient = kl_gradient,
    .cost = per_input<15>};
constinit const OpDef op_gaussian_kl_grad = {.op = Op::gaussian_kl_grad,
                                             .name = "gaussian_kl_grad",
                                             .doc = "dkl mean; dkl (exp(logvar) - 1) / 2",
                                             .infer = kl_grad_infer,
                                             .cost = elementwise<15>,
                                             .may_alias = kl_grad_alias};

}  // namespace cuvae
