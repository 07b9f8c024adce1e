// Classifiers and clusters of latents: against scikit-learn and SciPy
// (tests/golden/make_evaluation.py), and what must hold whatever the numbers are.

#include "cuvae/probe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "evaluation/golden.h"

namespace cuvae {
namespace {

using test::evaluation_golden;
using test::matrix_of;
using Labels = std::vector<std::int64_t>;

Status status_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.status();
  }
  return Status::done;
}

// `groups` round clouds on a circle, `spread` wide; labels 0 to groups - 1 in turn.
struct Clouds {
  Tensor points;
  Labels labels;
};
Clouds clouds(std::int64_t n, std::int64_t groups, double spread, std::uint64_t seed) {
  Clouds made{Tensor(DType::f32, Shape{n, 2}), {}};
  const RandomKey key{.seed = seed, .purpose = Purpose::augmentation};
  for (std::int64_t i = 0; i < n; ++i) {
    const double angle =
        6.283185307 * static_cast<double>(i % groups) / static_cast<double>(groups);
    const auto at = static_cast<std::size_t>(2 * i);
    made.points.as<float>()[at] =
        static_cast<float>(std::cos(angle) + spread * random_normal(key, at));
    made.points.as<float>()[at + 1] =
        static_cast<float>(std::sin(angle) + spread * random_normal(key, at + 1));
    made.labels.push_back(i % groups);
  }
  return made;
}

TEST(Probe, NearestNeighboursAreThoseOfBruteForce) {
  const auto& golden = evaluation_golden().at("classifiers");
  const Tensor train = matrix_of(golden.at("train"));
  const Tensor test = matrix_of(golden.at("test"));
  const auto labels = golden.at("labels").get<Labels>();
  for (const auto& [k, expected] : golden.at("knn").items()) {
    EXPECT_EQ(nearest_neighbour_labels({train, labels}, test, std::stoll(k), 1),
              expected.get<Labels>())
        << k;
  }
}

// Several blocks of both, and of threads.
TEST(Probe, NearestNeighboursOfManyRows) {
  const Clouds train = clouds(2500, 5, 0.4, 1);
  const Clouds test = clouds(300, 5, 0.4, 2);
  const Labels one = nearest_neighbour_labels({train.points, train.labels}, test.points, 3, 1);
  EXPECT_EQ(one, nearest_neighbour_labels({train.points, train.labels}, test.points, 3, 3));
  const auto x = train.points.as<float>();
  const auto y = test.points.as<float>();
  for (std::size_t i = 0; i < 300; ++i) {
    std::vector<std::pair<double, std::size_t>> all;
    for (std::size_t j = 0; j < 2500; ++j) {
      const double a = static_cast<double>(x[2 * j]) - y[2 * i];
      const double b = static_cast<double>(x[2 * j + 1]) - y[2 * i + 1];
      all.emplace_back(a * a + b * b, j);
    }
    std::ranges::sort(all);
    const std::int64_t first = train.labels[all[0].second];
    const std::int64_t second = train.labels[all[1].second];
    const std::int64_t third = train.labels[all[2].second];
    EXPECT_EQ(one[i], second == third ? second : first) << i;
  }
  EXPECT_EQ(nearest_neighbour_labels({train.points, train.labels}, train.points, 1), train.labels);
}

TEST(Probe, ImpossibleNeighboursAreRefused) {
  const Clouds few = clouds(10, 2, 0.1, 1);
  const Tensor wide(DType::f32, Shape{3, 3});
  const LabelledPoints points{few.points, few.labels};
  for (const std::int64_t k : {0, -1, 11}) {
    EXPECT_EQ(status_of([&] { (void)nearest_neighbour_labels(points, few.points, k); }),
              Status::usage);
  }
  EXPECT_EQ(status_of([&] { (void)nearest_neighbour_labels(points, wide, 1); }), Status::usage);
  const Labels short_labels = {1, 2};
  EXPECT_EQ(status_of([&] { (void)fit_linear({few.points, short_labels}); }), Status::usage);
  Tensor broken = few.points;
  broken.as<float>()[3] = NAN;
  EXPECT_EQ(status_of([&] { (void)fit_linear({broken, few.labels}); }), Status::usage);
}

