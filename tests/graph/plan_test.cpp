#include "graph/plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cuvae/error.h"
#include "graph/graph_testing.h"
#include "graph/plan_editor.h"

namespace cuvae::testing {
namespace {

const Attrs with_tanh{{"kind", std::string("tanh")}};

// x -> a -> b -> c -> d, each [64] (256 bytes in float)
struct Chain {
  Graph g;
  Value x = g.input("x", DType::f32, Shape{64});
  Value a = g.apply("activation", "a", {x}, with_tanh);
  Value b = g.apply("activation", "b", {a}, with_tanh);
  Value c = g.apply("activation", "c", {b}, with_tanh);
  Value d = g.apply("activation", "d", {c}, with_tanh);
};

struct Updated {
  Graph g;
  Value w = g.parameter("w", Shape{8});
  Value m = g.state("m", DType::f32, Shape{8});
  Value v = g.state("v", DType::f32, Shape{8});
  Value hyper = g.input("hyper", DType::f32, Shape{4, 2});
  Value clock = g.input("clock", DType::i64, Shape{5});
  Value commit = g.input("commit", DType::i64, Shape{1});
  Value grad = g.apply("scale", "grad", {w});
  std::vector<Value> next;
  void update() { next = g.add("adam", "adam", {w, m, v, grad, hyper, clock, commit}); }
};

int position(const Plan& plan, int step, const std::string& name) {
  for (std::size_t i = 0; i < plan.tasks().size(); ++i)
    if (plan.tasks()[i].step == step && plan.graph().nodes()[plan.tasks()[i].node].name == name)
      return static_cast<int>(i);
  return -1;
}

TEST(Plan, ReusesOneBufferInPlaceAlongAChain) {
  Chain chain;
  chain.g.output(chain.d);
  const Plan plan = make_plan(chain.g, {});
  EXPECT_EQ(plan.arena_bytes(), 256);
  for (const Value value : {chain.a, chain.b, chain.c, chain.d})
    EXPECT_EQ(plan.place(0, value).offset, 0);
  EXPECT_EQ(plan.place(0, chain.x).root, chain.x);
  EXPECT_EQ(plan.place(0, chain.x).offset, -1);
  EXPECT_EQ(plan.persistent_bytes(), 256);
  check_plan(plan);
}

TEST(Plan, AReshapeMovesNothingWhereNothingElseReadsItsInput) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{2, 3, 4, 5});
  const Value a = g.apply("activation", "a", {x}, with_tanh);
  const Value flat = g.apply("reshape", "flat", {a}, {{"shape", std::string("2,60")}});
  g.output(flat);
  const Plan plan = make_plan(g);
  EXPECT_EQ(plan.place(0, a).offset, plan.place(0, flat).offset);
  check_plan(plan);
}

TEST(Plan, DoesNotWriteInPlaceWhatIsStillRead) {
  Chain chain;
  chain.g.output(chain.g.apply("add", "late", {chain.d, chain.b}));
  const Plan plan = make_plan(chain.g, {});
  EXPECT_NE(plan.place(0, chain.c).offset, plan.place(0, chain.b).offset);
  EXPECT_EQ(plan.arena_bytes(), 2 * 256);
  check_plan(plan);
}

TEST(Plan, KeepsOutputsOfEveryStep) {
  Chain chain;
  chain.g.output(chain.b);
  PlanOptions options;
  options.steps = 3;
  const Plan plan = make_plan(chain.g, options);
  std::vector<std::int64_t> offsets;
  for (int step = 0; step < 3; ++step) offsets.push_back(plan.place(step, chain.b).offset);
  std::sort(offsets.begin(), offsets.end());
  EXPECT_EQ(std::unique(offsets.begin(), offsets.end()), offsets.end());
  EXPECT_EQ(plan.arena_bytes(), 4 * 256);  // three outputs, and one place for the others
  check_plan(plan);
}

