// The encoder's heads, the sample and the KL term of each row.

#include <fmt/format.h>

#include "ops/linear.h"
#include "ops/sample.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(4, 5);
  const Shape heads = expect_linear(c, true);
  if (heads[1] % 2 != 0)
    c.fail(fmt::format("the heads' weight {} has an odd number of rows", c.shape(1).str()),
           "mean and logvar have the same size");
  return expect_sample_kl(c, 3, 4, Shape{heads[0], heads[1] / 2});
}

std::vector<Value> compose(ComposeContext& c) {
  const Value heads = c.graph.apply("linear", c.name("linear"), {c.in(0), c.in(1), c.in(2)});
  return c.graph.add("sample_kl", c.name("sample"), {heads, c.in(3), c.in(4)},
                     select(c.node.attrs, {"purpose", "stream", "samples"}));
}

}  // namespace

constinit const OpDef op_linear_sample_kl = {
    .op = Op::linear_sample_kl,
    .name = "linear_sample_kl",
    .doc = "mean, bounded logvar, z, eps and kl from the hidden layer",
    .infer = infer,
    .cost = linear_cost,
    .compose = compose,
    .random = true};

}  // namespace cuvae
