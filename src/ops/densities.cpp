#include "ops/densities.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

ImportanceAttrs importance_of(const Attrs& attrs) {
  const std::string name = attrs.text("importance", "none");
  if (name == "none") return {};
  if (name != "mws" && name != "mss")
    throw Error(Status::usage, fmt::format("there is no importance \"{}\"", name), {},
                "use none, mws or mss");
  const std::int64_t dataset = attrs.integer("dataset");
  if (dataset < 1)
    throw Error(Status::usage, fmt::format("dataset = {} is not a number of rows", dataset), {},
                "give the number of training rows");
  return {name == "mws" ? Importance::mws : Importance::mss, dataset};
}

KernelMeanAttrs kernel_mean_of(const Attrs& attrs) {
  const std::string& name = attrs.text("kernel");
  if (name != "rbf" && name != "imq")
    throw Error(Status::usage, fmt::format("there is no kernel \"{}\"", name), {},
                "use rbf or imq");
  const double bandwidth = attrs.real("bandwidth");
  if (!(bandwidth >= 1e-9 && bandwidth <= 1e9))
    throw Error(Status::usage,
                fmt::format("bandwidth = {} is not a number from 1e-9 to 1e9", bandwidth));
  return {name == "rbf" ? PairKernel::rbf : PairKernel::imq, bandwidth,
          flag_of(attrs, "skip_diagonal")};
}

