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

// Sums of products of rounded factors, with sums in double: what bf16 adds by itself. The limit
// holds, and a rounding of each partial sum, or factors of half the bits, would not.
TEST(Tolerance, Bf16RoundsFactorsAndResults) {
  const auto to_bf16 = [](double x) {
    Tensor one(DType::f32, Shape{1});
    one.as<float>()[0] = static_cast<float>(x);
    return one.to(DType::bf16).item(0);
  };
  std::uint64_t state = 1;
  const auto uniform = [&] {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<double>(state >> 11) * 0x1p-52 - 1.0;
  };
  for (const int n : {1, 30, 1000}) {
    std::vector<double> exact, rounded, coarse;
    for (int i = 0; i < 300; ++i) {
      double sum = 0, near = 0, bad = 0;
      for (int k = 0; k < n; ++k) {
        const double a = uniform(), b = uniform();
        sum += a * b;
        near += to_bf16(a) * to_bf16(b);
        bad += std::round(a * 16) / 16 * std::round(b * 16) / 16;
      }
      exact.push_back(sum);
      rounded.push_back(to_bf16(near));
      coarse.push_back(bad);
    }
    const auto view = [](const std::vector<double>& v) { return std::span<const double>(v); };
    const Tolerance limit = tolerance(DType::bf16, n, std::sqrt(n) / 3);
    EXPECT_TRUE(compare_elements(view(rounded), view(exact), limit).passed) << n;
    EXPECT_FALSE(compare_elements(view(coarse), view(exact), limit).passed) << n;
    EXPECT_FALSE(compare_elements(view(rounded), view(exact), tolerance(DType::f32, n)).passed);
  }
}

}  // namespace
}  // namespace cuvae
