#include "bench/statistics.h"

#include <algorithm>
#include <cmath>

namespace cuvae {

double quantile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0;
  std::ranges::sort(samples);
  const double at = q * static_cast<double>(samples.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const std::size_t high = std::min(low + 1, samples.size() - 1);
  const double part = at - std::floor(at);
  return samples[low] + part * (samples[high] - samples[low]);
}

}  // namespace cuvae