namespace {

void expect_real(const InferContext& c, int i, const Shape& shape, std::string_view meaning) {
  c.expect(i, DType::f32);
  c.shape(i, shape, meaning);
}

void expect_importance(const InferContext& c, std::int64_t n, std::int64_t m) {
  const ImportanceAttrs a = importance_of(c.attrs());
  if (a.kind == Importance::none) return;
  if (a.kind == Importance::mss && (n != m || m < 2))
    c.fail(fmt::format("stratified weights of {} rows and {} columns", n, m),
           "they are of at least two samples and their own posteriors");
  if (a.dataset < m)
    c.fail(fmt::format("dataset = {} is less than a batch of {}", a.dataset, m),
           "give the number of training rows");
}

// z [N, d] at input i, mean and logvar [M, d] behind it.
void expect_gaussians(const InferContext& c, int i) {
  for (const int k : {i, i + 1}) {
    c.expect(k, DType::f32);
    c.rank(k, 2, k == i ? "[N, d]" : "[M, d]");
  }
  same_shape(c, i + 1, i + 2);
  if (c.shape(i)[1] != c.shape(i + 1)[1])
    c.fail(fmt::format("z {} and means {} of other dimensions", c.shape(i).str(),
                       c.shape(i + 1).str()));
}

void expect_some(const InferContext& c, std::int64_t m, std::string_view what) {
  if (m == 0) c.fail(fmt::format("{} of nothing", what), "give at least one row to go over");
}

// normal_log_density ------------------------------------------------------------------------------

// The shape of z at input i; mean and logvar may follow it.
Shape expect_normal(const InferContext& c, int i) {
  c.inputs(i + 1, i + 3);
  c.expect(i, DType::f32);
  c.rank(i, 2, "[N, d]");
  for (const int k : {i + 1, i + 2})
    if (c.has(k)) expect_real(c, k, c.shape(i), "that of z");
  return c.shape(i);
}

std::vector<OutputSpec> normal_infer(const InferContext& c) {
  return {{"", DType::f32, Shape{expect_normal(c, 0)[0]}}};
}

void normal_gradient(GradientContext& g) {
  std::vector<Value> inputs = {g.grad_out(0)};
  inputs.insert(inputs.end(), g.node.inputs.begin(), g.node.inputs.end());
  const std::vector<Value> grads = g.graph.add("normal_log_density_grad", g.name("grad"), inputs);
  std::size_t next = 0;
  for (std::size_t i = 0; i < g.node.inputs.size(); ++i)
    if (g.node.inputs[i]) g.set(static_cast<int>(i), grads[next++]);
}

std::vector<OutputSpec> normal_grad_infer(const InferContext& c) {
  const Shape z = expect_normal(c, 1);
  expect_real(c, 0, Shape{z[0]}, "[N]");
  if (!c.has(2) && !c.has(3)) return {{"", DType::f32, z}};
  std::vector<OutputSpec> outputs = {{"dz", DType::f32, z}};
  if (c.has(2)) outputs.push_back({"dmean", DType::f32, z});
  if (c.has(3)) outputs.push_back({"dlogvar", DType::f32, z});
  return outputs;
}

// pair_log_density --------------------------------------------------------------------------------

std::vector<OutputSpec> pair_infer(const InferContext& c) {
  c.inputs(3);
  expect_gaussians(c, 0);
  return {{"", DType::f32, Shape{c.shape(0)[0], c.shape(1)[0]}}};
}

void pair_gradient(GradientContext& g) {
  const auto grads = g.graph.add("pair_log_density_grad", g.name("grad"),
                                 {g.grad_out(0), g.in(0), g.in(1), g.in(2)});
  for (int i = 0; i < 3; ++i) g.set(i, grads[static_cast<std::size_t>(i)]);
}

std::vector<OutputSpec> gaussian_gradients(const InferContext& c, int z) {
  return {{"dz", DType::f32, c.shape(z)},
          {"dmean", DType::f32, c.shape(z + 1)},
          {"dlogvar", DType::f32, c.shape(z + 1)}};
}

std::vector<OutputSpec> pair_grad_infer(const InferContext& c) {
  c.inputs(4);
  expect_gaussians(c, 1);
  expect_real(c, 0, Shape{c.shape(1)[0], c.shape(2)[0]}, "[N, M]");
  return gaussian_gradients(c, 1);
}

// What each pair of a row of z and a Gaussian costs for each dimension.
template <int z, int flops>
Cost pair_cost(const Graph& graph, const Node& node) {
  const auto elements = [&](int i) {
    return static_cast<double>(graph[node.inputs[static_cast<std::size_t>(i)]].shape.elements());
  };
  const auto rows = static_cast<double>(graph[node.inputs[z + 1]].shape[0]);
  return {.flops = flops * elements(z) * rows, .bytes = traffic(graph, node)};
}

// marginal_log_density ----------------------------------------------------------------------------

void expect_marginal(const InferContext& c, int z) {
  expect_gaussians(c, z);
  expect_some(c, c.shape(z + 1)[0], "a logsumexp");
  expect_importance(c, c.shape(z)[0], c.shape(z + 1)[0]);
}

std::vector<OutputSpec> marginal_infer(const InferContext& c) {
  c.inputs(3);
  expect_marginal(c, 0);
  return {{"log_density", DType::f32, Shape{c.shape(0)[0]}},
          {"logsumexps", DType::f32, c.shape(0)}};
}

void marginal_gradient(GradientContext& g) {
  if (!g.grad_out(0)) return;  // the logsumexps are for the gradient alone
  const auto grads = g.graph.add("marginal_log_density_grad", g.name("grad"),
                                 {g.grad_out(0), g.out(1), g.in(0), g.in(1), g.in(2)},
                                 select(g.node.attrs, {"importance", "dataset"}));
  for (int i = 0; i < 3; ++i) g.set(i, grads[static_cast<std::size_t>(i)]);
}

std::vector<OutputSpec> marginal_grad_infer(const InferContext& c) {
  c.inputs(5);
  expect_marginal(c, 2);
  expect_real(c, 0, Shape{c.shape(2)[0]}, "[N]");
  expect_real(c, 1, c.shape(2), "[N, d]");
  return gaussian_gradients(c, 2);
}

// logsumexp ---------------------------------------------------------------------------------------

void expect_logsumexp(const InferContext& c, int x) {
  c.expect(x, DType::f32);
  c.rank(x, 2, "[N, M]");
  const std::int64_t m = c.shape(x)[1];
  expect_some(c, m, "a logsumexp");
  expect_importance(c, c.shape(x)[0], m);
  if (c.has(x + 1)) expect_real(c, x + 1, Shape{m}, "[M]");
  if (flag_of(c.attrs(), "normalise") && !c.has(x + 1))
    c.fail("normalise = 1, but no bias", fmt::format("give it as input {}", x + 1));
}

std::vector<OutputSpec> logsumexp_infer(const InferContext& c) {
  c.inputs(1, 2);
  expect_logsumexp(c, 0);
  return {{"", DType::f32, Shape{c.shape(0)[0]}}};
}

void logsumexp_gradient(GradientContext& g) {
  const auto grads =
      g.graph.add("logsumexp_grad", g.name("grad"), {g.grad_out(0), g.in(0), g.in(1)},
                  select(g.node.attrs, {"importance", "dataset", "normalise"}));
  g.set(0, grads[0]);
  if (grads.size() > 1) g.set(1, grads[1]);
}

std::vector<OutputSpec> logsumexp_grad_infer(const InferContext& c) {
  c.inputs(2, 3);
  expect_logsumexp(c, 1);
  expect_real(c, 0, Shape{c.shape(1)[0]}, "[N]");
  if (!c.has(2)) return {{"", DType::f32, c.shape(1)}};
  return {{"dx", DType::f32, c.shape(1)}, {"dbias", DType::f32, c.shape(2)}};
}

// kernel_mean -------------------------------------------------------------------------------------

void expect_kernel_mean(const InferContext& c, int z) {
  const KernelMeanAttrs a = kernel_mean_of(c.attrs());
  for (const int k : {z, z + 1}) {
    c.expect(k, DType::f32);
    c.rank(k, 2, k == z ? "[N, d]" : "[M, d]");
  }
  const std::int64_t n = c.shape(z)[0], m = c.shape(z + 1)[0];
  if (c.shape(z)[1] != c.shape(z + 1)[1])
    c.fail(
        fmt::format("z {} and y {} of other dimensions", c.shape(z).str(), c.shape(z + 1).str()));
  expect_some(c, m, "a mean");
  if (a.skip_diagonal && (n != m || m < 2))
    c.fail(fmt::format("skip_diagonal of {} rows and {} columns", n, m),
           "compare at least two rows with themselves");
}

std::vector<OutputSpec> kernel_mean_infer(const InferContext& c) {
  c.inputs(2);
  expect_kernel_mean(c, 0);
  return {{"", DType::f32, Shape{c.shape(0)[0]}}};
}

void kernel_mean_gradient(GradientContext& g) {
  const auto grads = g.graph.add("kernel_mean_grad", g.name("grad"),
                                 {g.grad_out(0), g.in(0), g.in(1)}, g.node.attrs);
  g.set(0, grads[0]);
  g.set(1, grads[1]);
}

std::vector<OutputSpec> kernel_mean_grad_infer(const InferContext& c) {
  c.inputs(3);
  expect_kernel_mean(c, 1);
  expect_real(c, 0, Shape{c.shape(1)[0]}, "[N]");
  return {{"dz", DType::f32, c.shape(1)}, {"dy", DType::f32, c.shape(2)}};
}

constexpr Slots over_z[] = {{0, 1}};

}  // namespace

