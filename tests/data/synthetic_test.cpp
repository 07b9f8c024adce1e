// Data that are drawn: the same bits everywhere, of the distributions that they are said to have.

#include "data/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <set>

#include "cuvae/error.h"
#include "data/idx_files.h"

namespace cuvae {
namespace {

using test::outcome_of;

double value(const DatasetSplit& split, std::int64_t row, std::int64_t column) {
  return split.images->item(row * split.images->shape()[1] + column);
}

// Also after a change of compiler, flags or machine: every draw is + - * / and roots.
TEST(Synthetic, BitsAreTheSameEverywhere) {
  const std::map<std::string, std::string> hashes = {
      {"synthetic:linear-gaussian",
       "d738795037a7dc8dcd2358ef25e5e56e8afc62c620ddd0abe234109302b95ab0"},
      {"synthetic:linear-gaussian?n=300&test=0&seed=7&features=5&scales=2,1&sigma=0.1",
       "32f829152bf57311068220aa1f08f5e3859e779ce1e2fc696471aa50d89c63b4"},
      {"synthetic:dense-100", "d71e88f433a7897e588e5bac405fcfec235dd9a9c894f200de7e4c1755986742"},
      {"synthetic:counts", "51c5514ae7bce20d333d220575b3e75e411ef8ce949a4c38fae158bbdfe9951c"},
      {"synthetic:counts?n=50&test=20&seed=3&theta=0&zeros=0&features=7&latent=2",
       "7e7c0a73f10b422b86e694f0919e7542458007cfa617809dd19f9df31c16cc2b"},
      {"synthetic:shapes", "5e7979a9260f2f4d61dfb9973617a0bbdb72463a728c34963779b09bf6ea6dd4"},
      {"synthetic:shapes?seed=1&n=100&test=10",
       "7e6cdf27c8e61e2a34e63227ab8bf90424b784e31e5626f21b22c34c25c4abe9"}};
  std::set<std::string> different;
  for (const auto& [text, hash] : hashes) {
    const Dataset data = load_dataset(text);
    EXPECT_EQ(data.sha256, hash) << text;
    EXPECT_EQ(data.path, text);
    different.insert(data.sha256);
  }
  EXPECT_EQ(different.size(), hashes.size());
}

// A longer split begins with the shorter one; train and test have nothing in common.
TEST(Synthetic, RowsDoNotDependOnHowManyThereAre) {
  for (const char* name : {"linear-gaussian", "dense-100", "counts", "shapes"}) {
    const std::string source = std::string("synthetic:") + name;
    const Dataset few = load_dataset(source + "?n=20&test=10");
    const Dataset many = load_dataset(source + "?n=50&test=0");
    EXPECT_FALSE(many.test);
    ASSERT_TRUE(few.train && few.test && many.train);
    const auto a = few.train->images->bytes();
    const auto b = many.train->images->bytes();
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin())) << name;
    const auto c = few.test->images->bytes();
    EXPECT_FALSE(std::equal(c.begin(), c.end(), a.begin())) << name;
    EXPECT_NE(few.sha256, load_dataset(source + "?n=20&test=10&seed=1").sha256) << name;
  }
}

TEST(Synthetic, ExponentialsAreWithinTwoUlp) {
  for (double x = -40; x < 40; x += 0.0137) {
    const double expected = std::exp(x);
    EXPECT_LE(std::abs(exact_exp(x) - expected),
              2 * std::abs(std::nextafter(expected, 1e300) - expected))
        << x;
  }
  EXPECT_EQ(exact_exp(0), 1);
  EXPECT_EQ(exact_exp(-1e6), 0);
}

TEST(Synthetic, PoissonDrawsHaveTheirMeanAndVariance) {
  for (const double mean : {0.0, 0.3, 4.0, 15.9, 16.1, 100.0, 700.0}) {
    const Draws draws(3, 40);
    const int n = 20'000;
    double sum = 0;
    double squares = 0;
    int none = 0;
    for (int i = 0; i < n; ++i) {
      const auto x = static_cast<double>(draws.poisson(mean, static_cast<std::uint64_t>(i)));
      sum += x;
      squares += x * x;
      if (x == 0) ++none;
    }
    const double average = sum / n;
    const double variance = squares / n - average * average;
    EXPECT_NEAR(average, mean, 5 * std::sqrt(mean / n)) << mean;
    EXPECT_NEAR(variance, mean, 5 * std::sqrt((mean + 2 * mean * mean) / n)) << mean;
    const double p = std::exp(-mean);
    EXPECT_NEAR(none / static_cast<double>(n), p, 5 * std::sqrt(p * (1 - p) / n) + 1e-12) << mean;
  }
}

