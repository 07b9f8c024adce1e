// Faults planted in sound plans: the checker must find each.

#include <gtest/gtest.h>

#include <algorithm>

#include "graph/default_model.h"
#include "graph/graph_testing.h"
#include "graph/passes.h"
#include "graph/plan.h"
#include "graph/plan_editor.h"
#include "graph/random_graph.h"

namespace cuvae::testing {
namespace {

PlanOptions options(int steps, int streams, std::uint64_t order = 0) {
  PlanOptions result;
  result.steps = steps;
  result.streams = streams;
  result.order_seed = order;
  result.alignment = 64;
  return result;
}

bool complains(const Plan& plan) {
  return !plan_violations(plan).empty();
}

TEST(PlanCheck, NoticesEveryDroppedWait) {
  int dropped = 0;
  for (std::uint64_t seed = 1; seed <= 80; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    const Plan plan = make_plan(random.graph, options(2, 3, seed % 2 * seed));
    ASSERT_FALSE(complains(plan));
    for (std::size_t t = 0; t < plan.tasks().size(); ++t)
      for (std::size_t k = 0; k < plan.tasks()[t].waits.size(); ++k, ++dropped) {
        Plan faulty = plan;
        auto& waits = PlanEditor(faulty).tasks()[t].waits;
        waits.erase(waits.begin() + static_cast<std::ptrdiff_t>(k));
        ASSERT_TRUE(complains(faulty)) << "task " << t << ", wait " << k << "\n" << plan.str();
      }
  }
  EXPECT_GT(dropped, 1000);
}

TEST(PlanCheck, NoticesSwappedTasks) {
  int swapped = 0;
  for (std::uint64_t seed = 1; seed <= 80; ++seed) {
    SCOPED_TRACE(seed);
    const Plan plan = make_plan(random_graph(seed).graph, options(2, 1));
    const Graph& g = plan.graph();
    for (const auto& [a, b] : plan.edges()) {
      // Two values that share a place and that nobody reads may be written in either order.
      const Node& first = g.nodes()[plan.tasks()[a].node];
      if (std::any_of(first.outputs.begin(), first.outputs.end(),
                      [&](Value out) { return !g.root(out) && g.readers(out).empty(); }))
        continue;
      Plan faulty = plan;
      std::swap(PlanEditor(faulty).tasks()[a], PlanEditor(faulty).tasks()[b]);
      ASSERT_TRUE(complains(faulty)) << a << " and " << b << "\n" << plan.str();
      ++swapped;
    }
  }
  EXPECT_GT(swapped, 1000);
}

TEST(PlanCheck, NoticesOverlappingBuffers) {
  int moved = 0;
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    const Plan plan = make_plan(random_graph(seed).graph, options(1, 1 + seed % 2));
    // Two inputs of one node live at the same time; so do an input and a later output.
    for (const Node& node : plan.graph().nodes())
      for (const Value a : node.inputs)
        for (const Value b : node.inputs) {
          if (!a || !b || a == b) continue;
          const Place& from = plan.place(0, a);
          const Place& to = plan.place(0, b);
          if (from.root || to.root || from.bytes == 0 || to.bytes == 0) continue;
          Plan faulty = plan;
          PlanEditor(faulty).widen_arena(1 << 20);
          PlanEditor(faulty).place(0, a).offset = to.offset;
          ASSERT_TRUE(complains(faulty));
          ++moved;
        }
    // An output's place is taken by anything that is written after it.
    for (const Value output : plan.graph().outputs())
      for (std::size_t v = 0; v < plan.graph().values().size(); ++v) {
        const Value other{static_cast<std::int32_t>(v)};
        const ValueInfo& info = plan.graph()[other];
        if (other == output || plan.place(0, other).root || plan.place(0, other).bytes == 0 ||
            plan.place(0, output).bytes == 0)
          continue;
        const auto at = [&](std::int32_t node) {
          const auto& tasks = plan.tasks();
          return std::find_if(tasks.begin(), tasks.end(),
                              [&](const Task& task) { return task.node == node; }) -
                 tasks.begin();
        };
        if (at(info.producer) <= at(plan.graph()[output].producer)) continue;
        Plan faulty = plan;
        PlanEditor(faulty).widen_arena(1 << 20);
        PlanEditor(faulty).place(0, other).offset = plan.place(0, output).offset;
        ASSERT_TRUE(complains(faulty));
        ++moved;
      }
  }
  EXPECT_GT(moved, 500);
}

TEST(PlanCheck, NoticesMissingReplayEdges) {
  int dropped = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    const Plan plan = make_plan(random_graph(seed).graph, options(1 + seed % 2, 3));
    for (std::size_t k = 0; k < plan.replay_edges().size(); ++k, ++dropped) {
      Plan faulty = plan;
      auto& edges = PlanEditor(faulty).replay_edges();
      edges.erase(edges.begin() + static_cast<std::ptrdiff_t>(k));
      // Without streams each one is needed; with them, some hold by themselves.
      ASSERT_FALSE(plan_violations(faulty, faulty.edges()).empty());
    }
  }
  EXPECT_GT(dropped, 500);
  // One stream makes all of them.
  Plan serial = make_plan(random_graph(7).graph, options(2, 1));
  PlanEditor(serial).replay_edges().clear();
  EXPECT_FALSE(complains(serial));
}

