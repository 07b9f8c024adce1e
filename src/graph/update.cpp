// Nodes that update weights, and the states they keep.

#include <fmt/format.h>

#include "cuvae/error.h"
#include "graph/op.h"

namespace cuvae {
namespace {

const OpDef& optimizer_def(std::string_view optimizer) {
  const OpDef& def = op_def(optimizer);
  if (!def.states)
    throw Error(Status::usage, fmt::format("the operator `{}` is no optimiser", optimizer), "graph",
                "use adam or a row of src/ops/optimizers.def");
  return def;
}

}  // namespace

std::vector<StateSpec> optimizer_states(std::string_view optimizer, const Attrs& attrs) {
  return optimizer_def(optimizer).states(attrs);
}

std::vector<Value> add_update(Graph& graph, std::string_view optimizer, Value weight,
                              Value gradient, Value hyper, Value clock, Value commit,
                              const Attrs& attrs) {
  const OpDef& def = optimizer_def(optimizer);
  const std::string of = graph[weight].name;
  const Shape shape = graph[weight].shape;
  std::vector<Value> states;
  for (const StateSpec& state : def.states(attrs))
    states.push_back(graph.state(fmt::format("{}.{}.{}", optimizer, state.slot, of), DType::f32,
                                 shape, state.initial));
  std::vector<Value> inputs = {weight, gradient, hyper, clock, commit};
  if (def.op == Op::adam)  // w, m, v, g, ...
    inputs.insert(inputs.begin() + 1, states.begin(), states.end());
  else
    inputs.insert(inputs.end(), states.begin(), states.end());
  return graph.add(def.op, fmt::format("{}.{}", optimizer, of), std::move(inputs), attrs);
}

}  // namespace cuvae