TEST(Synthetic, LinearGaussianHasTheCovarianceThatItIsDrawnFrom) {
  const SyntheticValues values(synthetic_linear_gaussian.parameters, "n=60000", "text");
  const LinearGaussian model = linear_gaussian_of(values);
  ASSERT_EQ(model.features, 16);
  ASSERT_EQ(model.latent, 4);
  const std::vector<double> lengths = {4, 3, 2, 1.5};
  const auto w = [&](std::int64_t j, std::int64_t k) {
    return model.weight[static_cast<std::size_t>(j * 4 + k)];
  };
  for (std::int64_t a = 0; a < 4; ++a) {
    for (std::int64_t b = 0; b < 4; ++b) {
      double dot = 0;
      for (std::int64_t j = 0; j < 16; ++j) dot += w(j, a) * w(j, b);
      const double length = lengths[static_cast<std::size_t>(a)];
      EXPECT_NEAR(dot, a == b ? length * length : 0, 1e-12);
    }
  }
  const Dataset data = load_dataset("synthetic:linear-gaussian?n=60000");
  EXPECT_EQ(data.image, (ImageSize{1, 1, 16}));
  EXPECT_EQ(data.image.str(), "16 features");
  EXPECT_EQ(data_type(data), DType::f32);
  ASSERT_TRUE(data.train);
  const auto n = static_cast<double>(data.train->size());
  for (std::int64_t i = 0; i < 16; ++i) {
    double mean = 0;
    for (std::int64_t r = 0; r < 60000; ++r) mean += value(*data.train, r, i) / n;
    double variance = 0.25;
    for (std::int64_t k = 0; k < 4; ++k) variance += w(i, k) * w(i, k);
    EXPECT_NEAR(mean, model.mean[static_cast<std::size_t>(i)], 5 * std::sqrt(variance / n));
    for (std::int64_t j = 0; j <= i; ++j) {
      double expected = i == j ? 0.25 : 0;
      double other = 0.25;
      for (std::int64_t k = 0; k < 4; ++k) {
        expected += w(i, k) * w(j, k);
        other += w(j, k) * w(j, k);
      }
      double sample = 0;
      for (std::int64_t r = 0; r < 60000; ++r)
        sample += (value(*data.train, r, i) - model.mean[static_cast<std::size_t>(i)]) *
                  (value(*data.train, r, j) - model.mean[static_cast<std::size_t>(j)]) / n;
      const double deviation = std::sqrt((variance * other + expected * expected) / n);
      EXPECT_NEAR(sample, expected, 5 * deviation) << i << ", " << j;
    }
  }
}

TEST(Synthetic, DenseFeaturesAreWithinTheUnitIntervalAndVary) {
  const Dataset data = load_dataset("synthetic:dense-100?n=2000&test=0");
  EXPECT_EQ(data.image.features(), 100);
  for (std::int64_t j = 0; j < 100; ++j) {
    double sum = 0;
    double squares = 0;
    for (std::int64_t r = 0; r < 2000; ++r) {
      const double x = value(*data.train, r, j);
      ASSERT_TRUE(x > 0 && x < 1);
      sum += x;
      squares += x * x;
    }
    EXPECT_GT(squares / 2000 - sum / 2000 * (sum / 2000), 0.01) << j;
  }
}

// Var(x) = mu + mu^2 / theta where nothing is lost; a share of `zeros` is.
TEST(Synthetic, CountsAreWholeOverdispersedAndLost) {
  const auto moments = [](const std::string& query) {
    const Dataset data = load_dataset(
        "synthetic:counts?features=1&latent=1&spread=0&library=20&n="
        "40000&test=0" +
        query);
    double sum = 0;
    double squares = 0;
    double none = 0;
    for (std::int64_t r = 0; r < 40000; ++r) {
      const double x = value(*data.train, r, 0);
      EXPECT_TRUE(x >= 0 && x == std::rint(x));
      sum += x;
      squares += x * x;
      none += x == 0 ? 1 : 0;
    }
    const double mean = sum / 40000;
    return std::array<double, 3>{mean, squares / 40000 - mean * mean, none / 40000};
  };
  const auto [poisson_mean, poisson_variance, poisson_none] = moments("&theta=0&zeros=0");
  EXPECT_NEAR(poisson_mean, 20, 0.15);
  EXPECT_NEAR(poisson_variance, 20, 1);
  EXPECT_LT(poisson_none, 1e-3);
  const auto [mean, variance, none] = moments("&theta=2&zeros=0");
  EXPECT_NEAR(mean, 20, 0.5);
  EXPECT_NEAR(variance, 20 + 400 / 2.0, 12);
  EXPECT_NEAR(none, std::pow(2.0 / 22, 2), 5e-3);
  const auto [lost_mean, lost_variance, lost] = moments("&theta=0&zeros=0.25");
  EXPECT_NEAR(lost_mean, 15, 0.3);
  EXPECT_NEAR(lost, 0.25, 0.01);
}

