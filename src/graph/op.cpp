// The table of operators and the contexts their rules see.

#include "graph/op.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae {

#define CUVAE_OP(name) extern const OpDef op_##name;
#include "ops/ops.def"
#undef CUVAE_OP

namespace {

constexpr std::array<const OpDef*, static_cast<std::size_t>(Op::count)> table = {
#define CUVAE_OP(name) &op_##name,
#include "ops/ops.def"
#undef CUVAE_OP
};

}  // namespace

const OpDef& op_def(Op op) {
  const auto i = static_cast<std::size_t>(op);
  if (i >= table.size())
    throw Error(Status::usage, fmt::format("there is no operator number {}", i));
  return *table[i];
}

const OpDef& op_def(std::string_view name) {
  for (const OpDef* def : table)
    if (def->name == name) return *def;
  throw Error(Status::usage, fmt::format("unknown operator `{}`", name), "graph", suggest_op(name));
}

std::span<const OpDef* const> all_ops() {
  return table;
}

std::string shape_text(const Shape& shape) {
  std::string text;
  for (const std::int64_t dim : shape.dims()) {
    if (!text.empty()) text += ',';
    text += std::to_string(dim);
  }
  return text;
}

std::string suggest_op(std::string_view name) {
  std::vector<std::string_view> names;
  for (const OpDef* def : table) names.push_back(def->name);
  const std::string near = closest(name, std::span<const std::string_view>(names));
  return near.empty() ? "use an operator of src/ops/ops.def"
                      : fmt::format("did you mean `{}`?", near);
}

InferContext::InferContext(const Graph& graph, std::string_view op, std::string_view node,
                           std::span<const Value> inputs, const Attrs& attrs)
    : graph_(graph), op_(op), node_(node), inputs_(inputs), attrs_(attrs) {}

const Shape& InferContext::shape(int i) const {
  if (!has(i)) fail(fmt::format("input {} is missing", i));
  return graph_[inputs_[i]].shape;
}

DType InferContext::dtype(int i) const {
  if (!has(i)) fail(fmt::format("input {} is missing", i));
  return graph_[inputs_[i]].dtype;
}

void InferContext::inputs(int least, int most) const {
  if (count() < least || count() > most)
    fail(least == most
             ? fmt::format("wants {} input{}, has {}", least, least == 1 ? "" : "s", count())
             : fmt::format("wants {} to {} inputs, has {}", least, most, count()));
  for (int i = 0; i < least; ++i)
    if (!has(i)) fail(fmt::format("input {} is missing", i));
}

void InferContext::expect(int i, DType wanted) const {
  if (dtype(i) != wanted)
    fail(fmt::format("input {} (`{}`) is {}, not {}", i, graph_[inputs_[i]].name, name_of(dtype(i)),
                     name_of(wanted)));
}

void InferContext::rank(int i, int wanted, std::string_view meaning) const {
  if (shape(i).rank() != wanted)
    fail(fmt::format("input {} (`{}`) has shape {}, not {}", i, graph_[inputs_[i]].name,
                     shape(i).str(), meaning));
}

void InferContext::shape(int i, const Shape& wanted, std::string_view meaning) const {
  if (!(shape(i) == wanted))
    fail(fmt::format("input {} (`{}`) has shape {}, not {}{}{}", i, graph_[inputs_[i]].name,
                     shape(i).str(), meaning, meaning.empty() ? "" : " = ", wanted.str()));
}

void InferContext::fail(std::string_view what, std::string_view mend) const {
  throw Error(Status::usage, what, fmt::format("node `{}` ({})", node_, op_), mend);
}

GradientContext::GradientContext(Graph& g, Node n, std::vector<Value> grad_outputs,
                                 std::vector<bool> needed)
    : graph(g),
      node(std::move(n)),
      grad_outputs_(std::move(grad_outputs)),
      needed_(std::move(needed)),
      results_(node.inputs.size()) {}

Value GradientContext::in(int i) const {
  return static_cast<std::size_t>(i) < node.inputs.size() ? node.inputs[i] : Value{};
}

bool GradientContext::needs(int i) const {
  return static_cast<std::size_t>(i) < needed_.size() && needed_[i];
}

void GradientContext::set(int i, Value gradient) {
  if (!gradient || !needs(i)) return;
  const ValueInfo& of = graph[node.inputs[i]];
  const ValueInfo& got = graph[gradient];
  if (!(of.shape == got.shape) || of.dtype != got.dtype)
    throw Error(Status::failed,
                fmt::format("the gradient of input {} (`{}`) has shape {}, not {}", i, of.name,
                            got.shape.str(), of.shape.str()),
                fmt::format("node `{}` ({})", node.name, op_def(node.op).name));
  results_[i] = gradient;
}

namespace {

// Of a node, or of an output that a node of this name may have.
bool name_taken(const Graph& graph, const std::string& name) {
  const auto is_output = [&](std::string_view value) {
    return value.starts_with(name) && (value.size() == name.size() || value[name.size()] == '.');
  };
  return std::any_of(graph.nodes().begin(), graph.nodes().end(),
                     [&](const Node& node) { return node.name == name; }) ||
         std::any_of(graph.values().begin(), graph.values().end(),
                     [&](const ValueInfo& value) { return is_output(value.name); });
}

// "<node>/<what>", with ".2", ".3", .. where that is taken in one of the graphs.
std::string unique_name(const Node& node, std::string_view what,
                        std::initializer_list<const Graph*> graphs) {
  const std::string base = fmt::format("{}/{}", node.name, what);
  std::string name = base;
  for (int k = 2; std::any_of(graphs.begin(), graphs.end(),
                              [&](const Graph* graph) { return name_taken(*graph, name); });
       ++k)
    name = fmt::format("{}.{}", base, k);
  return name;
}

}  // namespace

std::string GradientContext::name(std::string_view what) const {
  return unique_name(node, what, {&graph});
}

ComposeContext::ComposeContext(Graph& to, const Graph& from, const Node& n,
                               std::span<const Value> values)
    : graph(to), node(n), inputs(values), from_(from) {}

std::string ComposeContext::name(std::string_view what) const {
  return unique_name(node, what, {&graph, &from_});
}

}  // namespace cuvae
