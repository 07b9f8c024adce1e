#include "ops/samples.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "cuvae/error.h"

namespace cuvae {

std::int64_t times_of(const Attrs& attrs) {
  const std::int64_t times = attrs.integer("times");
  if (times < 1 || times > std::numeric_limits<std::int32_t>::max())
    throw Error(Status::usage, fmt::format("times = {}", times), {}, "a row is there once or more");
  return times;
}

double factor_of(const Attrs& attrs) {
  const double factor = attrs.real("factor", 1.0);
  if (!std::isfinite(factor))
    throw Error(Status::usage, fmt::format("factor = {} is not finite", factor));
  return factor;
}

namespace {

Shape with_rows(const Shape& x, std::int64_t rows) {
  std::vector<std::int64_t> dims(x.dims().begin(), x.dims().end());
  dims[0] = rows;
  return Shape(std::span<const std::int64_t>(dims));
}

void expect_rows(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  if (c.shape(0).rank() < 1) c.fail("a scalar has no rows");
  static_cast<void>(factor_of(c.attrs()));
}

std::vector<OutputSpec> repeat_infer(const InferContext& c) {
  expect_rows(c);
  const std::int64_t times = times_of(c.attrs()), rows = c.shape(0)[0];
  if (rows > std::numeric_limits<std::int64_t>::max() / times)
    c.fail(fmt::format("{} rows {} times", rows, times));
  return {{"", DType::f32, with_rows(c.shape(0), rows * times)}};
}

std::vector<OutputSpec> segment_infer(const InferContext& c) {
  expect_rows(c);
  const std::int64_t times = times_of(c.attrs()), rows = c.shape(0)[0];
  if (rows % times != 0)
    c.fail(fmt::format("{} rows are not segments of {}", rows, times),
           "give a multiple of `times` rows");
  return {{"", DType::f32, with_rows(c.shape(0), rows / times)}};
}

// Each is the other's gradient, with the same factor.
void repeat_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("segment_sum", g.name("dx"), {g.grad_out(0)}, g.node.attrs));
}
void segment_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("repeat_rows", g.name("dx"), {g.grad_out(0)}, g.node.attrs));
}

std::vector<OutputSpec> row_scale_infer(const InferContext& c) {
  c.inputs(2);
  c.rank(0, 2, "[B, d]");
  c.expect(0, DType::f32);
  c.expect(1, DType::f32);
  c.shape(1, Shape{c.shape(0)[0]}, "[B]");
  return {{"", DType::f32, c.shape(0)}};
}

void row_scale_gradient(GradientContext& g) {
  if (g.needs(0)) g.set(0, g.graph.apply("row_scale", g.name("dx"), {g.grad_out(0), g.in(1)}));
  if (!g.needs(1)) return;
  const Value terms = g.graph.apply("mul", g.name("terms"), {g.grad_out(0), g.in(0)});
  g.set(1, g.graph.apply("reduce", g.name("dw"), {terms},
                         {{"axis", std::string("cols")}, {"op", std::string("sum")}}));
}

constexpr Slots in_place[] = {{0, 0}};

}  // namespace

constinit const OpDef op_repeat_rows = {.op = Op::repeat_rows,
                                        .name = "repeat_rows",
                                        .doc = "y[b times + k] = factor x[b]",
                                        .infer = repeat_infer,
                                        .gradient = repeat_gradient,
                                        .cost = elementwise<1>};
constinit const OpDef op_segment_sum = {.op = Op::segment_sum,
                                        .name = "segment_sum",
                                        .doc = "y[b] = factor sum_k x[b times + k], k in order",
                                        .infer = segment_infer,
                                        .gradient = segment_gradient,
                                        .cost = per_input<1>};
constinit const OpDef op_row_scale = {.op = Op::row_scale,
                                      .name = "row_scale",
                                      .doc = "y[b] = w[b] x[b], of rows x[b]; of x [B] use mul",
                                      .infer = row_scale_infer,
                                      .gradient = row_scale_gradient,
                                      .cost = elementwise<1>,
                                      .may_alias = in_place};

}  // namespace cuvae
