#include "graph/rewrite.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

Rewriter::Rewriter(const Graph& from) : from_(from) {
  result_.map.resize(from.values().size());
  for (std::size_t v = 0; v < from.values().size(); ++v) {
    const ValueInfo& info = from.values()[v];
    if (info.producer >= 0) continue;
    Graph& graph = result_.graph;
    switch (info.storage) {
      case Storage::parameter: result_.map[v] = graph.parameter(info.name, info.shape); break;
      case Storage::state:
        result_.map[v] = graph.state(info.name, info.dtype, info.shape, info.initial);
        break;
      default: result_.map[v] = graph.input(info.name, info.dtype, info.shape); break;
    }
  }
}

std::vector<Value> Rewriter::mapped(std::span<const Value> old) const {
  std::vector<Value> values;
  for (const Value value : old) {
    values.push_back(value ? result_.map[value.id] : Value{});
    if (value && !values.back())
      throw Error(Status::failed,
                  fmt::format("`{}` is read after it was rewritten away", from_[value].name));
  }
  return values;
}

void Rewriter::copy(const Node& node) {
  add(node.op, node.name, node.inputs, node.attrs, node.outputs);
}

void Rewriter::add(Op op, const std::string& name, std::span<const Value> inputs,
                   const Attrs& attrs, std::span<const Value> outputs) {
  std::vector<std::string> names;
  for (const Value value : outputs) names.push_back(from_[value].name);
  const auto values = result_.graph.add(op, name, mapped(inputs), attrs, std::move(names));
  for (std::size_t i = 0; i < values.size(); ++i) result_.map[outputs[i].id] = values[i];
}

void Rewriter::compose(const Node& node, Definition definition) {
  const auto inputs = mapped(node.inputs);
  ComposeContext context(result_.graph, from_, node, inputs);
  const auto values = definition(context);
  if (values.size() != node.outputs.size())
    throw Error(
        Status::failed,
        fmt::format("the definition has {} outputs, not {}", values.size(), node.outputs.size()),
        fmt::format("node `{}` ({})", node.name, op_def(node.op).name));
  for (std::size_t i = 0; i < values.size(); ++i) {
    result_.graph.rename(values[i], from_[node.outputs[i]].name);
    result_.map[node.outputs[i].id] = values[i];
  }
}

Rewritten Rewriter::finish() {
  for (const Value value : from_.outputs()) {
    if (!result_.map[value.id])
      throw Error(Status::failed,
                  fmt::format("the output `{}` was rewritten away", from_[value].name));
    result_.graph.output(result_.map[value.id]);
  }
  return std::move(result_);
}

}  // namespace cuvae