constinit const OpDef op_normal_log_density = {
    .op = Op::normal_log_density,
    .name = "normal_log_density",
    .doc = "log_density[n] = sum_j log N(z_j; mean_j, exp(logvar_j))",
    .infer = normal_infer,
    .gradient = normal_gradient,
    .cost = per_input<15>};
constinit const OpDef op_normal_log_density_grad = {
    .op = Op::normal_log_density_grad,
    .name = "normal_log_density_grad",
    .doc = "dz = -dmean = -d t / sigma; dlogvar = d (t^2 - 1) / 2, t = (z - mean) / sigma",
    .infer = normal_grad_infer,
    .cost = elementwise<20>,
    .may_alias = over_z};
constinit const OpDef op_pair_log_density = {
    .op = Op::pair_log_density,
    .name = "pair_log_density",
    .doc = "log_density[n, m] = sum_j log N(z_nj; mean_mj, exp(logvar_mj))",
    .infer = pair_infer,
    .gradient = pair_gradient,
    .cost = pair_cost<0, 5>};
constinit const OpDef op_pair_log_density_grad = {
    .op = Op::pair_log_density_grad,
    .name = "pair_log_density_grad",
    .doc = "dz, dmean, dlogvar: sums over m and n of d[n, m] times the log-density's",
    .infer = pair_grad_infer,
    .cost = pair_cost<1, 15>};
constinit const OpDef op_marginal_log_density = {
    .op = Op::marginal_log_density,
    .name = "marginal_log_density",
    .doc = "log_density[n] = sum_j logsumexp_m (log N(z_nj; mean_mj, exp(logvar_mj)) + w(n, m))",
    .infer = marginal_infer,
    .gradient = marginal_gradient,
    .cost = pair_cost<0, 30>};
constinit const OpDef op_marginal_log_density_grad = {
    .op = Op::marginal_log_density_grad,
    .name = "marginal_log_density_grad",
    .doc = "dz, dmean, dlogvar, each term's weighed by its share of the sum",
    .infer = marginal_grad_infer,
    .cost = pair_cost<2, 60>};
constinit const OpDef op_logsumexp = {.op = Op::logsumexp,
                                      .name = "logsumexp",
                                      .doc = "y[n] = logsumexp_m (x[n, m] + bias[m] + w(n, m))",
                                      .infer = logsumexp_infer,
                                      .gradient = logsumexp_gradient,
                                      .cost = per_input<15>};
constinit const OpDef op_logsumexp_grad = {
    .op = Op::logsumexp_grad,
    .name = "logsumexp_grad",
    .doc = "dx = d softmax(x + bias + w); dbias = its sum over n, through log_softmax",
    .infer = logsumexp_grad_infer,
    .cost = elementwise<20>};
constinit const OpDef op_kernel_mean = {.op = Op::kernel_mean,
                                        .name = "kernel_mean",
                                        .doc = "y[n] = mean_m k(z_n, y_m), k given by `kernel`",
                                        .infer = kernel_mean_infer,
                                        .gradient = kernel_mean_gradient,
                                        .cost = pair_cost<0, 3>};
constinit const OpDef op_kernel_mean_grad = {
    .op = Op::kernel_mean_grad,
    .name = "kernel_mean_grad",
    .doc = "dz, dy: sums over m and n of d[n] dk(z_n, y_m)",
    .infer = kernel_mean_grad_infer,
    .cost = pair_cost<1, 10>};

}  // namespace cuvae
