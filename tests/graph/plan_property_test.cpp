// Properties of plans on random graphs, with memory poisoned before the run and after the last use.
// Everything is compared bit for bit: the interpreter does the same arithmetic in any order.

#include <gtest/gtest.h>

#include <cmath>

#include "graph/graph_testing.h"
#include "graph/interpreter.h"
#include "graph/passes.h"
#include "graph/plan.h"
#include "graph/random_graph.h"

namespace cuvae::testing {
namespace {

constexpr std::uint64_t graphs = 400;

PlanOptions options(int steps, int streams, std::uint64_t order = 0, bool reuse = true) {
  PlanOptions result;
  result.steps = steps;
  result.streams = streams;
  result.order_seed = order;
  result.reuse = reuse;
  result.real = DType::f64;
  result.alignment = 64;
  return result;
}

// Every real of a reference run is finite, so that poison cannot hide.
bool finite(const Result& result) {
  const auto all = [](const auto& map) {
    for (const auto& [name, data] : map)
      for (const double x : data.real)
        if (!std::isfinite(x)) return false;
    return true;
  };
  for (const auto& step : result.outputs)
    if (!all(step)) return false;
  return all(result.memory);
}

::testing::AssertionResult same(const Result& a, const Result& b) {
  for (const auto& [name, data] : a.memory)
    if (!(data == b.memory.at(name)))
      return ::testing::AssertionFailure() << "`" << name << "` differs";
  if (a.outputs.size() != b.outputs.size())
    return ::testing::AssertionFailure() << "different numbers of steps";
  for (std::size_t s = 0; s < a.outputs.size(); ++s)
    for (const auto& [name, data] : a.outputs[s])
      if (!(data == b.outputs[s].at(name)))
        return ::testing::AssertionFailure() << "output `" << name << "` of step " << s;
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult sound(const Plan& plan) {
  const auto lines = plan_violations(plan);
  if (!lines.empty()) return ::testing::AssertionFailure() << lines.front() << "\n" << plan.str();
  const auto by_edges = plan_violations(plan, plan.edges());
  if (!by_edges.empty())
    return ::testing::AssertionFailure() << "by edges: " << by_edges.front() << "\n" << plan.str();
  return ::testing::AssertionSuccess();
}

TEST(PlanProperty, AnyLegalOrderGivesTheSameResult) {
  for (std::uint64_t seed = 1; seed <= graphs; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    for (const int steps : {1, 3}) {
      const Result expected = evaluate(random.graph, random.memory, steps);
      ASSERT_TRUE(finite(expected));
      for (const std::uint64_t order : {0, 1, 2}) {
        const Plan plan = make_plan(random.graph, options(steps, 1, order * seed));
        ASSERT_TRUE(sound(plan));
        ASSERT_TRUE(same(expected, execute(plan, random.memory)));
      }
    }
  }
}

TEST(PlanProperty, ReuseChangesNothingButTheArena) {
  std::int64_t with = 0;
  std::int64_t without = 0;
  for (std::uint64_t seed = 1; seed <= graphs; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    const Plan tight = make_plan(random.graph, options(2, 1));
    const Plan wide = make_plan(random.graph, options(2, 1, 0, false));
    PlanOptions all = options(2, 1);
    all.keep_all = true;
    const Plan kept = make_plan(random.graph, all);
    for (const Plan* plan : {&tight, &wide, &kept}) ASSERT_TRUE(sound(*plan));
    EXPECT_LE(tight.arena_bytes(), wide.arena_bytes());
    EXPECT_EQ(kept.arena_bytes(), wide.arena_bytes());
    with += tight.arena_bytes();
    without += wide.arena_bytes();
    const Result result = execute(tight, random.memory);
    ASSERT_TRUE(same(result, execute(wide, random.memory)));
    ASSERT_TRUE(same(result, execute(kept, random.memory)));
  }
  EXPECT_LT(with, 0.7 * static_cast<double>(without));
}

TEST(PlanProperty, UnrolledStepsEqualSingleSteps) {
  constexpr int steps = 3;
  for (std::uint64_t seed = 1; seed <= graphs; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    const Result unrolled = execute(make_plan(random.graph, options(steps, 1)), random.memory);
    const Plan one = make_plan(random.graph, options(1, 1));
    Memory memory = random.memory;
    const std::vector<double> hyper = memory["hyper"].real;
    Result single;
    for (int step = 0; step < steps; ++step) {
      // What the host moves from run to run.
      memory["clock"].integer[1] = random.memory.at("clock").integer[1] + step;
      for (int slot = 0; slot < 2; ++slot) memory["hyper"].real[slot] = hyper[2 * step + slot];
      Result result = execute(one, memory);
      memory = result.memory;
      single.outputs.push_back(result.outputs.at(0));
    }
    memory["clock"] = random.memory.at("clock");
    memory["hyper"].real = hyper;
    single.memory = memory;
    ASSERT_TRUE(same(unrolled, single));
  }
}

TEST(PlanProperty, HostileInterleavingsOfStreamsGiveTheSameResult) {
  using Kind = Interleaving::Kind;
  int waits = 0;
  for (std::uint64_t seed = 1; seed <= graphs; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    const int steps = 1 + static_cast<int>(seed % 3);
    const int streams = 2 + static_cast<int>(seed % 4);
    const Result expected = evaluate(random.graph, random.memory, steps);
    const Result twice = evaluate(random.graph, expected.memory, steps);
    for (const std::uint64_t order : {std::uint64_t{0}, seed}) {
      const Plan plan = make_plan(random.graph, options(steps, streams, order));
      ASSERT_TRUE(sound(plan));
      for (const Task& task : plan.tasks()) waits += static_cast<int>(task.waits.size());
      for (const Kind kind : {Kind::serial, Kind::first_stream, Kind::last_stream,
                              Kind::random_streams, Kind::random_edges}) {
        ASSERT_TRUE(same(expected, execute(plan, random.memory, {kind, seed, 1})));
        ASSERT_TRUE(same(twice, execute(plan, random.memory, {kind, seed, 2})));
      }
    }
  }
  EXPECT_GT(waits, 1000);
}

TEST(PlanProperty, EveryEdgeOfTheReductionIsNeeded) {
  int edges = 0;
  int replay = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    Plan plan = make_plan(random.graph, options(2, 1 + static_cast<int>(seed % 3), seed % 2));
    for (std::size_t i = 0; i < plan.edges().size(); ++i, ++edges) {
      auto fewer = plan.edges();
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      ASSERT_FALSE(plan_violations(plan, fewer).empty())
          << plan.edges()[i].first << " -> " << plan.edges()[i].second << "\n"
          << plan.str();
    }
    replay += static_cast<int>(plan.replay_edges().size());
  }
  EXPECT_GT(edges, 2000);
  EXPECT_GT(replay, 500);
}

TEST(PlanProperty, FusedAndLoweredGraphsMeanTheSame) {
  int fused_nodes = 0;
  for (std::uint64_t seed = 1; seed <= graphs; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    const Result expected = evaluate(random.graph, random.memory, 2);
    const Rewritten fused = fuse(random.graph);
    for (const Node& node : fused.graph.nodes())
      if (op_def(node.op).compose) ++fused_nodes;
    for (std::size_t v = 0; v < fused.map.size(); ++v)
      if (fused.map[v]) {
        const ValueInfo& old = random.graph.values()[v];
        EXPECT_EQ(fused.graph[fused.map[v]].name, old.name);
        EXPECT_EQ(fused.graph[fused.map[v]].shape, old.shape);
        EXPECT_EQ(bool(fused.graph[fused.map[v]].version_of), bool(old.version_of));
      }
    const Rewritten lowered = lower(fused.graph, [](const Graph&, const Node&) { return false; });
    for (const Node& node : lowered.graph.nodes()) EXPECT_FALSE(op_def(node.op).compose);
    ASSERT_TRUE(same(expected, evaluate(lowered.graph, random.memory, 2)));
    const Plan plan = make_plan(fused.graph, options(2, 2));
    ASSERT_TRUE(sound(plan));
    const Plan again = make_plan(lowered.graph, options(2, 2));
    ASSERT_TRUE(same(expected, execute(again, random.memory)));
    const Rewritten pruned = prune(random.graph);
    EXPECT_LE(pruned.graph.nodes().size(), random.graph.nodes().size());
    ASSERT_TRUE(same(expected, execute(make_plan(pruned.graph, options(2, 1)), random.memory)));
  }
  EXPECT_GT(fused_nodes, 200);
}

}  // namespace
}  // namespace cuvae::testing
