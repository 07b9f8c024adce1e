// What comes back through the sample and the KL term: the gradient of the encoder's heads, from
// that of the layer that reads z.

#include "ops/linear.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(6);
  const Shape dz = expect_dgrad(c);
  for (int i = 2; i < 5; ++i) {
    c.expect(i, DType::f32);
    c.shape(i, dz, "[B, d]");
  }
  c.expect(5, DType::f32);
  c.shape(5, Shape{dz[0]}, "[B]");
  return {{"", DType::f32, Shape{dz[0], 2 * dz[1]}}};
}

std::vector<Value> compose(ComposeContext& c) {
  const Value dz = c.graph.apply("linear_dgrad", c.name("dgrad"), {c.in(0), c.in(1)});
  return {
      c.graph.apply("sample_kl_grad", c.name("heads"), {dz, c.in(2), c.in(3), c.in(4), c.in(5)})};
}

}  // namespace

constinit const OpDef op_linear_dgrad_sample_kl = {
    .op = Op::linear_dgrad_sample_kl,
    .name = "linear_dgrad_sample_kl",
    .doc =
        "[dmean, draw] = dz [1, eps exp(logvar / 2) / 2] + dkl [mean, (exp(logvar) - 1) / 2], "
        "dz = dy w; draw times the derivative of the bound",
    .infer = infer,
    .cost = dgrad_cost,
    .compose = compose};

}  // namespace cuvae
