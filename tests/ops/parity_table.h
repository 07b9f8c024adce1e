#pragma once
// One table of cases for every operator; parity_check.h holds backends to it.

#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "cuvae/tensor.h"
#include "graph/op.h"

namespace cuvae::testing {

// How an input's values are made. All depend on the case's id and the input's place only.
enum class Fill {
  normal,          // about N(0, 1)
  away_from_zero,  // the same, at least 0.05 from 0: no kink within reach of a difference
  unit,            // [0, 1]
  positive,        // [0.01, 1]
  extreme,         // 0, tiny, 1, 10, 50, 88, 100, 1000, both signs
  wide_logvar,     // -100 to 100
  thousands,       // about N(1000, 1)
  saved,           // what an activation of the case's kind would save
  pixels,          // u8, below `limit` where there is one
  clock,           // {seed, step, epoch, position, base}
  hyper,           // rows {lr, beta}
  commit,          // 1
  zero_state,      // i64 zeros
  no_commit,       // 0
  rows,            // i64 indices below `limit`, repeated and out of order
  levels,          // k / 255 of bytes k
  counts,          // 0 to about 50, most of them small
  wide_counts,     // 0 to a million
  labels,          // whole numbers below `limit`
  gaps,            // normal, but -inf in the first ten and in one of three of the rest
};

struct CaseInput {
  Shape shape;
  Fill fill = Fill::normal;
  DType dtype = DType::f32;
  Storage storage = Storage::input;
  bool absent = false;
  std::int64_t limit = 0;
  double scale = 1;
};

struct Case {
  std::string op;
  std::string what;  // shapes and variant: unique together with op
  std::vector<CaseInput> inputs;
  Attrs attrs;
  std::int64_t reduction = 1;   // terms of the longest sum
  bool differentiable = false;  // checked against central differences
  std::size_t flowing = 8;      // so many outputs are: gradients do not flow from statistics
  [[nodiscard]] std::string id() const { return op + "_" + what; }
};

// Whether its kernels differ by precision and chip.
inline bool is_product(std::string_view op) {
  return op.starts_with("linear") || op.starts_with("conv");
}

// GoogleTest prints the id of a failing case.
inline void PrintTo(const Case& c, std::ostream* out) {
  *out << c.id();
}

const std::vector<Case>& parity_table();

// The values of a case's inputs, in the dtype they have for a float device.
std::vector<Tensor> case_inputs(const Case& c);

// The case's graph: inputs in0, in1, .., one node called "node", its outputs kept.
struct CaseGraph {
  Graph graph;
  std::vector<Value> inputs;
  std::vector<Value> outputs;
};
CaseGraph case_graph(const Case& c);

// How a backend rounds the operands of matrix products before it multiplies them; null: not at all.
using Rounding = double (*)(double);
double round_to_tf32(double x);  // 10 bits after the point, ties away from zero
double round_to_bf16(double x);  // 7 bits after the point, ties to even

// The operator's meaning in plain double loops (reference.cpp): reals or integers per output.
struct Expected {
  std::vector<double> real;
  std::vector<std::int64_t> integer;
  double scale = 1;  // the size of the terms
  // Of a product whose operand is made by the operator itself: what it may change the result that
  // rounding takes a value beside a boundary of the operands' format to its other side.
  double slack = 0;
};
std::vector<Expected> reference(const Case& c, const std::vector<Tensor>& inputs,
                                Rounding rounding = nullptr);

}  // namespace cuvae::testing
