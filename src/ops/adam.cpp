// Adam (Kingma and Ba 2015) as torch.optim.Adam computes it.

#include "ops/adam.h"

#include <fmt/format.h>

#include <cmath>

#include "cuvae/error.h"

namespace cuvae {

AdamAttrs adam_of(const Attrs& attrs) {
  AdamAttrs adam;
  adam.beta1 = attrs.real("beta1", adam.beta1);
  adam.beta2 = attrs.real("beta2", adam.beta2);
  adam.eps = attrs.real("eps", adam.eps);
  adam.weight_decay = attrs.real("weight_decay", adam.weight_decay);
  adam.decoupled = flag_of(attrs, "decoupled");
  adam.eps_hat = flag_of(attrs, "eps_hat");
  adam.v0 = attrs.real("v0", adam.v0);
  for (const double beta : {adam.beta1, adam.beta2})
    if (!(beta >= 0 && beta < 1))
      throw Error(Status::usage, fmt::format("a beta of Adam is {}", beta), {},
                  "betas lie in [0, 1)");
  if (!(adam.eps >= 0 && adam.eps < 1e30) || !(adam.weight_decay >= 0 && adam.weight_decay < 1e30))
    throw Error(Status::usage,
                fmt::format("Adam's eps = {} or weight_decay = {}", adam.eps, adam.weight_decay),
                {}, "neither may be negative or not finite");
  if (!(adam.v0 >= 0 && adam.v0 < 1e30))
    throw Error(Status::usage, fmt::format("Adam's second moment starts from {}", adam.v0), {},
                "v0 may not be negative or not finite");
  return adam;
}

namespace {

std::vector<OutputSpec> adam_infer(const InferContext& c) {
  c.inputs(7, 8);
  same_shape(c, 0, 3);
  expect_hyper(c, 4);
  expect_clock(c, 5);
  expect_commit(c, 6);
  adam_of(c.attrs());
  std::vector<OutputSpec> outputs = {
      {"w", DType::f32, c.shape(0)}, {"m", DType::f32, c.shape(0)}, {"v", DType::f32, c.shape(0)}};
  if (c.has(7)) {
    c.expect(7, DType::f32);
    c.shape(7, c.shape(0), "as w");
    outputs.push_back({"shadow", DType::f32, c.shape(0)});
  }
  return outputs;
}

std::vector<StateSpec> adam_states(const Attrs& attrs) {
  return {{"m", 0}, {"v", adam_of(attrs).v0}};
}

void adam_meaning(const Attrs& attrs, double lr, double t, double g, double& w, double* states) {
  const AdamAttrs adam = adam_of(attrs);
  const double gradient = g + adam.coupled() * w;
  double& m = states[0];
  double& v = states[1];
  m = adam.beta1 * m + (1 - adam.beta1) * gradient;
  v = adam.beta2 * v + (1 - adam.beta2) * gradient * gradient;
  const double correction = std::sqrt(1 - std::pow(adam.beta2, t));
  const double eps = adam.eps_hat ? adam.eps / correction : adam.eps;
  if (adam.decoupled) w *= 1 - lr * adam.weight_decay;
  w -= lr / (1 - std::pow(adam.beta1, t)) * m / (std::sqrt(v) / correction + eps);
}

constexpr Slots adam_updates[] = {{0, 0}, {1, 1}, {2, 2}, {3, 7}};
constexpr Slots adam_alias[] = {{0, 3}, {1, 3}, {2, 3}};  // elementwise: the gradient may be w

}  // namespace

constinit const OpDef op_adam = {
    .op = Op::adam,
    .name = "adam",
    .doc = "one step of Adam on w, m and v in place; shadow, where there is one: the new w",
    .infer = adam_infer,
    .cost = elementwise<14>,
    .updates = adam_updates,
    .may_alias = adam_alias,
    .hyper_input = 4,
    .states = adam_states,
    .update = adam_meaning};

}  // namespace cuvae