TEST(Plan, KeepAllGivesEveryValueItsOwnPlace) {
  Chain chain;
  PlanOptions options;
  options.keep_all = true;
  options.steps = 2;
  const Plan plan = make_plan(chain.g, options);
  EXPECT_EQ(plan.arena_bytes(), 8 * 256);
  check_plan(plan);
}

TEST(Plan, SizesFollowTheRealTypeAndTheAlignment) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{3});
  g.output(g.apply("activation", "a", {x}, with_tanh));
  g.output(g.apply("activation", "b", {x}, with_tanh));
  PlanOptions options;
  options.alignment = 64;
  EXPECT_EQ(make_plan(g, options).arena_bytes(), 128);
  options.real = DType::f64;
  const Plan wide = make_plan(g, options);
  EXPECT_EQ(wide.place(0, g.find("a")).bytes, 24);
  EXPECT_EQ(wide.persistent_bytes(), 24);
  options.alignment = 1;
  EXPECT_EQ(make_plan(g, options).arena_bytes(), 48);
}

TEST(Plan, WhatStandsBesideAValueLivesAsLongAsIt) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{100});
  const Value a = g.apply("activation", "a", {x}, with_tanh);
  const Value b = g.apply("activation", "b", {a}, with_tanh);
  const Value c = g.apply("activation", "c", {b}, with_tanh);
  g.output(g.apply("add", "d", {a, c}));
  const std::int64_t without = make_plan(g).arena_bytes();
  PlanOptions options;
  options.beside.assign(g.values().size(), 0);
  options.beside[static_cast<std::size_t>(a.id)] = 40;
  for (const int streams : {1, 2}) {
    options.streams = streams;
    options.steps = streams;
    Plan plan = make_plan(g, options);
    check_plan(plan);
    // 400 bytes, and 40 more from 512 on.
    EXPECT_EQ(plan.place(0, a).bytes, 552);
    EXPECT_EQ(plan.place(0, a).beside, 40);
    EXPECT_EQ(plan.place(0, b).beside, 0);
    EXPECT_NE(plan.str().find("552 bytes, 40 of them beside it"), std::string::npos);
    if (streams == 1) {
      EXPECT_EQ(plan.arena_bytes(), without + 256);
    }
    PlanEditor(plan).place(0, a).beside = 0;
    EXPECT_NE(plan_violations(plan).front().find("beside"), std::string::npos);
    PlanEditor(plan).place(0, a).beside = 40;
    PlanEditor(plan).place(0, a).bytes = 400;
    EXPECT_FALSE(plan_violations(plan).empty());
  }
  const auto refused = [&](std::vector<std::int64_t> beside) {
    options.beside = std::move(beside);
    try {
      make_plan(g, options);
    } catch (const Error& error) {
      return error.status() == Status::usage;
    }
    return false;
  };
  EXPECT_TRUE(refused({1}));
  std::vector<std::int64_t> of_input(g.values().size(), 0);
  of_input[static_cast<std::size_t>(x.id)] = 8;
  EXPECT_TRUE(refused(of_input));
  EXPECT_TRUE(refused(std::vector<std::int64_t>(g.values().size(), -1)));
}

TEST(Plan, HowAPersistentValueIsStoredItsVersionsAre) {
  Graph g;
  const Value w = g.parameter("w", Shape{6});
  const Value m = g.state("m", DType::f32, Shape{6});
  const Value v = g.state("v", DType::f32, Shape{6});
  const Value hyper = g.input("hyper", DType::f32, Shape{1, 2});
  const Value clock = g.input("clock", DType::i64, Shape{5});
  const Value commit = g.input("commit", DType::i64, Shape{1});
  const Value shadow = g.state("w.bf16", DType::f32, Shape{6});
  const Value grad = g.apply("activation", "grad", {shadow}, with_tanh);
  const auto updated = g.add("adam", "u", {w, m, v, grad, hyper, clock, commit, shadow});
  PlanOptions options;
  options.stored.assign(g.values().size(), DType::f32);
  options.stored[static_cast<std::size_t>(shadow.id)] = DType::bf16;
  const Plan plan = make_plan(g, options);
  check_plan(plan);
  EXPECT_EQ(plan.stored(updated[3]), DType::bf16);
  EXPECT_EQ(plan.place(0, updated[3]).bytes, 12);
  EXPECT_EQ(plan.place(0, updated[0]).bytes, 24);
  EXPECT_EQ(plan.persistent_bytes(), 3 * 24 + 12 + 8 + 40 + 8);
}

