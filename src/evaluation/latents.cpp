#include <algorithm>
#include <cmath>
#include <functional>

#include "cuvae/error.h"
#include "cuvae/evaluation.h"
#include "evaluation/posterior.h"

namespace cuvae {

Posterior::Posterior(const Tensor& mean_of, const Tensor& logvar_of) {
  if (mean_of.shape().rank() != 2 || !(mean_of.shape() == logvar_of.shape())) {
    throw Error(Status::usage,
                "means of shape " + mean_of.shape().str() + " and log variances of shape " +
                    logvar_of.shape().str(),
                "posterior", "give two matrices [n, latent]");
  }
  n = mean_of.shape()[0];
  d = mean_of.shape()[1];
  const Tensor means = mean_of.to(DType::f64);
  const Tensor logvars = logvar_of.to(DType::f64);
  mean.assign(means.as<double>().begin(), means.as<double>().end());
  logvar.assign(logvars.as<double>().begin(), logvars.as<double>().end());
}

LatentStatistics latent_statistics(const Tensor& mean, const Tensor& logvar) {
  const bool points = logvar.elements() == 0 && mean.elements() > 0;
  const Posterior q(mean, points ? mean : logvar);
  LatentStatistics statistics;
  statistics.n = q.n;
  const auto d = static_cast<std::size_t>(q.d);
  statistics.kl.assign(d, 0.0);
  statistics.variance.assign(d, 0.0);
  if (q.n == 0) return statistics;
  const auto n = static_cast<double>(q.n);
  std::vector<double> centre(d, 0.0);
  std::int64_t beyond = 0;
  for (std::size_t i = 0; i < q.mean.size(); ++i) {
    const double m = q.mean[i];
    const double v = points ? 0 : q.logvar[i];
    // exp(v) - v - 1 without the cancellation near 0
    if (!points) statistics.kl[i % d] += 0.5 * (m * m + (std::expm1(v) - v));
    if (std::abs(v) > 10) ++beyond;
    centre[i % d] += m / n;
  }
  for (std::size_t i = 0; i < q.mean.size(); ++i) {
    const double off = q.mean[i] - centre[i % d];
    statistics.variance[i % d] += off * off;
  }
  if (!q.mean.empty())
    statistics.bounded = static_cast<double>(beyond) / static_cast<double>(q.mean.size());
  for (std::size_t j = 0; j < d; ++j) {
    statistics.kl[j] /= n;
    statistics.variance[j] /= n;
  }
  return statistics;
}

std::int64_t LatentStatistics::active() const {
  return std::ranges::count_if(variance, [](double v) { return v > active_threshold; });
}

std::int64_t LatentStatistics::carrying(double share) const {
  std::vector<double> sorted = kl;
  std::ranges::sort(sorted, std::greater<>());
  double total = 0;
  for (const double value : sorted) total += value;
  if (!(total > 0)) return 0;
  double sum = 0;
  std::int64_t count = 0;
  for (const double value : sorted) {
    sum += value;
    ++count;
    if (sum >= share * total) break;
  }
  return count;
}

}  // namespace cuvae
