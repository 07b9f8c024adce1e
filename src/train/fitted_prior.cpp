#include "cuvae/fitted_prior.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>

#include "base/text.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"

namespace cuvae {
namespace {

using Rows = std::span<const double>;  // [n, d]

std::size_t checked_width(const Tensor& latents) {
  if (latents.shape().rank() != 2 || latents.shape()[0] < 2 || latents.shape()[1] < 1)
    throw Error(Status::usage, "latents of shape " + latents.shape().str() + " to fit a prior to",
                "--fit-prior", "use data of at least two rows");
  for (const float value : latents.as<float>())
    if (!std::isfinite(value))
      throw Error(Status::diverged, "latents that are not finite", "--fit-prior",
                  "train again with a lower train.lr");
  return static_cast<std::size_t>(latents.shape()[1]);
}

// The lower factor of a symmetric matrix; a pivot below `least` is lifted to it.
std::vector<double> cholesky(std::vector<double> a, std::size_t d, double least) {
  for (std::size_t j = 0; j < d; ++j) {
    double pivot = a[j * d + j];
    for (std::size_t k = 0; k < j; ++k) pivot -= a[j * d + k] * a[j * d + k];
    const double root = std::sqrt(std::max(pivot, least));
    a[j * d + j] = root;
    for (std::size_t i = j + 1; i < d; ++i) {
      double sum = a[i * d + j];
      for (std::size_t k = 0; k < j; ++k) sum -= a[i * d + k] * a[j * d + k];
      a[i * d + j] = sum / root;
    }
    for (std::size_t k = j + 1; k < d; ++k) a[j * d + k] = 0;
  }
  return a;
}

// log w + log N(row; mean, L L'); `scratch` has d elements.
double log_density(const FittedPrior::Component& c, const double* row,
                   std::vector<double>& scratch) {
  const std::size_t d = c.mean.size();
  double squares = 0;
  double determinant = 0;
  for (std::size_t i = 0; i < d; ++i) {
    double sum = row[i] - c.mean[i];
    const double* l = c.factor.data() + i * d;
    for (std::size_t k = 0; k < i; ++k) sum -= l[k] * scratch[k];
    scratch[i] = sum / l[i];
    squares += scratch[i] * scratch[i];
    determinant += std::log(l[i]);
  }
  return std::log(c.weight) - 0.5 * squares - determinant -
         0.5 * static_cast<double>(d) * std::log(2 * std::numbers::pi);
}

// The component of these responsibilities (one for each row).
FittedPrior::Component moments(Rows rows, std::size_t d, std::span<const double> shares,
                               double ridge) {
  const std::size_t n = rows.size() / d;
  FittedPrior::Component c;
  c.mean.assign(d, 0.0);
  double total = 0;
  for (std::size_t r = 0; r < n; ++r) {
    total += shares[r];
    for (std::size_t i = 0; i < d; ++i) c.mean[i] += shares[r] * rows[r * d + i];
  }
  for (double& mean : c.mean) mean /= total;
  c.weight = total / static_cast<double>(n);
  std::vector<double> covariance(d * d, 0.0);
  std::vector<double> away(d);
  for (std::size_t r = 0; r < n; ++r) {
    if (shares[r] < 1e-12) continue;
    for (std::size_t i = 0; i < d; ++i) away[i] = rows[r * d + i] - c.mean[i];
    for (std::size_t i = 0; i < d; ++i) {
      const double weighted = shares[r] * away[i];
      for (std::size_t k = 0; k <= i; ++k) covariance[i * d + k] += weighted * away[k];
    }
  }
  for (double& value : covariance) value /= total;
  for (std::size_t i = 0; i < d; ++i) covariance[i * d + i] += ridge;
  c.factor = cholesky(std::move(covariance), d, ridge);
  return c;
}

// 1e-6 of the average variance of a latent.
double ridge_of(Rows rows, std::size_t d) {
  const std::size_t n = rows.size() / d;
  double variance = 0;
  for (std::size_t i = 0; i < d; ++i) {
    double sum = 0;
    double squares = 0;
    for (std::size_t r = 0; r < n; ++r) sum += rows[r * d + i];
    const double mean = sum / static_cast<double>(n);
    for (std::size_t r = 0; r < n; ++r)
      squares += (rows[r * d + i] - mean) * (rows[r * d + i] - mean);
    variance += squares / static_cast<double>(n * d);
  }
  return std::max(1e-6 * variance, 1e-12);
}

// k-means++: each centre by the squared distance to the nearest so far.
std::vector<std::size_t> centres(Rows rows, std::size_t d, std::size_t count, std::uint64_t seed) {
  const std::size_t n = rows.size() / d;
  const RandomKey key{.seed = seed, .purpose = Purpose::generation, .stream = 2, .step = 0};
  std::vector<double> nearest(n, std::numeric_limits<double>::infinity());
  std::vector<std::size_t> chosen = {
      static_cast<std::size_t>(static_cast<double>(random_uniform(key, 0)) *
                               static_cast<double>(n)) %
      n};
  while (chosen.size() < count) {
    const double* last = rows.data() + chosen.back() * d;
    double total = 0;
    for (std::size_t r = 0; r < n; ++r) {
      double distance = 0;
      for (std::size_t i = 0; i < d; ++i)
        distance += (rows[r * d + i] - last[i]) * (rows[r * d + i] - last[i]);
      nearest[r] = std::min(nearest[r], distance);
      total += nearest[r];
    }
    double left = static_cast<double>(random_uniform(key, chosen.size())) * total;
    std::size_t next = n - 1;
    for (std::size_t r = 0; r < n; ++r) {
      left -= nearest[r];
      if (left <= 0) {
        next = r;
        break;
      }
    }
    chosen.push_back(next);
  }
  return chosen;
}

}  // namespace

FittedPrior FittedPrior::gaussian(const Tensor& latents) {
  const std::size_t d = checked_width(latents);
  const Tensor wide = latents.to(DType::f64);
  const Rows rows = wide.as<double>();
  FittedPrior prior;
  prior.components_.push_back(
      moments(rows, d, std::vector<double>(rows.size() / d, 1.0), ridge_of(rows, d)));
  return prior;
}

FittedPrior FittedPrior::gmm(const Tensor& latents, int components, std::uint64_t seed) {
  const std::size_t d = checked_width(latents);
  const auto count = static_cast<std::size_t>(components);
  if (components < 1 || 2 * static_cast<std::int64_t>(components) > latents.shape()[0])
    throw Error(
        Status::usage,
        fmt::format("{} components for {} rows", components, format_count(latents.shape()[0])),
        "--components", "give at least 1, and at most half the rows");
  const Tensor wide = latents.to(DType::f64);
  const Rows rows = wide.as<double>();
  const std::size_t n = rows.size() / d;
  const double ridge = ridge_of(rows, d);

  // From hard shares of the nearest centre.
  const std::vector<std::size_t> first = centres(rows, d, count, seed);
  std::vector<std::vector<double>> shares(count, std::vector<double>(n, 0.0));
  for (std::size_t r = 0; r < n; ++r) {
    std::size_t best = 0;
    double nearest = std::numeric_limits<double>::infinity();
    for (std::size_t c = 0; c < count; ++c) {
      double distance = 0;
      for (std::size_t i = 0; i < d; ++i) {
        const double away = rows[r * d + i] - rows[first[c] * d + i];
        distance += away * away;
      }
      if (distance < nearest) {
        nearest = distance;
        best = c;
      }
    }
    shares[best][r] = 1;
  }

  FittedPrior prior;
  std::vector<double> scratch(d);
  std::vector<double> densities(count);
  double before = -std::numeric_limits<double>::infinity();
  for (int round = 0; round < 200; ++round) {
    std::vector<Component> fitted;
    for (std::size_t c = 0; c < count; ++c) {
      double total = 0;
      for (const double share : shares[c]) total += share;
      if (total > 1e-6) fitted.push_back(moments(rows, d, shares[c], ridge));  // else it has died
    }
    prior.components_ = std::move(fitted);
    double mean = 0;
    for (std::size_t r = 0; r < n; ++r) {
      double largest = -std::numeric_limits<double>::infinity();
      for (std::size_t c = 0; c < prior.components_.size(); ++c) {
        densities[c] = log_density(prior.components_[c], rows.data() + r * d, scratch);
        largest = std::max(largest, densities[c]);
      }
      double sum = 0;
      for (std::size_t c = 0; c < prior.components_.size(); ++c)
        sum += std::exp(densities[c] - largest);
      for (std::size_t c = 0; c < count; ++c)
        shares[c][r] = c < prior.components_.size() ? std::exp(densities[c] - largest) / sum : 0.0;
      mean += (largest + std::log(sum)) / static_cast<double>(n);
    }
    if (mean - before < 1e-5) break;
    before = mean;
  }
  return prior;
}

std::int64_t FittedPrior::latent() const {
  return static_cast<std::int64_t>(components_.front().mean.size());
}

double FittedPrior::log_likelihood(const Tensor& latents) const {
  const std::size_t d = checked_width(latents);
  const Tensor wide = latents.to(DType::f64);
  const Rows rows = wide.as<double>();
  const std::size_t n = rows.size() / d;
  std::vector<double> scratch(d);
  double mean = 0;
  for (std::size_t r = 0; r < n; ++r) {
    double largest = -std::numeric_limits<double>::infinity();
    double sum = 0;
    for (const Component& c : components_) {
      const double density = log_density(c, rows.data() + r * d, scratch);
      if (density > largest) {
        sum = sum * std::exp(largest - density) + 1;
        largest = density;
      } else {
        sum += std::exp(density - largest);
      }
    }
    mean += (largest + std::log(sum)) / static_cast<double>(n);
  }
  return mean;
}

Tensor FittedPrior::draw(std::int64_t count, std::uint64_t seed) const {
  const std::int64_t d = latent();
  Tensor latents(DType::f32, Shape{count, d});
  const RandomKey normals{.seed = seed, .purpose = Purpose::generation, .stream = 0, .step = 0};
  const RandomKey choices{.seed = seed, .purpose = Purpose::generation, .stream = 1, .step = 0};
  const auto out = latents.as<float>();
  std::vector<double> noise(static_cast<std::size_t>(d));
  for (std::int64_t r = 0; r < count; ++r) {
    double left = static_cast<double>(random_uniform(choices, static_cast<std::uint64_t>(r)));
    const Component* chosen = &components_.back();
    for (const Component& c : components_) {
      left -= c.weight;
      if (left <= 0) {
        chosen = &c;
        break;
      }
    }
    for (std::int64_t i = 0; i < d; ++i)
      noise[static_cast<std::size_t>(i)] =
          static_cast<double>(random_normal(normals, static_cast<std::uint64_t>(r * d + i)));
    for (std::size_t i = 0; i < noise.size(); ++i) {
      double z = chosen->mean[i];
      for (std::size_t k = 0; k <= i; ++k) z += chosen->factor[i * noise.size() + k] * noise[k];
      out[static_cast<std::size_t>(r) * noise.size() + i] = static_cast<float>(z);
    }
  }
  return latents;
}

}  // namespace cuvae
