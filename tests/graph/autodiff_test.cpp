#include <gtest/gtest.h>

#include <cmath>

#include "graph/default_model.h"
#include "graph/graph_testing.h"
#include "graph/interpreter.h"
#include "graph/random_graph.h"

namespace cuvae::testing {
namespace {

const Attrs sum_all{{"axis", std::string("all")}, {"op", std::string("sum")}};
const Attrs with_tanh{{"kind", std::string("tanh")}};

TEST(Autodiff, FollowsTheChainAndNamesGradients) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{3, 4});
  const Value w = g.parameter("w", Shape{2, 4});
  const Value b = g.parameter("b", Shape{2});
  const Value y = g.apply("linear", "y", {x, w, b});
  const Value h = g.apply("activation", "h", {y}, with_tanh);
  const Value loss = g.apply("reduce", "loss", {h}, sum_all);
  const std::size_t forward = g.nodes().size();
  const auto grads = gradients(g, loss, std::vector{w, b, w});
  ASSERT_EQ(grads.size(), 3U);
  EXPECT_EQ(grads[0], grads[2]);
  EXPECT_EQ(g[grads[0]].name, "grad(w)");
  EXPECT_EQ(g[grads[1]].name, "grad(b)");
  EXPECT_EQ(g[grads[0]].shape, g[w].shape);
  for (const char* name : {"grad(loss)", "grad(h)", "grad(y)"}) EXPECT_TRUE(g.find(name)) << name;
  // Nothing computes the gradient of the input.
  EXPECT_FALSE(g.find("grad(x)"));
  EXPECT_EQ(count(g, Op::linear_dgrad), 0);
  EXPECT_EQ(count(g, Op::linear_wgrad), 1);
  EXPECT_EQ(g.nodes()[forward].op, Op::fill);
  EXPECT_EQ(g.nodes()[forward].attrs.real("value"), 1.0);
}

TEST(Autodiff, AddsContributionsInAFixedOrder) {
  Graph g;
  const Value x = g.parameter("x", Shape{3});
  const Value a = g.apply("activation", "a", {x}, with_tanh);
  const Value b = g.apply("mul", "b", {a, x});
  const Value c = g.apply("add", "c", {b, x});
  const Value loss = g.apply("reduce", "loss", {c}, sum_all);
  const auto grads = gradients(g, loss, std::vector{x});
  EXPECT_EQ(g[grads[0]].name, "grad(x)");
  EXPECT_EQ(count(g, Op::add), 1 + 2);  // three contributions
  // d/dx (tanh(x) x + x) = (1 - tanh^2) x + tanh + 1
  g.output(grads[0]);
  Memory memory;
  memory["x"].real = {-0.5, 0.0, 2.0};
  const Result result = evaluate(g, memory, 1);
  for (std::size_t i = 0; i < 3; ++i) {
    const double v = memory["x"].real[i];
    const double t = std::tanh(v);
    EXPECT_NEAR(result.outputs[0].at("grad(x)").real[i], (1 - t * t) * v + t + 1, 1e-14);
  }
}

TEST(Autodiff, TheSameInputTwiceGetsBothContributions) {
  Graph g;
  const Value x = g.parameter("x", Shape{2});
  const Value square = g.apply("mul", "square", {x, x});
  const auto grads = gradients(g, g.apply("reduce", "loss", {square}, sum_all), std::vector{x});
  g.output(grads[0]);
  Memory memory;
  memory["x"].real = {3, -4};
  EXPECT_EQ(evaluate(g, memory, 1).outputs[0].at("grad(x)").real, (std::vector<double>{6, -8}));
}

TEST(Autodiff, NoValueWhereTheLossDoesNotDepend) {
  Graph g;
  const Value x = g.parameter("x", Shape{2});
  const Value other = g.parameter("other", Shape{2});
  g.apply("activation", "unused", {other}, with_tanh);
  const auto grads = gradients(g, g.apply("reduce", "loss", {x}, sum_all), std::vector{other, x});
  EXPECT_FALSE(grads[0]);
  EXPECT_TRUE(grads[1]);
  // Nothing was asked for that the loss depends on: no nodes at all.
  const std::size_t nodes = g.nodes().size();
  EXPECT_FALSE(gradients(g, g.find("loss"), std::vector{other})[0]);
  EXPECT_EQ(g.nodes().size(), nodes);
}

