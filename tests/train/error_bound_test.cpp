#include "train/error_bound.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cuvae/error.h"

namespace cuvae {
namespace {

Tensor reals(std::initializer_list<double> values) {
  const std::vector<double> list(values);
  return {Shape{static_cast<std::int64_t>(list.size())}, std::span<const double>(list)};
}

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

TEST(Judge, PassesWithinTheLimitAndReportsTheWorstShare) {
  const std::vector<double> error{1e-6, 1e-6, 1e-3};
  const Judgement judgement =
      judge(reals({1.0, 2.0 + 4e-6, 3.0 - 1e-3}), reals({1, 2, 3}), error, 0);
  EXPECT_TRUE(judgement.passed);
  EXPECT_EQ(judgement.worst, 1);
  EXPECT_NEAR(judgement.share, 0.5, 1e-6);
  EXPECT_NEAR(judgement.max_abs, 4e-6, 1e-12);
}

TEST(Judge, OneWrongElementFailsWhateverTheAggregateSays) {
  std::vector<double> values(1000, 1.0);
  const std::vector<double> error(1000, 1e-6);
  const Tensor reference(Shape{1000}, std::span<const double>(values));
  values[417] += 9e-6;
  const Tensor device(Shape{1000}, std::span<const double>(values));
  const Judgement judgement = judge(device, reference, error, 0);
  EXPECT_FALSE(judgement.passed);
  EXPECT_EQ(judgement.worst, 417);
  EXPECT_GT(judgement.share, 1);
  EXPECT_LE(judgement.aggregate, judgement.aggregate_limit);
}

TEST(Judge, AnErrorCommonToAllElementsFailsByTheAggregate) {
  const std::vector<double> error(1000, 1e-6);
  const std::vector<double> ones(1000, 1.0);
  const std::vector<double> shifted(1000, 1.0 + 6e-6);
  const Judgement judgement = judge(Tensor(Shape{1000}, std::span<const double>(shifted)),
                                    Tensor(Shape{1000}, std::span<const double>(ones)), error, 0);
  EXPECT_FALSE(judgement.passed);
  EXPECT_LT(judgement.share, 1);
  EXPECT_GT(judgement.aggregate, judgement.aggregate_limit);
}

TEST(Judge, WhatIsNotFiniteFailsOnEitherSide) {
  const std::vector<double> error{infinity, infinity};
  for (const double bad : {nan, infinity, -infinity}) {
    EXPECT_FALSE(judge(reals({1, bad}), reals({1, 2}), error, 0).passed) << bad;
    EXPECT_FALSE(judge(reals({1, 2}), reals({1, bad}), error, 0).passed) << bad;
    EXPECT_FALSE(judge(reals({1, bad}), reals({1, bad}), error, 0).passed) << bad;
    EXPECT_EQ(judge(reals({1, bad}), reals({1, 2}), error, 0).worst, 1);
  }
  // An error bound that is NaN excuses nothing.
  const std::vector<double> unknown{nan, 1.0};
  EXPECT_FALSE(judge(reals({1.5, 2}), reals({1, 2}), unknown, 0).passed);
}

TEST(Judge, WithoutBoundsValuesMustBeEqual) {
  EXPECT_TRUE(judge(reals({1, 2}), reals({1, 2}), {}, 1).passed);
  EXPECT_FALSE(judge(reals({1, 2}), reals({1, 3}), {}, 1).passed);
}

TEST(Judge, RefusesTensorsOfDifferentSizes) {
  EXPECT_THROW(static_cast<void>(judge(reals({1, 2}), reals({1}), {}, 0)), Error);
}

TEST(NearKink, FindsWhatRoundingMayPutOnEitherSide) {
  const std::vector<double> error{1e-6, 1e-6, 1e-6, 1e-6};
  EXPECT_EQ(near_kink(reals({0, 7e-6, -7e-6, 9e-6}), error, 0),
            (std::vector<std::int64_t>{0, 1, 2}));
}

// y = x w^T: the bound holds for float products of any order, and is not so loose that 1e-3 would
// pass.
TEST(ErrorBounds, CoverFloatProductsAndLittleMore) {
  constexpr std::int64_t rows = 8;
  constexpr std::int64_t in = 300;
  constexpr std::int64_t out = 16;
  Graph graph;
  const Value x = graph.parameter("x", Shape{rows, in});
  const Value w = graph.parameter("w", Shape{out, in});
  const Value y = graph.apply("linear", "y", {x, w});
  Tensor tx(DType::f64, Shape{rows, in});
  Tensor tw(DType::f64, Shape{out, in});
  Tensor ty(DType::f64, Shape{rows, out});
  const auto fill = [](std::span<double> values, double phase) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(std::sin(phase + 12.9898 * static_cast<double>(i)));
  };
  fill(tx.as<double>(), 0.3);
  fill(tw.as<double>(), 1.7);
  std::vector<double> device(static_cast<std::size_t>(rows * out));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t o = 0; o < out; ++o) {
      double exact = 0;
      float rounded = 0;
      for (std::int64_t k = 0; k < in; ++k) {
        const double a = tx.as<double>()[static_cast<std::size_t>(r * in + k)];
        const double b = tw.as<double>()[static_cast<std::size_t>(o * in + k)];
        exact += a * b;
        rounded += static_cast<float>(a) * static_cast<float>(b);
      }
      ty.as<double>()[static_cast<std::size_t>(r * out + o)] = exact;
      device[static_cast<std::size_t>(r * out + o)] = rounded;
    }
  }
  const ErrorTable errors = error_bounds(graph, {tx, tw, ty}, {}, Kinks::agreed);
  const auto id = static_cast<std::size_t>(y.id);
  EXPECT_TRUE(judge(Tensor(Shape{rows, out}, std::span<const double>(device)), ty, errors[id],
                    error_floor({}))
                  .passed);
  for (const std::size_t i : {std::size_t{0}, std::size_t{77}}) {
    std::vector<double> wrong = device;
    wrong[i] *= 1.001;
    EXPECT_FALSE(judge(Tensor(Shape{rows, out}, std::span<const double>(wrong)), ty, errors[id],
                       error_floor({}))
                     .passed);
  }
}

TEST(ErrorBounds, RefuseOperatorsWithoutARule) {
  Graph graph;
  const Value x = graph.parameter("x", Shape{2, 3});
  const Value w = graph.parameter("w", Shape{4, 3});
  const Value b = graph.parameter("b", Shape{4});
  graph.apply("linear_activation", "fused", {x, w, b}, {{"kind", std::string("relu")}});
  const ValueTable values(graph.values().size(), Tensor(DType::f64, Shape{12}));
  try {
    static_cast<void>(error_bounds(graph, values, {}, Kinks::agreed));
    FAIL() << "a fused operator was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::failed);
    EXPECT_NE(std::string(error.what()).find("`fused` (linear_activation)"), std::string::npos);
  }
}

}  // namespace
}  // namespace cuvae
