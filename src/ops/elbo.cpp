// The loss of a batch and its two parts, from those of its rows.

#include <fmt/format.h>

#include "ops/rules.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(3);
  c.rank(0, 1, "[B]");
  same_shape(c, 0, 1);
  if (c.shape(0)[0] == 0) c.fail("the mean of nothing: [0]");
  static_cast<void>(c.attrs().real("factor", 1.0));
  expect_slot(c, 2);
  return {{"reconstruction", DType::f32, Shape{}},
          {"kl", DType::f32, Shape{}},
          {"loss", DType::f32, Shape{}}};
}

std::vector<Value> compose(ComposeContext& c) {
  const Attrs mean = {{"axis", std::string("all")}, {"op", std::string("mean")}};
  const Value reconstruction = c.graph.apply("reduce", c.name("reconstruction"), {c.in(0)}, mean);
  const Value kl = c.graph.apply("reduce", c.name("kl"), {c.in(1)}, mean);
  const Value weighted = c.graph.apply("scale", c.name("beta_kl"), {kl, c.in(2)},
                                       select(c.node.attrs, {"factor", "slot"}));
  return {reconstruction, kl, c.graph.apply("add", c.name("loss"), {reconstruction, weighted})};
}

}  // namespace

constinit const OpDef op_elbo = {
    .op = Op::elbo,
    .name = "elbo",
    .doc =
        "means of nll and kl over the batch; loss = mean nll + factor * hyper[step, slot] mean kl",
    .infer = infer,
    .cost = per_input<1>,
    .compose = compose,
    .hyper_input = 2};

}  // namespace cuvae