TEST(Probe, LogisticRegressionIsScikitLearns) {
  const auto& golden = evaluation_golden().at("classifiers");
  const Tensor train = matrix_of(golden.at("train"));
  const auto labels = golden.at("labels").get<Labels>();
  const LinearClassifier fit = fit_linear({train, labels}, {.tolerance = 1e-9});
  EXPECT_TRUE(fit.converged);
  EXPECT_LE(fit.gradient, 1e-9);
  EXPECT_EQ(fit.classes, (Labels{2, 5, 7}));
  EXPECT_NEAR(fit.l2, 1.0 / 120, 1e-15);
  EXPECT_NEAR(fit.loss, golden.at("logistic_loss").get<double>(), 1e-10);
  for (std::size_t j = 0; j < 3; ++j) {
    double mean = 0;
    for (std::size_t c = 0; c < 3; ++c) mean += fit.weight[c * 3 + j] / 3;
    for (std::size_t c = 0; c < 3; ++c) {
      EXPECT_NEAR((fit.weight[c * 3 + j] - mean) / fit.scale[j],
                  golden.at("logistic_weight")[c][j].get<double>(), 1e-6);
    }
  }
  EXPECT_EQ(fit.labels(matrix_of(golden.at("test"))), golden.at("logistic_labels").get<Labels>());
  EXPECT_NEAR(agreement(fit.labels(train), labels),
              golden.at("logistic_train_accuracy").get<double>(), 1e-12);
}

TEST(Probe, LogisticRegressionDoesNotDependOnThreads) {
  const Clouds train = clouds(5000, 4, 0.6, 3);  // three blocks
  const LabelledPoints points{train.points, train.labels};
  const LinearClassifier one = fit_linear(points, {.threads = 1});
  const LinearClassifier three = fit_linear(points, {.threads = 3});
  EXPECT_EQ(one.weight, three.weight);
  EXPECT_EQ(one.bias, three.bias);
  EXPECT_EQ(one.iterations, three.iterations);
  EXPECT_TRUE(one.converged);
}

TEST(Probe, LogisticRegressionSaysWhenItHasNotConverged) {
  const Clouds train = clouds(200, 4, 0.6, 3);
  const LinearClassifier fit = fit_linear({train.points, train.labels}, {.iterations = 2});
  EXPECT_FALSE(fit.converged);
  EXPECT_EQ(fit.iterations, 2);
  EXPECT_GT(fit.gradient, 1e-5);
}

TEST(Probe, ConstantCoordinatesAreLeftOut) {
  const Clouds train = clouds(200, 3, 0.1, 4);
  Tensor wider(DType::f32, Shape{200, 3});
  for (std::size_t i = 0; i < 200; ++i) {
    wider.as<float>()[3 * i] = train.points.as<float>()[2 * i];
    wider.as<float>()[3 * i + 1] = 0.1F;  // no float is the mean of its copies, exactly
    wider.as<float>()[3 * i + 2] = train.points.as<float>()[2 * i + 1];
  }
  const LinearClassifier fit = fit_linear({wider, train.labels});
  const LinearClassifier plain = fit_linear({train.points, train.labels});
  EXPECT_EQ(fit.scale[1], 0);
  for (std::size_t c = 0; c < 3; ++c) EXPECT_EQ(fit.weight[3 * c + 1], 0);
  EXPECT_NEAR(fit.loss, plain.loss, 1e-9);
  EXPECT_EQ(fit.labels(wider), plain.labels(train.points));
}