TEST(Plan, ValuesWithoutElementsAreLegal) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{0, 4});
  const Value a = g.apply("activation", "a", {x}, with_tanh);
  const Value b = g.apply("activation", "b", {a}, with_tanh);
  g.output(b);
  for (const int streams : {1, 3}) {
    PlanOptions options;
    options.streams = streams;
    options.steps = 2;
    const Plan plan = make_plan(g, options);
    EXPECT_EQ(plan.arena_bytes(), 0);
    EXPECT_EQ(plan.place(0, a).offset, 0);
    EXPECT_EQ(plan.place(0, a).bytes, 0);
    EXPECT_LT(position(plan, 1, "a"), position(plan, 1, "b"));
    check_plan(plan);
    // Empty or not, a value is made before it is read.
    auto edges = plan.edges();
    ASSERT_EQ(edges.size(), 2U);
    edges.pop_back();
    EXPECT_FALSE(plan_violations(plan, edges).empty());
  }
  check_plan(make_plan(Graph{}, {}));
}

TEST(Plan, ReadersOfTheOldVersionComeBeforeTheUpdate) {
  Updated u;
  u.update();
  const Value late = u.g.apply("scale", "late", {u.w});
  const Value fresh = u.g.apply("scale", "fresh", {u.next[0]});
  u.g.output(late);
  u.g.output(fresh);
  for (const std::uint64_t order : {0, 1, 2, 3}) {
    PlanOptions options;
    options.steps = 3;
    options.order_seed = order;
    const Plan plan = make_plan(u.g, options);
    for (int step = 0; step < 3; ++step) {
      EXPECT_LT(position(plan, step, "late"), position(plan, step, "adam"));
      EXPECT_LT(position(plan, step, "adam"), position(plan, step, "fresh"));
      if (step > 0) {
        EXPECT_LT(position(plan, step - 1, "fresh"), position(plan, step, "adam"));
      }
      EXPECT_EQ(plan.place(step, u.next[0]).root, u.w);
    }
    check_plan(plan);
  }
}

TEST(Plan, TheNextRunsReadersWaitForTheUpdate) {
  Updated u;
  u.update();
  const Plan plan = make_plan(u.g, {});
  const std::pair<int, int> edge{position(plan, 0, "adam"), position(plan, 0, "grad")};
  EXPECT_NE(std::find(plan.replay_edges().begin(), plan.replay_edges().end(), edge),
            plan.replay_edges().end());
}

TEST(Plan, RefusesAReaderOfTheOldVersionThatDependsOnTheNew) {
  Updated u;
  u.update();
  const Value fresh = u.g.apply("scale", "fresh", {u.next[0]});
  u.g.apply("mul", "both", {u.w, fresh});
  const std::string message = error_of(Status::usage, [&] { make_plan(u.g, {}); });
  EXPECT_TRUE(has(message, "`both`"));
  EXPECT_TRUE(has(message, "`adam`"));
  EXPECT_TRUE(has(message, "`w`"));
}

TEST(Plan, UpdatesRunAsSoonAsTheyMay) {
  Updated u;
  u.update();
  const Value x = u.g.input("x", DType::f32, Shape{8});
  const Value later = u.g.apply("activation", "later", {x}, with_tanh);
  u.g.output(later);
  // Defined before or after, the update frees its gradient first.
  const Plan plan = make_plan(u.g, {});
  EXPECT_EQ(position(plan, 0, "adam"), position(plan, 0, "grad") + 1);
}

