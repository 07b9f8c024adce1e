#pragma once
// What the rules of several operators share: readers of attributes, checks and costs.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graph/op.h"

namespace cuvae {

#define CUVAE_OP(name) extern const OpDef op_##name;
#include "ops/ops.def"
#undef CUVAE_OP

enum class Axis : std::uint8_t {
  all,   // every element: a scalar
  rows,  // over the rows: [D]
  cols,  // over the columns: [B]
};

enum class Likelihood : std::uint8_t { bernoulli, gaussian };

// All throw Error(usage); the graph's builder adds the node's name.
Axis axis_of(const Attrs& attrs);
Likelihood likelihood_of(const Attrs& attrs);
double sigma_of(const Attrs& attrs);                      // > 0; 1 where it is not given
Shape shape_of(const Attrs& attrs);                       // "128,784"; "" is a scalar
std::vector<std::int64_t> sizes_of(const Attrs& attrs);   // split's "32,32"
bool flag_of(const Attrs& attrs, std::string_view name);  // an integer, 0 or 1; 0 where not given

// Copies the attributes of these names, where they are there.
Attrs select(const Attrs& attrs, std::initializer_list<std::string_view> names);

// Inputs first..last are f32 and have the shape of input `first`.
void same_shape(const InferContext& c, int first, int last);
// The constants that every step reads: clock i64[5], hyper f32[S, 2], commit i64[1].
void expect_clock(const InferContext& c, int i);
void expect_hyper(const InferContext& c, int i);
// The attribute `slot`: a column of the hyper-parameters, which may be given as that input.
void expect_slot(const InferContext& c, int hyper);
void expect_commit(const InferContext& c, int i);
// gather's inputs, window u8 or f32 [R, D] and row i64 [B], as inputs 0 and 1: [B, D].
Shape expect_gather(const InferContext& c);

// Reads and writes everything once, and does `flops` per element of output 0.
Cost elementwise_cost(const Graph& graph, const Node& node, double flops);
double traffic(const Graph& graph, const Node& node);  // bytes

template <int flops>
Cost elementwise(const Graph& graph, const Node& node) {
  return elementwise_cost(graph, node, flops);
}

// The same for operators whose work is counted by input 0.
template <int flops>
Cost per_input(const Graph& graph, const Node& node) {
  return {.flops = flops * static_cast<double>(graph[node.inputs[0]].shape.elements()),
          .bytes = traffic(graph, node)};
}

// 2 flops for each multiply-add of input 0 [m, k] with a matrix of `elements` / k other rows.
Cost product_cost(const Graph& graph, const Node& node, const Shape& a, std::int64_t columns);

}  // namespace cuvae
