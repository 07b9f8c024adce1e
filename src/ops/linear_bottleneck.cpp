// The middle of a variational autoencoder: the encoder's heads, the sample, the KL term of each
// row, and the decoder's first layer.

#include <fmt/format.h>

#include "ops/activation.h"
#include "ops/linear.h"
#include "ops/sample.h"

namespace cuvae {
namespace {

// h, heads' weight and bias, the decoder's weight and bias, clock, key
std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(6, 7);
  activation_of(c.attrs());
  const Shape heads = expect_linear(c, true);
  if (heads[1] % 2 != 0)
    c.fail(fmt::format("the heads' weight {} has an odd number of rows", c.shape(1).str()),
           "mean and logvar have the same size");
  const Shape half{heads[0], heads[1] / 2};
  std::vector<OutputSpec> outputs = expect_sample_kl(c, 5, 6, half);
  c.expect(3, DType::f32);
  c.rank(3, 2, "[out, d]");
  const std::int64_t out = c.shape(3)[0];
  c.shape(3, Shape{out, half[1]}, "[out, d]");
  c.expect(4, DType::f32);
  c.shape(4, Shape{out}, "[out]");
  const Shape y{heads[0], out};
  outputs.push_back({"y", DType::f32, y});
  if (flag_of(c.attrs(), "save_input")) outputs.push_back({"pre", DType::f32, y});
  return outputs;
}

std::vector<Value> compose(ComposeContext& c) {
  auto outputs = c.graph.add("linear_sample_kl", c.name("heads"),
                             {c.in(0), c.in(1), c.in(2), c.in(5), c.in(6)},
                             select(c.node.attrs, {"purpose", "stream", "samples"}));
  for (const Value value :
       c.graph.add("linear_activation", c.name("layer"), {outputs[2], c.in(3), c.in(4)},
                   select(c.node.attrs, {"kind", "alpha", "save_input"})))
    outputs.push_back(value);
  return outputs;
}

Cost cost(const Graph& graph, const Node& node) {
  const Cost heads = linear_cost(graph, node);
  const Shape& w = graph[node.inputs[3]].shape;
  const auto batch = static_cast<double>(graph[node.inputs[0]].shape[0]);
  return {.flops = heads.flops + 2 * batch * static_cast<double>(w.elements()),
          .bytes = heads.bytes};
}

}  // namespace

constinit const OpDef op_linear_bottleneck = {
    .op = Op::linear_bottleneck,
    .name = "linear_bottleneck",
    .doc = "mean, bounded logvar, z, eps and kl from the hidden layer, and y = f(z w^T + b)",
    .infer = infer,
    .cost = cost,
    .compose = compose,
    .random = true};

}  // namespace cuvae
