// Elementwise arithmetic, constants and detach.

#include <fmt/format.h>

#include <cmath>

#include "ops/rules.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> binary_infer(const InferContext& c) {
  c.inputs(2);
  same_shape(c, 0, 1);
  return {{"", DType::f32, c.shape(0)}};
}

void add_gradient(GradientContext& g) {
  g.set(0, g.grad_out(0));
  g.set(1, g.grad_out(0));
}

void mul_gradient(GradientContext& g) {
  if (g.needs(0)) g.set(0, g.graph.apply("mul", g.name("da"), {g.grad_out(0), g.in(1)}));
  if (g.needs(1)) g.set(1, g.graph.apply("mul", g.name("db"), {g.grad_out(0), g.in(0)}));
}

std::vector<OutputSpec> scale_infer(const InferContext& c) {
  c.inputs(1, 2);
  c.expect(0, DType::f32);
  static_cast<void>(c.attrs().real("factor", 1.0));
  expect_slot(c, 1);
  return {{"", DType::f32, c.shape(0)}};
}

void scale_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("scale", g.name("dx"), {g.grad_out(0), g.in(1)}, g.node.attrs));
}

std::vector<OutputSpec> fill_infer(const InferContext& c) {
  c.inputs(0, 1);
  if (!std::isfinite(c.attrs().real("value"))) c.fail("the value is not finite");
  expect_slot(c, 0);
  return {{"", DType::f32, shape_of(c.attrs())}};
}

std::vector<OutputSpec> detach_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  return {{"", DType::f32, c.shape(0)}};
}

// Of data: nothing flows back.
std::vector<OutputSpec> log_count_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  return {{"", DType::f32, c.shape(0)}};
}

constexpr int log_count_constants[] = {0};
constexpr Slots alias_0[] = {{0, 0}};
constexpr Slots alias_01[] = {{0, 0}, {0, 1}};
constexpr int detach_constants[] = {0};
constexpr int scale_constants[] = {1};
constexpr int fill_constants[] = {0};

}  // namespace

constinit const OpDef op_add = {.op = Op::add,
                                .name = "add",
                                .doc = "a + b",
                                .infer = binary_infer,
                                .gradient = add_gradient,
                                .cost = elementwise<1>,
                                .may_alias = alias_01};
constinit const OpDef op_mul = {.op = Op::mul,
                                .name = "mul",
                                .doc = "a * b",
                                .infer = binary_infer,
                                .gradient = mul_gradient,
                                .cost = elementwise<1>,
                                .may_alias = alias_01};
constinit const OpDef op_scale = {.op = Op::scale,
                                  .name = "scale",
                                  .doc = "x * factor * hyper[step, slot]",
                                  .infer = scale_infer,
                                  .gradient = scale_gradient,
                                  .cost = elementwise<1>,
                                  .may_alias = alias_0,
                                  .hyper_input = 1,
                                  .constant_inputs = scale_constants};
constinit const OpDef op_fill = {.op = Op::fill,
                                 .name = "fill",
                                 .doc = "value * hyper[step, slot]",
                                 .infer = fill_infer,
                                 .cost = elementwise<0>,
                                 .hyper_input = 0,
                                 .constant_inputs = fill_constants};
constinit const OpDef op_detach = {.op = Op::detach,
                                   .name = "detach",
                                   .doc = "x; no gradient flows through",
                                   .infer = detach_infer,
                                   .cost = elementwise<0>,
                                   .may_alias = alias_0,
                                   .constant_inputs = detach_constants};

constinit const OpDef op_log_count = {.op = Op::log_count,
                                      .name = "log_count",
                                      .doc = "log(max(x, 1)), of counts; no gradient",
                                      .infer = log_count_infer,
                                      .cost = elementwise<20>,
                                      .may_alias = alias_0,
                                      .constant_inputs = log_count_constants};

}  // namespace cuvae
