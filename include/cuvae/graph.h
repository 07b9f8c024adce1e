#pragma once
// A computation as a graph of single-assignment values. Every check happens while the graph is
// built and names the node; a backend may rely on them. The graph knows no backend.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

enum class Op : std::uint16_t;  // one enumerator per row of src/ops/ops.def

// A handle to a value of one graph. The default is "no value": an optional input left out.
struct Value {
  std::int32_t id = -1;
  explicit operator bool() const noexcept { return id >= 0; }
  bool operator==(const Value&) const = default;
};

// The constants of a node: few, named, ordered by name.
class Attrs {
 public:
  using Attr = std::variant<std::int64_t, double, std::string>;

  Attrs() = default;
  Attrs(std::initializer_list<std::pair<std::string, Attr>> entries);

  void set(std::string_view name, Attr attr);
  [[nodiscard]] bool has(std::string_view name) const noexcept;
  // Throw Error(usage) where the attribute is missing or of another kind (an integer is
  // accepted as a real); the second forms return the default where it is missing.
  [[nodiscard]] std::int64_t integer(std::string_view name) const;
  [[nodiscard]] double real(std::string_view name) const;
  [[nodiscard]] const std::string& text(std::string_view name) const;
  [[nodiscard]] std::int64_t integer(std::string_view name, std::int64_t otherwise) const;
  [[nodiscard]] double real(std::string_view name, double otherwise) const;
  [[nodiscard]] std::string text(std::string_view name, std::string_view otherwise) const;

  [[nodiscard]] std::span<const std::pair<std::string, Attr>> entries() const noexcept {
    return entries_;
  }
  bool operator==(const Attrs&) const = default;

 private:
  [[nodiscard]] const Attr* find(std::string_view name) const noexcept;
  std::vector<std::pair<std::string, Attr>> entries_;  // sorted by name
};

enum class Storage : std::uint8_t {
  transient,  // made by a node; lives in the plan's arena
  parameter,  // persistent and trained; part of a model and of a checkpoint
  state,      // persistent, written by nodes (moments); part of a checkpoint
  input,      // persistent, written by the host (dataset window, clock, learning rate)
};

struct ValueInfo {
  std::string name;  // unique within the graph
  DType dtype = DType::f32;
  Shape shape;
  Storage storage = Storage::transient;
  std::int32_t producer = -1;      // node that makes it; -1 for a persistent value
  std::int32_t producer_slot = 0;  // which of the producer's outputs
  double initial = 0;              // of a state: what its elements are where a store has it not yet
  // The persistent value whose storage this one overwrites (an in-place update makes the next
  // version of a parameter or state); none for everything else. A version's own `storage` says
  // transient, so that listing persistent values by `storage` finds each once.
  Value version_of;
};

struct Node {
  Op op{};
  std::string name;  // unique within the graph
  std::vector<Value> inputs;
  std::vector<Value> outputs;
  Attrs attrs;
};

class Graph {
 public:
  // Persistent values. Errors are Error(usage): a name already taken, an empty name, an initial
  // value of integers that is not 0. Programs give a store that has not got the state yet one that
  // is filled with `initial`.
  Value parameter(std::string name, Shape shape);
  Value state(std::string name, DType dtype, Shape shape, double initial = 0);
  Value input(std::string name, DType dtype, Shape shape);