TEST(Autodiff, StopsAtDetachAndConstantInputs) {
  Graph g;
  const Value x = g.parameter("x", Shape{2, 3});
  const Value stopped = g.apply("detach", "stopped", {x});
  const Value y = g.apply("mul", "y", {x, stopped});
  const Value nll = g.apply("bernoulli_nll", "nll", {y, x});  // x as a target
  const auto grads = gradients(g, g.apply("reduce", "loss", {nll}, sum_all), std::vector{x});
  EXPECT_EQ(count(g, Op::add), 0);  // one path only
  EXPECT_EQ(producer(g, "grad(x)").op, Op::mul);
  EXPECT_EQ(producer(g, "grad(x)").inputs[1], stopped);
  EXPECT_TRUE(grads[0]);
}

TEST(Autodiff, AGradientThatPassesThroughKeepsItsName) {
  Graph g;
  const Value x = g.parameter("x", Shape{2});
  const Value y = g.parameter("y", Shape{2});
  const Value z = g.apply("add", "z", {x, y});
  const auto grads = gradients(g, g.apply("reduce", "loss", {z}, sum_all), std::vector{x, y, z});
  EXPECT_EQ(grads[0], grads[1]);
  EXPECT_EQ(grads[0], grads[2]);
  EXPECT_EQ(g[grads[0]].name, "grad(z)");
}

TEST(Autodiff, TwoLossesGetTwoSetsOfNames) {
  Graph g;
  const Value x = g.parameter("x", Shape{2});
  const Value t = g.apply("activation", "t", {x}, with_tanh);
  const Value a = g.apply("reduce", "a", {t}, sum_all);
  const auto first = gradients(g, a, std::vector{x});
  const auto second = gradients(g, a, std::vector{x});
  EXPECT_EQ(g[first[0]].name, "grad(x)");
  EXPECT_EQ(g[second[0]].name, "grad(x).2");
}

TEST(Autodiff, TheGradientOfTheLossIsOne) {
  Graph g;
  const Value x = g.parameter("x", Shape{});
  const auto grads = gradients(g, x, std::vector{x});
  EXPECT_EQ(producer(g, g[grads[0]].name).op, Op::fill);
  EXPECT_EQ(g[grads[0]].name, "grad(x)");
}

TEST(Autodiff, RefusesWhatHasNoGradientAndLeavesTheGraph) {
  Graph g;
  const Value x = g.parameter("x", Shape{2});
  const Value y = g.apply("activation_grad", "y", {x, x}, with_tanh);
  const Value loss = g.apply("reduce", "loss", {y}, sum_all);
  const std::size_t nodes = g.nodes().size();
  EXPECT_TRUE(has(error_of(Status::usage, [&] { gradients(g, loss, std::vector{x}); }),
                  "no gradient (node `y` (activation_grad))"));
  EXPECT_EQ(g.nodes().size(), nodes);
  EXPECT_TRUE(has(error_of(Status::usage, [&] { gradients(g, y, std::vector{x}); }),
                  "`y` is f32 [2], not a real scalar"));
  const Value clock = g.input("clock", DType::i64, Shape{5});
  EXPECT_TRUE(has(error_of(Status::usage, [&] { gradients(g, loss, std::vector{clock}); }),
                  "`clock`: it is i64"));
}

// Against central differences, through the interpreter, for the whole model.
TEST(Autodiff, TheModelsGradientsMatchCentralDifferences) {
  for (const char* activation : {"tanh", "silu"})
    for (const char* likelihood : {"bernoulli", "gaussian"}) {
      TrainingGraph model = forward_graph({.batch = 3,
                                           .rows = 11,
                                           .pixels = 5,
                                           .hidden = {4},
                                           .latent = 2,
                                           .activation = activation,
                                           .likelihood = likelihood,
                                           .shuffle = false});
      Graph& g = model.graph;
      const auto grads = gradients(g, g.find("loss"), model.parameters);
      for (const Value grad : grads) {
        ASSERT_TRUE(grad);
        g.output(grad);
      }
      Memory memory = random_memory(g, 4);
      const Result at = evaluate(g, memory, 1);
      for (std::size_t p = 0; p < grads.size(); ++p) {
        const std::string name = g[model.parameters[p]].name;
        EXPECT_EQ(g[grads[p]].name, "grad(" + name + ")");
        const auto& exact = at.outputs[0].at("grad(" + name + ")").real;
        for (std::size_t i = 0; i < exact.size(); ++i) {
          constexpr double h = 1e-5;
          const auto loss_at = [&](double delta) {
            Memory moved = memory;
            moved[name].real[i] += delta;
            return evaluate(g, moved, 1).outputs[0].at("loss").real[0];
          };
          const double difference = (loss_at(h) - loss_at(-h)) / (2 * h);
          EXPECT_TRUE(std::abs(difference - exact[i]) <= 1e-7 * (1 + std::abs(exact[i])))
              << name << '[' << i << "]: " << exact[i] << " against " << difference;
        }
      }
    }
}

}  // namespace
}  // namespace cuvae::testing
