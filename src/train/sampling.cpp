#include "cuvae/sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/alias_table.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"

namespace cuvae {
namespace {

[[noreturn]] void refuse(const std::string& what, const char* mend) {
  throw Error(Status::usage, what, "data", mend);
}

// Positions [begin, end) of an order of n rows against the rest.
template <class Order>
RowSplit cut(std::int64_t n, std::int64_t begin, std::int64_t end, const Order& order) {
  RowSplit split;
  for (std::int64_t position = 0; position < n; ++position)
    (position >= begin && position < end ? split.validation : split.train)
        .push_back(order(position));
  std::ranges::sort(split.train);
  std::ranges::sort(split.validation);
  return split;
}

constexpr std::uint64_t split_epoch = std::numeric_limits<std::uint64_t>::max();

void require_rows(std::int64_t n, std::int64_t held) {
  if (n < 0 || held < 0 || held > n)
    refuse(fmt::format("{} of {} rows for validation", held, n), "hold out no more than there are");
}

}  // namespace

std::int64_t validation_rows(std::int64_t n, double fraction) {
  if (!(fraction >= 0 && fraction < 1))
    refuse(fmt::format("validation = {}", fraction), "give a fraction in [0, 1)");
  if (fraction == 0 || n < 2) return 0;
  const auto rows = static_cast<std::int64_t>(std::llround(static_cast<double>(n) * fraction));
  return std::clamp<std::int64_t>(rows, 1, n - 1);
}

RowSplit split_shuffled(std::uint64_t seed, std::int64_t n, std::int64_t held) {
  require_rows(n, held);
  return cut(n, 0, held, Shuffle(seed, split_epoch, n));
}

RowSplit split_last(std::int64_t n, std::int64_t held) {
  require_rows(n, held);
  return cut(n, n - held, n, [](std::int64_t position) { return position; });
}

RowSplit split_fold(std::uint64_t seed, std::int64_t n, std::int64_t folds, std::int64_t fold) {
  if (folds < 2 || folds > n)
    refuse(fmt::format("{} folds of {} rows", folds, n), "give from two folds to a fold a row");
  if (fold < 0 || fold >= folds)
    refuse(fmt::format("fold {} of {}", fold, folds), "folds count from 0");
  const std::int64_t size = n / folds, more = n % folds;
  const std::int64_t begin = fold * size + std::min(fold, more);
  return cut(n, begin, begin + size + (fold < more ? 1 : 0), Shuffle(seed, split_epoch, n));
}

std::vector<std::int64_t> labelled_rows(std::uint64_t seed, std::span<const std::int64_t> labels,
                                        std::int64_t classes, std::int64_t count) {
  if (classes < 1 || count < 0 || count % classes != 0)
    refuse(fmt::format("{} labelled rows of {} classes", count, classes),
           "give a multiple of the number of classes");
  const auto n = static_cast<std::int64_t>(labels.size());
  const std::int64_t each = count / classes;
  const Shuffle shuffle(seed, split_epoch - 1, n);
  std::vector<std::int64_t> missing(static_cast<std::size_t>(classes), each);
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < n && std::ssize(rows) < count; ++i) {
    const std::int64_t row = shuffle(i);
    const std::int64_t label = labels[static_cast<std::size_t>(row)];
    if (label < 0 || label >= classes || missing[static_cast<std::size_t>(label)] == 0) continue;
    --missing[static_cast<std::size_t>(label)];
    rows.push_back(row);
  }
  for (std::size_t label = 0; label < missing.size(); ++label)
    if (missing[label] > 0)
      refuse(fmt::format("{} labelled rows of each class, and {} of class {}", each,
                         each - missing[label], label),
             "label fewer rows");
  std::ranges::sort(rows);
  return rows;
}

WeightedDraws::WeightedDraws(std::uint64_t seed, std::span<const double> weights) : seed_(seed) {
  if (weights.size() > static_cast<std::size_t>(most_alias_rows))
    refuse(fmt::format("weights of {} rows", weights.size()), "give those of less than 2^32");
  double largest = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] >= 0 && std::isfinite(weights[i])))
      refuse(fmt::format("the weight of row {} is {}", i, weights[i]),
             "weights are finite and not negative");
    largest = std::max(largest, weights[i]);
  }
  if (!(largest > 0)) refuse("no row has a weight above zero", "give one of them one");
  // Divided by the largest first, so that the sum stays finite and above zero.
  double sum = 0;
  for (const double weight : weights) sum += weight / largest;
  const std::size_t n = weights.size();
  const double scale = static_cast<double>(n) / sum;
  other_.resize(n);
  std::iota(other_.begin(), other_.end(), 0);
  std::vector<double> keep(n);
  std::vector<std::size_t> small, large;
  for (std::size_t i = 0; i < n; ++i) {
    keep[i] = weights[i] / largest * scale;
    (keep[i] < 1 ? small : large).push_back(i);
  }
  while (!small.empty() && !large.empty()) {
    const std::size_t low = small.back(), high = large.back();
    small.pop_back();
    other_[low] = static_cast<std::int64_t>(high);
    keep[high] -= 1 - keep[low];
    if (keep[high] < 1) {
      large.pop_back();
      small.push_back(high);
    }
  }
  // Rounding leaves some of either; a row without weight is never its own column's.
  for (const std::size_t i : large) keep[i] = 1;
  const auto heaviest = std::ranges::max_element(weights) - weights.begin();
  for (const std::size_t i : small) {
    if (weights[i] > 0)
      keep[i] = 1;
    else
      other_[i] = heaviest;
  }
  // k 2^-53 < p is the same as k < ceil(p 2^53).
  keep_.resize(n);
  for (std::size_t i = 0; i < n; ++i)
    keep_[i] = static_cast<std::int64_t>(std::ceil(std::ldexp(keep[i], alias_keep_bits)));
}

std::int64_t WeightedDraws::operator()(std::uint64_t epoch, std::int64_t position) const {
  const PhiloxWords words =
      random_words({seed_, Purpose::resampling, 0, epoch}, static_cast<std::uint64_t>(position));
  return alias_row(words[0], words[1], words[2], words[3], rows(), keep_.data(), other_.data());
}

std::vector<double> balanced_weights(std::span<const std::int64_t> labels) {
  std::map<std::int64_t, std::int64_t> rows;
  for (const std::int64_t label : labels) ++rows[label];
  std::vector<double> weights;
  weights.reserve(labels.size());
  for (const std::int64_t label : labels)
    weights.push_back(1 / static_cast<double>(rows.at(label)));
  return weights;
}

}  // namespace cuvae
