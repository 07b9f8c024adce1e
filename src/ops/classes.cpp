#include "ops/classes.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

std::int64_t classes_of(const Attrs& attrs) {
  const std::int64_t classes = attrs.integer("classes");
  if (classes < 1 || classes > std::int64_t{1} << 24)
    throw Error(Status::usage, fmt::format("classes = {}", classes), {},
                "give a number from 1 to 2^24");
  return classes;
}

namespace {

std::vector<OutputSpec> softmax_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  c.rank(0, 2, "[B, C]");
  return {{"", DType::f32, c.shape(0)}};
}

// Both from dy and y.
template <bool log>
void softmax_gradient(GradientContext& g) {
  g.set(0, g.graph.apply(log ? "log_softmax_grad" : "softmax_grad", g.name("dx"),
                         {g.grad_out(0), g.out(0)}));
}

std::vector<OutputSpec> softmax_grad_infer(const InferContext& c) {
  c.inputs(2);
  c.rank(0, 2, "[B, C]");
  same_shape(c, 0, 1);
  return {{"", DType::f32, c.shape(0)}};
}

// labels u8 or i64 [W], rows i64 [B]
std::int64_t expect_labels(const InferContext& c) {
  c.inputs(2);
  if (c.dtype(0) != DType::u8) c.expect(0, DType::i64);
  c.rank(0, 1, "[W]");
  c.expect(1, DType::i64);
  c.rank(1, 1, "[B]");
  return c.shape(1)[0];
}

std::vector<OutputSpec> one_hot_infer(const InferContext& c) {
  const std::int64_t batch = expect_labels(c);
  return {{"", DType::f32, Shape{batch, classes_of(c.attrs())}}};
}

std::vector<OutputSpec> cycle_infer(const InferContext& c) {
  c.inputs(0);
  const std::int64_t rows = c.attrs().integer("rows");
  if (rows < 0 || rows >= std::int64_t{1} << 38)
    c.fail(fmt::format("rows = {} is not a number of rows", rows));
  return {{"", DType::f32, Shape{rows, classes_of(c.attrs())}}};
}

std::vector<OutputSpec> label_rows_infer(const InferContext& c) {
  return {{"", DType::f32, Shape{expect_labels(c), 1}}};
}

// Reads rows of a window, not all of it.
Cost label_cost(const Graph& graph, const Node& node) {
  const double batch = static_cast<double>(graph[node.inputs[1]].shape[0]);
  const double elements = static_cast<double>(graph[node.outputs[0]].shape.elements());
  return {.flops = elements, .bytes = 4 * elements + 16 * batch};
}

constexpr Slots alias_0[] = {{0, 0}};
constexpr Slots alias_01[] = {{0, 0}, {0, 1}};

}  // namespace

constinit const OpDef op_softmax = {.op = Op::softmax,
                                    .name = "softmax",
                                    .doc = "y[b, c] = exp(x[b, c]) / sum_j exp(x[b, j])",
                                    .infer = softmax_infer,
                                    .gradient = softmax_gradient<false>,
                                    .cost = elementwise<30>,
                                    .may_alias = alias_0};
constinit const OpDef op_softmax_grad = {.op = Op::softmax_grad,
                                         .name = "softmax_grad",
                                         .doc = "dx = y (dy - sum_j dy_j y_j)",
                                         .infer = softmax_grad_infer,
                                         .cost = elementwise<5>,
                                         .may_alias = alias_01};
constinit const OpDef op_log_softmax = {.op = Op::log_softmax,
                                        .name = "log_softmax",
                                        .doc = "y[b, c] = x[b, c] - log sum_j exp(x[b, j])",
                                        .infer = softmax_infer,
                                        .gradient = softmax_gradient<true>,
                                        .cost = elementwise<20>,
                                        .may_alias = alias_0};
constinit const OpDef op_log_softmax_grad = {.op = Op::log_softmax_grad,
                                             .name = "log_softmax_grad",
                                             .doc = "dx = dy - exp(y) sum_j dy_j",
                                             .infer = softmax_grad_infer,
                                             .cost = elementwise<20>,
                                             .may_alias = alias_01};
constinit const OpDef op_one_hot = {.op = Op::one_hot,
                                    .name = "one_hot",
                                    .doc = "y[b, c] = [c = labels[rows[b]]]",
                                    .infer = one_hot_infer,
                                    .cost = label_cost};
constinit const OpDef op_one_hot_cycle = {.op = Op::one_hot_cycle,
                                          .name = "one_hot_cycle",
                                          .doc = "y[n, c] = [c = n mod classes]",
                                          .infer = cycle_infer,
                                          .cost = elementwise<1>};
constinit const OpDef op_label_rows = {.op = Op::label_rows,
                                       .name = "label_rows",
                                       .doc = "y[b, 0] = labels[rows[b]], as a float",
                                       .infer = label_rows_infer,
                                       .cost = label_cost};

}  // namespace cuvae
