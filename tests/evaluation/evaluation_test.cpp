// Importance weights, latents, mutual information and ROC curves: against SciPy and scikit-learn
// (tests/golden/make_evaluation.py), closed forms and plain loops.

#include "cuvae/evaluation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "evaluation/golden.h"

namespace cuvae {
namespace {

using test::evaluation_golden;
using test::matrix_of;

TEST(Importance, SumsAndEffectiveSamplesAreSciPys) {
  for (const auto& row : evaluation_golden().at("importance")) {
    ImportanceSum sum;
    for (const double weight : row.at("log_weights")) sum.add(weight);
    const double expected = row.at("log_mean").get<double>();
    EXPECT_NEAR(sum.log_mean(), expected, 1e-12 * std::max(1.0, std::abs(expected)));
    EXPECT_NEAR(sum.effective_samples(), row.at("effective").get<double>(), 1e-9);
  }
}

TEST(Importance, EqualWeightsAllCount) {
  ImportanceSum sum;
  for (int k = 0; k < 64; ++k) sum.add(-100.25);
  EXPECT_EQ(sum.log_mean(), -100.25);
  EXPECT_EQ(sum.effective_samples(), 64);
}

// exp() of any of these is 0 or infinite.
TEST(EvaluationPitfall11, WeightsAreAddedAsLogarithms) {
  for (const double offset : {-1e5, -800.0, 800.0, 1e5}) {
    ImportanceSum sum;
    sum.add(offset + std::log(1.0));
    sum.add(offset + std::log(3.0));
    EXPECT_NEAR(sum.log_mean(), offset + std::log(2.0), 1e-9);
    EXPECT_NEAR(sum.effective_samples(), 16.0 / 10.0, 1e-9);
  }
}

TEST(Importance, SummaryOfRows) {
  const std::vector<double> rows = {5, 1, 4, 2, 3, 11, 7, 8, 9, 10, 6};
  const RowSummary summary = summarise(rows);
  EXPECT_EQ(summary.n, 11);
  EXPECT_NEAR(summary.mean, 6, 1e-12);
  EXPECT_NEAR(summary.std_error, std::sqrt(110.0 / 10 / 11), 1e-12);
  EXPECT_EQ(summary.minimum, 1);
  EXPECT_EQ(summary.tenth, 2);
  EXPECT_EQ(summary.median, 6);
  EXPECT_EQ(summarise(std::vector<double>{2}).std_error, 0);
  EXPECT_EQ(summarise({}).n, 0);
}

TEST(Latents, KlAndVarianceAreNumPys) {
  const auto& golden = evaluation_golden().at("latents");
  const LatentStatistics latents =
      latent_statistics(matrix_of(golden.at("mean")), matrix_of(golden.at("logvar")));
  EXPECT_EQ(latents.n, 50);
  for (std::size_t j = 0; j < 4; ++j) {
    EXPECT_NEAR(latents.kl[j], golden.at("kl")[j].get<double>(), 1e-12);
    EXPECT_NEAR(latents.variance[j], golden.at("variance")[j].get<double>(), 1e-12);
  }
  EXPECT_EQ(latents.kl[3], 0);  // N(0, 1) itself
  EXPECT_EQ(latents.active(), 2);
}

TEST(Latents, ActiveAboveTheThresholdAlone) {
  LatentStatistics latents;
  latents.variance = {0.01, 0.010001, 0, 1};
  EXPECT_EQ(latents.active(), 2);
}

TEST(Latents, HowFewCarryTheKl) {
  LatentStatistics latents;
  latents.kl = {1, 6, 0, 3};
  EXPECT_EQ(latents.carrying(0.6), 1);
  EXPECT_EQ(latents.carrying(0.61), 2);
  EXPECT_EQ(latents.carrying(0.95), 3);
  EXPECT_EQ(latents.carrying(1), 3);
  latents.kl = {0, 0};
  EXPECT_EQ(latents.carrying(0.95), 0);
}

TEST(Latents, MatricesThatDoNotFitAreRefused) {
  const Tensor a(DType::f32, Shape{3, 2});
  const Tensor b(DType::f32, Shape{2, 3});
  EXPECT_THROW((void)latent_statistics(a, b), Error);
  EXPECT_THROW((void)mutual_information(a, b), Error);
  EXPECT_THROW((void)mutual_information(a, a, {.rows = 0}), Error);
}

// Posteriors N(a x, s^2) of x ~ N(0, 1): z is Gaussian with variance a^2 + s^2.
struct Linear {
  Tensor mean;
  Tensor logvar;
  double information = 0;
};
Linear linear_posteriors(std::int64_t n, const std::vector<double>& gains, double variance) {
  const auto d = static_cast<std::int64_t>(gains.size());
  Linear q{Tensor(DType::f32, Shape{n, d}), Tensor(DType::f32, Shape{n, d}), 0};
  const RandomKey key{.seed = 3, .purpose = Purpose::augmentation};
  for (std::size_t i = 0; i < static_cast<std::size_t>(n * d); ++i) {
    q.mean.as<float>()[i] = static_cast<float>(gains[i % gains.size()]) * random_normal(key, i);
    q.logvar.as<float>()[i] = static_cast<float>(std::log(variance));
  }
  for (const double gain : gains) q.information += 0.5 * std::log1p(gain * gain / variance);
  return q;
}

TEST(MutualInformation, IsTheClosedFormOfGaussians) {
  const Linear q = linear_posteriors(4000, {2.0, 1.0, 0.0}, 0.5);  // 1.15 + 0.55 nats
  const MutualInformation information =
      mutual_information(q.mean, q.logvar, {.rows = 4000, .seed = 1});
  EXPECT_EQ(information.n, 4000);
  EXPECT_NEAR(information.value, q.information, 0.04);
  EXPECT_NEAR(information.cap, std::log(4000.0), 1e-12);
  EXPECT_FALSE(information.at_cap);
}

// The same rows and noise by the textbook's formula: log q(z|x) of the row that z is from, minus
// log 1/n sum q(z|x_i). Ours has its expectation over that row, so both agree within the spread.
TEST(MutualInformation, AgreesWithOneDrawOfTheRow) {
  const Linear q = linear_posteriors(800, {1.5, 0.8}, 0.3);
  const MutualInformation information =
      mutual_information(q.mean, q.logvar, {.rows = 800, .seed = 5});
  const auto m = q.mean.as<float>();
  const RandomKey key{.seed = 11, .purpose = Purpose::augmentation};
  std::vector<double> rows;
  for (std::size_t i = 0; i < 800; ++i) {
    double z[2];
    for (std::size_t j = 0; j < 2; ++j)
      z[j] = m[i * 2 + j] + std::sqrt(0.3) * random_normal(key, i * 2 + j);
    const auto density = [&](std::size_t row) {
      double square = 0;
      for (std::size_t j = 0; j < 2; ++j) square += std::pow(z[j] - m[row * 2 + j], 2) / 0.3;
      return std::exp(-0.5 * square);
    };
    double marginal = 0;
    for (std::size_t row = 0; row < 800; ++row) marginal += density(row) / 800;
    rows.push_back(std::log(density(i) / marginal));
  }
  const RowSummary plain = summarise(rows);
  EXPECT_NEAR(information.value, plain.mean, 4 * plain.std_error);
}

TEST(MutualInformation, IsNeverBelowZero) {
  // A collapsed posterior tells nothing, exactly; one near it must not go below by noise.
  for (const double gain : {0.0, 1e-6, 1e-3, 1e-2}) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const Linear q = linear_posteriors(300, {gain, gain}, 1.0);
      const MutualInformation information =
          mutual_information(q.mean, q.logvar, {.rows = 300, .seed = seed});
      EXPECT_GE(information.value, 0);
      EXPECT_NEAR(information.value, q.information, 1e-3);
      EXPECT_FALSE(information.at_cap);
    }
  }
}

