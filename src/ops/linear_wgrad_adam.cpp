// The gradient of a dense layer's parameters and their update: the gradient never reaches memory.

#include <fmt/format.h>

#include "ops/adam.h"
#include "ops/linear.h"

namespace cuvae {
namespace {

// dy, x, w, m, v, b, bm, bv, hyper, clock, commit
constexpr int bias = 5;
constexpr int hyper = 8;

std::vector<OutputSpec> infer(const InferContext& c) {
  if (c.count() != 11)
    c.fail(fmt::format("wants 11 inputs (no value for an absent bias), has {}", c.count()));
  const Shape dw = expect_wgrad(c);
  for (int i = 2; i < bias; ++i) {
    c.expect(i, DType::f32);
    c.shape(i, dw, "[out, in]");
  }
  for (int i = bias; i < hyper; ++i) {
    if (c.has(i) != c.has(bias)) c.fail("a bias without its moments, or moments without a bias");
    if (!c.has(i)) continue;
    c.expect(i, DType::f32);
    c.shape(i, Shape{dw[0]}, "[out]");
  }
  expect_hyper(c, hyper);
  expect_clock(c, hyper + 1);
  expect_commit(c, hyper + 2);
  adam_of(c.attrs());
  std::vector<OutputSpec> outputs;
  for (const char* slot : {"w", "m", "v"}) outputs.push_back({slot, DType::f32, dw});
  if (c.has(bias))
    for (const char* slot : {"b", "bm", "bv"}) outputs.push_back({slot, DType::f32, Shape{dw[0]}});
  return outputs;
}

std::vector<Value> compose(ComposeContext& c) {
  const bool with_bias = bool(c.in(bias));
  const Attrs attrs =
      select(c.node.attrs, {"beta1", "beta2", "eps", "eps_hat", "weight_decay", "decoupled", "v0"});
  const auto grads = c.graph.add("linear_wgrad", c.name("wgrad"), {c.in(0), c.in(1)},
                                 Attrs{{"bias", std::int64_t{with_bias ? 1 : 0}}});
  const auto update = [&](std::string_view what, int first, Value gradient) {
    return c.graph.add("adam", c.name(what),
                       {c.in(first), c.in(first + 1), c.in(first + 2), gradient, c.in(hyper),
                        c.in(hyper + 1), c.in(hyper + 2)},
                       attrs);
  };
  auto outputs = update("adam.w", 2, grads[0]);
  if (with_bias) {
    const auto rest = update("adam.b", bias, grads[1]);
    outputs.insert(outputs.end(), rest.begin(), rest.end());
  }
  return outputs;
}

Cost cost(const Graph& graph, const Node& node) {
  Cost total = dgrad_cost(graph, node);
  total.flops += 14.0 * static_cast<double>(graph[node.outputs[0]].shape.elements());
  return total;
}

constexpr Slots updates[] = {{0, 2}, {1, 3}, {2, 4}, {3, 5}, {4, 6}, {5, 7}};

}  // namespace

constinit const OpDef op_linear_wgrad_adam = {
    .op = Op::linear_wgrad_adam,
    .name = "linear_wgrad_adam",
    .doc = "Adam on w and b with dw = dy^T x and db = column sums of dy",
    .infer = infer,
    .cost = cost,
    .compose = compose,
    .updates = updates,
    .hyper_input = hyper};

}  // namespace cuvae
