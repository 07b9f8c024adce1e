#include "cuvae/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>

#include "cuvae/error.h"
#include "cuvae/rng.h"

namespace cuvae {
namespace {

using Rows = std::vector<std::int64_t>;

void expect_partition(const RowSplit& split, std::int64_t n) {
  EXPECT_TRUE(std::ranges::is_sorted(split.train));
  EXPECT_TRUE(std::ranges::is_sorted(split.validation));
  std::set<std::int64_t> all(split.train.begin(), split.train.end());
  all.insert(split.validation.begin(), split.validation.end());
  EXPECT_EQ(split.train.size() + split.validation.size(), static_cast<std::size_t>(n));
  EXPECT_EQ(all.size(), static_cast<std::size_t>(n));
  if (n > 0) {
    EXPECT_EQ(*all.begin(), 0);
    EXPECT_EQ(*all.rbegin(), n - 1);
  }
}

TEST(Splits, HoldOutWhatTheShuffleSays) {
  for (const std::int64_t n : {0, 1, 2, 97, 1000})
    for (const std::int64_t held : {std::int64_t{0}, n / 3, n}) {
      const RowSplit split = split_shuffled(7, n, held);
      EXPECT_EQ(split.validation.size(), static_cast<std::size_t>(held));
      expect_partition(split, n);
    }
  const RowSplit split = split_shuffled(7, 1000, 100);
  EXPECT_EQ(split.validation, split_shuffled(7, 1000, 100).validation);
  EXPECT_NE(split.validation, split_shuffled(8, 1000, 100).validation);
  // The shuffle of rng.h, of an epoch that no training reaches.
  const Shuffle order(7, std::numeric_limits<std::uint64_t>::max(), 1000);
  Rows wanted;
  for (int position = 0; position < 100; ++position) wanted.push_back(order(position));
  std::ranges::sort(wanted);
  EXPECT_EQ(split.validation, wanted);
  // Spread over all of them: the mean of 100 of 1000 rows has a deviation of 27.
  const double mean = std::accumulate(wanted.begin(), wanted.end(), 0.0) / 100;
  EXPECT_NEAR(mean, 499.5, 4 * 27);
}

TEST(Splits, TheLastRows) {
  const RowSplit split = split_last(60'000, 400);
  EXPECT_EQ(split.train.size(), 59'600U);
  EXPECT_EQ(split.validation.front(), 59'600);
  expect_partition(split, 60'000);
}

TEST(Splits, FractionsOfRows) {
  EXPECT_EQ(validation_rows(60'000, 0.1), 6000);
  EXPECT_EQ(validation_rows(60'000, 0), 0);
  EXPECT_EQ(validation_rows(10, 0.001), 1);
  EXPECT_EQ(validation_rows(10, 0.999), 9);
  EXPECT_EQ(validation_rows(1, 0.5), 0);
}

TEST(Splits, FoldsTakeEachRowOnce) {
  const std::pair<std::int64_t, std::int64_t> cases[] = {{2, 2}, {10, 3}, {97, 5}, {100, 10}};
  for (const auto& [n, folds] : cases) {
    Rows seen;
    for (std::int64_t fold = 0; fold < folds; ++fold) {
      const RowSplit split = split_fold(3, n, folds, fold);
      expect_partition(split, n);
      EXPECT_EQ(split.validation.size(),
                static_cast<std::size_t>(n / folds + (fold < n % folds ? 1 : 0)));
      seen.insert(seen.end(), split.validation.begin(), split.validation.end());
    }
    std::ranges::sort(seen);
    Rows all(static_cast<std::size_t>(n));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(seen, all);
  }
}

// The counts of 200,000 draws within 5 standard deviations of each row's share.
void expect_shares(const std::vector<double>& weights) {
  const WeightedDraws draws(11, weights);
  ASSERT_EQ(draws.rows(), static_cast<std::int64_t>(weights.size()));
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  constexpr int count = 200'000;
  std::vector<int> seen(weights.size());
  for (int position = 0; position < count; ++position)
    ++seen.at(static_cast<std::size_t>(draws(2, position)));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double share = weights[i] / sum;
    const double deviation = std::sqrt(count * share * (1 - share));
    EXPECT_NEAR(seen[i], count * share, 5 * deviation + (share == 0 ? 0 : 1e-9)) << i;
  }
}

TEST(WeightedDraws, FollowTheWeights) {
  expect_shares({1});
  expect_shares({1, 1, 1});
  expect_shares({0, 5, 0});
  expect_shares({1, 2, 3, 4, 0, 0.5, 20});
  expect_shares({1e300, 3e300, 1e-300});
  expect_shares({1e-310, 3e-310});
  std::vector<double> many;
  for (int i = 0; i < 1000; ++i) many.push_back(i % 10 == 0 ? 5.0 : 0.1);
  expect_shares(many);
}

TEST(WeightedDraws, AreFunctionsOfSeedEpochAndPosition) {
  const std::vector<double> weights = {1, 2, 3, 4, 5};
  const auto row = [&](std::uint64_t seed, std::uint64_t epoch) {
    const WeightedDraws draws(seed, weights);
    Rows drawn;
    for (int position = 0; position < 50; ++position) drawn.push_back(draws(epoch, position));
    return drawn;
  };
  EXPECT_EQ(row(1, 0), row(1, 0));
  EXPECT_NE(row(1, 0), row(2, 0));
  EXPECT_NE(row(1, 0), row(1, 1));
  // With equal weights the columns are the rows: the high half of 64 bits times n.
  const std::vector<double> equal(97, 2.5);
  const WeightedDraws draws(1, equal);
  for (int position = 0; position < 100; ++position) {
    const PhiloxWords words =
        random_words({1, Purpose::resampling, 0, 9}, static_cast<std::uint64_t>(position));
    const double u =
        (static_cast<double>(words[0]) + static_cast<double>(words[1]) * 0x1p-32) * 0x1p-32;
    EXPECT_EQ(draws(9, position), static_cast<std::int64_t>(u * 97));
  }
}

TEST(WeightedDraws, BalanceLabels) {
  const Rows labels = {3, 3, 3, 3, 3, 3, 7, 7, 1};
  const std::vector<double> weights = balanced_weights(labels);
  EXPECT_NEAR(weights[0] * 6, 1, 1e-15);
  EXPECT_NEAR(weights[6] * 2, 1, 1e-15);
  EXPECT_EQ(weights[8], 1);
  EXPECT_TRUE(balanced_weights({}).empty());
}

TEST(Sampling, RefusesWhatMakesNoSense) {
  const double inf = std::numeric_limits<double>::infinity();
  const auto draws = [](std::vector<double> weights) { WeightedDraws(0, weights); };
  const std::function<void()> bad[] = {[] { static_cast<void>(split_shuffled(0, 5, 6)); },
                                       [] { static_cast<void>(split_last(5, -1)); },
                                       [] { static_cast<void>(split_fold(0, 5, 1, 0)); },
                                       [] { static_cast<void>(split_fold(0, 5, 6, 0)); },
                                       [] { static_cast<void>(split_fold(0, 5, 2, 2)); },
                                       [] { static_cast<void>(validation_rows(5, 1)); },
                                       [] { static_cast<void>(validation_rows(5, -0.1)); },
                                       [&] { draws({}); },
                                       [&] {
                                         draws({0, 0});
                                       },
                                       [&] {
                                         draws({1, -1});
                                       },
                                       [&] {
                                         draws({1, inf});
                                       }};
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
