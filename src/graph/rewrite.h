#pragma once
// Copies a graph node by node while a pass changes what it likes. Names stay.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "graph/op.h"
#include "graph/passes.h"

namespace cuvae {

class Rewriter {
 public:
  // Starts with all persistent values of `from`.
  explicit Rewriter(const Graph& from);

  [[nodiscard]] const Graph& graph() const noexcept { return result_.graph; }
  // The new values of old ones; no value stays no value.
  [[nodiscard]] std::vector<Value> mapped(std::span<const Value> old) const;

  void copy(const Node& node);
  // A new node in place of old ones: from old inputs, its outputs are what became of `outputs`.
  void add(Op op, const std::string& name, std::span<const Value> inputs, const Attrs& attrs,
           std::span<const Value> outputs);
  // A definition in the node's place.
  void compose(const Node& node, Definition definition);
  // Marks the outputs. The rewriter is empty afterwards.
  [[nodiscard]] Rewritten finish();

 private:
  const Graph& from_;
  Rewritten result_;
};

// lower() with other definitions than the operators' own; null: the operator has none.
Rewritten lower(const Graph& graph, const std::function<bool(const Graph&, const Node&)>& supports,
                const std::function<Definition(Op)>& definition_of);

}  // namespace cuvae
