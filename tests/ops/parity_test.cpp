// The parity table on the CPU. Filter by id: --gtest_filter='*linear_32x64x63*'.

#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <set>

#include "base/tolerance.h"
#include "ops/parity_check.h"

namespace cuvae::testing {
namespace {

class Parity : public ::testing::TestWithParam<Case> {};

TEST_P(Parity, ValuesMatchAPlainDoubleLoop) {
  for (const Backend& backend : cpu_backends()) check_values(backend, GetParam());
}

TEST_P(Parity, OneThreadEqualsTwoAndThree) {
  for (const Backend& backend : cpu_backends()) check_variants(backend, GetParam());
}

std::string test_name(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.id();
  for (char& ch : name)
    if (std::isalnum(static_cast<unsigned char>(ch)) == 0) ch = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Table, Parity, ::testing::ValuesIn(parity_table()), test_name);

class Fused : public ::testing::TestWithParam<Case> {};

TEST_P(Fused, MatchesItsComposedDefinition) {
  for (const Backend& backend : cpu_backends()) check_fused(backend, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Table, Fused, ::testing::ValuesIn(fused_cases()), test_name);

std::vector<Case> differentiable_cases() {
  std::vector<Case> cases;
  for (const Case& c : parity_table())
    if (c.differentiable) cases.push_back(c);
  return cases;
}

class Gradient : public ::testing::TestWithParam<Case> {};

// The step of the differences, relative to x above 1: rounding (eps / h) and truncation (h^2) of
// functions of size 1 are about equal at the cube root of eps, 6e-6.
constexpr double difference_step = 1e-5;
// |f'''| of any case, in units of 1 + |f'|.
constexpr double third_derivative = 100;

// d(sum of cotangent * output) against central differences, in double.
TEST_P(Gradient, MatchesCentralDifferences) {
  const Case& c = GetParam();
  CaseGraph g = case_graph(c);
  const OpDef& def = op_def(c.op);
  ASSERT_NE(def.gradient, nullptr);
  std::vector<Tensor> tensors = case_inputs(c);
  for (Tensor& tensor : tensors)
    if (tensor.dtype() == DType::f32) tensor = tensor.to(DType::f64);
  Graph& graph = g.graph;
  Value loss;
  std::vector<std::pair<std::string, Tensor>> cotangents;
  if (g.outputs.size() > c.flowing) g.outputs.resize(c.flowing);
  for (const Value output : g.outputs) {
    if (graph[output].dtype != DType::f32) continue;
    const std::string name = "cotangent" + std::to_string(cotangents.size());
    const Value cotangent = graph.input(name, DType::f32, graph[output].shape);
    Tensor values(DType::f64, graph[output].shape);
    for (std::size_t i = 0; i < values.as<double>().size(); ++i)
      values.as<double>()[i] = std::sin(1.7 * static_cast<double>(i) + 0.3);
    cotangents.emplace_back(name, std::move(values));
    Value product = graph.apply("mul", name + "/mul", {output, cotangent});
    if (graph[product].shape.rank() > 0)
      product = graph.apply("reduce", name + "/sum", {product},
                            {{"axis", std::string("all")}, {"op", std::string("sum")}});
    loss = loss ? graph.apply("add", name + "/add", {loss, product}) : product;
  }
  graph.output(loss);
  const Graph forward = graph;
  std::vector<Value> wrt;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < g.inputs.size(); ++i) {
    const bool constant = std::find(def.constant_inputs.begin(), def.constant_inputs.end(),
                                    static_cast<int>(i)) != def.constant_inputs.end();
    if (!g.inputs[i] || constant || graph[g.inputs[i]].dtype != DType::f32) continue;
    wrt.push_back(g.inputs[i]);
    places.push_back(i);
  }
  ASSERT_FALSE(wrt.empty());
  const std::vector<Value> grads = gradients(graph, loss, wrt);
  for (const Value grad : grads) {
    ASSERT_TRUE(grad);
    if (!graph.root(grad)) graph.output(grad);
  }

  const std::unique_ptr<Device> device = cpu_backends()[1].make_device(1);
  Device& on = *device;
  ASSERT_EQ(on.info().real, DType::f64);
  const auto store = on.make_store();
  for (std::size_t i = 0; i < g.inputs.size(); ++i)
    if (g.inputs[i]) store->write(graph[g.inputs[i]].name, tensors[i]);
  for (const auto& [name, values] : cotangents) store->write(name, values);
  CompileOptions options;
  options.fuse = false;
  const auto backward = on.compile(graph, *store, options);
  const auto evaluate = on.compile(forward, *store, options);
  backward->run();
  const auto loss_at = [&] {
    evaluate->run();
    return evaluate->read(forward[loss].name).as<double>()[0];
  };
  // What rounding may change of the loss: a sum of so many terms of this size altogether, each a
  // sum of c.reduction terms itself.
  std::int64_t terms = c.reduction;
  double size = 1;
  static_cast<void>(loss_at());
  std::size_t next = 0;
  for (const Value output : g.outputs) {
    if (graph[output].dtype != DType::f32) continue;
    const Tensor values = evaluate->read(forward[output].name);
    const Tensor& cotangent = cotangents[next++].second;
    for (std::int64_t i = 0; i < values.elements(); ++i)
      size += std::abs(values.item(i) * cotangent.item(i));
    terms += values.elements();
  }
  const double loss_error = tolerance(DType::f64, terms, size).abs;
  for (std::size_t k = 0; k < wrt.size(); ++k) {
    const std::string& name = graph[wrt[k]].name;
    const Value root = graph.root(grads[k]);
    const Tensor grad = root ? store->read(graph[root].name) : backward->read(graph[grads[k]].name);
    Tensor& at = tensors[places[k]];
    const std::size_t n = at.as<double>().size();
    const std::size_t stride = std::max<std::size_t>(1, n / 23);
    for (std::size_t i = 0; i < n; i += stride) {
      const double x = at.as<double>()[i];
      const double h = difference_step * std::max(1.0, std::abs(x));
      at.as<double>()[i] = x + h;
      store->write(name, at);
      const double above = loss_at();
      at.as<double>()[i] = x - h;
      store->write(name, at);
      const double below = loss_at();
      at.as<double>()[i] = x;
      store->write(name, at);
      const double numeric = (above - below) / (2 * h);
      // f(x + h) - f(x - h) = 2 h f'(x) + h^3 / 3 f'''(x), and the rounding of both.
      const double rounding = 2 * loss_error / (2 * h);
      const double truncation = h * h / 6 * third_derivative * (1 + std::abs(numeric));
      const double own = tolerance(DType::f64, c.reduction).rel * (1 + std::abs(numeric));
      const double limit = rounding + truncation + own;
      EXPECT_TRUE(std::abs(grad.as<double>()[i] - numeric) <= limit)
          << c.id() << ", input " << places[k] << " element " << i << ": " << grad.as<double>()[i]
          << " against " << numeric;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, Gradient, ::testing::ValuesIn(differentiable_cases()), test_name);

TEST(ParityTable, HasCasesForEveryOperator) {
  std::set<std::string> covered, ids, gradients_checked;
  for (const Case& c : parity_table()) {
    covered.insert(c.op);
    EXPECT_TRUE(ids.insert(c.id()).second) << "two cases called " << c.id();
    if (c.differentiable) gradients_checked.insert(c.op);
  }
  for (const OpDef* def : all_ops()) {
    EXPECT_TRUE(covered.count(std::string(def->name))) << "no case for " << def->name;
    if (def->gradient) {
      EXPECT_TRUE(gradients_checked.count(std::string(def->name)))
          << "the gradient of " << def->name << " is not checked";
    }
  }
}

// Of dense products, whose shapes say what they cost.
double product_flops(const CaseGraph& g, const Node& node) {
  const auto dim = [&](std::size_t in, int axis) {
    return static_cast<double>(g.graph[node.inputs[in]].shape[axis]);
  };
  // x [B, in], w [out, in]; dy [B, out], w [out, in]; dy [B, out], x [B, in].
  const bool forward = node.op == Op::linear || node.op == Op::linear_activation ||
                       node.op == Op::linear_nll || node.op == Op::linear_sample_kl ||
                       node.op == Op::linear_bottleneck;
  if (node.op == Op::linear_gather_activation) return 2 * dim(1, 0) * dim(2, 0) * dim(2, 1);
  if (node.op == Op::linear_gather_nll) return 2 * dim(1, 0) * dim(3, 0) * dim(3, 1);
  if (node.op == Op::linear_gather_wgrad_adam) return (2 * dim(1, 0) + 14) * dim(3, 0) * dim(3, 1);
  const double product = 2 * dim(0, 0) * dim(0, 1) * (forward ? dim(1, 0) : dim(1, 1));
  if (node.op == Op::linear_bottleneck) return product + 2 * dim(0, 0) * dim(3, 0) * dim(3, 1);
  if (node.op == Op::linear_dgrad_bottleneck)
    return product + 2 * dim(0, 0) * dim(6, 0) * dim(6, 1);
  if (node.op != Op::linear_wgrad_adam) return product;
  return product + 14 * dim(0, 1) * dim(1, 1);  // Adam on each weight
}

TEST(ParityTable, CostsAreThoseOfTheShapes) {
  int products = 0;
  for (const Case& c : parity_table()) {
    SCOPED_TRACE(c.id());
    const CaseGraph g = case_graph(c);
    const Node& node = g.graph.nodes().front();
    const OpDef& def = op_def(node.op);
    const Cost cost = def.cost(g.graph, node);
    EXPECT_TRUE(cost.flops >= 0 && std::isfinite(cost.flops)) << cost.flops;
    // What it makes must at least be written.
    double written = 0;
    for (const Value output : node.outputs)
      written += static_cast<double>(g.graph[output].shape.elements()) *
                 static_cast<double>(size_of(g.graph[output].dtype));
    EXPECT_TRUE(cost.bytes >= written && std::isfinite(cost.bytes)) << cost.bytes;
    if (!def.name.starts_with("linear")) continue;
    EXPECT_EQ(cost.flops, product_flops(g, node));
    products += cost.flops > 0 ? 1 : 0;
  }
  EXPECT_GT(products, 50);
}

}  // namespace
}  // namespace cuvae::testing