TEST(Probe, KMeansFindsCloudsThatAreApart) {
  const Clouds train = clouds(3000, 6, 0.05, 5);  // two blocks
  const KMeans fit = fit_kmeans(train.points, {.clusters = 6, .threads = 1});
  EXPECT_TRUE(fit.converged);
  const auto clusters = fit.assign(train.points);
  const auto mapping = best_mapping(clusters, train.labels);
  Labels mapped;
  for (const std::int64_t cluster : clusters)
    mapped.push_back(mapping[static_cast<std::size_t>(cluster)]);
  EXPECT_EQ(agreement(mapped, train.labels), 1);
  EXPECT_EQ(normalised_mutual_information(clusters, train.labels), 1);
  // Every centre is the mean of its points, and the inertia what is left.
  double inertia = 0;
  std::vector<double> sums(12, 0.0);
  std::vector<double> counts(6, 0.0);
  for (std::size_t i = 0; i < 3000; ++i) {
    const auto c = static_cast<std::size_t>(clusters[i]);
    ++counts[c];
    for (std::size_t j = 0; j < 2; ++j) {
      const double x = train.points.as<float>()[2 * i + j];
      sums[2 * c + j] += x;
      inertia += (x - fit.centres[2 * c + j]) * (x - fit.centres[2 * c + j]);
    }
  }
  for (std::size_t i = 0; i < 12; ++i) EXPECT_NEAR(sums[i] / counts[i / 2], fit.centres[i], 1e-9);
  EXPECT_NEAR(fit.inertia, inertia, 1e-9 * inertia);
}

TEST(Probe, KMeansIsAFunctionOfTheSeed) {
  const Clouds train = clouds(3000, 7, 0.5, 6);
  const KMeans one = fit_kmeans(train.points, {.clusters = 7, .seed = 1, .threads = 1});
  const KMeans three = fit_kmeans(train.points, {.clusters = 7, .seed = 1, .threads = 3});
  const KMeans other = fit_kmeans(train.points, {.clusters = 7, .seed = 2, .threads = 1});
  EXPECT_EQ(one.centres, three.centres);
  EXPECT_NE(one.centres, other.centres);
  const KMeans single = fit_kmeans(train.points, {.clusters = 7, .restarts = 1, .seed = 1});
  EXPECT_LE(one.inertia, single.inertia);
}

TEST(Probe, KMeansWithFewerDifferentPointsThanClusters) {
  Tensor points(DType::f32, Shape{6, 1});
  for (std::size_t i = 0; i < 6; ++i) points.as<float>()[i] = i % 2 == 0 ? -1.0F : 2.0F;
  const KMeans fit = fit_kmeans(points, {.clusters = 4});
  EXPECT_EQ(fit.inertia, 0);
  EXPECT_EQ(fit.assign(points)[0], fit.assign(points)[2]);
  EXPECT_EQ(status_of([&] { (void)fit_kmeans(points, {.clusters = 7}); }), Status::usage);
  EXPECT_EQ(status_of([&] { (void)fit_kmeans(points, {.restarts = 0}); }), Status::usage);
}

TEST(Probe, MappingAndNmiAreThoseOfSciPyAndScikitLearn) {
  for (const auto& row : evaluation_golden().at("labellings")) {
    const auto clusters = row.at("clusters").get<Labels>();
    const auto labels = row.at("labels").get<Labels>();
    const Labels mapping = best_mapping(clusters, labels);
    Labels used = mapping;
    std::erase(used, -1);
    std::ranges::sort(used);
    EXPECT_EQ(std::ranges::adjacent_find(used), used.end()) << "a label twice";
    Labels mapped;
    for (const std::int64_t cluster : clusters)
      mapped.push_back(mapping[static_cast<std::size_t>(cluster)]);
    EXPECT_NEAR(agreement(mapped, labels) * static_cast<double>(labels.size()),
                row.at("right").get<double>(), 1e-9);
    EXPECT_NEAR(normalised_mutual_information(clusters, labels), row.at("nmi").get<double>(),
                1e-12);
  }
  EXPECT_EQ(normalised_mutual_information(Labels{3, 3}, Labels{1, 1}), 1);
}

