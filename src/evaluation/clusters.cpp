#include <algorithm>
#include <cmath>
#include <limits>

#include "cuvae/error.h"
#include "cuvae/probe.h"
#include "evaluation/labels.h"

namespace cuvae {
namespace {

// How often each pair occurs, [distinct a, distinct b].
struct Table {
  std::vector<std::int64_t> a;
  std::vector<std::int64_t> b;
  std::vector<double> counts;

  Table(std::span<const std::int64_t> of_a, std::span<const std::int64_t> of_b)
      : a(distinct(of_a)), b(distinct(of_b)), counts(a.size() * b.size(), 0.0) {
    const auto rows = numbered(of_a, a);
    const auto columns = numbered(of_b, b);
    for (std::size_t i = 0; i < rows.size(); ++i)
      ++counts[static_cast<std::size_t>(rows[i]) * b.size() + static_cast<std::size_t>(columns[i])];
  }
};

void require_same_size(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  if (a.size() != b.size()) {
    throw Error(Status::usage, "labellings of different numbers of rows", "labels",
                "give one label for each row");
  }
}

// The column of each row of a square matrix of costs, one to one, of the least sum: the Hungarian
// method with potentials (Kuhn 1955, Munkres 1957), O(n^3).
std::vector<std::size_t> assignment(const std::vector<double>& cost, std::size_t n) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  // Row and column 0 are outside: what is not assigned yet.
  std::vector<double> row_potential(n + 1, 0.0);
  std::vector<double> column_potential(n + 1, 0.0);
  std::vector<std::size_t> row_of(n + 1, 0);
  for (std::size_t row = 1; row <= n; ++row) {
    row_of[0] = row;
    std::size_t column = 0;
    std::vector<double> least(n + 1, infinity);
    std::vector<std::size_t> before(n + 1, 0);
    std::vector<bool> used(n + 1, false);
    while (row_of[column] != 0) {
      used[column] = true;
      const std::size_t at = row_of[column];
      double step = infinity;
      std::size_t next = 0;
      for (std::size_t j = 1; j <= n; ++j) {
        if (used[j]) continue;
        const double reduced =
            cost[(at - 1) * n + (j - 1)] - row_potential[at] - column_potential[j];
        if (reduced < least[j]) {
          least[j] = reduced;
          before[j] = column;
        }
        if (least[j] < step) {
          step = least[j];
          next = j;
        }
      }
      for (std::size_t j = 0; j <= n; ++j) {
        if (used[j]) {
          row_potential[row_of[j]] += step;
          column_potential[j] -= step;
        } else {
          least[j] -= step;
        }
      }
      column = next;
    }
    while (column != 0) {
      row_of[column] = row_of[before[column]];
      column = before[column];
    }
  }
  std::vector<std::size_t> column_of(n);
  for (std::size_t j = 1; j <= n; ++j) column_of[row_of[j] - 1] = j - 1;
  return column_of;
}

double entropy(const std::vector<double>& counts, double n) {
  double sum = 0;
  for (const double count : counts)
    if (count > 0) sum -= count / n * std::log(count / n);
  return sum;
}

}  // namespace

std::vector<std::int64_t> best_mapping(std::span<const std::int64_t> clusters,
                                       std::span<const std::int64_t> labels) {
  require_same_size(clusters, labels);
  if (clusters.empty()) return {};
  if (*std::ranges::min_element(clusters) < 0) {
    throw Error(Status::usage, "a cluster below 0", "clusters", "number them from 0");
  }
  const Table table(clusters, labels);
  const std::size_t n = std::max(table.a.size(), table.b.size());
  std::vector<double> cost(n * n, 0.0);
  for (std::size_t i = 0; i < table.a.size(); ++i)
    for (std::size_t j = 0; j < table.b.size(); ++j)
      cost[i * n + j] = -table.counts[i * table.b.size() + j];
  const std::vector<std::size_t> column = assignment(cost, n);
  std::vector<std::int64_t> mapping(static_cast<std::size_t>(table.a.back()) + 1, -1);
  for (std::size_t i = 0; i < table.a.size(); ++i) {
    if (column[i] < table.b.size())
      mapping[static_cast<std::size_t>(table.a[i])] = table.b[column[i]];
  }
  return mapping;
}

double normalised_mutual_information(std::span<const std::int64_t> a,
                                     std::span<const std::int64_t> b) {
  require_same_size(a, b);
  if (a.empty()) return 1;
  const Table table(a, b);
  const auto n = static_cast<double>(a.size());
  std::vector<double> of_a(table.a.size(), 0.0);
  std::vector<double> of_b(table.b.size(), 0.0);
  for (std::size_t i = 0; i < table.counts.size(); ++i) {
    of_a[i / of_b.size()] += table.counts[i];
    of_b[i % of_b.size()] += table.counts[i];
  }
  const double both = entropy(of_a, n) + entropy(of_b, n);
  if (both == 0) return 1;
  const double information = both - entropy(table.counts, n);
  return std::clamp(2 * information / both, 0.0, 1.0);
}

double agreement(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  require_same_size(a, b);
  if (a.empty()) return 0;
  std::int64_t right = 0;
  for (std::size_t i = 0; i < a.size(); ++i) right += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(right) / static_cast<double>(a.size());
}

}  // namespace cuvae
