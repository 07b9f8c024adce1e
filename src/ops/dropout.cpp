#include "ops/dropout.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

double dropout_rate(const Attrs& attrs) {
  const double p = attrs.real("p");
  if (!(p >= 0 && p < 1))
    throw Error(Status::usage, fmt::format("dropout with p = {}", p), {}, "p lies in [0, 1)");
  return p;
}

namespace {

// x, clock, key
std::vector<OutputSpec> dropout_infer(const InferContext& c) {
  c.inputs(2, 3);
  c.expect(0, DType::f32);
  if (c.shape(0).rank() < 1) c.fail("drops elements of a batch, not of a scalar");
  expect_draw(c, 1, 2, c.shape(0));
  dropout_rate(c.attrs());
  return {{"", DType::f32, c.shape(0)}};
}

void dropout_gradient(GradientContext& g) {
  std::vector<Value> inputs = {g.grad_out(0), g.in(1)};
  if (g.in(2)) inputs.push_back(g.in(2));
  g.set(0, g.graph.apply("dropout", g.name("dx"), inputs,
                         select(g.node.attrs, {"p", "purpose", "stream"})));
}

constexpr Slots in_place[] = {{0, 0}};

}  // namespace

constinit const OpDef op_dropout = {.op = Op::dropout,
                                    .name = "dropout",
                                    .doc = "y = x / (1 - p) where kept, else 0",
                                    .infer = dropout_infer,
                                    .gradient = dropout_gradient,
                                    .cost = elementwise<20>,
                                    .may_alias = in_place,
                                    .random = true};

}  // namespace cuvae