TEST(Synthetic, LibrarySizesSpreadAsAsked) {
  const Dataset data = load_dataset("synthetic:counts?n=4000&test=0&theta=0&zeros=0");
  double sum = 0;
  double squares = 0;
  for (std::int64_t r = 0; r < 4000; ++r) {
    double total = 0;
    for (std::int64_t j = 0; j < 100; ++j) total += value(*data.train, r, j);
    sum += std::log(total);
    squares += std::log(total) * std::log(total);
  }
  EXPECT_NEAR(sum / 4000, std::log(2000.0), 0.04);
  EXPECT_NEAR(squares / 4000 - sum / 4000 * (sum / 4000), 0.25, 0.03);
}

void check_shapes(const Dataset& data, std::int64_t side) {
  EXPECT_EQ(data.image, (ImageSize{1, side, side}));
  EXPECT_EQ(data_type(data), DType::u8);
  EXPECT_EQ(label_classes(data, "the test"), 3);
  ASSERT_EQ(data.factors.size(), 5U);
  const std::vector<std::string> names = {"shape", "scale", "orientation", "x", "y"};
  for (std::size_t f = 0; f < 5; ++f) EXPECT_EQ(data.factors[f].name, names[f]);
  std::set<std::vector<std::int64_t>> seen;
  std::vector<std::set<std::int64_t>> levels(5);
  for (const auto* split : {&*data.train, &*data.test}) {
    ASSERT_EQ(split->labels.size(), static_cast<std::size_t>(split->size()));
    ASSERT_EQ(split->factors->shape(), (Shape{split->size(), 5}));
    for (std::int64_t r = 0; r < split->size(); ++r) {
      std::vector<std::int64_t> factors;
      for (std::int64_t f = 0; f < 5; ++f) {
        const auto level = split->factors->as<std::int64_t>()[static_cast<std::size_t>(5 * r + f)];
        factors.push_back(level);
        levels[static_cast<std::size_t>(f)].insert(level);
      }
      EXPECT_TRUE(seen.insert(factors).second);
      EXPECT_EQ(split->labels[static_cast<std::size_t>(r)], factors[0]);
      // The shape's centre of mass is where the factors say; nothing touches the border.
      double mass = 0;
      double x = 0;
      double y = 0;
      for (std::int64_t p = 0; p < side * side; ++p) {
        const double v = value(*split, r, p);
        ASSERT_TRUE(v == 0 || v == 255);
        const std::int64_t row = p / side;
        const std::int64_t column = p % side;
        const bool border = column == 0 || column == side - 1 || row == 0 || row == side - 1;
        EXPECT_TRUE(v == 0 || !border);
        mass += v;
        x += v * (static_cast<double>(column) + 0.5);
        y += v * (static_cast<double>(row) + 0.5);
      }
      const auto at = [&](std::size_t f) {
        return data.factors[f].values[static_cast<std::size_t>(factors[f])];
      };
      const double size = at(1);
      const double area[] = {1.96, 0.95 * std::numbers::pi / 2, 1.63};
      EXPECT_NEAR(mass / 255, area[factors[0]] * size * size, 2.8 * size);
      if (factors[0] == 2) continue;  // a heart's lies elsewhere
      EXPECT_NEAR(x / mass, at(3), 0.5);
      EXPECT_NEAR(y / mass, at(4), 0.5);
    }
  }
  for (std::size_t f = 0; f < 5; ++f)
    EXPECT_EQ(levels[f].size(), data.factors[f].values.size()) << names[f];
}

TEST(Synthetic, ShapesHaveLabelsAndFactorsAndNoDoubles) {
  check_shapes(load_dataset("synthetic:shapes?n=3000&test=1000"), 32);
}