  // Appends a node; `op` is a name of src/ops/ops.def. The operator's shape rule checks the inputs
  // and names the outputs: one output is called like the node, several "<node>.<slot name>".
  // A random operator gets the attribute `stream` (its ordinal among the random nodes) unless it
  // is given; the next one counts on from the largest. An in-place update (adam) returns the next
  // versions of what it updates. Errors: Error(usage, WHAT, "node `name` (op)", MEND): an unknown
  // operator, a missing or extra input, wrong shapes or dtypes, a second update of the same
  // persistent value, an update of a transient one, a stream that does not fit 16 bits.
  std::vector<Value> add(std::string_view op, std::string name, std::vector<Value> inputs,
                         Attrs attrs = {});
  std::vector<Value> add(Op op, std::string name, std::vector<Value> inputs, Attrs attrs = {});
  // The same with the names of the outputs given, one each (passes that keep names).
  std::vector<Value> add(Op op, std::string name, std::vector<Value> inputs, Attrs attrs,
                         std::vector<std::string> output_names);
  // The same for operators used for their first output.
  Value apply(std::string_view op, std::string name, std::vector<Value> inputs, Attrs attrs = {}) {
    return add(op, std::move(name), std::move(inputs), std::move(attrs)).front();
  }

  // Values that stay readable after a run; each unrolled step keeps its own. Error(usage) for a
  // persistent value or a version of one: the store has it.
  void output(Value value);
  [[nodiscard]] bool is_output(Value value) const;
  [[nodiscard]] std::span<const Value> outputs() const noexcept { return outputs_; }

  // Renames a transient value (a gradient, a loss term) so that two graphs can be matched by name.
  void rename(Value value, std::string name);

  [[nodiscard]] const ValueInfo& operator[](Value value) const { return values_.at(index(value)); }
  [[nodiscard]] std::span<const ValueInfo> values() const noexcept { return values_; }
  [[nodiscard]] std::span<const Node> nodes() const noexcept { return nodes_; }
  // The value of that name, or no value.
  [[nodiscard]] Value find(std::string_view name) const noexcept;
  // The newest version of a persistent value: what the next step reads.
  [[nodiscard]] Value latest(Value persistent) const;
  // The persistent value whose storage holds `value`: itself, or what it is a version of; no value
  // for a transient one.
  [[nodiscard]] Value root(Value value) const;
  // Nodes that read a value, in order.
  [[nodiscard]] std::vector<std::int32_t> readers(Value value) const;

 private:
  [[nodiscard]] std::size_t index(Value value) const;
  Value persistent(std::string name, DType dtype, Shape shape, Storage storage);
  Value make_value(ValueInfo info);
  std::vector<ValueInfo> values_;
  std::vector<Node> nodes_;
  std::vector<Value> outputs_;
  std::int64_t next_stream_ = 0;  // of random numbers
};

// Appends the nodes that compute d(loss)/d(wrt) to the graph: reverse mode, each operator's own
// rule. `loss` is a scalar. The gradient of a value named x is named "grad(x)" ("grad(x).2" where
// that is taken; a gradient that is another value's gradient passed through keeps its name). A
// value that the loss does not depend on gets no Value. Errors: Error(usage) where an operator on
// the way has no gradient, or `loss` is not a scalar.
std::vector<Value> gradients(Graph& graph, Value loss, std::span<const Value> wrt);

// What an optimiser keeps for each weight: the name of the state, and the value it starts from.
struct StateSpec {
  std::string slot;
  double initial = 0;
  bool operator==(const StateSpec&) const = default;
};

// The states of an optimiser with these attributes, in order; those of adam are m and v. Throws
// Error(usage) for an operator that is no optimiser, and for attributes that make no sense.
std::vector<StateSpec> optimizer_states(std::string_view optimizer, const Attrs& attrs);

// Appends the update of `weight`, a persistent value, by `gradient`: a node "<optimizer>.<weight>"
// of that operator (adam, or a row of src/ops/optimizers.def, where each says its attributes) and
// its states "<optimizer>.<slot>.<weight>" with their initial values. Returns the next versions of
// the weight and of the states. hyper f32[steps, 2]: lr in column 0, a row for each unrolled step;
// clock and commit as in cuvae/model.h; commit may be what clip_norm makes of it.
// Errors as Graph::add.
std::vector<Value> add_update(Graph& graph, std::string_view optimizer, Value weight,
                              Value gradient, Value hyper, Value clock, Value commit,
                              const Attrs& attrs);

}  // namespace cuvae
