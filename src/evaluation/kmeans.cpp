#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "cuvae/error.h"
#include "cuvae/probe.h"
#include "cuvae/rng.h"
#include "evaluation/labels.h"
#include "evaluation/parallel.h"
#include "evaluation/points.h"

namespace cuvae {
namespace {

constexpr std::int64_t block = 2048;

Points centres_of(std::vector<double> values, std::int64_t d) {
  Points centres;
  centres.n = d > 0 ? static_cast<std::int64_t>(values.size()) / d : 0;
  centres.d = d;
  centres.values = std::move(values);
  centres.update_squares();
  return centres;
}

// The nearest centre of each point, the first of equal ones, and what one step of Lloyd's wants.
struct Assignment {
  std::vector<std::int64_t> cluster;  // [n]
  std::vector<double> distance;       // [n], squared
  std::vector<double> sums;           // [k, d]
  std::vector<std::int64_t> counts;   // [k]
  double inertia = 0;
};

Assignment assigned(const Points& points, const Points& centres, int threads) {
  Assignment result;
  const std::int64_t k = centres.n;
  const std::int64_t d = points.d;
  const std::int64_t blocks = blocks_of(points.n, block);
  result.cluster.resize(static_cast<std::size_t>(points.n));
  result.distance.resize(static_cast<std::size_t>(points.n));
  std::vector<std::vector<double>> sums(static_cast<std::size_t>(blocks));
  std::vector<double> inertias(static_cast<std::size_t>(blocks), 0.0);
  for_blocks(blocks, threads, [&](std::int64_t which) {
    const Rows rows = block_rows(points.n, block, which);
    std::vector<double> distances(static_cast<std::size_t>(rows.count() * k));
    squared_distances(points, rows.first, rows.last, centres, 0, k, distances.data());
    auto& sum = sums[static_cast<std::size_t>(which)];
    sum.assign(static_cast<std::size_t>(k * d), 0.0);
    double inertia = 0;
    for (std::int64_t i = 0; i < rows.count(); ++i) {
      const double* row = distances.data() + i * k;
      const std::int64_t nearest = std::min_element(row, row + k) - row;
      const auto at = static_cast<std::size_t>(rows.first + i);
      result.cluster[at] = nearest;
      result.distance[at] = row[nearest];
      inertia += row[nearest];
      const double* x = points.row(rows.first + i);
      double* to = sum.data() + nearest * d;
      for (std::int64_t j = 0; j < d; ++j) to[j] += x[j];
    }
    inertias[static_cast<std::size_t>(which)] = inertia;
  });
  result.sums.assign(static_cast<std::size_t>(k * d), 0.0);
  for (std::size_t b = 0; b < sums.size(); ++b) {
    result.inertia += inertias[b];
    for (std::size_t i = 0; i < result.sums.size(); ++i) result.sums[i] += sums[b][i];
  }
  result.counts.assign(static_cast<std::size_t>(k), 0);
  for (const std::int64_t cluster : result.cluster)
    ++result.counts[static_cast<std::size_t>(cluster)];
  return result;
}

// k-means++: each further centre is a point drawn with a probability proportional to its squared
// distance from those that are there.
Points first_centres(const Points& points, std::int64_t k, std::uint64_t seed, int restart) {
  const RandomKey key{.seed = seed,
                      .purpose = Purpose::resampling,
                      .stream = static_cast<std::uint16_t>(restart),
                      .step = 0};
  std::vector<double> values;
  std::vector<double> nearest(static_cast<std::size_t>(points.n),
                              std::numeric_limits<double>::infinity());
  const auto take = [&](std::int64_t row) {
    const double* x = points.row(row);
    values.insert(values.end(), x, x + points.d);
    std::vector<double> distance(static_cast<std::size_t>(points.n));
    squared_distances(points, 0, points.n, points, row, row + 1, distance.data());
    for (std::size_t i = 0; i < distance.size(); ++i)
      nearest[i] = std::min(nearest[i], distance[i]);
  };
  // u is in (0, 1]: the row where the running share of the total first reaches it.
  const auto uniform = [&](std::int64_t i) {
    return static_cast<double>(random_uniform(key, static_cast<std::uint64_t>(i)));
  };
  take(std::min(points.n - 1,
                static_cast<std::int64_t>(uniform(0) * static_cast<double>(points.n))));
  for (std::int64_t c = 1; c < k; ++c) {
    double total = 0;
    for (const double distance : nearest) total += distance;
    const double wanted = uniform(c) * total;
    double sum = 0;
    std::int64_t chosen = -1;
    for (std::int64_t i = 0; i < points.n; ++i) {
      const double distance = nearest[static_cast<std::size_t>(i)];
      if (!(distance > 0)) continue;
      sum += distance;
      chosen = i;
      if (sum >= wanted) break;
    }
    take(chosen < 0 ? c : chosen);  // fewer different points than centres
  }
  return centres_of(std::move(values), points.d);
}

}  // namespace

KMeans fit_kmeans(const Tensor& tensor, const KMeansOptions& options) {
  Points points(tensor, "points");
  const std::int64_t k = options.clusters;
  if (k < 1 || k > points.n) {
    throw Error(Status::usage, fmt::format("{} clusters of {} points", k, points.n), "k-means",
                fmt::format("choose from 1 to {}", points.n));
  }
  if (options.restarts < 1 || options.restarts > 1000 || options.iterations < 1) {
    throw Error(Status::usage, fmt::format("{} restarts", options.restarts), "k-means",
                "choose from 1 to 1000, of one iteration or more");
  }
  const std::vector<double> origin = points.mean();
  points.subtract(origin);
  double variance = 0;
  for (const double square : points.squares) variance += square;
  variance /= static_cast<double>(std::max<std::int64_t>(1, points.n * points.d));

  KMeans best;
  for (int restart = 0; restart < options.restarts; ++restart) {
    KMeans run;
    run.clusters = k;
    run.dimensions = points.d;
    Points centres = first_centres(points, k, options.seed, restart);
    Assignment assignment = assigned(points, centres, options.threads);
    while (!run.converged && run.iterations < options.iterations) {
      double moved = 0;
      for (std::int64_t c = 0; c < k; ++c) {
        const auto count = assignment.counts[static_cast<std::size_t>(c)];
        if (count == 0) continue;  // stays where it is
        for (std::int64_t j = 0; j < points.d; ++j) {
          const auto at = static_cast<std::size_t>(c * points.d + j);
          const double to = assignment.sums[at] / static_cast<double>(count);
          moved += (to - centres.values[at]) * (to - centres.values[at]);
          centres.values[at] = to;
        }
      }
      centres.update_squares();
      assignment = assigned(points, centres, options.threads);
      ++run.iterations;
      run.converged = moved <= options.tolerance * variance;
    }
    run.inertia = assignment.inertia;
    if (restart > 0 && !(run.inertia < best.inertia)) continue;
    run.centres = std::move(centres.values);
    best = std::move(run);
  }
  for (std::size_t i = 0; i < best.centres.size(); ++i)
    best.centres[i] += origin[i % origin.size()];
  return best;
}

std::vector<std::int64_t> KMeans::assign(const Tensor& tensor) const {
  const Points points(tensor, "points");
  require_same_width(dimensions, points.d);
  return assigned(points, centres_of(centres, dimensions), 1).cluster;
}

}  // namespace cuvae
