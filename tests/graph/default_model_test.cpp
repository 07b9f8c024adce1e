#include "graph/default_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "graph/graph_testing.h"
#include "graph/interpreter.h"
#include "graph/passes.h"
#include "graph/plan.h"
#include "graph/random_graph.h"

namespace cuvae::testing {
namespace {

bool all_of_them(const Graph&, const Node&) {
  return true;
}

TEST(DefaultModel, FusesEveryPattern) {
  const TrainingGraph model = training_graph();
  const Rewritten fused = fuse(model.graph);
  const Graph& g = fused.graph;
  EXPECT_EQ(count(g, Op::batch_index), 1);
  EXPECT_EQ(count(g, Op::gather), 1);
  EXPECT_EQ(count(g, Op::linear_activation), 1);
  EXPECT_EQ(count(g, Op::linear_bottleneck), 1);
  EXPECT_EQ(count(g, Op::linear_nll), 1);
  EXPECT_EQ(count(g, Op::linear_dgrad_activation), 1);
  EXPECT_EQ(count(g, Op::linear_dgrad_bottleneck), 1);
  EXPECT_EQ(count(g, Op::linear_wgrad_adam), 4);
  for (const Op op : {Op::linear, Op::linear_wgrad, Op::adam, Op::split, Op::sample,
                      Op::gaussian_kl, Op::bernoulli_nll, Op::bernoulli_nll_grad, Op::linear_dgrad,
                      Op::sample_grad, Op::gaussian_kl_grad, Op::activation_grad, Op::concat})
    EXPECT_EQ(count(g, op), 0) << op_def(op).name;
  // Neither the logits nor a gradient of a parameter exists any more.
  for (const char* name : {"decoder.out", "encoder.0", "grad(encoder.0.weight)"})
    EXPECT_FALSE(g.find(name)) << name;
  for (const char* name :
       {"x", "encoder.0.relu", "mean", "logvar", "latent.z", "latent.eps", "kl_rows", "nll_rows",
        "reconstruction", "kl", "loss", "grad(decoder.out)", "grad(encoder.0)"})
    EXPECT_TRUE(g.find(name)) << name;
  std::printf("[ default model: %zu nodes, fused %zu ]\n", model.graph.nodes().size(),
              g.nodes().size());
  EXPECT_EQ(model.graph.nodes().size(), 45U);
  EXPECT_EQ(count(g, Op::elbo), 1);
  EXPECT_EQ(g.nodes().size(), 16U);
  // Two constants, of which one is beta / batch, instead of five nodes.
  EXPECT_EQ(prune(g).graph.nodes().size(), 14U);
}

// Where all that read the batch read its rows through their indices, it is never made.
TEST(DefaultModel, NoBatchOfRealsWhereAllGather) {
  const Graph fused = fuse(training_graph().graph).graph;
  const Graph g = prune(fuse_gather(fused, all_of_them).graph).graph;
  EXPECT_EQ(count(g, Op::gather), 0);
  EXPECT_EQ(count(g, Op::linear_gather_activation), 1);
  EXPECT_EQ(count(g, Op::linear_gather_nll), 1);
  EXPECT_EQ(count(g, Op::linear_gather_wgrad_adam), 1);
  EXPECT_EQ(count(g, Op::linear_wgrad_adam), 3);
  EXPECT_EQ(g.nodes().size(), 13U);
  EXPECT_FALSE(g.find("x"));
  // Without it a step has less in memory at once.
  const Plan plan = make_plan(g, {});
  check_plan(plan);
  EXPECT_LE(plan.arena_bytes() + 128 * 784 * 4, make_plan(fused, {}).arena_bytes() + 4096);
}

// What stands between a step and the next: the rows and the constants are made ahead, and the other
// weights' updates stand on a stream of their own, behind what the chain does meanwhile.
TEST(DefaultModel, SixDependentNodesAStep) {
  const Op chain[] = {Op::linear_gather_activation, Op::linear_bottleneck,
                      Op::linear_gather_nll,        Op::linear_dgrad_activation,
                      Op::linear_dgrad_bottleneck,  Op::linear_gather_wgrad_adam};
  int one = 0;
  for (const int steps : {1, 2, 8, 17}) {
    SCOPED_TRACE(steps);
    const Graph fused = fuse(training_graph({.steps = steps}).graph).graph;
    const Graph g = prune(fuse_gather(fused, all_of_them).graph).graph;
    EXPECT_EQ(g.nodes().size(), 13U);
    PlanOptions options;
    options.steps = steps;
    options.streams = 2;
    const Plan plan = make_plan(g, options);
    check_plan(plan);
    ASSERT_EQ(plan.tasks().size(), g.nodes().size() * static_cast<std::size_t>(steps));
    const int longest = plan.depth();
    if (steps == 1) one = longest;
    EXPECT_LE(one, 8);
    EXPECT_EQ(longest, one + 6 * (steps - 1));
    // The chain is on one stream, in its order, and nothing else of the step between it.
    std::vector<Op> main;
    for (const Task& task : plan.tasks()) {
      if (task.stream != 0) continue;
      main.push_back(g.nodes()[static_cast<std::size_t>(task.node)].op);
      // Once the run is under way, all but one of a step's kernels may start before the one before
      // has ended.
      if (task.step >= 2) {
        EXPECT_EQ(!task.waits.empty(), main.back() == Op::linear_bottleneck);
      }
    }
    ASSERT_EQ(main.size(), 1 + 6U * static_cast<std::size_t>(steps));
    EXPECT_EQ(main[0], Op::batch_index);
    for (std::size_t i = 1; i < main.size(); ++i) EXPECT_EQ(main[i], chain[(i - 1) % 6]) << i;
  }
}

// What must live at once while the decoder's last layer goes backwards: the input, d(logits), both
// hidden layers, the gradient of the decoder's hidden layer (the update of the weight waits for
// it), mean, logvar, z and eps. Unfused, the gradient of the weight comes on top.
TEST(DefaultModel, ArenaAtBatch128IsBounded) {
  const TrainingGraph model = training_graph();
  const Graph fused = fuse(model.graph).graph;
  const std::int64_t least = 128 * (784 + 784 + 3 * 512 + 4 * 32) * 4;
  for (const bool fuses : {false, true}) {
    const Graph& g = fuses ? fused : model.graph;
    const Plan plan = make_plan(g, {});
    check_plan(plan);
    PlanOptions loose;
    loose.reuse = false;
    const Plan wide = make_plan(g, loose);
    check_plan(wide);
    std::printf("[ %s: %zu tasks, arena %lld bytes, without reuse %lld, persistent %lld ]\n",
                fuses ? "fused" : "unfused", plan.tasks().size(),
                static_cast<long long>(plan.arena_bytes()),
                static_cast<long long>(wide.arena_bytes()),
                static_cast<long long>(plan.persistent_bytes()));
    const std::int64_t live = least + (fuses ? 0 : 784 * 512 * 4);
    EXPECT_GE(plan.arena_bytes(), live);
    EXPECT_LE(plan.arena_bytes(), live + 16 * 1024);  // rows, scalars and padding
    EXPECT_LT(plan.arena_bytes(), wide.arena_bytes());
  }
}

TEST(DefaultModel, ManyStepsAndStreamsCheck) {
  const TrainingGraph model = training_graph({.steps = 16});
  for (const bool fuses : {false, true}) {
    const Graph g = fuses ? fuse(model.graph).graph : model.graph;
    std::int64_t one = 0;
    for (const int steps : {1, 16})
      for (const int streams : {1, 2, 4}) {
        PlanOptions options;
        options.steps = steps;
        options.streams = streams;
        const Plan plan = make_plan(g, options);
        check_plan(plan);
        if (streams == 1 && steps == 1) one = plan.arena_bytes();
        if (streams == 1) {
          // Sixteen steps share the memory of one, but for the three outputs of each.
          EXPECT_LE(plan.arena_bytes(), one + steps * 3 * 256);
        }
      }
  }
}

// The fused graph trains like the unfused one, three steps, and a plan of it like the graph.
TEST(DefaultModel, FusionDoesNotChangeTheTraining) {
  for (const char* activation : {"relu", "silu", "tanh"}) {
    const TrainingGraph model = training_graph({.batch = 5,
                                                .rows = 40,
                                                .pixels = 12,
                                                .hidden = {9, 7},
                                                .latent = 3,
                                                .steps = 8,
                                                .activation = activation,
                                                .shuffle = false});
    const Memory memory = random_memory(model.graph, 11);
    const Result expected = evaluate(model.graph, memory, 3);
    const Rewritten fused = fuse(model.graph);
    EXPECT_EQ(count(fused.graph, Op::linear_wgrad_adam), 6);
    const Graph gathering = fuse_gather(fused.graph, all_of_them).graph;
    EXPECT_EQ(count(gathering, Op::linear_gather_wgrad_adam), 1);
    const Graph lowered = lower(gathering, [](const Graph&, const Node&) { return false; }).graph;
    for (const int streams : {1, 3}) {
      PlanOptions options;
      options.steps = 3;
      options.streams = streams;
      options.real = DType::f64;
      const Plan plan = make_plan(lowered, options);
      check_plan(plan);
      const Result result = execute(plan, memory, {Interleaving::Kind::random_streams, 5, 1});
      for (int step = 0; step < 3; ++step) {
        const double loss = expected.outputs[step].at("loss").real[0];
        EXPECT_TRUE(std::isfinite(loss));
        EXPECT_EQ(result.outputs[step].at("loss").real[0], loss);
      }
      for (const Value w : model.parameters) {
        const std::string name = model.graph[w].name;
        EXPECT_TRUE(result.memory.at(name) == expected.memory.at(name)) << name;
        EXPECT_FALSE(result.memory.at(name) == memory.at(name)) << name << " did not move";
      }
    }
  }
}

TEST(DefaultModel, WithoutCommitNothingMoves) {
  const TrainingGraph model = training_graph(
      {.batch = 2, .rows = 9, .pixels = 3, .hidden = {4}, .latent = 2, .shuffle = false});
  Memory memory = random_memory(model.graph, 3);
  memory["commit"].integer = {0};
  PlanOptions options;
  options.real = DType::f64;
  const Result result = execute(make_plan(model.graph, options), memory);
  for (const auto& [name, data] : memory) EXPECT_TRUE(result.memory.at(name) == data) << name;
}

}  // namespace
}  // namespace cuvae::testing