TEST(Plan, OrderIsMemoryAware) {
  // Two wide values, each reduced to one number: the first is reduced before the second is made.
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{1024});
  const Value a = g.apply("activation", "a", {x}, with_tanh);
  const Value b = g.apply("activation", "b", {x}, with_tanh);
  const Attrs sum{{"axis", std::string("all")}, {"op", std::string("sum")}};
  g.output(g.apply("reduce", "sum_a", {a}, sum));
  g.output(g.apply("reduce", "sum_b", {b}, sum));
  const Plan plan = make_plan(g, {});
  EXPECT_EQ(plan.arena_bytes(), 4096 + 2 * 256);
}

TEST(Plan, IndependentBranchesTakeTwoStreams) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{64, 64});
  const Value w = g.parameter("w", Shape{64, 64});
  Value a = x;
  Value b = x;
  for (int i = 0; i < 3; ++i) {
    a = g.apply("linear", std::string("a").append(std::to_string(i)), {a, w});
    b = g.apply("linear", std::string("b").append(std::to_string(i)), {b, w});
  }
  g.output(g.apply("add", "sum", {a, b}));
  PlanOptions options;
  options.streams = 2;
  const Plan plan = make_plan(g, options);
  check_plan(plan);
  int waits = 0;
  for (const Task& task : plan.tasks()) waits += static_cast<int>(task.waits.size());
  EXPECT_EQ(waits, 1);  // where they meet
  EXPECT_NE(plan.tasks()[position(plan, 0, "a1")].stream,
            plan.tasks()[position(plan, 0, "b1")].stream);
  EXPECT_EQ(plan.edges().size(), 6U);
}

TEST(Plan, RefusesImpossibleOptions) {
  Chain chain;
  const auto refusal = [&](PlanOptions options) {
    return error_of(Status::usage, [&] { make_plan(chain.g, options); });
  };
  PlanOptions options;
  options.steps = 0;
  EXPECT_TRUE(has(refusal(options), "0 unrolled steps"));
  options.steps = 100000;
  EXPECT_TRUE(has(refusal(options), "unroll fewer steps"));
  options = {};
  options.streams = 0;
  EXPECT_TRUE(has(refusal(options), "0 streams"));
  options = {};
  for (const std::int64_t alignment : {0, 3, -8}) {
    options.alignment = alignment;
    EXPECT_TRUE(has(refusal(options), "alignment"));
  }
  options = {};
  options.real = DType::i64;
  EXPECT_TRUE(has(refusal(options), "i64 as the real type"));
  const Plan plan = make_plan(chain.g, {});
  EXPECT_TRUE(
      has(error_of(Status::usage, [&] { static_cast<void>(plan.place(1, chain.a)); }), "step 1"));
  EXPECT_TRUE(
      has(error_of(Status::usage, [&] { static_cast<void>(plan.place(0, Value{})); }), "no value"));
}

TEST(Plan, RefusesMoreStepsThanRowsOfHyperParameters) {
  const auto refusal = [](const Graph& g, int steps) {
    PlanOptions options;
    options.steps = steps;
    return error_of(Status::usage, [&] { make_plan(g, options); });
  };
  Updated u;
  u.update();
  EXPECT_TRUE(has(refusal(u.g, 5), "5 steps, but `hyper` [4, 2] has rows for 4"));
  EXPECT_TRUE(has(refusal(u.g, 5), "node `adam` (adam)"));
  Graph fused;
  const Value w = fused.parameter("w", Shape{3, 2});
  const Value m = fused.state("m", DType::f32, Shape{3, 2});
  const Value v = fused.state("v", DType::f32, Shape{3, 2});
  const Value dy = fused.input("dy", DType::f32, Shape{4, 3});
  const Value x = fused.input("x", DType::f32, Shape{4, 2});
  const Value hyper = fused.input("hyper", DType::f32, Shape{1, 2});
  const Value clock = fused.input("clock", DType::i64, Shape{5});
  const Value commit = fused.input("commit", DType::i64, Shape{1});
  fused.add("linear_wgrad_adam", "up",
            {dy, x, w, m, v, Value{}, Value{}, Value{}, hyper, clock, commit});
  EXPECT_TRUE(has(refusal(fused, 2), "node `up` (linear_wgrad_adam)"));
  Graph scaled;
  const Value rows = scaled.input("hyper", DType::f32, Shape{2, 2});
  const Value in = scaled.input("x", DType::f32, Shape{3});
  scaled.output(scaled.apply("scale", "free", {in}));
  scaled.output(scaled.apply("scale", "beta", {in, rows}, {{"slot", std::int64_t{1}}}));
  EXPECT_TRUE(has(refusal(scaled, 3), "node `beta` (scale)"));
  PlanOptions two;
  two.steps = 2;
  EXPECT_NO_THROW(make_plan(scaled, two));
}

