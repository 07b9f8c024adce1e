// Two dense layers for very few rows, as when one sample is decoded: the hidden layer is so small
// that whoever makes an output can make all of it anew, and nobody waits for anybody.

#include <fmt/format.h>

#include "ops/activation.h"
#include "ops/linear.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(5);
  for (int i = 0; i < 5; ++i) c.expect(i, DType::f32);
  c.rank(0, 2, "[B, in]");
  c.rank(1, 2, "[hidden, in]");
  c.rank(2, 2, "[out, hidden]");
  const std::int64_t hidden = c.shape(1)[0];
  c.shape(1, Shape{hidden, c.shape(0)[1]}, "[hidden, in]");
  c.shape(2, Shape{c.shape(2)[0], hidden}, "[out, hidden]");
  c.shape(3, Shape{hidden}, "[hidden]");
  c.shape(4, Shape{c.shape(2)[0]}, "[out]");
  activation_of(c.attrs());
  if (const auto last = second_activation(c.attrs())) activation_of(*last);
  return {{"", DType::f32, Shape{c.shape(0)[0], c.shape(2)[0]}}};
}

std::vector<Value> compose(ComposeContext& c) {
  const Value hidden =
      c.graph.apply("linear_activation", c.name("hidden"), {c.in(0), c.in(1), c.in(3)},
                    select(c.node.attrs, {"kind", "alpha"}));
  const std::vector<Value> inputs{hidden, c.in(2), c.in(4)};
  const auto last = second_activation(c.node.attrs);
  if (!last) return {c.graph.apply("linear", c.name("out"), inputs)};
  return {c.graph.apply("linear_activation", c.name("out"), inputs, *last)};
}

Cost cost(const Graph& graph, const Node& node) {
  const auto batch = static_cast<double>(graph[node.inputs[0]].shape[0]);
  const auto weights = static_cast<double>(graph[node.inputs[1]].shape.elements() +
                                           graph[node.inputs[2]].shape.elements());
  return {.flops = 2 * batch * weights, .bytes = traffic(graph, node)};
}

}  // namespace

std::optional<Attrs> second_activation(const Attrs& attrs) {
  if (!attrs.has("out_kind")) return std::nullopt;
  Attrs last{{"kind", attrs.text("out_kind")}};
  if (attrs.has("out_alpha")) last.set("alpha", attrs.real("out_alpha"));
  return last;
}

constinit const OpDef op_layer_pair = {.op = Op::layer_pair,
                                       .name = "layer_pair",
                                       .doc = "y = g(f(x w1^T + b1) w2^T + b2)",
                                       .infer = infer,
                                       .cost = cost,
                                       .compose = compose};

}  // namespace cuvae
