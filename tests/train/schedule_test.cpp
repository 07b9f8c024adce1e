#include "cuvae/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "cuvae/error.h"
#include "support/source_path.h"

namespace cuvae {
namespace {

const nlohmann::json& golden() {
  static const nlohmann::json all = [] {
    std::ifstream file(test::source_path("tests/golden/schedules.json"));
    return nlohmann::json::parse(file);
  }();
  return all;
}

void expect_rates(const LearningRate& rate, const char* name) {
  const auto wanted = golden().at(name).get<std::vector<double>>();
  ASSERT_GT(wanted.size(), 30U);
  for (std::size_t step = 0; step < wanted.size(); ++step)
    EXPECT_NEAR(rate.value(static_cast<std::int64_t>(step)), wanted[step], 1e-12)
        << name << ", step " << step;
}

TEST(LearningRates, AreThoseOfPyTorchsSchedulers) {
  expect_rates(LearningRate::steps(0.1, 7, 0.5), "steps_7_0.5");
  expect_rates(LearningRate::milestones(0.1, {3, 10, 11}, 0.2), "milestones_3_10_11_0.2");
  expect_rates(LearningRate::cosine(0.1, 40, 0.01), "cosine_40_0.01");
  expect_rates(LearningRate::cosine(0.1, 32, 0.01).after_warmup(8, 0.25),
               "warm_8_0.25_cosine_32_0.01");
}

TEST(LearningRates, AreKnownAtTheirEnds) {
  EXPECT_EQ(LearningRate::constant(1e-3).value(1'000'000'000), 1e-3);
  EXPECT_EQ(LearningRate::constant(0).value(3), 0);  // nothing is trained
  const LearningRate cosine = LearningRate::cosine(1e-2, 100);
  EXPECT_EQ(cosine.value(0), 1e-2);
  EXPECT_NEAR(cosine.value(50), 5e-3, 1e-16);
  EXPECT_GT(cosine.value(99), 0);
  EXPECT_EQ(cosine.value(100), 0);
  EXPECT_EQ(cosine.value(1000), 0);  // and does not rise again
  const LearningRate warm = LearningRate::constant(0.4).after_warmup(4, 0.25);
  const double wanted[] = {0.1, 0.175, 0.25, 0.325, 0.4, 0.4};
  for (int step = 0; step < 6; ++step) EXPECT_NEAR(warm.value(step), wanted[step], 1e-15);
  EXPECT_EQ(LearningRate::constant(0.4).after_warmup(0, 1).value(0), 0.4);
}

TEST(LearningRates, StagesOfTheIwaePaper) {
  constexpr std::int64_t epoch = 2980;  // 59,600 rows in batches of 20
  const double digits[] = {10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4, 1.0};
  for (const bool rounded : {true, false}) {
    const LearningRate rate = LearningRate::iwae_stages(1e-3, epoch, rounded);
    std::int64_t begin = 0, length = 1;
    for (int stage = 0; stage < 8; ++stage, begin += length, length *= 3) {
      const double wanted = rounded ? 1e-4 * digits[stage] : 1e-3 * std::pow(10.0, -stage / 7.0);
      EXPECT_NEAR(rate.value(begin * epoch), wanted, 1e-15) << stage;
      EXPECT_NEAR(rate.value((begin + length) * epoch - 1), wanted, 1e-15) << stage;
    }
    EXPECT_EQ(begin, 3280);
    EXPECT_NEAR(rate.value(5000 * epoch), 1e-4, 1e-15);
  }
}

TEST(LearningRates, PlateauIsPyTorchs) {
  const auto metrics = golden().at("metrics").get<std::vector<double>>();
  const std::pair<const char*, PlateauLearningRate::Options> cases[] = {
      {"plateau_0.5_2_1e-2_3_0.002",
       {.factor = 0.5, .patience = 2, .threshold = 1e-2, .cooldown = 3, .floor = 0.002}},
      {"plateau_0.1_0_0_0_0", {.factor = 0.1, .patience = 0, .threshold = 0}}};
  for (const auto& [name, options] : cases) {
    PlateauLearningRate rate(0.1, options);
    const auto wanted = golden().at(name).get<std::vector<double>>();
    EXPECT_LT(wanted.back(), 0.1);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      // As if the run had been resumed here.
      PlateauLearningRate resumed(0.1, options);
      resumed.restore(rate.state());
      EXPECT_NEAR(rate.observe(metrics[i]), wanted[i], 1e-12) << name << ", evaluation " << i;
      resumed.observe(metrics[i]);
      EXPECT_EQ(resumed.state(), rate.state());
    }
  }
}

TEST(LearningRates, PlateauTakesWhatIsNotFiniteForNoImprovement) {
  PlateauLearningRate rate(1.0, {.factor = 0.5, .patience = 1});
  EXPECT_EQ(rate.observe(std::numeric_limits<double>::quiet_NaN()), 1.0);
  EXPECT_EQ(rate.observe(std::numeric_limits<double>::infinity()), 0.5);
  EXPECT_EQ(rate.observe(-3), 0.5);
  EXPECT_EQ(rate.observe(-3.1), 0.5);  // lower is better below zero too
  EXPECT_EQ(rate.observe(-3.1), 0.5);
  EXPECT_EQ(rate.observe(-3), 0.25);
}

TEST(KlWeights, AreKnown) {
  EXPECT_EQ(KlWeight::constant(4).value(0), 4);
  const KlWeight linear = KlWeight::linear(2, 10);
  EXPECT_EQ(linear.value(0), 0);
  EXPECT_NEAR(linear.value(3), 0.6, 1e-15);
  EXPECT_EQ(linear.value(10), 2);
  EXPECT_EQ(linear.value(11), 2);
  // Fu et al.'s frange_cycle_linear(40, n_cycle=4, ratio=0.5): 0, 0.2, .. 0.8, then 1 for five.
  const KlWeight cyclical = KlWeight::cyclical(1, 40, 4, 0.5);
  for (int step = 0; step < 40; ++step)
    EXPECT_NEAR(cyclical.value(step), std::min(1.0, 0.2 * (step % 10)), 1e-12) << step;
  EXPECT_EQ(cyclical.value(40), 1);
  // Cycles of no whole number of steps begin where they fall.
  const KlWeight uneven = KlWeight::cyclical(1, 10, 3, 1);
  EXPECT_NEAR(uneven.value(3), 0.9, 1e-12);
  EXPECT_NEAR(uneven.value(4), 0.2, 1e-12);
}

TEST(EarlyStops, AfterPatienceWithoutImprovement) {
  EarlyStopping stop(3, 0.5);
  EXPECT_TRUE(stop.observe(100, 10));
  EXPECT_FALSE(stop.observe(200, 9.6));  // less than min_delta better
  EXPECT_TRUE(stop.observe(300, 9.4));
  EXPECT_FALSE(stop.observe(400, std::numeric_limits<double>::quiet_NaN()));
  EXPECT_FALSE(stop.observe(500, -std::numeric_limits<double>::infinity()));
  EXPECT_FALSE(stop.ends());
  EarlyStopping resumed(3, 0.5);
  resumed.restore(stop.state());
  for (EarlyStopping* one : {&stop, &resumed}) {
    EXPECT_FALSE(one->observe(600, 9.4));
    EXPECT_TRUE(one->ends());
    EXPECT_EQ(one->state(), (EarlyStopping::State{.best = 9.4, .best_step = 300, .bad = 3}));
  }
  EarlyStopping never(0);
  for (int i = 0; i < 50; ++i) never.observe(i, i);
  EXPECT_FALSE(never.ends());
  EXPECT_EQ(never.state().best_step, 0);
}

TEST(Schedules, RefuseWhatMakesNoSense) {
  const std::function<void()> bad[] = {
      [] { LearningRate::constant(-1e-3); },
      [] { LearningRate::constant(std::numeric_limits<double>::quiet_NaN()); },
      [] { LearningRate::steps(0.1, 0, 0.5); },
      [] { LearningRate::steps(0.1, 5, 0); },
      [] {
        LearningRate::milestones(0.1, {5, 5}, 0.5);
      },
      [] { LearningRate::milestones(0.1, {0}, 0.5); },
      [] { LearningRate::cosine(0.1, 0); },
      [] { LearningRate::cosine(0.1, 10, 0.2); },
      [] { LearningRate::iwae_stages(1e-3, 0, true); },
      [] { LearningRate::iwae_stages(1e-3, std::numeric_limits<std::int64_t>::max(), true); },
      [] { static_cast<void>(LearningRate::constant(1).after_warmup(-1, 1)); },
      [] { static_cast<void>(LearningRate::constant(1).after_warmup(5, 0)); },
      [] { static_cast<void>(LearningRate::constant(1).after_warmup(5, 1).after_warmup(5, 1)); },
      [] { PlateauLearningRate(0.1, {.factor = 1}); },
      [] { PlateauLearningRate(0.1, {.patience = -1}); },
      [] { KlWeight::constant(-1); },
      [] { KlWeight::linear(1, 0); },
      [] { KlWeight::cyclical(1, 10, 11); },
      [] { KlWeight::cyclical(1, 10, 2, 0); },
      [] { EarlyStopping(-1); },
      [] { EarlyStopping(1, -1); }};
  for (std::size_t i = 0; i < std::size(bad); ++i) {
    try {
      bad[i]();
      ADD_FAILURE() << "number " << i << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage) << i;
    }
  }
}

}  // namespace
}  // namespace cuvae