TEST(Synthetic, ShapesComeInOtherSizes) {
  check_shapes(load_dataset("synthetic:shapes?n=800&test=200&size=64"), 64);
  check_shapes(load_dataset("synthetic:shapes?n=800&test=200&size=31"), 31);
  // Twice the size: the same shapes at the same places.
  const Dataset small = load_dataset("synthetic:shapes?n=50&test=0");
  const Dataset large = load_dataset("synthetic:shapes?n=50&test=0&size=64");
  EXPECT_EQ(small.train->labels, large.train->labels);
  EXPECT_EQ(2 * small.factors[1].values[4], large.factors[1].values[4]);
}

TEST(Synthetic, WhatMakesNoSenseIsRefusedWithAMend) {
  struct Row {
    const char* text;
    const char* said;
    const char* mend;
  };
  const Row rows[] = {
      {"synthetic:linear-gausian", "no synthetic data `linear-gausian`",
       "did you mean `synthetic:linear-gaussian`?"},
      {"synthetic:", "no synthetic data ``", "choose linear-gaussian, dense-100, counts, shapes"},
      {"synthetic:shapes?sed=1", "unknown parameter `sed`", "did you mean `seed`?"},
      {"synthetic:shapes?zeros=1", "unknown parameter `zeros`", "it has n, test, seed, size"},
      {"synthetic:shapes?n", "`n` = ``", "an integer from 1 to 10000000"},
      {"synthetic:shapes?n=1.5", "`n` = `1.5`", "an integer"},
      {"synthetic:shapes?n=0", "`n` = `0`", "an integer from 1"},
      {"synthetic:shapes?n=5x", "`n` = `5x`", "an integer"},
      {"synthetic:shapes?n=5&n=6", "`n` is given twice", "leave one"},
      {"synthetic:shapes?", "", ""},
      {"synthetic:shapes?n=5&", "unknown parameter ``", "it has"},
      {"synthetic:shapes?size=15", "`size` = `15`", "an integer from 16 to 256"},
      {"synthetic:shapes?n=61440", "more rows than there are images", "61440"},
      {"synthetic:counts?theta=0.3", "`theta` is no multiple", "0.5"},
      {"synthetic:counts?zeros=nan", "`zeros` = `nan`", "a number from 0 to 1"},
      {"synthetic:counts?zeros=2", "`zeros` = `2`", "a number from 0 to 1"},
      {"synthetic:linear-gaussian?scales=", "`scales` = ``", "with commas between"},
      {"synthetic:linear-gaussian?scales=1,,2", "`scales` = `1,,2`", "with commas between"},
      {"synthetic:linear-gaussian?features=2&scales=3,2,1", "more `scales` than `features`",
       "at most as many"},
  };
  for (const Row& row : rows) {
    const auto outcome = outcome_of([&] { (void)load_dataset(row.text); });
    EXPECT_EQ(outcome.status, *row.said == '\0' ? Status::done : Status::usage) << row.text;
    EXPECT_NE(outcome.text.find(row.said), std::string::npos) << outcome.text;
    EXPECT_NE(outcome.text.find(row.mend), std::string::npos) << outcome.text;
    EXPECT_TRUE(*row.said == '\0' || outcome.text.find(row.text) != std::string::npos);
  }
}

TEST(Synthetic, EverySourceIsListed) {
  std::set<std::string> names;
  for (const DataSource& source : data_sources()) {
    names.insert(source.name);
    EXPECT_FALSE(source.doc.empty());
    EXPECT_TRUE(is_data_source(source.name));
    EXPECT_EQ(find_data_source(source.name), &source);
    EXPECT_EQ(find_data_source(source.name + "?seed=3"),
              source.name.starts_with("synthetic:") ? &source : nullptr);
    if (!source.name.starts_with("synthetic:")) continue;
    EXPECT_TRUE(data_exists(source.name));
    // What is listed as the defaults are the defaults.
    std::string query;
    for (const DataSource::Parameter& parameter : source.parameters)
      query += (query.empty() ? "?" : "&") + parameter.name + "=" + parameter.standard;
    EXPECT_EQ(load_dataset(source.name + query).sha256, load_dataset(source.name).sha256);
  }
  EXPECT_TRUE(names.contains("fashion-mnist"));
  EXPECT_EQ(names.size(), 1 + synthetic_sources().size());
  for (const char* path : {"data/mnist", "", "/synthetic:shapes", "./fashion-mnist"})
    EXPECT_FALSE(is_data_source(path)) << path;
  EXPECT_EQ(find_data_source("synthetic:shape"), nullptr);
}

}  // namespace
}  // namespace cuvae
