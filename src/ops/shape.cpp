// split and concat along the columns.

#include <fmt/format.h>

#include <numeric>

#include "ops/rules.h"

namespace cuvae {
namespace {

std::vector<OutputSpec> split_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  c.rank(0, 2, "[B, D]");
  const auto sizes = sizes_of(c.attrs());
  const std::int64_t sum = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  if (sum != c.shape(0)[1])
    c.fail(fmt::format("sizes \"{}\" add up to {}, not to the {} columns of {}",
                       c.attrs().text("sizes"), sum, c.shape(0)[1], c.shape(0).str()));
  std::vector<OutputSpec> outputs;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    outputs.push_back({std::to_string(i), DType::f32, Shape{c.shape(0)[0], sizes[i]}});
  return outputs;
}

void split_gradient(GradientContext& g) {
  std::vector<Value> parts;
  for (std::size_t i = 0; i < g.node.outputs.size(); ++i) {
    const auto slot = static_cast<int>(i);
    Value part = g.grad_out(slot);
    if (!part)
      part = g.graph.apply("fill", g.name("zero"), {},
                           {{"shape", shape_text(g.graph[g.out(slot)].shape)}, {"value", 0.0}});
    parts.push_back(part);
  }
  g.set(0, g.graph.apply("concat", g.name("dx"), parts));
}

std::vector<OutputSpec> concat_infer(const InferContext& c) {
  if (c.count() < 1) c.fail("wants at least one input, has none");
  c.inputs(c.count());
  std::int64_t columns = 0;
  for (int i = 0; i < c.count(); ++i) {
    c.expect(i, DType::f32);
    c.rank(i, 2, "[B, D]");
    if (c.shape(i)[0] != c.shape(0)[0])
      c.fail(fmt::format("input {} has {} rows, input 0 has {}", i, c.shape(i)[0], c.shape(0)[0]));
    columns += c.shape(i)[1];
  }
  return {{"", DType::f32, Shape{c.shape(0)[0], columns}}};
}

void concat_gradient(GradientContext& g) {
  std::string sizes;
  for (const Value in : g.node.inputs) {
    if (!sizes.empty()) sizes += ',';
    sizes += std::to_string(g.graph[in].shape[1]);
  }
  const auto parts = g.graph.add("split", g.name("dx"), {g.grad_out(0)}, {{"sizes", sizes}});
  for (std::size_t i = 0; i < parts.size(); ++i) g.set(static_cast<int>(i), parts[i]);
}

}  // namespace

constinit const OpDef op_split = {.op = Op::split,
                                  .name = "split",
                                  .doc = "columns [B, D1 + .. + Dn] as n values [B, Di]",
                                  .infer = split_infer,
                                  .gradient = split_gradient,
                                  .cost = elementwise<0>};
constinit const OpDef op_concat = {.op = Op::concat,
                                   .name = "concat",
                                   .doc = "n values [B, Di] side by side",
                                   .infer = concat_infer,
                                   .gradient = concat_gradient,
                                   .cost = elementwise<0>};

}  // namespace cuvae
