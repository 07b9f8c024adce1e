// The reparameterised sample.

#include "ops/sample.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

std::vector<OutputSpec> expect_sample_kl(const InferContext& c, int clock, int key,
                                         const Shape& half) {
  expect_draw(c, clock, key, half);
  return {{"mean", DType::f32, half},
          {"logvar", DType::f32, half},
          {"z", DType::f32, half},
          {"eps", DType::f32, half},
          {"kl", DType::f32, Shape{half[0]}}};
}

Purpose purpose_of(const Attrs& attrs) {
  const std::int64_t purpose = attrs.integer("purpose");
  if (purpose < 0 || purpose > static_cast<std::int64_t>(Purpose::resampling))
    throw Error(Status::usage, fmt::format("there is no purpose {} of random numbers", purpose));
  return static_cast<Purpose>(purpose);
}

void expect_draw(const InferContext& c, int clock, int key, const Shape& draws) {
  expect_clock(c, clock);
  if (c.has(key)) {
    c.expect(key, DType::i64);
    c.shape(key, Shape{draws[0]}, "[B]");
  }
  purpose_of(c.attrs());
  if (c.attrs().integer("samples", 1) != 1)
    c.fail(fmt::format("samples = {}: one draw per row is supported",
                       c.attrs().integer("samples", 1)));
}

namespace {

std::vector<OutputSpec> sample_infer(const InferContext& c) {
  c.inputs(3, 4);
  c.rank(0, 2, "[B, d]");
  same_shape(c, 0, 1);
  expect_draw(c, 2, 3, c.shape(0));
  return {{"z", DType::f32, c.shape(0)}, {"eps", DType::f32, c.shape(0)}};
}

void sample_gradient(GradientContext& g) {
  const Value dz = g.grad_out(0);
  if (!dz) return;  // eps depends on no input
  g.set(0, dz);
  if (g.needs(1))
    g.set(1, g.graph.apply("sample_grad", g.name("dlogvar"), {dz, g.out(1), g.in(1)}));
}

std::vector<OutputSpec> sample_grad_infer(const InferContext& c) {
  c.inputs(3);
  c.rank(0, 2, "[B, d]");
  same_shape(c, 0, 2);
  return {{"", DType::f32, c.shape(0)}};
}

constexpr Slots sample_grad_alias[] = {{0, 0}, {0, 1}, {0, 2}};

}  // namespace

constinit const OpDef op_sample = {.op = Op::sample,
                                   .name = "sample",
                                   .doc = "z = mean + eps exp(logvar / 2), eps ~ N(0, 1)",
                                   .infer = sample_infer,
                                   .gradient = sample_gradient,
                                   .cost = elementwise<60>,
                                   .random = true};
constinit const OpDef op_sample_grad = {.op = Op::sample_grad,
                                        .name = "sample_grad",
                                        .doc = "dlogvar = dz eps exp(logvar / 2) / 2",
                                        .infer = sample_grad_infer,
                                        .cost = elementwise<10>,
                                        .may_alias = sample_grad_alias};

}  // namespace cuvae