// An update that also reads what it writes as an operand, by hand: fusion does not make it.
TEST(PlanCheck, NoticesAnUpdateOfWhatItStillReads) {
  const auto plan_of = [](int dy, int x) {
    Graph g;
    const Value w = g.parameter("w", Shape{6, 6});
    const Value m = g.state("m", DType::f32, Shape{6, 6});
    const Value v = g.state("v", DType::f32, Shape{6, 6});
    const Value from[] = {g.input("in", DType::f32, Shape{6, 6}), w, m, v};
    const Value hyper = g.input("hyper", DType::f32, Shape{2, 2});
    const Value clock = g.input("clock", DType::i64, Shape{5});
    const Value commit = g.input("commit", DType::i64, Shape{1});
    g.add("linear_wgrad_adam", "up",
          {from[dy], from[x], w, m, v, Value{}, Value{}, Value{}, hyper, clock, commit});
    return make_plan(g, options(2, 1));
  };
  EXPECT_FALSE(complains(plan_of(0, 0)));
  for (const int operand : {1, 2, 3}) {
    for (const Plan& plan : {plan_of(0, operand), plan_of(operand, 0)}) {
      const auto lines = plan_violations(plan);
      ASSERT_FALSE(lines.empty()) << operand;
      EXPECT_TRUE(has(lines.front(), "may overwrite"));
    }
  }
  // Elementwise updates read each element before they write it: the gradient may be w.
  Graph g;
  const Value w = g.parameter("w", Shape{6});
  const Value m = g.state("m", DType::f32, Shape{6});
  const Value v = g.state("v", DType::f32, Shape{6});
  const Value hyper = g.input("hyper", DType::f32, Shape{2, 2});
  const Value clock = g.input("clock", DType::i64, Shape{5});
  const Value commit = g.input("commit", DType::i64, Shape{1});
  g.add("adam", "up", {w, m, v, w, hyper, clock, commit});
  EXPECT_FALSE(complains(make_plan(g, options(2, 1))));
}

class Damaged : public ::testing::Test {
 protected:
  // The first violation.
  static std::string finding(const Plan& faulty) {
    const auto lines = plan_violations(faulty);
    if (lines.empty()) {
      ADD_FAILURE() << "nothing found";
      return {};
    }
    EXPECT_TRUE(has(error_of(Status::failed, [&] { check_plan(faulty); }), lines.front()));
    return lines.front();
  }
  Plan plan = make_plan(fuse(training_graph({.batch = 4, .rows = 9, .steps = 2}).graph).graph,
                        options(2, 2));
};

TEST_F(Damaged, IsSoundToBeginWith) {
  EXPECT_TRUE(plan_violations(plan).empty());
  EXPECT_NO_THROW(check_plan(plan));
}

TEST_F(Damaged, MissingAndDoubledTasks) {
  Plan missing = plan;
  PlanEditor(missing).tasks().pop_back();
  EXPECT_TRUE(has(finding(missing), "is missing"));
  Plan doubled = plan;
  PlanEditor(doubled).tasks().push_back(plan.tasks()[0]);
  EXPECT_TRUE(has(finding(doubled), "is there twice"));
  Plan foreign = plan;
  PlanEditor(foreign).tasks()[0].node = 1000;
  EXPECT_TRUE(has(finding(foreign), "which is not there"));
}

TEST_F(Damaged, WaitsThatNeverEnd) {
  Plan later = plan;
  PlanEditor(later).tasks()[2].waits = {5};
  EXPECT_TRUE(has(finding(later), "which is not earlier"));
  Plan self = plan;
  PlanEditor(self).tasks()[2].waits = {2};
  EXPECT_TRUE(has(finding(self), "which is not earlier"));
  Plan stream = plan;
  PlanEditor(stream).tasks()[2].stream = 2;
  EXPECT_TRUE(has(finding(stream), "stream 2 of 2"));
  const auto lines = plan_violations(plan, {{3, 1}});
  ASSERT_FALSE(lines.empty());
  EXPECT_TRUE(has(lines.front(), "does not lead forward"));
}

TEST_F(Damaged, PlacesThatCannotBe) {
  const Value x = plan.graph().find("x");
  Plan outside = plan;
  PlanEditor(outside).place(1, x).offset = plan.arena_bytes();
  EXPECT_TRUE(has(finding(outside), "`x` of step 1 lies outside the arena"));
  Plan unplaced = plan;
  PlanEditor(unplaced).place(0, x).offset = -64;
  EXPECT_TRUE(has(finding(unplaced), "lies outside the arena"));
  Plan crooked = plan;
  PlanEditor(crooked).widen_arena(64);
  PlanEditor(crooked).place(0, x).offset += 4;
  EXPECT_TRUE(has(finding(crooked), "is not aligned"));
  Plan small = plan;
  PlanEditor(small).place(0, x).bytes -= 4;
  EXPECT_TRUE(has(finding(small), "bytes and wants"));
  Plan wrong = plan;
  PlanEditor(wrong).place(0, plan.graph().find("encoder.0.bias")).root =
      plan.graph().find("encoder.0.weight");
  EXPECT_TRUE(has(finding(wrong), "wrong persistent value"));
  Plan version = plan;
  PlanEditor(version).place(1, plan.graph().latest(plan.graph().find("encoder.0.bias"))).root =
      Value{};
  EXPECT_TRUE(has(finding(version), "wrong persistent value"));
}

}  // namespace
}  // namespace cuvae::testing
