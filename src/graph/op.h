#pragma once
// What an operator is, apart from any backend: its shape rule, gradient rule, cost, and, for a
// fused one, its composed definition. One constant per operator, in src/ops/<family>.cpp; the
// table of all of them is src/ops/ops.def.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cuvae/graph.h"

namespace cuvae {

enum class Op : std::uint16_t {
#define CUVAE_OP(name) name,
#include "ops/ops.def"
#undef CUVAE_OP
  count
};

// What a shape rule sees, with the checks every rule needs. All failures are Error(usage) that
// name the node and the operator.
class InferContext {
 public:
  InferContext(const Graph& graph, std::string_view op, std::string_view node,
               std::span<const Value> inputs, const Attrs& attrs);

  [[nodiscard]] const Attrs& attrs() const noexcept { return attrs_; }
  [[nodiscard]] int count() const noexcept { return static_cast<int>(inputs_.size()); }
  [[nodiscard]] bool has(int i) const noexcept { return i < count() && bool(inputs_[i]); }
  [[nodiscard]] const Shape& shape(int i) const;
  [[nodiscard]] DType dtype(int i) const;

  // Between `least` and `most` inputs, the first `least` of them present.
  void inputs(int least, int most) const;
  void inputs(int exactly) const { inputs(exactly, exactly); }
  void expect(int i, DType dtype) const;
  void rank(int i, int rank, std::string_view meaning) const;  // meaning: "[B, in]"
  void shape(int i, const Shape& shape, std::string_view meaning) const;
  [[noreturn]] void fail(std::string_view what, std::string_view mend = {}) const;

 private:
  const Graph& graph_;
  std::string_view op_;
  std::string_view node_;
  std::span<const Value> inputs_;
  const Attrs& attrs_;
};

struct OutputSpec {
  std::string slot;  // "" for an only output
  DType dtype = DType::f32;
  Shape shape;
};

// What a gradient rule sees: the node, the gradients that reach its outputs, and a place for the
// gradients of its inputs.
class GradientContext {
 public:
  GradientContext(Graph& graph, Node node, std::vector<Value> grad_outputs,
                  std::vector<bool> needed);

  Graph& graph;
  const Node node;
  [[nodiscard]] Value in(int i) const;
  [[nodiscard]] Value out(int i) const { return node.outputs.at(i); }
  // No value where nothing flows back into that output.
  [[nodiscard]] Value grad_out(int i) const { return grad_outputs_.at(i); }
  [[nodiscard]] bool needs(int i) const;
  void set(int i, Value gradient);
  // A unique node name: "<node>/<what>".
  [[nodiscard]] std::string name(std::string_view what) const;
  [[nodiscard]] std::span<const Value> results() const noexcept { return results_; }

 private:
  std::vector<Value> grad_outputs_;
  std::vector<bool> needed_;
  std::vector<Value> results_;
};

// Arithmetic and least memory traffic of one node, for bench and schedulers.
struct Cost {
  double flops = 0;
  double bytes = 0;
};

struct Slots {
  int output;
  int input;
};

// What a fused operator's definition sees: the node, its inputs in the graph that it is written
// to, and names that neither this graph nor the one it comes from has.
class ComposeContext {
 public:
  ComposeContext(Graph& graph, const Graph& from, const Node& node, std::span<const Value> inputs);

  Graph& graph;
  const Node& node;
  const std::span<const Value> inputs;
  [[nodiscard]] Value in(int i) const {
    return static_cast<std::size_t>(i) < inputs.size() ? inputs[i] : Value{};
  }
  // A unique node name: "<node>/<what>".
  [[nodiscard]] std::string name(std::string_view what) const;

 private:
  const Graph& from_;
};

// Appends the definition in simpler operators and returns values for the node's outputs, in order.
using Definition = std::vector<Value> (*)(ComposeContext&);

struct OpDef {
  Op op;
  std::string_view name;
  std::string_view doc;  // one line: "y = x w^T + b"

  std::vector<OutputSpec> (*infer)(const InferContext&);
  // Null: not differentiable (update, index and backward operators).
  void (*gradient)(GradientContext&) = nullptr;
  Cost (*cost)(const Graph&, const Node&);
  // Null: not a fused operator. Otherwise the operator's meaning, fallback and oracle.
  Definition compose = nullptr;

  std::span<const Slots> updates = {};  // output is the next version of a persistent input
  // Output may lie over the input, each element of which is read before that of the output is
  // written: it may take the input's buffer at its last use, or update what the input reads.
  std::span<const Slots> may_alias = {};
  bool random = false;   // draws random numbers: gets a `stream`
  int hyper_input = -1;  // the input that holds a row for each unrolled step, where there is one
  // Whether the gradient rule of a node with these attributes reads its input (null: it does not,
  // or it is not said).
  bool (*saves_input)(const Attrs&) = nullptr;
  // Inputs that gradients never flow into although they are f32 (a target, the learning rate).
  std::span<const int> constant_inputs = {};
  // Of an optimiser, null elsewhere: the states that a node with these attributes keeps for its
  // weight, and the meaning of step t = 1, 2, ... for one element and those states.
  std::vector<StateSpec> (*states)(const Attrs&) = nullptr;
  void (*update)(const Attrs&, double lr, double t, double g, double& w, double* states) = nullptr;
};

const OpDef& op_def(Op op);
// Throws Error(usage) with a "did you mean" for an unknown name.
const OpDef& op_def(std::string_view name);
std::span<const OpDef* const> all_ops();
// A shape as attributes say it: "128,784"; "" is a scalar. src/ops/rules.h has the inverse.
std::string shape_text(const Shape& shape);
// The mend of an unknown operator: "did you mean `linear`?".
std::string suggest_op(std::string_view name);

}  // namespace cuvae
