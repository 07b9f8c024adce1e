// Likelihoods whose terms each belong to one element: one operator for all of the list.

#include "ops/nll.h"

#include <fmt/format.h>

#include <cmath>

#include "cuvae/error.h"

namespace cuvae {

NllAttrs nll_attrs(const Attrs& attrs) {
  NllAttrs a;
  a.kind = parse_likelihood(attrs.text("likelihood"));
  const LikelihoodInfo& info = a.info();
  const auto refuse = [&](const std::string& what, std::string_view mend) {
    throw Error(Status::usage, what, {}, mend);
  };
  const std::int64_t trials = attrs.integer("trials", 255);
  if (attrs.has("trials") && !info.trials)
    refuse(fmt::format("the likelihood {} has no trials", info.name), "leave `trials` out");
  if (trials < 1 || trials > 65535)
    refuse(fmt::format("trials = {} is not a number from 1 to 65535", trials),
           "bytes have 255 trials");
  a.constants.trials = static_cast<double>(trials);
  a.planes = info.parameters;
  if (!attrs.has("scale")) return a;
  const double scale = attrs.real("scale");
  if (!info.fixed_scale)
    refuse(fmt::format("the likelihood {} has no scale to be fixed", info.name),
           "leave `scale` out");
  if (!(scale >= 1e-6 && scale <= 1e6))
    refuse(fmt::format("scale = {} is not a number from 1e-6 to 1e6", scale),
           "leave it out to learn it");
  --a.planes;
  a.constants.fixed = true;
  a.constants.log_scale = std::log(scale);
  a.constants.inverse_scale = 1 / scale;
  return a;
}

namespace {

// The planes from input `first` on, and the offset before them.
Shape expect_planes(const InferContext& c, const NllAttrs& a, int offset, int first) {
  const std::string_view name = a.info().name;
  if (c.count() != first + a.planes)
    c.fail(fmt::format("{} inputs, where {} has {} planes", c.count(), name, a.planes),
           fmt::format("give {} inputs, input {} (the offset) being none or [B]", first + a.planes,
                       offset));
  for (int i = first; i < c.count(); ++i)
    if (!c.has(i)) c.fail(fmt::format("input {} is missing", i));
  c.rank(first, 2, "[B, D]");
  same_shape(c, first, first + a.planes - 1);
  if (c.has(offset)) {
    if (!a.info().offset) c.fail(fmt::format("an offset, but {} takes none", name), "leave it out");
    c.expect(offset, DType::f32);
    c.shape(offset, Shape{c.shape(first)[0]}, "[B]");
  }
  return c.shape(first);
}

std::vector<OutputSpec> nll_infer(const InferContext& c) {
  const NllAttrs a = nll_attrs(c.attrs());
  c.inputs(1, 2 + a.planes);
  const Shape shape = expect_planes(c, a, 1, 2);
  c.expect(0, DType::f32);
  c.shape(0, shape, "[B, D]");
  return {{"", DType::f32, Shape{shape[0]}}};
}

void nll_gradient(GradientContext& g) {
  const NllAttrs a = nll_attrs(g.node.attrs);
  std::vector<Value> inputs = {g.grad_out(0)};
  inputs.insert(inputs.end(), g.node.inputs.begin(), g.node.inputs.end());
  const std::vector<Value> planes =
      g.graph.add("nll_grad", g.name("dplanes"), inputs,
                  select(g.node.attrs, {"likelihood", "trials", "scale"}));
  for (int p = 0; p < a.planes; ++p) g.set(2 + p, planes[static_cast<std::size_t>(p)]);
}

std::vector<OutputSpec> nll_grad_infer(const InferContext& c) {
  const NllAttrs a = nll_attrs(c.attrs());
  c.inputs(2, 3 + a.planes);
  const Shape shape = expect_planes(c, a, 2, 3);
  c.expect(0, DType::f32);
  c.shape(0, Shape{shape[0]}, "[B]");
  c.expect(1, DType::f32);
  c.shape(1, shape, "[B, D]");
  if (a.planes == 1) return {{"", DType::f32, shape}};
  std::vector<OutputSpec> outputs;
  for (int p = 0; p < a.planes; ++p)
    outputs.push_back(
        {std::string("d").append(a.info().names[static_cast<std::size_t>(p)]), DType::f32, shape});
  return outputs;
}

std::vector<OutputSpec> expectation_infer(const InferContext& c) {
  const NllAttrs a = nll_attrs(c.attrs());
  c.inputs(0, 1 + a.planes);
  return {{"", DType::f32, expect_planes(c, a, 0, 1)}};
}

Cost nll_cost(const Graph& graph, const Node& node) {
  return {.flops = 100 * static_cast<double>(graph[node.inputs[0]].shape.elements()),
          .bytes = traffic(graph, node)};
}

constexpr int constants[] = {0, 1};
constexpr Slots grad_alias[] = {{0, 3}, {1, 4}, {2, 5}, {0, 1}};

}  // namespace

constinit const OpDef op_nll = {
    .op = Op::nll,
    .name = "nll",
    .doc = "nll[b] = sum_j -log p(x_j | planes), p given by `likelihood`",
    .infer = nll_infer,
    .gradient = nll_gradient,
    .cost = nll_cost,
    .constant_inputs = constants};
constinit const OpDef op_nll_grad = {.op = Op::nll_grad,
                                     .name = "nll_grad",
                                     .doc = "dplane = dnll d(-log p)/d(plane), for each plane",
                                     .infer = nll_grad_infer,
                                     .cost = elementwise<150>,
                                     .may_alias = grad_alias};
constinit const OpDef op_expectation = {.op = Op::expectation,
                                        .name = "expectation",
                                        .doc = "E[x | planes], in the target's units",
                                        .infer = expectation_infer,
                                        .cost = elementwise<30>};

}  // namespace cuvae
