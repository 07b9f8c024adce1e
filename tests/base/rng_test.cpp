#include "cuvae/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/box_muller.h"

namespace cuvae {
namespace {

// Known answers of Random123 1.14 (kat_vectors, "philox4x32 10").
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, 0),
            (PhiloxWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff),
            (PhiloxWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (PhiloxWords{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomWords, LayOutTheCounter) {
  const RandomKey key{0x0123456789abcdef, Purpose::evaluation, 0xbeef, 0x1122334455667788};
  EXPECT_EQ(random_words(key, 0x9a12345678),
            philox4x32({0x55667788, 0x11223344, 0x12345678, 0x07beef9a}, key.seed));
  EXPECT_EQ(random_words({}, 0), philox4x32({0, 0, 0, 0}, 0));
}

TEST(RandomUniform, LiesInTheHalfOpenInterval) {
  EXPECT_EQ(uniform_from_word(0), 0x1p-33F);
  EXPECT_EQ(uniform_from_word(0xffffffff), 1.0F);
  EXPECT_EQ(uniform_from_word(0x80000000), 0.5F);
}

TEST(RandomElements, AreTheWordsOfTheirGroup) {
  const RandomKey key{5, Purpose::latent, 2, 9};
  for (std::uint64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(random_uniform(key, i), uniform_from_word(random_words(key, i / 4)[i % 4]));
    EXPECT_EQ(random_normal(key, i), random_normal4(key, i / 4)[i % 4]);
  }
}

// Pinned bits: the same on every machine, compiler and instruction set.
TEST(RandomNormal, BitsArePinned) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (std::uint64_t group = 0; group < 65536; ++group) {
    for (const float value : random_normal4({1, Purpose::latent, 0, 0}, group)) {
      hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001b3;
    }
  }
  EXPECT_EQ(hash, 0x8831593f909c3c29ULL);
}

// Against double arithmetic on the same float uniform and the exact angle.
TEST(BoxMuller, IsCloseToDouble) {
  std::vector<std::uint32_t> corners = {0, 1, 2, 0xffffffff, 0xfffffffe};
  for (std::uint32_t eighth = 0; eighth < 8; ++eighth) {
    for (const std::uint32_t near : {0xffffffffU, 0U, 1U}) corners.push_back((eighth << 29) + near);
  }
  const std::uint32_t sqrt_half = 3037000499U;  // 2^32 sqrt(1/2): where the exponent is split
  for (std::uint32_t near = 0; near < 600; near += 50) corners.push_back(sqrt_half - 300 + near);
  const auto check = [](std::uint32_t w0, std::uint32_t w1) {
    float first = 0;
    float second = 0;
    box_muller(w0, w1, first, second);
    const double r = std::sqrt(-2.0 * std::log(static_cast<double>(uniform_from_word(w0))));
    const double angle = 2.0 * M_PI * (static_cast<double>(w1) + 0.5) * 0x1p-32;
    const double limit = 1e-7 + 4e-7 * r;  // about three units of float's precision
    EXPECT_TRUE(std::abs(static_cast<double>(first) - r * std::sin(angle)) <= limit)
        << w0 << " " << w1;
    EXPECT_TRUE(std::abs(static_cast<double>(second) - r * std::cos(angle)) <= limit)
        << w0 << " " << w1;
  };
  for (const std::uint32_t w0 : corners) {
    for (const std::uint32_t w1 : corners) check(w0, w1);
  }
  for (std::uint64_t group = 0; group < 100000; ++group) {
    const PhiloxWords words = random_words({17, Purpose::generation, 0, 0}, group);
    check(words[0], words[1]);
  }
}

TEST(BoxMuller, LogarithmIsAccurate) {
  double worst = 0.0;
  for (std::uint64_t group = 0; group < 100000; ++group) {
    const float u = random_uniform({18, Purpose::generation, 0, 0}, group);
    if (u == 1.0F) continue;
    const double exact = std::log(static_cast<double>(u));
    worst = std::max(worst, std::abs(static_cast<double>(log_of_uniform(u)) / exact - 1.0));
  }
  EXPECT_TRUE(worst <= 3.6e-7) << worst;  // three units in the last place
  EXPECT_EQ(log_of_uniform(1.0F), 0.0F);
}

std::vector<double> normals(const RandomKey& key, std::int64_t count) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t group = 0; group < static_cast<std::uint64_t>(count) / 4; ++group) {
    for (const float value : random_normal4(key, group)) values.push_back(value);
  }
  return values;
}

