// batch_index and gather: which rows a step takes, and the rows themselves.

#include <fmt/format.h>

#include "ops/rules.h"

namespace cuvae {

Shape expect_gather(const InferContext& c) {
  if (c.dtype(0) != DType::u8) c.expect(0, DType::f32);
  c.rank(0, 2, "[R, D]");
  c.expect(1, DType::i64);
  c.rank(1, 1, "[B]");
  static_cast<void>(c.attrs().real("scale", 1.0));
  static_cast<void>(c.attrs().real("shift", 0.0));
  return Shape{c.shape(1)[0], c.shape(0)[1]};
}

namespace {

std::vector<OutputSpec> batch_index_infer(const InferContext& c) {
  c.inputs(1);
  expect_clock(c, 0);
  const std::int64_t batch = c.attrs().integer("batch");
  const std::int64_t rows = c.attrs().integer("rows");
  flag_of(c.attrs(), "shuffle");
  flag_of(c.attrs(), "staged");
  if (batch < 0) c.fail(fmt::format("batch = {} is negative", batch));
  if (rows < 0 || rows >= std::int64_t{1} << 62)
    c.fail(fmt::format("rows = {} is not a number of rows", rows));
  if (batch > rows)
    c.fail(fmt::format("a batch of {} of {} rows", batch, rows), "use a smaller batch");
  return {{"row", DType::i64, Shape{batch}}, {"index", DType::i64, Shape{batch}}};
}

std::vector<OutputSpec> gather_infer(const InferContext& c) {
  c.inputs(2);
  return {{"", DType::f32, expect_gather(c)}};
}

// A dataset does not learn: what flows back into a window of reals is dropped.
constexpr int gather_constants[] = {0, 1};

Cost gather_cost(const Graph& graph, const Node& node) {
  const double elements = static_cast<double>(graph[node.outputs[0]].shape.elements());
  const double bytes = static_cast<double>(size_of(graph[node.inputs[0]].dtype));
  return {.flops = 2 * elements, .bytes = elements * (bytes + 4)};
}

}  // namespace

constinit const OpDef op_batch_index = {
    .op = Op::batch_index,
    .name = "batch_index",
    .doc = "window row and dataset index of each row of the step's batch",
    .infer = batch_index_infer,
    .cost = elementwise<0>};
constinit const OpDef op_gather = {.op = Op::gather,
                                   .name = "gather",
                                   .doc = "(window[row[b]] - shift) * scale",
                                   .infer = gather_infer,
                                   .cost = gather_cost,
                                   .constant_inputs = gather_constants};

}  // namespace cuvae
