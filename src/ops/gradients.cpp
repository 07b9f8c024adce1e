// Penalties, the norm over all gradients and clipping by it.

#include "ops/gradients.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {
namespace {

double non_negative(const Attrs& attrs, std::string_view name) {
  const double value = attrs.real(name, 0.0);
  if (!(value >= 0 && value < 1e30))
    throw Error(Status::usage, fmt::format("{} = {}", name, value), {},
                fmt::format("{} may not be negative or not finite", name));
  return value;
}

}  // namespace

PenaltyAttrs penalty_of(const Attrs& attrs) {
  return {.l1 = non_negative(attrs, "l1"), .l2 = non_negative(attrs, "l2")};
}

ClipAttrs clip_of(const Attrs& attrs) {
  return {.limit = non_negative(attrs, "limit")};
}

namespace {

std::vector<OutputSpec> penalty_infer(const InferContext& c) {
  c.inputs(2);
  same_shape(c, 0, 1);
  penalty_of(c.attrs());
  return {{"", DType::f32, c.shape(0)}};
}

std::vector<OutputSpec> clip_infer(const InferContext& c) {
  using namespace clip_input;
  c.inputs(first + 1, c.count() > first ? c.count() : first + 1);
  expect_commit(c, commit);
  c.expect(skipped, DType::i64);
  c.shape(skipped, Shape{1}, "{skipped}");
  for (int i = first; i < c.count(); ++i) c.expect(i, DType::f32);
  clip_of(c.attrs());
  return {{"norm", DType::f32, Shape{}},
          {"factor", DType::f32, Shape{}},
          {"commit", DType::i64, Shape{1}},
          {"skipped", DType::i64, Shape{1}}};
}

Cost clip_cost(const Graph& graph, const Node& node) {
  double elements = 0;
  for (std::size_t i = clip_input::first; i < node.inputs.size(); ++i)
    elements += static_cast<double>(graph[node.inputs[i]].shape.elements());
  return {.flops = 2 * elements, .bytes = traffic(graph, node)};
}

std::vector<OutputSpec> scale_by_infer(const InferContext& c) {
  c.inputs(2);
  c.expect(0, DType::f32);
  c.expect(1, DType::f32);
  c.shape(1, Shape{}, "a scalar");
  return {{"", DType::f32, c.shape(0)}};
}

constexpr Slots over_gradient[] = {{0, 0}};
constexpr Slots penalty_alias[] = {{0, 0}, {0, 1}};
constexpr Slots clip_updates[] = {{3, clip_input::skipped}};

}  // namespace

constinit const OpDef op_add_penalty = {.op = Op::add_penalty,
                                        .name = "add_penalty",
                                        .doc = "y = g + l2 w + l1 sign(w)",
                                        .infer = penalty_infer,
                                        .cost = elementwise<4>,
                                        .may_alias = penalty_alias};

constinit const OpDef op_clip_norm = {
    .op = Op::clip_norm,
    .name = "clip_norm",
    .doc = "the norm of all inputs, the factor that clips it, and whether it is finite",
    .infer = clip_infer,
    .cost = clip_cost,
    .updates = clip_updates};

constinit const OpDef op_scale_by = {.op = Op::scale_by,
                                     .name = "scale_by",
                                     .doc = "y = x s, s a scalar",
                                     .infer = scale_by_infer,
                                     .cost = elementwise<1>,
                                     .may_alias = over_gradient};

}  // namespace cuvae
