#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "cuvae/error.h"
#include "cuvae/sample_quality.h"
#include "evaluation/labels.h"
#include "evaluation/parallel.h"
#include "evaluation/points.h"

namespace cuvae {
namespace {

constexpr std::int64_t block = 128;
constexpr std::int64_t other_block = 1024;

// Calls back with the squared distances of each row of a block of `from` to a block of `to`.
template <class Visit>
void for_distances(const Points& from, const Rows& rows, const Points& to, Visit visit) {
  std::vector<double> distances(static_cast<std::size_t>(rows.count() * other_block));
  for (std::int64_t part = 0; part < blocks_of(to.n, other_block); ++part) {
    const Rows others = block_rows(to.n, other_block, part);
    squared_distances(from, rows.first, rows.last, to, others.first, others.last, distances.data());
    for (std::int64_t i = 0; i < rows.count(); ++i)
      visit(i, others, distances.data() + i * others.count());
  }
}

// Squared distance of each row to its k-th nearest other one.
std::vector<double> radii(const Points& points, std::int64_t k, int threads) {
  std::vector<double> result(static_cast<std::size_t>(points.n));
  for_blocks(blocks_of(points.n, block), threads, [&](std::int64_t which) {
    const Rows rows = block_rows(points.n, block, which);
    // The k smallest so far of each row, ascending.
    const auto width = static_cast<std::size_t>(k);
    std::vector<double> nearest(static_cast<std::size_t>(rows.count()) * width,
                                std::numeric_limits<double>::infinity());
    for_distances(points, rows, points,
                  [&](std::int64_t i, const Rows& others, const double* distance) {
                    double* least = nearest.data() + static_cast<std::size_t>(i) * width;
                    for (std::int64_t j = 0; j < others.count(); ++j) {
                      if (distance[j] >= least[width - 1]) continue;
                      if (others.first + j == rows.first + i) continue;  // itself
                      std::size_t at = width - 1;
                      for (; at > 0 && least[at - 1] > distance[j]; --at) least[at] = least[at - 1];
                      least[at] = distance[j];
                    }
                  });
    for (std::int64_t i = 0; i < rows.count(); ++i)
      result[static_cast<std::size_t>(rows.first + i)] =
          nearest[(static_cast<std::size_t>(i) + 1) * width - 1];
  });
  return result;
}

// The share of `points` within a ball of the other set.
double covered(const Points& points, const Points& others, const std::vector<double>& radius,
               int threads) {
  const std::int64_t blocks = blocks_of(points.n, block);
  std::vector<std::int64_t> inside(static_cast<std::size_t>(blocks), 0);
  for_blocks(blocks, threads, [&](std::int64_t which) {
    const Rows rows = block_rows(points.n, block, which);
    std::vector<char> found(static_cast<std::size_t>(rows.count()), 0);
    for_distances(points, rows, others,
                  [&](std::int64_t i, const Rows& part, const double* distance) {
                    char& hit = found[static_cast<std::size_t>(i)];
                    const double* reach = radius.data() + part.first;
                    for (std::int64_t j = 0; j < part.count() && !hit; ++j)
                      hit = distance[j] <= reach[j] ? 1 : 0;
                  });
    inside[static_cast<std::size_t>(which)] = std::ranges::count(found, 1);
  });
  std::int64_t total = 0;
  for (const std::int64_t count : inside) total += count;
  return static_cast<double>(total) / static_cast<double>(points.n);
}

}  // namespace

PrecisionRecall precision_recall(const Tensor& data_rows, const Tensor& sample_rows, std::int64_t k,
                                 int threads) {
  Points data(data_rows, "features");
  Points samples(sample_rows, "features");
  require_same_width(data.d, samples.d);
  const std::int64_t most = std::min(data.n, samples.n) - 1;
  if (k < 1 || k > most) {
    throw Error(
        Status::usage, fmt::format("k = {} for sets of {} and {} rows", k, data.n, samples.n),
        "precision and recall",
        most < 1 ? "give two rows or more of each" : fmt::format("choose k from 1 to {}", most));
  }
  const std::vector<double> centre = data.mean();
  data.subtract(centre);
  samples.subtract(centre);
  PrecisionRecall result;
  result.k = k;
  result.precision = covered(samples, data, radii(data, k, threads), threads);
  result.recall = covered(data, samples, radii(samples, k, threads), threads);
  return result;
}

}  // namespace cuvae
