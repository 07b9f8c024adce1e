// Reverse-mode differentiation as a graph transformation.

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cuvae/error.h"
#include "cuvae/graph.h"
#include "graph/op.h"

namespace cuvae {

namespace {

bool flows_into(const Graph& graph, const OpDef& def, const Node& node, int i) {
  const Value input = node.inputs[i];
  return input && node.op != Op::detach && graph[input].dtype == DType::f32 &&
         std::find(def.constant_inputs.begin(), def.constant_inputs.end(), i) ==
             def.constant_inputs.end();
}

class Backward {
 public:
  Backward(Graph& graph, std::span<const Value> wrt)
      : graph_(graph), nodes_(graph.nodes().size()), active_(graph.values().size(), false) {
    for (const Value value : wrt) {
      if (graph[value].dtype != DType::f32)
        throw Error(Status::usage,
                    fmt::format("no gradient of `{}`: it is {}, not f32", graph[value].name,
                                name_of(graph[value].dtype)),
                    "gradients");
      active_[value.id] = true;
    }
    // Forward: what depends on `wrt` through inputs that gradients flow into.
    for (std::size_t n = 0; n < nodes_; ++n) {
      const Node& node = graph.nodes()[n];
      const OpDef& def = op_def(node.op);
      for (std::size_t i = 0; i < node.inputs.size(); ++i)
        if (flows_into(graph, def, node, static_cast<int>(i)) && active_[node.inputs[i].id])
          for (const Value out : node.outputs)
            if (graph[out].dtype == DType::f32) active_[out.id] = true;
    }
    parts_.resize(active_.size());
  }

  void seed(Value loss) {
    if (!active_[loss.id]) return;
    const Value one =
        graph_.apply("fill", unique_node(fmt::format("grad({})/seed", graph_[loss].name)), {},
                     Attrs{{"shape", std::string()}, {"value", 1.0}});
    parts_[loss.id].push_back(one);
  }

  void run() {
    // Definition order is topological, so that every contribution to a node's outputs has arrived
    // when the node's turn comes.
    for (std::size_t n = nodes_; n-- > 0;) {
      const Node node = graph_.nodes()[n];
      const OpDef& def = op_def(node.op);
      std::vector<Value> grad_outputs;
      bool reached = false;
      for (const Value out : node.outputs) {
        grad_outputs.push_back(total(out));
        reached |= bool(grad_outputs.back());
      }
      if (!reached) continue;
      std::vector<bool> needed(node.inputs.size(), false);
      bool any = false;
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        needed[i] =
            flows_into(graph_, def, node, static_cast<int>(i)) && active_[node.inputs[i].id];
        any |= needed[i];
      }
      if (!any) continue;
      if (!def.gradient)
        throw Error(Status::usage, "this operator has no gradient",
                    fmt::format("node `{}` ({})", node.name, def.name),
                    "differentiate before the backward and update nodes are added, or detach");
      GradientContext context(graph_, node, std::move(grad_outputs), std::move(needed));
      def.gradient(context);
      for (std::size_t i = 0; i < node.inputs.size(); ++i)
        if (context.results()[i]) parts_[node.inputs[i].id].push_back(context.results()[i]);
    }
  }

  // The sum of all contributions, in the order in which they arrived.
  Value total(Value value) {
    std::vector<Value>& parts = parts_[value.id];
    if (parts.empty()) return {};
    const std::string name = fmt::format("grad({})", graph_[value].name);
    Value sum = parts.front();
    for (std::size_t k = 1; k < parts.size(); ++k)
      sum = graph_.apply("add", unique_node(name + "/sum"), {sum, parts[k]});
    // Values of the forward graph and gradients that pass through keep their name.
    if (static_cast<std::size_t>(sum.id) >= active_.size() && !is_named(sum)) {
      if (graph_[sum].name != name) graph_.rename(sum, unique_value(name));
      named_.push_back(sum);
    }
    parts = {sum};
    return sum;
  }

 private:
  bool is_named(Value value) const {
    return std::find(named_.begin(), named_.end(), value) != named_.end();
  }
  template <class Taken>
  static std::string unique(const std::string& base, Taken taken) {
    if (!taken(base)) return base;
    for (int k = 2;; ++k)
      if (std::string name = fmt::format("{}.{}", base, k); !taken(name)) return name;
  }
  std::string unique_value(const std::string& base) const {
    return unique(base, [&](const std::string& name) { return bool(graph_.find(name)); });
  }
  // Free as a node's name and as a value's: the node has one output.
  std::string unique_node(const std::string& base) const {
    return unique(base, [&](const std::string& name) {
      return bool(graph_.find(name)) ||
             std::any_of(graph_.nodes().begin(), graph_.nodes().end(),
                         [&](const Node& node) { return node.name == name; });
    });
  }

  Graph& graph_;
  std::size_t nodes_;                      // of the forward graph
  std::vector<bool> active_;               // by forward value: depends on `wrt`
  std::vector<std::vector<Value>> parts_;  // by forward value: contributions to its gradient
  std::vector<Value> named_;
};

}  // namespace

std::vector<Value> gradients(Graph& graph, Value loss, std::span<const Value> wrt) {
  const ValueInfo& info = graph[loss];
  if (info.shape.rank() != 0 || info.dtype != DType::f32)
    throw Error(Status::usage,
                fmt::format("the loss `{}` is {} {}, not a real scalar", info.name,
                            name_of(info.dtype), info.shape.str()),
                "gradients", "reduce it to one number");
  Graph result = graph;  // so that an error leaves the caller's graph as it was
  Backward backward(result, wrt);
  backward.seed(loss);
  backward.run();
  std::vector<Value> found;
  for (const Value value : wrt) found.push_back(backward.total(value));
  graph = std::move(result);
  return found;
}

}  // namespace cuvae
