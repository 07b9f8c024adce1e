#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "cuvae/rng.h"

namespace cuvae {
namespace {

std::vector<std::int64_t> order(std::uint64_t seed, std::uint64_t epoch, std::int64_t n) {
  const Shuffle shuffle(seed, epoch, n);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(n));
  for (std::int64_t p = 0; p < n; ++p) indices[static_cast<std::size_t>(p)] = shuffle(p);
  return indices;
}

TEST(Shuffle, IsABijection) {
  std::vector<std::int64_t> sizes(130);
  std::iota(sizes.begin(), sizes.end(), 0);
  for (const std::int64_t n : {255, 256, 257, 1000, 1023, 1024, 1025, 4096, 4097, 60000}) {
    sizes.push_back(n);
  }
  for (const std::int64_t n : sizes) {
    for (const std::uint64_t epoch : {0, 1}) {
      auto indices = order(42, epoch, n);
      std::sort(indices.begin(), indices.end());
      for (std::int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(indices[static_cast<std::size_t>(i)], i) << "n = " << n;
      }
    }
  }
}

TEST(Shuffle, EpochsAndSeedsDiffer) {
  const auto reference = order(1, 0, 1000);
  EXPECT_EQ(order(1, 0, 1000), reference);
  EXPECT_NE(order(1, 1, 1000), reference);
  EXPECT_NE(order(2, 0, 1000), reference);
  EXPECT_NE(order(1, std::uint64_t{1} << 32, 1000), reference);
  EXPECT_NE(order(1 | (std::uint64_t{1} << 32), 0, 1000), reference);
}

TEST(Shuffle, LargestSizesStayInRange) {
  for (const std::int64_t n : {(std::int64_t{1} << 40) + 1, (std::int64_t{1} << 62) - 1}) {
    const Shuffle shuffle(9, 0, n);
    for (const std::int64_t position : {std::int64_t{0}, std::int64_t{1}, n / 2, n - 1}) {
      const std::int64_t index = shuffle(position);
      EXPECT_TRUE(index >= 0 && index < n) << index;
    }
    EXPECT_NE(shuffle(0), shuffle(1));
  }
}

struct Golden {
  std::uint64_t seed;
  std::uint64_t epoch;
  std::int64_t n;
  std::vector<std::int64_t> first;
  std::int64_t checksum;  // sum of (position + 1) * index
};

// Made by tests/golden/shuffle.py, which is written independently in Python.
TEST(Shuffle, GoldenVectors) {
  const std::vector<Golden> table = {
      {0x0, 0x0, 1, {0}, 0},
      {0x0, 0x0, 2, {1, 0}, 1},
      {0x0, 0x0, 3, {1, 2, 0}, 5},
      {0x0, 0x0, 97, {71, 75, 95, 8, 45, 4, 59, 1, 36, 12, 23, 5, 22, 49, 48, 2}, 242079},
      {0x0,
       0x0,
       60000,
       {12181, 46160, 25428, 17982, 20660, 4880, 51400, 3073, 30118, 59063, 17764, 14081, 33509,
        34413, 42574, 1862},
       54016021239469},
      {0x123456789abcdef0, 0x100000003, 1, {0}, 0},
      {0x123456789abcdef0, 0x100000003, 2, {1, 0}, 1},
      {0x123456789abcdef0, 0x100000003, 3, {1, 2, 0}, 5},
      {0x123456789abcdef0,
       0x100000003,
       97,
       {34, 4, 29, 26, 69, 22, 37, 66, 25, 7, 74, 38, 77, 68, 20, 73},
       249332},
      {0x123456789abcdef0,
       0x100000003,
       60000,
       {42036, 55711, 54087, 11730, 49945, 47780, 21814, 17092, 10228, 411, 16340, 57372, 59716,
        15145, 6162, 59553},
       53967912581992},
  };
  for (const Golden& golden : table) {
    const auto indices = order(golden.seed, golden.epoch, golden.n);
    std::int64_t checksum = 0;
    for (std::size_t p = 0; p < indices.size(); ++p) {
      checksum += static_cast<std::int64_t>(p + 1) * indices[p];
      if (p < golden.first.size()) {
        EXPECT_EQ(indices[p], golden.first[p]) << "n = " << golden.n << ", position " << p;
      }
    }
    EXPECT_EQ(checksum, golden.checksum) << "n = " << golden.n;
  }
}

// Over many epochs each element stands at each position equally often, and so does each ordered
// pair of elements at the first two positions.
TEST(Shuffle, PositionsAreUniform) {
  constexpr int epochs = 16000;
  for (const std::int64_t n : {3, 16, 23}) {
    const auto size = static_cast<std::size_t>(n);
    std::vector<double> at(size * size);
    std::vector<double> pair(size * size);
    for (std::uint64_t epoch = 0; epoch < epochs; ++epoch) {
      const auto indices = order(7, epoch, n);
      for (std::size_t p = 0; p < size; ++p)
        at[p * size + static_cast<std::size_t>(indices[p])] += 1;
      pair[static_cast<std::size_t>(indices[0] * n + indices[1])] += 1;
    }
    const double expected = static_cast<double>(epochs) / static_cast<double>(n);
    double chi = 0;
    for (const double o : at) chi += (o - expected) * (o - expected) / expected;
    // Doubly stochastic counts: chi * (n - 1) / n follows chi-square with (n - 1)^2 degrees.
    const auto m = static_cast<double>(n);
    const double freedom = (m - 1) * (m - 1);
    const double scaled = chi * (m - 1) / m;
    EXPECT_TRUE(std::abs(scaled - freedom) <= 5 * std::sqrt(2 * freedom)) << n << ": " << scaled;

    const double expected_pair = epochs / (m * (m - 1));
    double chi_pair = 0;
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t j = 0; j < size; ++j) {
        const double o = pair[i * size + j];
        if (i == j)
          EXPECT_EQ(o, 0.0);
        else
          chi_pair += (o - expected_pair) * (o - expected_pair) / expected_pair;
      }
    }
    const double freedom_pair = m * (m - 1) - 1;
    EXPECT_TRUE(std::abs(chi_pair - freedom_pair) <= 5 * std::sqrt(2 * freedom_pair))
        << n << ": " << chi_pair;
  }
}

// The order has no trend, and neighbours in the order are no neighbours in the data.
TEST(Shuffle, NeighboursAreUnrelated) {
  constexpr std::int64_t n = 60000;
  const auto indices = order(3, 5, n);
  const double middle = (n - 1) / 2.0;
  double trend = 0;
  double neighbours = 0;
  for (std::size_t p = 0; p < indices.size(); ++p) {
    const double x = static_cast<double>(indices[p]) - middle;
    trend += x * (static_cast<double>(p) - middle);
    if (p + 1 < indices.size()) neighbours += x * (static_cast<double>(indices[p + 1]) - middle);
  }
  const double variance = (static_cast<double>(n) * n - 1) / 12.0;
  const double limit = 5 / std::sqrt(static_cast<double>(n));
  EXPECT_TRUE(std::abs(trend / (n * variance)) <= limit);
  EXPECT_TRUE(std::abs(neighbours / (n * variance)) <= limit);
}

}  // namespace
}  // namespace cuvae
