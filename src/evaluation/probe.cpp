#include "cuvae/probe.h"

#include <algorithm>

#include "cuvae/error.h"
#include "evaluation/labels.h"

namespace cuvae {
namespace {

std::int64_t commonest(std::span<const std::int64_t> labels) {
  const std::vector<std::int64_t> classes = distinct(labels);
  return *std::ranges::max_element(
      classes, {}, [&](std::int64_t label) { return std::ranges::count(labels, label); });
}

}  // namespace

ProbeReport probe(const LabelledPoints& train, const LabelledPoints& test,
                  const ProbeOptions& options) {
  require_labels(test.points.shape()[0], test.labels, "test points");
  require_labels(train.points.shape()[0], train.labels, "training points");
  if (train.labels.empty() || test.labels.empty()) {
    throw Error(Status::usage, "a split without rows", "probe", "give rows to both splits");
  }
  ProbeReport report;
  report.train = static_cast<std::int64_t>(train.labels.size());
  report.test = static_cast<std::int64_t>(test.labels.size());
  report.classes = static_cast<std::int64_t>(distinct(train.labels).size());
  if (report.classes < 2) {
    throw Error(Status::input, "all rows of the training split have one label", "labels",
                "give data with two labels or more");
  }
  const std::vector<std::int64_t> always(test.labels.size(), commonest(train.labels));
  report.commonest = agreement(always, test.labels);

  report.knn_accuracy = agreement(
      nearest_neighbour_labels(train, test.points, options.k, options.threads), test.labels);

  report.linear = fit_linear(train, {.threads = options.threads});
  report.linear_accuracy = agreement(report.linear.labels(test.points), test.labels);
  report.linear_train_accuracy = agreement(report.linear.labels(train.points), train.labels);

  report.kmeans = fit_kmeans(train.points, {.clusters = report.classes,
                                            .restarts = options.restarts,
                                            .seed = options.seed,
                                            .threads = options.threads});
  const auto mapping = best_mapping(report.kmeans.assign(train.points), train.labels);
  const auto clusters = report.kmeans.assign(test.points);
  std::vector<std::int64_t> labels;
  for (const std::int64_t cluster : clusters) {
    const auto at = static_cast<std::size_t>(cluster);
    labels.push_back(at < mapping.size() ? mapping[at] : -1);  // empty in training
  }
  report.kmeans_accuracy = agreement(labels, test.labels);
  report.kmeans_nmi = normalised_mutual_information(clusters, test.labels);
  return report;
}

}  // namespace cuvae