// An operator that takes hyper-parameters says which input they are.
TEST(Plan, EveryReaderOfHyperParametersIsChecked) {
  const Op readers[] = {
      Op::fill,         Op::scale,
      Op::adam,         Op::linear_wgrad_adam,
      Op::elbo,         Op::linear_gather_wgrad_adam,
      Op::capacity_gap, Op::capacity_gap_grad,
#define CUVAE_OPTIMIZER(name, Type) Op::name,
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
  };
  for (const OpDef* def : all_ops()) {
    const bool reads =
        std::find(std::begin(readers), std::end(readers), def->op) != std::end(readers);
    EXPECT_EQ(def->hyper_input >= 0, reads) << def->name;
  }
}

TEST(Plan, RefusesMoreBytesThanThereAre) {
  Graph g;
  g.input("x", DType::i64, Shape{(std::int64_t{1} << 60) - 1});
  EXPECT_TRUE(has(error_of(Status::usage, [&] { make_plan(g, {}); }), "`x`"));
  Graph h;
  const Value y = h.input("y", DType::f32, Shape{std::int64_t{1} << 59});
  h.output(h.apply("activation", "a", {y}, with_tanh));
  h.output(h.apply("activation", "b", {y}, with_tanh));
  h.output(h.apply("activation", "c", {y}, with_tanh));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { make_plan(h, {}); }), "2^62 bytes"));
}

TEST(Plan, TellsThePeakWithoutAllocating) {
  Graph g;  // 2^40 elements
  const Value x = g.input("x", DType::f32, Shape{std::int64_t{1} << 40});
  g.output(g.apply("activation", "a", {x}, with_tanh));
  EXPECT_EQ(make_plan(g, {}).arena_bytes(), std::int64_t{1} << 42);
}

TEST(Plan, PrintsItself) {
  Updated u;
  u.update();
  PlanOptions options;
  options.streams = 2;
  options.steps = 2;
  const Plan plan = make_plan(u.g, options);
  const std::string table = plan.str();
  for (const char* part : {"adam (adam)", "in `w`", "step 1", "grad f32 [8]", "32 bytes"})
    EXPECT_TRUE(has(table, part));
  const std::string dot = plan.dot();
  EXPECT_TRUE(dot.starts_with("digraph"));
  EXPECT_TRUE(has(dot, "t0 -> t"));
  EXPECT_TRUE(has(dot, "dashed"));
  EXPECT_EQ(std::count(dot.begin(), dot.end(), '{'), std::count(dot.begin(), dot.end(), '}'));
}

TEST(Plan, TheSameOrderEveryTime) {
  Updated u;
  u.update();
  PlanOptions options;
  options.streams = 3;
  options.steps = 4;
  EXPECT_EQ(make_plan(u.g, options).str(), make_plan(u.g, options).str());
  EXPECT_EQ(make_plan(u.g, options).dot(), make_plan(u.g, options).dot());
}

}  // namespace
}  // namespace cuvae::testing
