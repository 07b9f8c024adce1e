#include "ops/norm.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

namespace {

Classes classes(std::int64_t elements, std::int64_t inner, std::int64_t count) {
  return {inner, count, elements > 0 ? elements / (inner * count) : 0};
}

double eps_of(const Attrs& attrs) {
  const double eps = attrs.real("eps", 1e-5);
  if (!(eps >= 0 && eps < 1e30))
    throw Error(Status::usage, fmt::format("eps = {} is negative or not finite", eps));
  return eps;
}

void expect_layer(const InferContext& c, int i) {
  c.expect(i, DType::f32);
  if (c.shape(i).rank() != 2 && c.shape(i).rank() != 4)
    c.fail(fmt::format("input {} has shape {}, not [B, F] or [B, C, H, W]", i, c.shape(i).str()));
}

// Weight and bias, of which there are both or neither.
void expect_affine(const InferContext& c, int weight, std::int64_t channels) {
  if (c.has(weight) != c.has(weight + 1))
    c.fail("has a weight or a bias, not both", "give both or neither");
  for (const int i : {weight, weight + 1}) {
    if (!c.has(i)) continue;
    c.expect(i, DType::f32);
    c.shape(i, Shape{channels}, "an element for each channel");
  }
}

void expect_stats(const InferContext& c, int first, std::int64_t groups) {
  for (const int i : {first, first + 1}) {
    c.expect(i, DType::f32);
    c.shape(i, Shape{groups}, "an element for each group");
  }
}

std::vector<OutputSpec> norm_infer(const InferContext& c) {
  c.inputs(1, 3);
  expect_layer(c, 0);
  const Norm norm = norm_of(c.attrs(), c.shape(0));
  if (norm.groups.elements() == 0 && norm.groups.count > 0)
    c.fail(fmt::format("the mean of nothing: {}", c.shape(0).str()));
  expect_affine(c, 1, norm.channels.count);
  const Shape stats{norm.groups.count};
  return {{"y", DType::f32, c.shape(0)}, {"mean", DType::f32, stats}, {"var", DType::f32, stats}};
}

// dy, x, mean, var, weight
std::vector<OutputSpec> norm_grad_infer(const InferContext& c) {
  c.inputs(4, 5);
  expect_layer(c, 0);
  same_shape(c, 0, 1);
  const Norm norm = norm_of(c.attrs(), c.shape(0));
  expect_stats(c, 2, norm.groups.count);
  if (!c.has(4)) return {{"", DType::f32, c.shape(0)}};
  const Shape channels{norm.channels.count};
  c.expect(4, DType::f32);
  c.shape(4, channels, "an element for each channel");
  return {{"dx", DType::f32, c.shape(0)},
          {"dweight", DType::f32, channels},
          {"dbias", DType::f32, channels}};
}

void norm_gradient(GradientContext& g) {
  const Value dy = g.grad_out(0);
  if (g.grad_out(1) || g.grad_out(2))
    throw Error(Status::usage, "a gradient reaches the statistics of a norm",
                fmt::format("node `{}` (norm)", g.node.name), "detach them");
  if (!dy) return;
  std::vector<Value> inputs = {dy, g.in(0), g.out(1), g.out(2)};
  if (g.in(1)) inputs.push_back(g.in(1));
  const auto grads = g.graph.add("norm_grad", g.name("dx"), inputs,
                                 select(g.node.attrs, {"kind", "groups", "eps"}));
  g.set(0, grads[0]);
  if (!g.in(1)) return;
  g.set(1, grads[1]);
  g.set(2, grads[2]);
}

// x, mean, var, weight, bias
std::vector<OutputSpec> batch_norm_eval_infer(const InferContext& c) {
  c.inputs(3, 5);
  expect_layer(c, 0);
  eps_of(c.attrs());
  expect_stats(c, 1, c.shape(0)[1]);
  expect_affine(c, 3, c.shape(0)[1]);
  return {{"", DType::f32, c.shape(0)}};
}

// dx = dy / sqrt(var + eps) weight
void batch_norm_eval_gradient(GradientContext& g) {
  const Value dy = g.grad_out(0);
  if (!dy) return;
  const Shape channels = g.graph[g.in(1)].shape;
  const Value zero =
      g.graph.apply("fill", g.name("zero"), {}, {{"shape", shape_text(channels)}, {"value", 0.0}});
  std::vector<Value> inputs = {dy, zero, g.in(2)};
  if (g.in(3)) inputs.insert(inputs.end(), {g.in(3), zero});
  g.set(0, g.graph.apply("batch_norm_eval", g.name("dx"), inputs, g.node.attrs));
}

// running_mean, running_var, num_batches_tracked, mean, var, commit
std::vector<OutputSpec> running_stats_infer(const InferContext& c) {
  c.inputs(6);
  for (const int i : {0, 1, 3, 4}) {
    c.expect(i, DType::f32);
    c.rank(i, 1, "[C]");
    c.shape(i, c.shape(0), "[C]");
  }
  c.expect(2, DType::i64);
  c.shape(2, Shape{}, "a scalar");
  expect_commit(c, 5);
  const double momentum = c.attrs().real("momentum", 0.1);
  if (!(momentum >= 0 && momentum <= 1))
    c.fail(fmt::format("momentum = {} is not in [0, 1]", momentum));
  if (const std::int64_t count = c.attrs().integer("count"); count < 2)
    c.fail(fmt::format("the variance of {} value{} of each channel", count, count == 1 ? "" : "s"),
           "use a larger batch or another norm");
  return {{"running_mean", DType::f32, c.shape(0)},
          {"running_var", DType::f32, c.shape(0)},
          {"num_batches_tracked", DType::i64, Shape{}}};
}

constexpr Slots stats_updates[] = {{0, 0}, {1, 1}, {2, 2}};
constexpr Slots in_place[] = {{0, 0}};
constexpr int eval_constants[] = {1, 2, 3, 4};

}  // namespace

