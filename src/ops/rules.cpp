#include "ops/rules.h"

#include <fmt/format.h>

#include <charconv>

#include "cuvae/error.h"

namespace cuvae {
namespace {

[[noreturn]] void refuse(const std::string& what, std::string_view mend = {}) {
  throw Error(Status::usage, what, {}, mend);
}

std::vector<std::int64_t> integers(std::string_view name, std::string_view text) {
  std::vector<std::int64_t> numbers;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(','));
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc{} || end != word.data() + word.size() || number < 0)
      refuse(fmt::format("attribute `{}` = \"{}\" is not a list of sizes", name, text),
             "write it as \"128,784\"");
    numbers.push_back(number);
    if (word.size() == text.size()) break;
    text.remove_prefix(word.size() + 1);
    if (text.empty()) refuse(fmt::format("attribute `{}` ends in a comma", name));
  }
  return numbers;
}

}  // namespace

Axis axis_of(const Attrs& attrs) {
  const std::string& axis = attrs.text("axis");
  if (axis == "all") return Axis::all;
  if (axis == "rows") return Axis::rows;
  if (axis == "cols") return Axis::cols;
  refuse(fmt::format("there is no axis \"{}\"", axis), "use all, rows or cols");
}

Likelihood likelihood_of(const Attrs& attrs) {
  const std::string& name = attrs.text("likelihood");
  if (name == "bernoulli") return Likelihood::bernoulli;
  if (name == "gaussian") return Likelihood::gaussian;
  refuse(fmt::format("there is no likelihood \"{}\"", name), "use bernoulli or gaussian");
}

double sigma_of(const Attrs& attrs) {
  const double sigma = attrs.real("sigma", 1.0);
  if (!(sigma > 0 && sigma < 1e30))
    refuse(fmt::format("sigma = {} is not a positive number", sigma));
  return sigma;
}

Shape shape_of(const Attrs& attrs) {
  const auto dims = integers("shape", attrs.text("shape"));
  return Shape(std::span<const std::int64_t>(dims));
}

std::vector<std::int64_t> sizes_of(const Attrs& attrs) {
  auto sizes = integers("sizes", attrs.text("sizes"));
  if (sizes.empty()) refuse("attribute `sizes` is empty", "write it as \"32,32\"");
  return sizes;
}

bool flag_of(const Attrs& attrs, std::string_view name) {
  const std::int64_t flag = attrs.integer(name, 0);
  if (flag != 0 && flag != 1) refuse(fmt::format("attribute `{}` = {} is not 0 or 1", name, flag));
  return flag == 1;
}

Attrs select(const Attrs& attrs, std::initializer_list<std::string_view> names) {
  Attrs chosen;
  for (const auto& [name, attr] : attrs.entries())
    for (const std::string_view wanted : names)
      if (name == wanted) chosen.set(name, attr);
  return chosen;
}

void same_shape(const InferContext& c, int first, int last) {
  for (int i = first; i <= last; ++i) {
    c.expect(i, DType::f32);
    c.shape(i, c.shape(first), fmt::format("that of input {}", first));
  }
}

void expect_clock(const InferContext& c, int i) {
  c.expect(i, DType::i64);
  c.shape(i, Shape{5}, "{seed, step, epoch, position, base}");
}

void expect_hyper(const InferContext& c, int i) {
  c.expect(i, DType::f32);
  c.rank(i, 2, "[steps, 2]");
  if (c.shape(i)[1] != 2 || c.shape(i)[0] < 1)
    c.fail(fmt::format("input {} has shape {}, not [steps, 2]", i, c.shape(i).str()),
           "give a row {lr, beta} for each unrolled step");
}

void expect_commit(const InferContext& c, int i) {
  c.expect(i, DType::i64);
  c.shape(i, Shape{1}, "{commit}");
}

double traffic(const Graph& graph, const Node& node) {
  double bytes = 0;
  const auto count = [&](Value value) {
    if (!value) return;
    const ValueInfo& info = graph[value];
    bytes += static_cast<double>(info.shape.elements()) * static_cast<double>(size_of(info.dtype));
  };
  for (const Value value : node.inputs) count(value);
  for (const Value value : node.outputs) count(value);
  return bytes;
}

Cost elementwise_cost(const Graph& graph, const Node& node, double flops) {
  return {.flops = flops * static_cast<double>(graph[node.outputs[0]].shape.elements()),
          .bytes = traffic(graph, node)};
}

Cost product_cost(const Graph& graph, const Node& node, const Shape& a, std::int64_t columns) {
  return {.flops = 2.0 * static_cast<double>(a.elements()) * static_cast<double>(columns),
          .bytes = traffic(graph, node)};
}

void expect_slot(const InferContext& c, int hyper) {
  if (c.has(hyper)) {
    expect_hyper(c, hyper);
    const std::int64_t slot = c.attrs().integer("slot");
    if (slot < 0 || slot >= c.shape(hyper)[1])
      c.fail(fmt::format("slot {} is not a column of the hyper-parameters {}", slot,
                         c.shape(hyper).str()));
  } else if (c.attrs().has("slot")) {
    c.fail("a slot, but no hyper-parameters", fmt::format("give them as input {}", hyper));
  }
}

}  // namespace cuvae
