// The dense layer and its two backward products.

#include "ops/linear.h"

#include <fmt/format.h>

namespace cuvae {

Shape expect_linear(const InferContext& c, bool bias) {
  c.expect(0, DType::f32);
  c.rank(0, 2, "[B, in]");
  c.expect(1, DType::f32);
  c.rank(1, 2, "[out, in]");
  if (c.shape(1)[1] != c.shape(0)[1])
    c.fail(
        fmt::format("the weight {} does not fit the input {}", c.shape(1).str(), c.shape(0).str()),
        "[out, in] and [B, in] must agree in `in`");
  if (bias) {
    c.expect(2, DType::f32);
    c.shape(2, Shape{c.shape(1)[0]}, "[out]");
  }
  return Shape{c.shape(0)[0], c.shape(1)[0]};
}

Shape expect_dgrad(const InferContext& c) {
  c.expect(0, DType::f32);
  c.rank(0, 2, "[B, out]");
  c.expect(1, DType::f32);
  c.rank(1, 2, "[out, in]");
  if (c.shape(1)[0] != c.shape(0)[1])
    c.fail(fmt::format("the weight {} does not fit the gradient {}", c.shape(1).str(),
                       c.shape(0).str()),
           "[out, in] and [B, out] must agree in `out`");
  return Shape{c.shape(0)[0], c.shape(1)[1]};
}

Shape expect_wgrad(const InferContext& c) {
  c.expect(0, DType::f32);
  c.rank(0, 2, "[B, out]");
  c.expect(1, DType::f32);
  c.rank(1, 2, "[B, in]");
  if (c.shape(0)[0] != c.shape(1)[0])
    c.fail(fmt::format("the gradient {} does not fit the input {}", c.shape(0).str(),
                       c.shape(1).str()),
           "[B, out] and [B, in] must agree in `B`");
  return Shape{c.shape(0)[1], c.shape(1)[1]};
}

Cost linear_cost(const Graph& graph, const Node& node) {
  return product_cost(graph, node, graph[node.inputs[0]].shape, graph[node.inputs[1]].shape[0]);
}

Cost dgrad_cost(const Graph& graph, const Node& node) {
  return product_cost(graph, node, graph[node.inputs[0]].shape, graph[node.inputs[1]].shape[1]);
}

namespace {

std::vector<OutputSpec> linear_infer(const InferContext& c) {
  c.inputs(2, 3);
  return {{"", DType::f32, expect_linear(c, c.has(2))}};
}

void linear_gradient(GradientContext& g) {
  const Value dy = g.grad_out(0);
  if (g.needs(0)) g.set(0, g.graph.apply("linear_dgrad", g.name("dgrad"), {dy, g.in(1)}));
  if (!g.needs(1) && !g.needs(2)) return;
  const std::int64_t bias = g.needs(2) ? 1 : 0;
  const auto grads =
      g.graph.add("linear_wgrad", g.name("wgrad"), {dy, g.in(0)}, Attrs{{"bias", bias}});
  g.set(1, grads[0]);
  if (g.needs(2)) g.set(2, grads[1]);
}

std::vector<OutputSpec> dgrad_infer(const InferContext& c) {
  c.inputs(2);
  return {{"", DType::f32, expect_dgrad(c)}};
}

std::vector<OutputSpec> wgrad_infer(const InferContext& c) {
  c.inputs(2);
  const Shape dw = expect_wgrad(c);
  if (!flag_of(c.attrs(), "bias")) return {{"", DType::f32, dw}};
  return {{"dw", DType::f32, dw}, {"db", DType::f32, Shape{dw[0]}}};
}

}  // namespace

constinit const OpDef op_linear = {.op = Op::linear,
                                   .name = "linear",
                                   .doc = "y = x w^T + b",
                                   .infer = linear_infer,
                                   .gradient = linear_gradient,
                                   .cost = linear_cost};
constinit const OpDef op_linear_dgrad = {.op = Op::linear_dgrad,
                                         .name = "linear_dgrad",
                                         .doc = "dx = dy w",
                                         .infer = dgrad_infer,
                                         .cost = dgrad_cost};
constinit const OpDef op_linear_wgrad = {.op = Op::linear_wgrad,
                                         .name = "linear_wgrad",
                                         .doc = "dw = dy^T x; db = column sums of dy",
                                         .infer = wgrad_infer,
                                         .cost = dgrad_cost};

}  // namespace cuvae
