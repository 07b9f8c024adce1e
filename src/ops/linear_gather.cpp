// The dense operators that read a batch of the data, with the gather in them: they take the rows of
// the window through their indices, and no x [B, D] of reals has to be made. Inputs 0 and 1 are
// gather's, then come the operator's own without x, and the attributes are those of both.

#include <fmt/format.h>

#include <algorithm>

#include "ops/activation.h"
#include "ops/adam.h"
#include "ops/linear.h"

namespace cuvae {
namespace {

// gather, and `op` with its result as input `slot`.
template <Op op, int slot>
std::vector<Value> compose(ComposeContext& c) {
  Attrs attrs;
  for (const auto& [name, attr] : c.node.attrs.entries())
    if (name != "scale" && name != "shift") attrs.set(name, attr);
  std::vector<Value> inputs(c.inputs.begin() + 2, c.inputs.end());
  inputs.insert(inputs.begin() + slot, c.graph.apply("gather", c.name("gather"), {c.in(0), c.in(1)},
                                                     select(c.node.attrs, {"scale", "shift"})));
  const Op plain = op == Op::linear_activation && !attrs.has("kind") ? Op::linear : op;
  return c.graph.add(plain, c.name(op_def(plain).name), std::move(inputs), attrs);
}

// Of the window only the batch's rows are read.
double gather_traffic(const Graph& graph, const Node& node) {
  const ValueInfo& window = graph[node.inputs[0]];
  const std::int64_t batch = graph[node.inputs[1]].shape[0];
  return traffic(graph, node) +
         static_cast<double>(batch * window.shape[1] - window.shape.elements()) *
             static_cast<double>(size_of(window.dtype));
}

void expect_matrix(const InferContext& c, int i, const Shape& shape, std::string_view meaning) {
  c.expect(i, DType::f32);
  c.shape(i, shape, meaning);
}

// window, row, w, b
std::vector<OutputSpec> activation_infer(const InferContext& c) {
  c.inputs(3, 4);
  const Shape x = expect_gather(c);
  c.expect(2, DType::f32);
  c.rank(2, 2, "[out, D]");
  const std::int64_t out = c.shape(2)[0];
  c.shape(2, Shape{out, x[1]}, "[out, D]");
  if (c.has(3)) expect_matrix(c, 3, Shape{out}, "[out]");
  const Shape y{x[0], out};
  if (!c.attrs().has("kind")) return {{"", DType::f32, y}};
  activation_of(c.attrs());
  if (!flag_of(c.attrs(), "save_input")) return {{"", DType::f32, y}};
  return {{"y", DType::f32, y}, {"pre", DType::f32, y}};
}

Cost activation_cost(const Graph& graph, const Node& node) {
  const Shape& w = graph[node.inputs[2]].shape;
  return {.flops = 2.0 * static_cast<double>(graph[node.inputs[1]].shape[0]) *
                   static_cast<double>(w.elements()),
          .bytes = gather_traffic(graph, node)};
}

// window, row, h, w, b, dnll
std::vector<OutputSpec> nll_infer(const InferContext& c) {
  c.inputs(6);
  const Shape x = expect_gather(c);
  c.expect(2, DType::f32);
  c.rank(2, 2, "[B, in]");
  c.shape(2, Shape{x[0], c.shape(2)[1]}, "[B, in]");
  expect_matrix(c, 3, Shape{x[1], c.shape(2)[1]}, "[D, in]");
  expect_matrix(c, 4, Shape{x[1]}, "[D]");
  expect_matrix(c, 5, Shape{x[0]}, "[B]");
  if (likelihood_of(c.attrs()) == Likelihood::gaussian) sigma_of(c.attrs());
  return {{"nll", DType::f32, Shape{x[0]}}, {"dlogits", DType::f32, x}};
}

Cost nll_cost(const Graph& graph, const Node& node) {
  return {.flops = 2.0 * static_cast<double>(graph[node.inputs[2]].shape[0]) *
                   static_cast<double>(graph[node.inputs[3]].shape.elements()),
          .bytes = gather_traffic(graph, node)};
}

// window, row, dy, w, m, v, b, bm, bv, hyper, clock, commit
constexpr int update_bias = 6;
constexpr int update_hyper = 9;

std::vector<OutputSpec> update_infer(const InferContext& c) {
  if (c.count() != 12)
    c.fail(fmt::format("wants 12 inputs (no value for an absent bias), has {}", c.count()));
  const Shape x = expect_gather(c);
  c.expect(2, DType::f32);
  c.rank(2, 2, "[B, out]");
  c.shape(2, Shape{x[0], c.shape(2)[1]}, "[B, out]");
  const Shape dw{c.shape(2)[1], x[1]};
  for (int i = 3; i < update_bias; ++i) expect_matrix(c, i, dw, "[out, D]");
  for (int i = update_bias; i < update_hyper; ++i) {
    if (c.has(i) != c.has(update_bias))
      c.fail("a bias without its moments, or moments without a bias");
    if (c.has(i)) expect_matrix(c, i, Shape{dw[0]}, "[out]");
  }
  expect_hyper(c, update_hyper);
  expect_clock(c, update_hyper + 1);
  expect_commit(c, update_hyper + 2);
  adam_of(c.attrs());
  std::vector<OutputSpec> outputs;
  for (const char* slot : {"w", "m", "v"}) outputs.push_back({slot, DType::f32, dw});
  if (c.has(update_bias))
    for (const char* slot : {"b", "bm", "bv"}) outputs.push_back({slot, DType::f32, Shape{dw[0]}});
  return outputs;
}

Cost update_cost(const Graph& graph, const Node& node) {
  const auto elements = static_cast<double>(graph[node.outputs[0]].shape.elements());
  return {.flops = (2.0 * static_cast<double>(graph[node.inputs[1]].shape[0]) + 14.0) * elements,
          .bytes = gather_traffic(graph, node)};
}

constexpr Slots updates[] = {{0, 3}, {1, 4}, {2, 5}, {3, 6}, {4, 7}, {5, 8}};

}  // namespace

constinit const OpDef op_linear_gather_activation = {
    .op = Op::linear_gather_activation,
    .name = "linear_gather_activation",
    .doc = "linear_activation (linear without a kind) of x = (window[row[b]] - shift) * scale",
    .infer = activation_infer,
    .cost = activation_cost,
    .compose = compose<Op::linear_activation, 0>};
constinit const OpDef op_linear_gather_nll = {
    .op = Op::linear_gather_nll,
    .name = "linear_gather_nll",
    .doc = "linear_nll of the target (window[row[b]] - shift) * scale",
    .infer = nll_infer,
    .cost = nll_cost,
    .compose = compose<Op::linear_nll, 3>};
constinit const OpDef op_linear_gather_wgrad_adam = {
    .op = Op::linear_gather_wgrad_adam,
    .name = "linear_gather_wgrad_adam",
    .doc = "linear_wgrad_adam with x = (window[row[b]] - shift) * scale",
    .infer = update_infer,
    .cost = update_cost,
    .compose = compose<Op::linear_wgrad_adam, 1>,
    .updates = updates,
    .hyper_input = update_hyper};

}  // namespace cuvae
