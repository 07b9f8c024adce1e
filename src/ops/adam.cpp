// Adam (Kingma and Ba 2015) as torch.optim.Adam computes it.

#include "ops/adam.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

AdamAttrs adam_of(const Attrs& attrs) {
  AdamAttrs adam;
  adam.beta1 = attrs.real("beta1", adam.beta1);
  adam.beta2 = attrs.real("beta2", adam.beta2);
  adam.eps = attrs.real("eps", adam.eps);
  adam.weight_decay = attrs.real("weight_decay", adam.weight_decay);
  for (const double beta : {adam.beta1, adam.beta2})
    if (!(beta >= 0 && beta < 1))
      throw Error(Status::usage, fmt::format("a beta of Adam is {}", beta), {},
                  "betas lie in [0, 1)");
  if (!(adam.eps >= 0 && adam.eps < 1e30) || !(adam.weight_decay >= 0 && adam.weight_decay < 1e30))
    throw Error(Status::usage,
                fmt::format("Adam's eps = {} or weight_decay = {}", adam.eps, adam.weight_decay),
                {}, "neither may be negative or not finite");
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
    .hyper_input = 4};

}  // namespace cuvae