// Limits are five standard errors of the statistic for a true normal sample.
TEST(RandomNormal, MomentsAndTails) {
  const auto values = normals({2024, Purpose::latent, 0, 0}, 1 << 20);
  const auto n = static_cast<double>(values.size());
  double mean = 0;
  for (const double v : values) mean += v / n;
  double variance = 0;
  double third = 0;
  double fourth = 0;
  for (const double v : values) {
    const double d = v - mean;
    variance += d * d / n;
    third += d * d * d / n;
    fourth += d * d * d * d / n;
  }
  EXPECT_TRUE(std::abs(mean) <= 5 / std::sqrt(n)) << mean;
  EXPECT_TRUE(std::abs(variance - 1) <= 5 * std::sqrt(2 / n)) << variance;
  EXPECT_TRUE(std::abs(third / std::pow(variance, 1.5)) <= 5 * std::sqrt(6 / n)) << third;
  EXPECT_TRUE(std::abs(fourth / (variance * variance) - 3) <= 5 * std::sqrt(24 / n)) << fourth;
  for (const double edge : {0.0, 0.5, 1.0, 2.0, 3.0, 4.0}) {
    const double p = 0.5 * std::erfc(edge / std::sqrt(2.0));
    for (const double sign : {1.0, -1.0}) {
      const auto beyond = static_cast<double>(
          std::count_if(values.begin(), values.end(), [&](double v) { return sign * v > edge; }));
      EXPECT_TRUE(std::abs(beyond - n * p) <= 5 * std::sqrt(n * p * (1 - p)))
          << sign * edge << ": " << beyond << " for " << n * p;
    }
  }
}

TEST(RandomUniform, FillsItsBinsEvenly) {
  constexpr int bins = 256;
  constexpr int count = 1 << 20;
  for (const auto& key :
       {RandomKey{3, Purpose::dropout, 0, 0}, RandomKey{3, Purpose::dropout, 0, 1},
        RandomKey{4, Purpose::binarisation, 9, 77}}) {
    std::vector<double> bin(bins);
    for (std::uint64_t i = 0; i < count; ++i) {
      const float u = random_uniform(key, i);
      ASSERT_TRUE(u > 0.0F && u <= 1.0F);
      bin[static_cast<std::size_t>(std::min(bins - 1, static_cast<int>(u * bins)))] += 1;
    }
    double chi = 0;
    const double expected = static_cast<double>(count) / bins;
    for (const double observed : bin)
      chi += (observed - expected) * (observed - expected) / expected;
    const double freedom = bins - 1;
    EXPECT_TRUE(std::abs(chi - freedom) <= 5 * std::sqrt(2 * freedom)) << chi;
  }
}

double correlation(const std::vector<double>& a, const std::vector<double>& b,
                   std::size_t lag = 0) {
  const std::size_t n = a.size() - lag;
  double sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double x = a[i];
    const double y = b[i + lag];
    sa += x, sb += y, saa += x * x, sbb += y * y, sab += x * y;
  }
  const auto m = static_cast<double>(n);
  return (m * sab - sa * sb) / std::sqrt((m * saa - sa * sa) * (m * sbb - sb * sb));
}

TEST(RandomNormal, NothingIsCorrelated) {
  constexpr std::int64_t count = 1 << 16;
  const double limit = 5 / std::sqrt(static_cast<double>(count));
  std::vector<std::vector<double>> series;
  for (int purpose = 0; purpose <= static_cast<int>(Purpose::resampling); ++purpose) {
    series.push_back(normals({1, static_cast<Purpose>(purpose), 0, 0}, count));
  }
  for (const std::uint16_t stream : {1, 2, 256, 65535}) {
    series.push_back(normals({1, Purpose::latent, stream, 0}, count));
  }
  for (const std::uint64_t step : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{1} << 32}) {
    series.push_back(normals({1, Purpose::latent, 0, step}, count));
  }
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{2}, std::uint64_t{1} << 32}) {
    series.push_back(normals({seed, Purpose::latent, 0, 0}, count));
  }
  for (std::size_t a = 0; a < series.size(); ++a) {
    for (std::size_t b = a + 1; b < series.size(); ++b) {
      EXPECT_TRUE(std::abs(correlation(series[a], series[b])) <= limit) << a << " and " << b;
    }
    for (const std::size_t lag : {1U, 2U, 3U, 4U, 32U}) {
      EXPECT_TRUE(std::abs(correlation(series[a], series[a], lag)) <= limit) << a << " lag " << lag;
      // Squares too: the two halves of a Box-Muller pair share a radius.
      std::vector<double> squares = series[a];
      for (double& v : squares) v *= v;
      EXPECT_TRUE(std::abs(correlation(squares, squares, lag)) <= limit) << a << " lag " << lag;
    }
  }
}

}  // namespace
}  // namespace cuvae