Norm norm_of(const Attrs& attrs, const Shape& x) {
  const std::string& kind = attrs.text("kind");
  Norm norm;
  norm.eps = eps_of(attrs);
  const std::int64_t channels = x[1];
  const std::int64_t plane = x.rank() == 4 ? x[2] * x[3] : 1;
  const std::int64_t n = x.elements();
  norm.channels = classes(n, plane, channels);
  if (kind == "batch") {
    norm.kind = NormKind::batch;
    norm.groups = norm.channels;
  } else if (kind == "layer") {
    norm.kind = NormKind::layer;
    norm.groups = classes(n, channels * plane, x[0]);
    norm.channels = classes(n, 1, channels * plane);
  } else if (kind == "group") {
    norm.kind = NormKind::group;
    const std::int64_t groups = attrs.integer("groups");
    if (groups < 1 || channels % groups != 0)
      throw Error(Status::usage,
                  fmt::format("{} channels do not fall into {} groups", channels, groups), {},
                  "the number of groups must divide that of channels");
    norm.groups = classes(n, channels / groups * plane, x[0] * groups);
  } else {
    throw Error(Status::usage, fmt::format("there is no norm \"{}\"", kind), {},
                "use batch, layer or group");
  }
  return norm;
}

constinit const OpDef op_norm = {.op = Op::norm,
                                 .name = "norm",
                                 .doc = "(x - mean) / sqrt(var + eps) * weight + bias",
                                 .infer = norm_infer,
                                 .gradient = norm_gradient,
                                 .cost = elementwise<8>};
constinit const OpDef op_norm_grad = {.op = Op::norm_grad,
                                      .name = "norm_grad",
                                      .doc = "what a norm passes back, and to weight and bias",
                                      .infer = norm_grad_infer,
                                      .cost = elementwise<14>};
constinit const OpDef op_batch_norm_eval = {.op = Op::batch_norm_eval,
                                            .name = "batch_norm_eval",
                                            .doc = "a batch norm by given mean and variance",
                                            .infer = batch_norm_eval_infer,
                                            .gradient = batch_norm_eval_gradient,
                                            .cost = elementwise<4>,
                                            .may_alias = in_place,
                                            .constant_inputs = eval_constants};
constinit const OpDef op_running_stats = {.op = Op::running_stats,
                                          .name = "running_stats",
                                          .doc = "the running mean and variance of a batch norm",
                                          .infer = running_stats_infer,
                                          .cost = elementwise<6>,
                                          .updates = stats_updates};

}  // namespace cuvae
