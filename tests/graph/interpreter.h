#pragma once
// A plain reference interpreter in double. It runs a graph value by value (the meaning), or a plan
// in its own arena with its own offsets, in any order that the plan's waits allow, filling memory
// with NaN before the run and wherever a value has died.

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cuvae/graph.h"
#include "graph/plan.h"

namespace cuvae::testing {

// The elements of one value: reals for f32, integers for i64 and u8.
struct Data {
  std::vector<double> real;
  std::vector<std::int64_t> integer;
  // Bit for bit, NaN included.
  bool operator==(const Data& other) const;
};

using Memory = std::map<std::string, Data>;  // persistent values by name

struct Result {
  Memory memory;                                     // after the run
  std::vector<std::map<std::string, Data>> outputs;  // by step
};

// What the node's operator means: values for the outputs. `step` is the unrolled step.
std::vector<Data> compute(const Graph& graph, const Node& node, const std::vector<Data>& inputs,
                          int step);

// Definition order, a place of its own for every value, updates visible to the next step only.
Result evaluate(const Graph& graph, Memory memory, int steps);

// How the tasks of a plan interleave: by streams that run ahead as far as the waits allow, or, with
// `edges`, in a random order that these edges allow.
struct Interleaving {
  enum class Kind { serial, first_stream, last_stream, random_streams, random_edges };
  Kind kind = Kind::serial;
  std::uint64_t seed = 1;
  int runs = 1;  // of the plan, overlapping as far as the replay edges allow
};

// Runs the plan (options().real must be f64). Outputs are those of the last run.
Result execute(const Plan& plan, const Memory& memory, const Interleaving& how = {});

}  // namespace cuvae::testing
