#pragma once
// How well labels are told from latents: classifiers and clusters fitted to the training split's
// posterior means and judged on the test split's. Everything is deterministic, the same bits on any
// number of threads (0 = all cores that the process may use).

#include <cstdint>
#include <span>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

// Points with a label each.
struct LabelledPoints {
  const Tensor& points;  // [n, d]
  std::span<const std::int64_t> labels;
};

// Exact k nearest neighbours by Euclidean distance (of equal ones, the row that comes first) among
// `train`; they vote, and of labels with equal votes that of the nearest wins. The label of each
// test row. Throws Error(usage) for k < 1 or more than there are rows.
[[nodiscard]] std::vector<std::int64_t> nearest_neighbour_labels(const LabelledPoints& train,
                                                                 const Tensor& test, std::int64_t k,
                                                                 int threads = 0);

// Multinomial logistic regression on coordinates of zero mean and unit variance (over the training
// rows; a constant one is left out), with L2: minimises
//   1/n sum_i -log softmax(W x_i + b)[y_i] + l2/2 |W|^2
// by L-BFGS over all rows until no element of the gradient exceeds the tolerance. l2 = 1/n is what
// scikit-learn's LogisticRegression does by default (C = 1).
struct LinearOptions {
  double l2 = -1;  // below 0: 1/n
  double tolerance = 1e-5;
  int iterations = 1000;  // at most
  int threads = 0;
};
struct LinearClassifier {
  std::vector<std::int64_t> classes;  // the labels, sorted
  std::vector<double> weight;         // [classes, d], of the coordinates as they come
  std::vector<double> bias;           // [classes]
  std::vector<double> mean;           // [d], the standardisation
  std::vector<double> scale;          // [d], 1 / deviation, 0 for a constant coordinate
  double loss = 0;                    // what is minimised
  double l2 = 0;
  double gradient = 0;  // its largest element
  int iterations = 0;
  bool converged = false;

  [[nodiscard]] std::vector<std::int64_t> labels(const Tensor& points) const;
};
[[nodiscard]] LinearClassifier fit_linear(const LabelledPoints& train,
                                          const LinearOptions& options = {});

// k-means by Lloyd's iterations from k-means++ centres (Arthur and Vassilvitskii 2007), the best of
// several restarts. An iteration ends a restart where the centres' squared moves add up to at most
// tolerance * the mean variance of a coordinate (scikit-learn's rule).
struct KMeansOptions {
  std::int64_t clusters = 10;
  int restarts = 8;
  int iterations = 300;  // at most, of each
  double tolerance = 1e-4;
  std::uint64_t seed = 0;
  int threads = 0;
};
struct KMeans {
  std::int64_t clusters = 0;
  std::int64_t dimensions = 0;
  std::vector<double> centres;  // [clusters, d]
  double inertia = 0;           // sum of squared distances to the nearest centre
  int iterations = 0;           // of the best restart
  bool converged = false;

  [[nodiscard]] std::vector<std::int64_t> assign(const Tensor& points) const;  // cluster of each
};
// Throws Error(usage) for fewer points than clusters.
[[nodiscard]] KMeans fit_kmeans(const Tensor& points, const KMeansOptions& options = {});

// Which label each cluster stands for, one to one, so that as many rows as can be are labelled
// rightly (the Hungarian method). A cluster beyond the labels gets -1.
[[nodiscard]] std::vector<std::int64_t> best_mapping(std::span<const std::int64_t> clusters,
                                                     std::span<const std::int64_t> labels);
// Normalised mutual information of two labellings: 2 I / (H_a + H_b), in [0, 1]; 1 where both are
// constant.
[[nodiscard]] double normalised_mutual_information(std::span<const std::int64_t> a,
                                                   std::span<const std::int64_t> b);
// The share of rows where they agree; 0 for none.
[[nodiscard]] double agreement(std::span<const std::int64_t> a, std::span<const std::int64_t> b);

struct ProbeOptions {
  std::int64_t k = 5;
  int restarts = 8;  // of k-means
  std::uint64_t seed = 0;
  int threads = 0;
};
struct ProbeReport {
  std::int64_t train = 0;  // rows
  std::int64_t test = 0;
  std::int64_t classes = 0;  // labels that occur in the training split
  double commonest = 0;      // test accuracy of always saying the training split's commonest label
  double knn_accuracy = 0;
  double linear_accuracy = 0;
  double linear_train_accuracy = 0;
  LinearClassifier linear;
  KMeans kmeans;               // as many clusters as classes
  double kmeans_accuracy = 0;  // of the test rows, by best_mapping() of the training rows
  double kmeans_nmi = 0;       // of the test rows
};
// Throws Error(usage) where the sizes do not fit together, a split is empty, or for a k that cannot
// be; Error(input) where there is only one label.
[[nodiscard]] ProbeReport probe(const LabelledPoints& train, const LabelledPoints& test,
                                const ProbeOptions& options = {});

}  // namespace cuvae