TEST(MutualInformation, IsCappedByTheRows) {
  const Linear q = linear_posteriors(1000, {30, 30, 30}, 1e-4);  // far more than log 1000
  for (const std::int64_t rows : {1, 10, 200}) {
    const MutualInformation information =
        mutual_information(q.mean, q.logvar, {.rows = rows, .seed = 2});
    EXPECT_EQ(information.n, rows);
    EXPECT_TRUE(information.at_cap);
    EXPECT_LE(information.value, information.cap);
    EXPECT_NEAR(information.value, std::log(static_cast<double>(rows)), 1e-6);
  }
}

TEST(MutualInformation, DoesNotDependOnThreads) {
  const Linear q = linear_posteriors(500, {1.0, 0.3}, 0.5);
  const double one = mutual_information(q.mean, q.logvar, {.rows = 333, .threads = 1}).value;
  EXPECT_EQ(mutual_information(q.mean, q.logvar, {.rows = 333, .threads = 3}).value, one);
  EXPECT_NE(mutual_information(q.mean, q.logvar, {.rows = 333, .seed = 9}).value, one);
}

TEST(MutualInformation, ExtremeVariancesAreFinite) {
  Linear q = linear_posteriors(64, {1.0, 1.0}, 1.0);
  for (std::size_t i = 0; i < 128; ++i)
    q.logvar.as<float>()[i] = i % 3 == 0 ? -20.0F : (i % 3 == 1 ? 20.0F : 0.0F);
  const MutualInformation information = mutual_information(q.mean, q.logvar, {.rows = 64});
  EXPECT_TRUE(std::isfinite(information.value));
  EXPECT_GE(information.value, 0);
  EXPECT_LE(information.value, information.cap);
}

TEST(Auroc, IsScikitLearns) {
  for (const auto& row : evaluation_golden().at("curves")) {
    const auto scores = row.at("scores").get<std::vector<double>>();
    const auto positive = row.at("positive").get<std::vector<bool>>();
    EXPECT_NEAR(auroc(scores, positive), row.at("auroc").get<double>(), 1e-12);
    std::vector<double> down = scores;
    for (double& score : down) score = -score;
    EXPECT_NEAR(auroc(down, positive), 1 - row.at("auroc").get<double>(), 1e-12);
  }
  EXPECT_EQ(auroc(std::vector<double>{1, 1, 1}, {true, false, false}), 0.5);
  EXPECT_EQ(auroc(std::vector<double>{1, 2, 3}, {false, false, true}), 1);
}

TEST(Auroc, RefusesWhatHasNoCurve) {
  EXPECT_THROW((void)auroc(std::vector<double>{1, 2}, {true, true}), Error);
  EXPECT_THROW((void)auroc(std::vector<double>{1, 2}, {true}), Error);
  EXPECT_THROW((void)auroc(std::vector<double>{1, NAN}, {true, false}), Error);
}

}  // namespace
}  // namespace cuvae
