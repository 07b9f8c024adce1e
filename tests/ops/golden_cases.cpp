#include "ops/golden_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "cuvae/device.h"
#include "graph/op.h"
#include "support/source_path.h"

namespace cuvae::testing {
namespace {

using Json = nlohmann::json;

std::vector<double> reals_of(const Json& values) {
  std::vector<double> reals;
  for (const Json& value : values)
    reals.push_back(value.is_string() ? (value == "inf" ? HUGE_VAL : -HUGE_VAL)
                                      : value.get<double>());
  return reals;
}

Shape shape_of(const Json& tensor) {
  const auto dims = tensor.at("shape").get<std::vector<std::int64_t>>();
  return Shape(std::span<const std::int64_t>(dims));
}

Attrs attrs_of(const Json& entries) {
  Attrs attrs;
  for (const auto& [key, value] : entries.items()) {
    if (value.is_string())
      attrs.set(key, value.get<std::string>());
    else if (value.is_number_integer())
      attrs.set(key, value.get<std::int64_t>());
    else
      attrs.set(key, value.get<double>());
  }
  return attrs;
}

DType dtype_of(const Json& tensor) {
  const std::string name = tensor.value("dtype", "f32");
  return name == "i64" ? DType::i64 : name == "u8" ? DType::u8 : DType::f32;
}

Tensor tensor_of(const Json& tensor, DType real) {
  const DType dtype = dtype_of(tensor);
  if (dtype == DType::f32) return golden_tensor(shape_of(tensor), tensor.at("values"), real);
  // Not by way of reals: a seed has 64 bits.
  Tensor integers(dtype, shape_of(tensor));
  const auto fill = [&]<class T>(std::span<T> elements) {
    const auto values = tensor.at("values").get<std::vector<T>>();
    std::copy(values.begin(), values.end(), elements.begin());
  };
  if (dtype == DType::i64)
    fill(integers.as<std::int64_t>());
  else
    fill(integers.as<std::uint8_t>());
  return integers;
}

// A case as a graph.
struct GoldenGraph {
  Graph graph;
  std::vector<std::pair<Value, const Json*>> given;    // what is written before a run
  std::vector<std::pair<Value, const Json*>> outputs;  // those that are looked at
  std::vector<Value> gradients;
};

GoldenGraph golden_graph(const Json& c) {
  GoldenGraph g;
  std::vector<Value> inputs, derived;
  for (const Json& input : c.at("inputs")) {
    inputs.emplace_back();
    if (input.is_null()) continue;
    const std::string name = "in" + std::to_string(g.given.size());
    const bool state = input.value("state", false);
    inputs.back() = state ? g.graph.state(name, dtype_of(input), shape_of(input))
                          : g.graph.input(name, dtype_of(input), shape_of(input));
    g.given.emplace_back(inputs.back(), &input);
    if (!state && !input.value("constant", false)) derived.push_back(inputs.back());
  }
  const std::vector<Value> made =
      g.graph.add(c.at("op").get<std::string>(), "y", inputs, attrs_of(c.at("attrs")));
  std::vector<const Json*> wanted;
  if (c.contains("output")) {
    wanted.push_back(&c.at("output"));
  } else {
    for (const Json& output : c.at("outputs")) wanted.push_back(&output);
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i]->is_null()) continue;
    g.outputs.emplace_back(made.at(i), wanted[i]);
    if (!g.graph.root(made[i])) g.graph.output(made[i]);
  }
  if (!c.contains("cotangent")) return g;
  const Value y = made.front();
  const Value cotangent = g.graph.input("cotangent", DType::f32, g.graph[y].shape);
  g.given.emplace_back(cotangent, &c.at("cotangent"));
  Value loss = g.graph.apply("mul", "by", {y, cotangent});
  if (g.graph[y].shape.rank() > 0)
    loss = g.graph.apply("reduce", "loss", {loss},
                         {{"axis", std::string("all")}, {"op", std::string("sum")}});
  g.gradients = gradients(g.graph, loss, derived);
  for (const Value grad : g.gradients) g.graph.output(grad);
  return g;
}

}  // namespace

// Below it floats are denormal, or 0.
constexpr double smallest = 1e-37;

void expect_golden(const Tensor& got, const Json& values, const GoldenLimit& how,
                   const std::string& what, const Json* scales) {
  const auto wanted = reals_of(values);
  ASSERT_EQ(got.elements(), static_cast<std::int64_t>(wanted.size())) << what;
  double largest = how.floor;
  for (const double v : wanted)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double value = got.item(static_cast<std::int64_t>(i));
    const double size = scales != nullptr ? scales->at(i).get<double>()
                        : how.sharp       ? std::abs(wanted[i]) + smallest / how.limit
                                          : largest;
    EXPECT_TRUE(value == wanted[i] || std::abs(value - wanted[i]) <= how.limit * size)
        << what << ", element " << i << ": " << value << " against " << wanted[i];
    if (how.told && std::abs(wanted[i]) > smallest) {
      EXPECT_GT(std::abs(wanted[i]), how.limit * size)
          << what << ", element " << i << ": 0 would pass for it";
    }
  }
}

Json golden_file(const std::string& name) {
  std::ifstream stream(test::source_path("tests/golden/" + name));
  return Json::parse(stream);
}

Tensor golden_tensor(const Shape& shape, const Json& values, DType dtype) {
  const auto reals = reals_of(values);
  return Tensor(shape, std::span<const double>(reals)).to(dtype);
}

void check_golden_cases(
    const Json& file, int cases, int derived,
    const std::function<GoldenLimit(const Json& golden, const Backend& backend)>& limit) {
  int checked = 0, with_gradients = 0;
  for (const Json& c : file.at("cases")) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const GoldenGraph g = golden_graph(c);
    for (const auto& [value, wanted] : g.outputs)
      ASSERT_TRUE(g.graph[value].shape == shape_of(*wanted)) << g.graph[value].shape.str();
    if (c.contains("cotangent")) {
      ++with_gradients;
      ASSERT_EQ(g.gradients.size(), c.at("gradients").size());
    }
    for (const Backend& backend : cpu_backends()) {
      SCOPED_TRACE(backend.name);
      const auto device = backend.make_device(2);
      const auto store = device->make_store();
      for (const auto& [value, tensor] : g.given)
        store->write(g.graph[value].name, tensor_of(*tensor, backend.real));
      const auto program = device->compile(g.graph, *store, {});
      program->run();
      const GoldenLimit how = limit(c, backend);
      for (std::size_t i = 0; i < g.outputs.size(); ++i) {
        const auto& [value, wanted] = g.outputs[i];
        const Value root = g.graph.root(value);
        expect_golden(root ? store->read(g.graph[root].name) : program->read(g.graph[value].name),
                      wanted->at("values"), how, g.graph[value].name,
                      i == 0 && c.contains("scale") ? &c.at("scale") : nullptr);
      }
      for (std::size_t i = 0; i < g.gradients.size(); ++i)
        expect_golden(program->read(g.graph[g.gradients[i]].name),
                      c.at("gradients")[i].at("values"), how, "gradient " + std::to_string(i));
    }
    ++checked;
  }
  EXPECT_EQ(checked, cases);
  EXPECT_EQ(with_gradients, derived);
}

std::set<std::string> golden_operators(const Json& file) {
  std::set<std::string> names;
  for (const Json& c : file.at("cases")) {
    const GoldenGraph g = golden_graph(c);
    for (const Node& node : g.graph.nodes())
      if (node.name != "by" && node.name != "loss") names.emplace(op_def(node.op).name);
  }
  return names;
}

}  // namespace cuvae::testing
