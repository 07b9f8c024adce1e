// Likelihoods of a softmax: labels and counts. How a model uses them: the head decoder.out
// has C logits for each of D labels, those of a label beside one another or, with the attribute
// `inner`, planes as a convolution gives them (categorical; ClassLayout), or one for each of D
// counted items (multinomial). categorical_mean is what a model shows: E[x|z] as a share of the
// last class.

#include <fmt/format.h>

#include "cuvae/error.h"
#include "ops/classes.h"
#include "ops/rules.h"

namespace cuvae {

std::int64_t inner_of(const Attrs& attrs) {
  const std::int64_t inner = attrs.integer("inner", 1);
  if (inner < 1)
    throw Error(Status::usage, fmt::format("inner = {}", inner), {}, "give a number from 1 on");
  return inner;
}

namespace {

// The logits at input i are C for each label of the target [B, D] at i + 1.
void expect_classes(const InferContext& c, int i) {
  c.rank(i, 2, "[B, D C]");
  c.expect(i, DType::f32);
  c.rank(i + 1, 2, "[B, D]");
  c.expect(i + 1, DType::f32);
  const std::int64_t logits = c.shape(i)[1], labels = c.shape(i + 1)[1];
  if (c.shape(i)[0] != c.shape(i + 1)[0] ||
      (labels == 0 ? logits != 0 : logits % labels != 0 || logits == 0))
    c.fail(fmt::format("logits {} for labels {}", c.shape(i).str(), c.shape(i + 1).str()),
           "give [B, D C] logits, C for each of the labels [B, D]");
  const std::int64_t inner = inner_of(c.attrs());
  if (labels % inner != 0)
    c.fail(fmt::format("labels {} in planes of {}", c.shape(i + 1).str(), inner),
           "give whole planes");
}

std::vector<OutputSpec> categorical_infer(const InferContext& c) {
  c.inputs(2);
  expect_classes(c, 0);
  return {{"", DType::f32, Shape{c.shape(0)[0]}}};
}

void categorical_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("categorical_nll_grad", g.name("dlogits"),
                         {g.grad_out(0), g.in(0), g.in(1)}, select(g.node.attrs, {"inner"})));
}

std::vector<OutputSpec> categorical_grad_infer(const InferContext& c) {
  c.inputs(3);
  expect_classes(c, 1);
  c.expect(0, DType::f32);
  c.shape(0, Shape{c.shape(1)[0]}, "[B]");
  return {{"", DType::f32, c.shape(1)}};
}

std::vector<OutputSpec> categorical_mean_infer(const InferContext& c) {
  c.inputs(1);
  c.rank(0, 2, "[B, D C]");
  c.expect(0, DType::f32);
  const std::int64_t classes = classes_of(c.attrs());
  const std::int64_t logits = c.shape(0)[1];
  if (logits % (classes * inner_of(c.attrs())) != 0)
    c.fail(fmt::format("logits {} of {} classes in planes of {}", c.shape(0).str(), classes,
                       inner_of(c.attrs())),
           "give [B, D C] logits, C for each of the labels [B, D]");
  return {{"", DType::f32, Shape{c.shape(0)[0], logits / classes}}};
}

std::vector<OutputSpec> multinomial_infer(const InferContext& c) {
  c.inputs(2);
  c.rank(0, 2, "[B, D]");
  same_shape(c, 0, 1);
  return {{"", DType::f32, Shape{c.shape(0)[0]}}};
}

void multinomial_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("multinomial_nll_grad", g.name("dlogits"),
                         {g.grad_out(0), g.in(0), g.in(1)}));
}

std::vector<OutputSpec> multinomial_grad_infer(const InferContext& c) {
  c.inputs(3);
  c.rank(1, 2, "[B, D]");
  same_shape(c, 1, 2);
  c.expect(0, DType::f32);
  c.shape(0, Shape{c.shape(1)[0]}, "[B]");
  return {{"", DType::f32, c.shape(1)}};
}

constexpr int targets[] = {1};
constexpr Slots grad_alias[] = {{0, 1}};

}  // namespace

constinit const OpDef op_categorical_nll = {
    .op = Op::categorical_nll,
    .name = "categorical_nll",
    .doc = "nll[b] = sum_j log sum_c exp(l_jc) - l_jx, C logits for each label x_j",
    .infer = categorical_infer,
    .gradient = categorical_gradient,
    .cost = per_input<20>,
    .constant_inputs = targets};
constinit const OpDef op_categorical_nll_grad = {
    .op = Op::categorical_nll_grad,
    .name = "categorical_nll_grad",
    .doc = "dlogits = dnll (softmax(l_j) - [c is the label])",
    .infer = categorical_grad_infer,
    .cost = elementwise<40>,
    .may_alias = grad_alias};
constinit const OpDef op_categorical_mean = {.op = Op::categorical_mean,
                                             .name = "categorical_mean",
                                             .doc = "y[b, j] = sum_c softmax(l_j)_c c / (C - 1)",
                                             .infer = categorical_mean_infer,
                                             .cost = per_input<20>};
constinit const OpDef op_multinomial_nll = {
    .op = Op::multinomial_nll,
    .name = "multinomial_nll",
    .doc = "nll[b] = -log(n! prod_j p_j^x_j / x_j!), p = softmax(l), n = sum_j x_j",
    .infer = multinomial_infer,
    .gradient = multinomial_gradient,
    .cost = per_input<100>,
    .constant_inputs = targets};
constinit const OpDef op_multinomial_nll_grad = {.op = Op::multinomial_nll_grad,
                                                 .name = "multinomial_nll_grad",
                                                 .doc = "dlogits = dnll (n p_j - x_j)",
                                                 .infer = multinomial_grad_infer,
                                                 .cost = elementwise<40>,
                                                 .may_alias = grad_alias};

}  // namespace cuvae
