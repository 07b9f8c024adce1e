#include "base/tolerance.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace cuvae {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

Comparison compare(std::vector<double> a, std::vector<double> b, Tolerance limit = {1e-6, 1e-6}) {
  return compare_elements<double, double>(a, b, limit);
}

TEST(Tolerance, GrowsWithTheRootOfTheLengthAndTheScale) {
  const Tolerance one = tolerance(DType::f32, 1);
  EXPECT_EQ(one.rel, 20 * 0x1p-24);
  EXPECT_EQ(tolerance(DType::f32, 0).rel, one.rel);
  EXPECT_EQ(tolerance(DType::f32, 10000).rel, 416 * 0x1p-24);
  EXPECT_EQ(tolerance(DType::f32, 1, 8).abs, 8 * one.abs);
  EXPECT_EQ(tolerance(DType::f32, 1, 8).rel, one.rel);
  EXPECT_EQ(tolerance(DType::f64, 1).rel, 20 * 0x1p-53);
}

TEST(Comparison, PassesWithinTheLimitsAndReportsTheWorstElement) {
  const Comparison c = compare({1, 2 + 1e-6, -3}, {1, 2, -3});
  EXPECT_TRUE(c.passed);
  EXPECT_EQ(c.worst, 1);
  EXPECT_NEAR(c.share, 1.0 / 3, 1e-6);
  EXPECT_GT(c.aggregate, 0);
  EXPECT_TRUE(compare({}, {}).passed);
}

TEST(Comparison, OneWrongElementFails) {
  std::vector<double> a(10000, 1.0);
  a[1234] += 1e-4;
  const Comparison c = compare(a, std::vector<double>(10000, 1.0));
  EXPECT_FALSE(c.passed);
  EXPECT_EQ(c.worst, 1234);
  EXPECT_GT(c.share, 1);
}

TEST(Comparison, NanNeverPasses) {
  EXPECT_FALSE(compare({nan}, {1}).passed);
  EXPECT_FALSE(compare({1}, {nan}).passed);
  EXPECT_FALSE(compare({nan}, {nan}).passed);
  const Comparison c = compare({1, nan, 5}, {1, 1, 1});
  EXPECT_FALSE(c.passed);
  EXPECT_FALSE(c.share <= 1);
}

TEST(Comparison, InfinitiesPassOnlyBesideThemselves) {
  EXPECT_TRUE(compare({inf, 1}, {inf, 1}).passed);
  EXPECT_FALSE(compare({inf}, {-inf}).passed);
  EXPECT_FALSE(compare({inf}, {1e300}).passed);
  EXPECT_FALSE(compare({1e300}, {inf}).passed);
}

TEST(Comparison, SizesMustAgree) {
  EXPECT_FALSE(compare({1, 2}, {1}).passed);
}

TEST(Comparison, ZeroLimitWantsEquality) {
  EXPECT_TRUE(compare({1, 0}, {1, 0}, {0, 0}).passed);
  EXPECT_FALSE(compare({1, 1e-300}, {1, 0}, {0, 0}).passed);
}

}  // namespace
}  // namespace cuvae
