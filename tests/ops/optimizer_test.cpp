// Optimisers over several steps on the CPU: PyTorch's and Keras' numbers, extremes, clipping,
// averages, initial values. tests/kernels/optimizer_test.cpp asks the same of the GPU's kernels.

#include "ops/optimizer_golden.h"

#include "cpu/cpu_device.h"

namespace cuvae::testing {
namespace {

std::unique_ptr<Device> cpu(DType real) {
  return make_cpu_device({.threads = 2, .real = real});
}

// The learning rate is a float in the store: 6e-8 of each step, of up to 20 of them.
TEST(Optimizers, AreThoseOfPyTorchAndKeras) {
  check_golden_optimizers(*cpu(DType::f64), 1e-6);
  check_golden_optimizers(*cpu(DType::f32), 2e-5);
}

TEST(Optimizers, UnrolledStepsCountAndReadTheirRates) {
  for (const DType real : {DType::f32, DType::f64}) check_unrolled_steps(*cpu(real));
}

TEST(Clipping, SkipsWhatIsNotFiniteAndClipsTheRest) {
  for (const DType real : {DType::f32, DType::f64}) check_clipping(*cpu(real));
}

// A state starts from its initial value where the store has none, and else stays.
TEST(States, StartFromTheirInitialValues) {
  for (const DType real : {DType::f32, DType::f64}) {
    const auto device = cpu(real);
    const auto store = device->make_store();
    UpdateGraph u(4, 1);
    u.update("adam", {{"v0", 1.0}});
    static_cast<void>(device->compile(u.graph, *store, {}));
    EXPECT_EQ(values_of(*store, "adam.v.w"), (std::vector<double>{1, 1, 1, 1}));
    EXPECT_EQ(values_of(*store, "adam.m.w"), (std::vector<double>{0, 0, 0, 0}));
    store->write("adam.v.w", reals_of({1, 2, 3, 4}));
    static_cast<void>(device->compile(u.graph, *store, {}));
    EXPECT_EQ(values_of(*store, "adam.v.w"), (std::vector<double>{1, 2, 3, 4}));
  }
}

// The largest and the least gradients that floats hold: weights stay finite, zero stays zero, and
// nothing moves with its gradient.
TEST(Optimizers, ExtremeGradientsGiveFiniteWeights) {
  const std::vector<double> g = {0,      1e30,    -1e30, 3e38,   -3e38, 1e-40,
                                 -1e-40, 1.4e-45, 1e-30, -1e-20, 1e19,  -1e19};
  const auto n = static_cast<std::int64_t>(g.size());
  for (const auto& [op, attrs] : optimizer_variants()) {
    if (attrs.has("weight_decay")) continue;
    SCOPED_TRACE(op);
    const auto device = cpu(DType::f32);
    const auto store = device->make_store();
    UpdateGraph u(n, 1);
    u.update(op, attrs);
    store->write("w", reals_of(std::vector<double>(g.size(), 0)));
    store->write("g", reals_of(g));
    const auto program = device->compile(u.graph, *store, {});
    for (int t = 0; t < 3; ++t) {
      write_step(*store, t, {1e-3});
      program->run();
      const std::vector<double> w = values_of(*store, "w");
      for (std::size_t i = 0; i < g.size(); ++i) {
        EXPECT_TRUE(std::isfinite(w[i])) << "gradient " << g[i] << ", step " << t + 1;
        EXPECT_TRUE(w[i] * g[i] <= 0) << "gradient " << g[i] << " moved the weight to " << w[i];
        for (const std::string& state : u.states)
          EXPECT_FALSE(std::isnan(values_of(*store, state)[i])) << state << ", " << g[i];
      }
      EXPECT_EQ(w[0], 0);
    }
    if (op != "iwae_adam") {
      EXPECT_LT(values_of(*store, "w")[8], 0) << "1e-30";
    }
  }
}

// The centred second moment of float may be infinite where the square of the mean is not.
TEST(Optimizers, CentredRmsPropSurvivesAnInfiniteSecondMoment) {
  const auto device = cpu(DType::f32);
  for (const char* convention : {"torch", "keras"}) {
    const auto store = device->make_store();
    UpdateGraph u(2, 1);
    u.update("rmsprop", {{"centered", std::int64_t{1}}, {"convention", std::string(convention)}});
    store->write("w", reals_of({1, 1}));
    store->write("g", reals_of({1e25, -1e25}));
    const auto program = device->compile(u.graph, *store, {});
    for (int t = 0; t < 4; ++t) {
      write_step(*store, t, {0.1});
      program->run();
    }
    EXPECT_EQ(values_of(*store, "w"), (std::vector<double>{1, 1})) << convention;
  }
}

// `corrected` is Adam's average from zero, divided by 1 - decay^t; the others as they are named.
TEST(WeightEma, FollowsItsDefinition) {
  constexpr double decay = 0.9;
  for (const char* start : {"corrected", "warmup", "plain"}) {
    SCOPED_TRACE(start);
    const auto device = cpu(DType::f64);
    const auto store = device->make_store();
    Graph graph;
    const Value s = graph.state("s", DType::f32, Shape{2});
    const Value w = graph.parameter("w", Shape{2});
    const Value clock = graph.input("clock", DType::i64, Shape{5});
    const Value commit = graph.input("commit", DType::i64, Shape{1});
    graph.add("weight_ema", "ema", {s, w, clock, commit},
              {{"decay", decay}, {"start", std::string(start)}});
    const auto program = device->compile(graph, *store, {});
    double from_zero = 0, plain = 0, warm = 0;
    for (int t = 1; t <= 200; ++t) {
      const double now = t % 3 == 0 ? 2.0 : 0.25 * t;
      store->write("w", reals_of({now, 7}));
      write_step(*store, t - 1, {0.0});
      program->run();
      from_zero = decay * from_zero + (1 - decay) * now;
      const double d = std::min(decay, (1.0 + t) / (10.0 + t));
      plain = t == 1 ? now : decay * plain + (1 - decay) * now;
      warm = t == 1 ? now : d * warm + (1 - d) * now;
      const double wanted = start[0] == 'c'   ? from_zero / (1 - std::pow(decay, t))
                            : start[0] == 'w' ? warm
                                              : plain;
      ASSERT_NEAR(values_of(*store, "s")[0], wanted, 1e-12 * std::abs(wanted)) << t;
      ASSERT_EQ(values_of(*store, "s")[1], 7);  // an average of what does not change
    }
  }
}

}  // namespace
}  // namespace cuvae::testing