// Every one-to-one mapping of five clusters tried.
TEST(Probe, TheBestMappingIsTheBest) {
  const RandomKey key{.seed = 8, .purpose = Purpose::augmentation};
  for (std::uint64_t round = 0; round < 20; ++round) {
    Labels clusters;
    Labels labels;
    for (std::uint64_t i = 0; i < 60; ++i) {
      const PhiloxWords words = random_words(key, round * 60 + i);
      clusters.push_back(words[0] % 5);
      labels.push_back(words[1] % 3 == 0 ? words[2] % 5 : (words[0] + round) % 5);
    }
    const auto right = [&](const Labels& mapping) {
      int count = 0;
      for (std::size_t i = 0; i < 60; ++i)
        count += mapping[static_cast<std::size_t>(clusters[i])] == labels[i] ? 1 : 0;
      return count;
    };
    Labels mapping = {0, 1, 2, 3, 4};
    int best = 0;
    do best = std::max(best, right(mapping));
    while (std::ranges::next_permutation(mapping).found);
    EXPECT_EQ(right(best_mapping(clusters, labels)), best);
  }
}

TEST(Probe, TellsApartWhatIsApart) {
  const Clouds train = clouds(900, 3, 0.08, 9);
  const Clouds test = clouds(300, 3, 0.08, 10);
  const ProbeReport report =
      probe({train.points, train.labels}, {test.points, test.labels}, {.k = 3});
  EXPECT_EQ(report.classes, 3);
  EXPECT_EQ(report.train, 900);
  EXPECT_EQ(report.test, 300);
  EXPECT_NEAR(report.commonest, 1.0 / 3, 1e-12);
  EXPECT_EQ(report.knn_accuracy, 1);
  EXPECT_EQ(report.linear_accuracy, 1);
  EXPECT_EQ(report.kmeans_accuracy, 1);
  EXPECT_EQ(report.kmeans_nmi, 1);
}

TEST(Probe, LabelsThatThePointsKnowNothingOfAreGuessed) {
  const Clouds train = clouds(2000, 1, 1.0, 11);
  const Clouds test = clouds(1000, 1, 1.0, 12);
  Labels train_labels;
  Labels test_labels;
  for (std::int64_t i = 0; i < 2000; ++i) train_labels.push_back(i % 4);
  for (std::int64_t i = 0; i < 1000; ++i) test_labels.push_back(i % 4);
  const ProbeReport report = probe({train.points, train_labels}, {test.points, test_labels});
  for (const double accuracy :
       {report.knn_accuracy, report.linear_accuracy, report.kmeans_accuracy}) {
    EXPECT_NEAR(accuracy, 0.25, 0.06);
  }
  EXPECT_LT(report.kmeans_nmi, 0.02);
}

TEST(Probe, LabelsThatOnlyTheTestHasAreWrong) {
  const Clouds train = clouds(300, 2, 0.05, 13);
  Clouds test = clouds(100, 2, 0.05, 14);
  for (std::int64_t& label : test.labels)
    if (label == 1) label = 9;
  const ProbeReport report = probe({train.points, train.labels}, {test.points, test.labels});
  EXPECT_EQ(report.knn_accuracy, 0.5);
  EXPECT_EQ(report.linear_accuracy, 0.5);
  EXPECT_EQ(report.kmeans_accuracy, 0.5);
}

TEST(Probe, OneLabelIsNoQuestion) {
  const Clouds train = clouds(30, 1, 0.1, 15);
  EXPECT_EQ(status_of([&] {
              (void)probe({train.points, train.labels}, {train.points, train.labels});
            }),
            Status::input);
}

}  // namespace
}  // namespace cuvae
