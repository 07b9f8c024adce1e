#include <algorithm>
#include <cmath>

#include "cuvae/evaluation.h"

namespace cuvae {

void ImportanceSum::add(double log_weight) noexcept {
  ++count_;
  if (log_weight > largest_) {
    const double shrink = std::exp(largest_ - log_weight);
    sum_ = sum_ * shrink + 1.0;
    squares_ = squares_ * shrink * shrink + 1.0;
    largest_ = log_weight;
  } else {
    const double weight = std::exp(log_weight - largest_);
    sum_ += weight;
    squares_ += weight * weight;
  }
}

double ImportanceSum::log_mean() const noexcept {
  return largest_ + std::log(sum_ / static_cast<double>(count_));
}

double ImportanceSum::effective_samples() const noexcept {
  return sum_ * sum_ / squares_;
}

RowSummary summarise(std::span<const double> rows) {
  RowSummary summary;
  summary.n = static_cast<std::int64_t>(rows.size());
  if (rows.empty()) return summary;
  const auto n = static_cast<double>(rows.size());
  for (const double row : rows) summary.mean += row;
  summary.mean /= n;
  double squares = 0;
  for (const double row : rows) squares += (row - summary.mean) * (row - summary.mean);
  if (rows.size() > 1) summary.std_error = std::sqrt(squares / (n - 1) / n);
  std::vector<double> sorted(rows.begin(), rows.end());
  std::ranges::sort(sorted);
  const auto quantile = [&](double q) {
    return sorted[static_cast<std::size_t>(std::floor(q * (n - 1)))];
  };
  summary.minimum = sorted.front();
  summary.tenth = quantile(0.1);
  summary.median = quantile(0.5);
  return summary;
}

}  // namespace cuvae
