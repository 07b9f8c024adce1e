// KID and precision/recall: against scikit-learn's kernels and brute force
// (tests/golden/make_evaluation.py), and what must hold.

#include "cuvae/sample_quality.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "evaluation/golden.h"

namespace cuvae {
namespace {

using test::evaluation_golden;
using test::matrix_of;

Tensor normals(std::int64_t n, std::int64_t d, std::uint64_t seed, float shift = 0) {
  Tensor points(DType::f32, Shape{n, d});
  const RandomKey key{.seed = seed, .purpose = Purpose::augmentation};
  for (std::size_t i = 0; i < static_cast<std::size_t>(n * d); ++i)
    points.as<float>()[i] = random_normal(key, i) + shift;
  return points;
}

TEST(Kid, TheKernelsSumsAreScikitLearns) {
  for (const auto& row : evaluation_golden().at("kernels")) {
    const Tensor x = matrix_of(row.at("x"));
    const Tensor y = matrix_of(row.at("y"));
    const double expected = row.at("mmd2").get<double>();
    EXPECT_NEAR(polynomial_mmd2(x, y), expected, 1e-10 * std::max(1.0, std::abs(expected)));
    EXPECT_NEAR(polynomial_mmd2(y, x), expected, 1e-10 * std::max(1.0, std::abs(expected)));
  }
}

// Subsets of small sets are halves: of all there is they would not differ.
TEST(Kid, SubsetsAreAtMostHalfOfASet) {
  const auto& row = evaluation_golden().at("kernels").at(3);
  const Tensor x = matrix_of(row.at("x"));  // 70 rows
  const Tensor y = matrix_of(row.at("y"));  // 40 rows
  const Kid kid = kernel_inception_distance(x, y, {.subsets = 5});
  EXPECT_EQ(kid.subset_size, 20);
  EXPECT_EQ(kid.subsets, 5);
  EXPECT_GT(kid.std_error, 0);
  EXPECT_EQ(kernel_inception_distance(x, y, {.subset_size = 7}).subset_size, 7);
}

TEST(Kid, IsAroundZeroForOneDistributionAndRisesWithTheDistance) {
  const Tensor a = normals(2000, 8, 1);
  const Kid same = kernel_inception_distance(a, normals(2000, 8, 2), {.subset_size = 200});
  EXPECT_LT(std::abs(same.value), 5 * same.std_error);
  EXPECT_GT(same.std_error, 0);
  double before = same.value;
  for (const float shift : {0.2F, 0.5F, 1.0F}) {
    const Kid far = kernel_inception_distance(a, normals(2000, 8, 2, shift), {.subset_size = 200});
    EXPECT_GT(far.value, before + 3 * far.std_error);
    before = far.value;
  }
}

// The mean over subsets is unbiased: it is the whole sets' figure within its error.
TEST(Kid, SubsetsAreUnbiased) {
  const Tensor a = normals(600, 4, 3);
  const Tensor b = normals(500, 4, 4, 0.3F);
  const Kid kid = kernel_inception_distance(a, b, {.subsets = 400, .subset_size = 60});
  EXPECT_NEAR(kid.value, polynomial_mmd2(a, b), 4 * kid.std_error);
}

TEST(Kid, IsAFunctionOfTheSeedAlone) {
  const Tensor a = normals(300, 4, 3);
  const Tensor b = normals(300, 4, 4);
  const KidOptions options{.subsets = 9, .subset_size = 50, .seed = 7, .threads = 1};
  KidOptions threads = options;
  threads.threads = 3;
  KidOptions other = options;
  other.seed = 8;
  EXPECT_EQ(kernel_inception_distance(a, b, options).value,
            kernel_inception_distance(a, b, threads).value);
  EXPECT_NE(kernel_inception_distance(a, b, options).value,
            kernel_inception_distance(a, b, other).value);
}

TEST(Kid, RefusesWhatHasNoFigure) {
  const Tensor a = normals(10, 4, 1);
  EXPECT_THROW((void)polynomial_mmd2(a, normals(10, 3, 1)), Error);
  EXPECT_THROW((void)polynomial_mmd2(a, normals(1, 4, 1)), Error);
  EXPECT_THROW((void)kernel_inception_distance(a, a, {.subsets = 1}), Error);
  EXPECT_THROW((void)kernel_inception_distance(a, normals(3, 4, 1)), Error);
  EXPECT_THROW((void)kernel_inception_distance(a, a, {.subset_size = 1}), Error);
  EXPECT_THROW((void)precision_recall(a, a, 10), Error);
  EXPECT_THROW((void)precision_recall(a, a, 0), Error);
  EXPECT_THROW((void)precision_recall(a, normals(10, 3, 1)), Error);
}

TEST(PrecisionRecall, IsThatOfBruteForce) {
  for (const auto& row : evaluation_golden().at("manifolds")) {
    const PrecisionRecall both = precision_recall(
        matrix_of(row.at("data")), matrix_of(row.at("samples")), row.at("k").get<std::int64_t>());
    EXPECT_NEAR(both.precision, row.at("precision").get<double>(), 1e-12);
    EXPECT_NEAR(both.recall, row.at("recall").get<double>(), 1e-12);
  }
}

TEST(PrecisionRecall, OfIdenticalSetsIsOne) {
  Tensor points = normals(1500, 6, 5);  // two blocks
  // Rows that are equal have no distance at all.
  for (std::size_t i = 0; i < 60; ++i) points.as<float>()[i] = points.as<float>()[i % 6];
  const PrecisionRecall both = precision_recall(points, points);
  EXPECT_EQ(both.precision, 1);
  EXPECT_EQ(both.recall, 1);
  EXPECT_EQ(both.k, 3);
}

TEST(PrecisionRecall, OfDisjointSetsIsZero) {
  const PrecisionRecall both = precision_recall(normals(200, 6, 5), normals(200, 6, 6, 100));
  EXPECT_EQ(both.precision, 0);
  EXPECT_EQ(both.recall, 0);
}

// Samples of a part of the data are all right, and leave the rest out.
TEST(PrecisionRecall, TellsMissingModesFromWrongSamples) {
  Tensor data = normals(400, 3, 7);
  Tensor part = normals(400, 3, 8);
  for (std::size_t i = 0; i < 600; ++i) data.as<float>()[i] += 50;
  const PrecisionRecall missing = precision_recall(data, part);
  EXPECT_GT(missing.precision, 0.85);
  EXPECT_LT(missing.recall, 0.5);
  const PrecisionRecall wrong = precision_recall(part, data);
  EXPECT_LT(wrong.precision, 0.5);
  EXPECT_GT(wrong.recall, 0.85);
}

TEST(PrecisionRecall, DoesNotDependOnThreads) {
  const Tensor a = normals(300, 4, 3);
  const Tensor b = normals(300, 4, 4, 0.5F);
  const PrecisionRecall one = precision_recall(a, b, 3, 1);
  const PrecisionRecall three = precision_recall(a, b, 3, 3);
  EXPECT_EQ(one.precision, three.precision);
  EXPECT_EQ(one.recall, three.recall);
}

}  // namespace
}  // namespace cuvae
