// What follows the product of the encoder's heads: the sample and the KL term of each row; and what
// comes back through them to the heads.

#include <fmt/format.h>

#include "ops/rules.h"
#include "ops/sample.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(2, 3);
  c.expect(0, DType::f32);
  c.rank(0, 2, "[B, 2 d]");
  const Shape& heads = c.shape(0);
  if (heads[1] % 2 != 0)
    c.fail(fmt::format("the heads {} have an odd number of columns", heads.str()),
           "mean and logvar have the same size");
  return expect_sample_kl(c, 1, 2, Shape{heads[0], heads[1] / 2});
}

std::vector<Value> compose(ComposeContext& c) {
  const std::int64_t half = c.graph[c.in(0)].shape[1] / 2;
  const auto parts = c.graph.add("split", c.name("split"), {c.in(0)},
                                 {{"sizes", fmt::format("{},{}", half, half)}});
  const Value logvar = c.graph.apply("activation", c.name("bound"), {parts[1]},
                                     {{"kind", std::string("bound_logvar")}});
  const auto drawn = c.graph.add("sample", c.name("sample"), {parts[0], logvar, c.in(1), c.in(2)},
                                 select(c.node.attrs, {"purpose", "stream", "samples"}));
  const Value kl = c.graph.apply("gaussian_kl", c.name("kl"), {parts[0], logvar});
  return {parts[0], logvar, drawn[0], drawn[1], kl};
}

std::vector<OutputSpec> grad_infer(const InferContext& c) {
  c.inputs(5);
  c.rank(0, 2, "[B, d]");
  same_shape(c, 0, 3);
  c.expect(4, DType::f32);
  c.shape(4, Shape{c.shape(0)[0]}, "[B]");
  return {{"", DType::f32, Shape{c.shape(0)[0], 2 * c.shape(0)[1]}}};
}

std::vector<Value> grad_compose(ComposeContext& c) {
  const Value dz = c.in(0), eps = c.in(1), mean = c.in(2), logvar = c.in(3), dkl = c.in(4);
  const auto of_kl = c.graph.add("gaussian_kl_grad", c.name("kl"), {dkl, mean, logvar});
  const Value of_z = c.graph.apply("sample_grad", c.name("sample"), {dz, eps, logvar});
  const Value dmean = c.graph.apply("add", c.name("dmean"), {of_kl[0], dz});
  const Value dlogvar = c.graph.apply("add", c.name("dlogvar"), {of_kl[1], of_z});
  const Value draw = c.graph.apply("activation_grad", c.name("bound"), {dlogvar, logvar},
                                   {{"kind", std::string("bound_logvar")}});
  return {c.graph.apply("concat", c.name("heads"), {dmean, draw})};
}

}  // namespace

constinit const OpDef op_sample_kl = {.op = Op::sample_kl,
                                      .name = "sample_kl",
                                      .doc = "mean, bounded logvar, z, eps and kl from the heads",
                                      .infer = infer,
                                      .cost = per_input<60>,
                                      .compose = compose,
                                      .random = true};
constinit const OpDef op_sample_kl_grad = {
    .op = Op::sample_kl_grad,
    .name = "sample_kl_grad",
    .doc =
        "[dmean, draw] = dz [1, eps exp(logvar / 2) / 2] + dkl [mean, (exp(logvar) - 1) / 2]; draw "
        "times the derivative of the bound",
    .infer = grad_infer,
    .cost = per_input<30>,
    .compose = grad_compose};

}  // namespace cuvae
