// batch_index and gather: which rows a step takes, and the rows themselves.
//
// batch_index(clock, keep, other): the last two, i64 [rows] or none, are an alias table as
// WeightedDraws has it (cuvae/sampling.h). With it, what stands at a position of the epoch is its
// draw with replacement, and `shuffle` is not looked at; without it, the shuffle's row or the
// position itself. With `times` = K every position of the epoch has K numbers, and batches are made
// of those: every row of it K times (rows and batch: K times as many), each with a number of its
// own. With a table and `stride`, the rows of the epoch's own batch, it is a second batch beside
// that one, of at most K rows, which draws anew at every position it stands at. What reads rows
// through their indices (gather, linear_gather_*, one_hot) takes either; the persistent path takes
// the second only.

#include <fmt/format.h>

#include "base/alias_table.h"
#include "cuvae/error.h"
#include "ops/data.h"
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

bool draws_by_weight(const InferContext& c) {
  if (c.has(1) != c.has(2))
    c.fail("half of an alias table", "give both of its columns (cuvae/sampling.h), or none");
  return c.has(1);
}

std::vector<OutputSpec> batch_index_infer(const InferContext& c) {
  c.inputs(1, 3);
  expect_clock(c, 0);
  const std::int64_t batch = c.attrs().integer("batch");
  const std::int64_t rows = c.attrs().integer("rows");
  flag_of(c.attrs(), "shuffle");
  flag_of(c.attrs(), "staged");
  if (batch < 0) c.fail(fmt::format("batch = {} is negative", batch));
  if (rows < 0 || rows >= std::int64_t{1} << 62)
    c.fail(fmt::format("rows = {} is not a number of rows", rows));
  const BatchPositions positions = batch_positions(c.attrs(), c.has(1));
  if (batch > rows && !positions.beside)
    c.fail(fmt::format("a batch of {} of {} rows", batch, rows), "use a smaller batch");
  if (draws_by_weight(c)) {
    for (const int i : {1, 2}) {
      c.expect(i, DType::i64);
      c.shape(i, Shape{rows}, "a column of the alias table for each row");
    }
    if (rows > most_alias_rows) c.fail(fmt::format("an alias table of {} rows", rows));
  }
  if (positions.times > 1 && flag_of(c.attrs(), "staged"))
    c.fail("several numbers of a position of a staged window", "keep the data resident");
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

BatchPositions batch_positions(const Attrs& attrs, bool weighted) {
  const std::int64_t batch = attrs.integer("batch");
  const std::int64_t rows = attrs.integer("rows");
  const std::int64_t stride = attrs.integer("stride", 0);
  BatchPositions positions;
  positions.times = attrs.integer("times", 1);
  const auto refuse = [](const std::string& what, const char* mend) {
    throw Error(Status::usage, what, {}, mend);
  };
  if (positions.times < 1 || positions.times > std::int64_t{1} << 24)
    refuse(fmt::format("times = {}", positions.times), "give a number from 1 to 2^24");
  if (stride < 0 || (stride > 0 && !weighted))
    refuse(fmt::format("stride = {}", stride), "it is that of draws from an alias table");
  positions.beside = stride > 0;
  positions.stride = positions.beside ? stride : batch / positions.times;
  positions.last = positions.beside ? rows - 1 : (rows - batch) / positions.times;
  if (positions.beside ? batch > positions.times : batch % positions.times != 0)
    refuse(fmt::format("a batch of {} with {} numbers a position", batch, positions.times),
           "no two steps may share one");
  return positions;
}

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
