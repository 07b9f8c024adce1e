#pragma once
// Medians and spreads of repeated measurements.

#include <vector>

namespace cuvae {

// By linear interpolation between order statistics; 0 for no samples.
[[nodiscard]] double quantile(std::vector<double> samples, double q);
[[nodiscard]] inline double median(const std::vector<double>& samples) {
  return quantile(samples, 0.5);
}
// Interquartile range.
[[nodiscard]] inline double spread(const std::vector<double>& samples) {
  return quantile(samples, 0.75) - quantile(samples, 0.25);
}

}  // namespace cuvae
