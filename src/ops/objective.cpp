#include "ops/objective.h"

#include <fmt/format.h>

#include <cmath>

#include "cuvae/error.h"

namespace cuvae {

double level_of(const Attrs& attrs) {
  const double level = attrs.real("level");
  if (!std::isfinite(level))
    throw Error(Status::usage, fmt::format("level = {} is not finite", level));
  return level;
}

namespace {

std::vector<OutputSpec> kl_infer(const InferContext& c) {
  c.inputs(2);
  c.rank(0, 2, "[B, d]");
  same_shape(c, 0, 1);
  return {{"", DType::f32, c.shape(0)}};
}

void kl_gradient(GradientContext& g) {
  const auto grads =
      g.graph.add("gaussian_kl_elements_grad", g.name("grad"), {g.grad_out(0), g.in(0), g.in(1)});
  g.set(0, grads[0]);
  g.set(1, grads[1]);
}

std::vector<OutputSpec> kl_grad_infer(const InferContext& c) {
  c.inputs(3);
  c.rank(0, 2, "[B, d]");
  same_shape(c, 0, 2);
  return {{"dmean", DType::f32, c.shape(0)}, {"dlogvar", DType::f32, c.shape(0)}};
}

std::vector<OutputSpec> floor_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  level_of(c.attrs());
  return {{"", DType::f32, c.shape(0)}};
}

void floor_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("floor_grad", g.name("dx"), {g.grad_out(0), g.in(0)}, g.node.attrs));
}

std::vector<OutputSpec> floor_grad_infer(const InferContext& c) {
  c.inputs(2);
  same_shape(c, 0, 1);
  level_of(c.attrs());
  return {{"", DType::f32, c.shape(0)}};
}

// Any number of columns: what reads the schedule of a learning rate has two.
void expect_capacity(const InferContext& c, int x, int hyper) {
  for (int i = 0; i <= x; ++i) {
    c.expect(i, DType::f32);
    c.shape(i, Shape{}, "a scalar");
  }
  c.expect(hyper, DType::f32);
  c.rank(hyper, 2, "[steps, columns]");
  if (c.shape(hyper)[0] < 1)
    c.fail(fmt::format("hyper-parameters {} of no step", c.shape(hyper).str()),
           "give a row for each unrolled step");
  const std::int64_t slot = c.attrs().integer("slot");
  if (slot < 0 || slot >= c.shape(hyper)[1])
    c.fail(fmt::format("slot {} is not a column of the hyper-parameters {}", slot,
                       c.shape(hyper).str()));
}

std::vector<OutputSpec> gap_infer(const InferContext& c) {
  c.inputs(2);
  expect_capacity(c, 0, 1);
  return {{"", DType::f32, Shape{}}};
}

void gap_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("capacity_gap_grad", g.name("dx"), {g.grad_out(0), g.in(0), g.in(1)},
                         g.node.attrs));
}

std::vector<OutputSpec> gap_grad_infer(const InferContext& c) {
  c.inputs(3);
  expect_capacity(c, 1, 2);
  return {{"", DType::f32, Shape{}}};
}

constexpr Slots alias_0[] = {{0, 0}};
constexpr Slots alias_01[] = {{0, 0}, {0, 1}};
constexpr Slots kl_grad_alias[] = {{0, 1}, {1, 2}};
constexpr int gap_constants[] = {1};

}  // namespace

constinit const OpDef op_gaussian_kl_elements = {
    .op = Op::gaussian_kl_elements,
    .name = "gaussian_kl_elements",
    .doc = "kl[b, j] = (mean^2 + exp(logvar) - logvar - 1) / 2",
    .infer = kl_infer,
    .gradient = kl_gradient,
    .cost = elementwise<15>,
    .may_alias = alias_01};
constinit const OpDef op_gaussian_kl_elements_grad = {
    .op = Op::gaussian_kl_elements_grad,
    .name = "gaussian_kl_elements_grad",
    .doc = "dkl mean; dkl (exp(logvar) - 1) / 2, of dkl [B, d]",
    .infer = kl_grad_infer,
    .cost = elementwise<15>,
    .may_alias = kl_grad_alias};
constinit const OpDef op_floor = {.op = Op::floor,
                                  .name = "floor",
                                  .doc = "y = max(x, level)",
                                  .infer = floor_infer,
                                  .gradient = floor_gradient,
                                  .cost = elementwise<1>,
                                  .may_alias = alias_0};
constinit const OpDef op_floor_grad = {.op = Op::floor_grad,
                                       .name = "floor_grad",
                                       .doc = "dx = dy where x > level, else 0",
                                       .infer = floor_grad_infer,
                                       .cost = elementwise<1>,
                                       .may_alias = alias_01};
constinit const OpDef op_capacity_gap = {.op = Op::capacity_gap,
                                         .name = "capacity_gap",
                                         .doc = "y = |x - hyper[step, slot]|, of a scalar",
                                         .infer = gap_infer,
                                         .gradient = gap_gradient,
                                         .cost = elementwise<2>,
                                         .may_alias = alias_0,
                                         .hyper_input = 1,
                                         .constant_inputs = gap_constants};
constinit const OpDef op_capacity_gap_grad = {
    .op = Op::capacity_gap_grad,
    .name = "capacity_gap_grad",
    .doc = "dx = dy sign(x - hyper[step, slot]), 0 where they are equal",
    .infer = gap_grad_infer,
    .cost = elementwise<2>,
    .may_alias = alias_01,
    .hyper_input = 2};

}  // namespace cuvae
