// The middle of a variational autoencoder backwards: through the decoder's first layer to the
// encoder's heads, and through these to the layer before them.

#include "ops/activation.h"
#include "ops/linear.h"

namespace cuvae {
namespace {

// dy, the decoder's weight, eps, mean, logvar, dkl, the heads' weight, saved
std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(8);
  activation_of(c.attrs());
  const Shape dz = expect_dgrad(c);
  for (int i = 2; i < 5; ++i) {
    c.expect(i, DType::f32);
    c.shape(i, dz, "[B, d]");
  }
  c.expect(5, DType::f32);
  c.shape(5, Shape{dz[0]}, "[B]");
  c.expect(6, DType::f32);
  c.rank(6, 2, "[2 d, in]");
  const std::int64_t in = c.shape(6)[1];
  c.shape(6, Shape{2 * dz[1], in}, "[2 d, in]");
  c.expect(7, DType::f32);
  c.shape(7, Shape{dz[0], in}, "[B, in]");
  return {{"heads", DType::f32, Shape{dz[0], 2 * dz[1]}}, {"dx", DType::f32, Shape{dz[0], in}}};
}

std::vector<Value> compose(ComposeContext& c) {
  const Value heads = c.graph.apply("linear_dgrad_sample_kl", c.name("latents"),
                                    {c.in(0), c.in(1), c.in(2), c.in(3), c.in(4), c.in(5)});
  const Value dx =
      c.graph.apply("linear_dgrad_activation", c.name("layer"), {heads, c.in(6), c.in(7)},
                    select(c.node.attrs, {"kind", "alpha"}));
  return {heads, dx};
}

Cost cost(const Graph& graph, const Node& node) {
  const Cost latents = dgrad_cost(graph, node);
  const Shape& w = graph[node.inputs[6]].shape;
  const auto batch = static_cast<double>(graph[node.inputs[0]].shape[0]);
  return {.flops = latents.flops + 2 * batch * static_cast<double>(w.elements()),
          .bytes = latents.bytes};
}

}  // namespace

constinit const OpDef op_linear_dgrad_bottleneck = {
    .op = Op::linear_dgrad_bottleneck,
    .name = "linear_dgrad_bottleneck",
    .doc = "the heads' gradient as linear_dgrad_sample_kl, and dx = (heads w) f'(saved)",
    .infer = infer,
    .cost = cost,
    .compose = compose};

}  // namespace cuvae
