#include "ops/golden_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <vector>

#include "cuvae/device.h"
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

}  // namespace

void expect_golden(const Tensor& got, const Json& values, const GoldenLimit& how,
                   const std::string& what, const Json* scales) {
  const auto wanted = reals_of(values);
  ASSERT_EQ(got.elements(), static_cast<std::int64_t>(wanted.size())) << what;
  double largest = 1;
  for (const double v : wanted)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double value = got.item(static_cast<std::int64_t>(i));
    const double size = scales != nullptr ? scales->at(i).get<double>()
                        : how.sharp       ? std::abs(wanted[i]) + 1e-30
                                          : largest;
    EXPECT_TRUE(value == wanted[i] || std::abs(value - wanted[i]) <= how.limit * size)
        << what << ", element " << i << ": " << value << " against " << wanted[i];
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
    const Json& file, int cases,
    const std::function<GoldenLimit(const Json& golden, const Backend& backend)>& limit) {
  int checked = 0;
  for (const Json& c : file.at("cases")) {
    const std::string name = c.at("name");
    SCOPED_TRACE(name);
    Graph graph;
    std::vector<Value> inputs;  // those left out among them
    std::vector<Value> given;
    std::vector<const Json*> tensors;
    for (const Json& input : c.at("inputs")) {
      inputs.emplace_back();
      if (input.is_null()) continue;
      inputs.back() = graph.input("in" + std::to_string(given.size()), DType::f32, shape_of(input));
      given.push_back(inputs.back());
      tensors.push_back(&input);
    }
    const Value y =
        graph.apply(c.at("op").get<std::string>(), "y", inputs, attrs_of(c.at("attrs")));
    ASSERT_TRUE(graph[y].shape == shape_of(c.at("output")));
    const Value cotangent = graph.input("cotangent", DType::f32, graph[y].shape);
    const Value loss = graph.apply("reduce", "loss", {graph.apply("mul", "by", {y, cotangent})},
                                   {{"axis", std::string("all")}, {"op", std::string("sum")}});
    graph.output(y);
    const std::vector<Value> grads = gradients(graph, loss, given);
    for (const Value grad : grads) graph.output(grad);
    ASSERT_EQ(grads.size(), c.at("gradients").size());
    for (const Backend& backend : cpu_backends()) {
      SCOPED_TRACE(backend.name);
      const auto device = backend.make_device(2);
      const auto store = device->make_store();
      const auto write = [&](Value value, const Json& tensor) {
        const ValueInfo& info = graph[value];
        store->write(info.name, golden_tensor(info.shape, tensor.at("values"), backend.real));
      };
      for (std::size_t i = 0; i < given.size(); ++i) write(given[i], *tensors[i]);
      write(cotangent, c.at("cotangent"));
      const auto program = device->compile(graph, *store, {});
      program->run();
      const GoldenLimit how = limit(c, backend);
      expect_golden(program->read(graph[y].name), c.at("output").at("values"), how, "value",
                    c.contains("scale") ? &c.at("scale") : nullptr);
      for (std::size_t i = 0; i < grads.size(); ++i)
        expect_golden(program->read(graph[grads[i]].name), c.at("gradients")[i].at("values"), how,
                      "gradient " + std::to_string(i));
    }
    ++checked;
  }
  EXPECT_EQ(checked, cases);
}

}  // namespace cuvae::testing
