#include "cuvae/fitted_prior.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "cuvae/error.h"
#include "cuvae/rng.h"

namespace cuvae {
namespace {

float normal(std::uint64_t i) {
  return random_normal({.seed = 7, .purpose = Purpose::latent, .stream = 0, .step = 0}, i);
}

// Two clouds in the plane: a quarter of the rows at (-4, 1), correlated; the rest at (3, 0).
Tensor two_clouds(std::int64_t n) {
  Tensor rows(DType::f32, Shape{n, 2});
  const auto x = rows.as<float>();
  for (std::size_t r = 0; r < static_cast<std::size_t>(n); ++r) {
    const float a = normal(2 * r);
    const float b = normal(2 * r + 1);
    x[2 * r] = r % 4 == 0 ? -4 + a : 3 + 0.5F * a;
    x[2 * r + 1] = r % 4 == 0 ? 1 + 0.8F * a + 0.6F * b : 2 * b;
  }
  return rows;
}

double moment(const Tensor& rows, int i, int k) {
  const auto x = rows.as<float>();
  const auto n = static_cast<std::size_t>(rows.shape()[0]);
  double mi = 0;
  double mk = 0;
  for (std::size_t r = 0; r < n; ++r) {
    mi += x[2 * r + static_cast<std::size_t>(i)] / static_cast<double>(n);
    mk += x[2 * r + static_cast<std::size_t>(k)] / static_cast<double>(n);
  }
  double sum = 0;
  for (std::size_t r = 0; r < n; ++r)
    sum += (x[2 * r + static_cast<std::size_t>(i)] - mi) *
           (x[2 * r + static_cast<std::size_t>(k)] - mk);
  return sum / static_cast<double>(n);
}

TEST(FittedPrior, AGaussianHasTheMomentsOfTheLatents) {
  const Tensor rows = two_clouds(4000);
  const FittedPrior prior = FittedPrior::gaussian(rows);
  ASSERT_EQ(prior.components().size(), 1U);
  const auto& c = prior.components()[0];
  const double l00 = c.factor[0];
  const double l10 = c.factor[2];
  const double l11 = c.factor[3];
  EXPECT_NEAR(l00 * l00, moment(rows, 0, 0), 1e-3);
  EXPECT_NEAR(l10 * l00, moment(rows, 1, 0), 1e-3);
  EXPECT_NEAR(l10 * l10 + l11 * l11, moment(rows, 1, 1), 1e-3);
  // At its own maximum, the mean log likelihood is minus the entropy of the fitted normal.
  const double entropy = std::log(2 * std::numbers::pi) + 1 + std::log(l00) + std::log(l11);
  EXPECT_NEAR(prior.log_likelihood(rows), -entropy, 1e-4);
  // And draws have these moments.
  const Tensor drawn = prior.draw(20000, 3);
  EXPECT_NEAR(moment(drawn, 0, 0), moment(rows, 0, 0), 0.3);
  EXPECT_NEAR(moment(drawn, 0, 1), moment(rows, 0, 1), 0.3);
}

TEST(FittedPrior, AMixtureFindsTheClouds) {
  const Tensor rows = two_clouds(4000);
  const FittedPrior prior = FittedPrior::gmm(rows, 2, 1);
  ASSERT_EQ(prior.components().size(), 2U);
  const auto& a = prior.components()[prior.components()[0].mean[0] < 0 ? 0 : 1];
  const auto& b = prior.components()[prior.components()[0].mean[0] < 0 ? 1 : 0];
  EXPECT_NEAR(a.weight, 0.25, 0.01);
  EXPECT_NEAR(a.mean[0], -4, 0.1);
  EXPECT_NEAR(a.mean[1], 1, 0.1);
  EXPECT_NEAR(a.factor[2] * a.factor[0], 0.8, 0.1);  // their covariance
  EXPECT_NEAR(b.weight, 0.75, 0.01);
  EXPECT_NEAR(b.mean[0], 3, 0.1);
  EXPECT_NEAR(b.factor[3], 2, 0.1);
  EXPECT_GT(prior.log_likelihood(rows), FittedPrior::gaussian(rows).log_likelihood(rows) + 0.5);
  // Half the draws left of 0 are a quarter.
  const Tensor drawn = prior.draw(8000, 5);
  int left = 0;
  for (std::size_t r = 0; r < 8000; ++r) left += drawn.as<float>()[2 * r] < 0 ? 1 : 0;
  EXPECT_NEAR(left / 8000.0, 0.25, 0.02);
}

TEST(FittedPrior, IsTheSameForTheSameSeedAlone) {
  const Tensor rows = two_clouds(500);
  const Tensor first = FittedPrior::gmm(rows, 3, 1).draw(100, 2);
  const Tensor again = FittedPrior::gmm(rows, 3, 1).draw(100, 2);
  const Tensor other = FittedPrior::gmm(rows, 3, 1).draw(100, 3);
  EXPECT_TRUE(std::ranges::equal(first.bytes(), again.bytes()));
  EXPECT_FALSE(std::ranges::equal(first.bytes(), other.bytes()));
}

TEST(FittedPrior, ConstantLatentsAndTooFewRows) {
  Tensor rows(DType::f32, Shape{10, 2});
  EXPECT_TRUE(std::isfinite(FittedPrior::gaussian(rows).log_likelihood(rows)));
  EXPECT_TRUE(std::isfinite(FittedPrior::gmm(rows, 3, 0).log_likelihood(rows)));
  EXPECT_THROW(static_cast<void>(FittedPrior::gmm(rows, 6, 0)), Error);
  EXPECT_THROW(static_cast<void>(FittedPrior::gmm(rows, 0, 0)), Error);
  EXPECT_THROW(static_cast<void>(FittedPrior::gaussian(Tensor(DType::f32, Shape{1, 2}))), Error);
  rows.as<float>()[3] = NAN;
  EXPECT_THROW(static_cast<void>(FittedPrior::gaussian(rows)), Error);
}

}  // namespace
}  // namespace cuvae
