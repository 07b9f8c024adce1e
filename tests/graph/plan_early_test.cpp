// What a task may read before its predecessor has ended.

#include "graph/plan_early.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "graph/random_graph.h"

namespace cuvae::testing {
namespace {

// The oracle knows nothing of predecessors and places: it asks of every other task whether it must
// have ended when the kernel starts, and of every byte that it may still be writing.
class Oracle {
 public:
  explicit Oracle(const Plan& plan) : plan_(plan), before_(plan.tasks().size()) {
    for (std::size_t t = 0; t < before_.size(); ++t) {
      before_[t].assign(before_.size(), false);
      for (const int wait : plan.tasks()[t].waits) follow(t, static_cast<std::size_t>(wait));
      if (const int p = last(t); p >= 0) follow(t, static_cast<std::size_t>(p));
    }
  }

  // The task of the same stream just before.
  [[nodiscard]] int last(std::size_t t) const {
    for (int p = static_cast<int>(t) - 1; p >= 0; --p)
      if (plan_.tasks()[static_cast<std::size_t>(p)].stream == plan_.tasks()[t].stream) return p;
    return -1;
  }

  [[nodiscard]] bool may(std::size_t t, Value input) const {
    const int p = last(t);
    if (p < 0 || !plan_.tasks()[t].waits.empty()) return false;
    // Once every kernel of `p` is past its wait, what comes before `p` has ended; nothing else
    // must have.
    for (std::size_t other = 0; other < before_.size(); ++other) {
      if (other == t || before_[static_cast<std::size_t>(p)][other] || before_[other][t]) continue;
      if (writes(other, plan_.place(plan_.tasks()[t].step, input))) return false;
    }
    return true;
  }

 private:
  void follow(std::size_t t, std::size_t p) {
    before_[t][p] = true;
    for (std::size_t each = 0; each < before_.size(); ++each)
      if (before_[p][each]) before_[t][each] = true;
  }
  [[nodiscard]] bool writes(std::size_t task, const Place& place) const {
    const Task& there = plan_.tasks()[task];
    for (const Value out : plan_.graph().nodes()[static_cast<std::size_t>(there.node)].outputs) {
      const Place& written = plan_.place(there.step, out);
      if (place.bytes == 0 || written.bytes == 0 || place.root != written.root) continue;
      if (place.root) return true;
      for (std::int64_t byte = place.offset; byte < place.offset + place.bytes; ++byte)
        if (byte >= written.offset && byte < written.offset + written.bytes) return true;
    }
    return false;
  }

  const Plan& plan_;
  std::vector<std::vector<bool>> before_;  // by task: what has ended when it starts
};

PlanOptions options(int steps, int streams, std::uint64_t order) {
  PlanOptions result;
  result.steps = steps;
  result.streams = streams;
  result.order_seed = order;
  result.alignment = 16;
  return result;
}

TEST(PlanEarly, AgreesWithTheOracleOnRandomPlans) {
  int allowed = 0;
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    const int steps = 1 + static_cast<int>(seed % 3);
    const int streams = 1 + static_cast<int>(seed % 4);
    const Plan plan = make_plan(random.graph, options(steps, streams, seed % 2 == 0 ? seed : 0));
    const Oracle oracle(plan);
    for (std::size_t t = 0; t < plan.tasks().size(); ++t) {
      const Task& task = plan.tasks()[t];
      EXPECT_EQ(may_overlap(plan, static_cast<int>(t)), task.waits.empty() && oracle.last(t) >= 0);
      const Node& node = plan.graph().nodes()[static_cast<std::size_t>(task.node)];
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const bool may = may_read_early(plan, static_cast<int>(t), static_cast<int>(i));
        if (!node.inputs[i]) {
          EXPECT_FALSE(may);
          continue;
        }
        ASSERT_EQ(may, oracle.may(t, node.inputs[i])) << "task " << t << ", input " << i << "\n"
                                                      << plan.str();
        ++(may ? allowed : refused);
      }
      EXPECT_FALSE(may_read_early(plan, static_cast<int>(t), -1));
      EXPECT_FALSE(may_read_early(plan, static_cast<int>(t), 99));
    }
  }
  EXPECT_GT(allowed, 3000);
  EXPECT_GT(refused, 3000);
}

TEST(PlanEarly, WeightsYesWhatThePredecessorMakesOrUpdatesNo) {
  Graph graph;
  const Value x = graph.input("x", DType::f32, Shape{4, 3});
  const Value w1 = graph.parameter("w1", Shape{5, 3});
  const Value w2 = graph.parameter("w2", Shape{2, 5});
  const Value h = graph.apply("linear", "h", {x, w1, {}});
  const Value y = graph.apply("linear", "y", {h, w2, {}});
  graph.output(y);
  const Plan plan = make_plan(graph, {.steps = 2});
  ASSERT_EQ(plan.tasks().size(), 4U);
  EXPECT_FALSE(may_overlap(plan, 0));
  EXPECT_FALSE(may_read_early(plan, 0, 1));  // the first of a run
  EXPECT_TRUE(may_overlap(plan, 1));
  EXPECT_FALSE(may_read_early(plan, 1, 0));  // made by the predecessor
  EXPECT_TRUE(may_read_early(plan, 1, 1));
  EXPECT_FALSE(may_read_early(plan, 1, 2));  // left out
  EXPECT_TRUE(may_read_early(plan, 2, 0));
}

}  // namespace
}  // namespace cuvae::testing
