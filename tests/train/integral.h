#pragma once
// log p(x) of a model of one latent by the trapezoidal rule.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cuvae/dataset.h"
#include "cuvae/run.h"

namespace cuvae::test {

struct Integral {
  double half = 8.0;  // z from -half to half
  std::int64_t points = 4001;

  [[nodiscard]] double step() const { return 2 * half / static_cast<double>(points - 1); }
  [[nodiscard]] Tensor grid() const {  // [points, 1]
    Tensor z(DType::f32, Shape{points, 1});
    for (std::int64_t i = 0; i < points; ++i)
      z.as<float>()[static_cast<std::size_t>(i)] =
          static_cast<float>(-half + 2 * half * static_cast<double>(i) / (points - 1));
    return z;
  }
  // Of each row, log integral p(x|z) p(z) dz, of a Bernoulli likelihood of bytes / 255;
  // log_prior(z) is log p(z).
  template <class LogPrior>
  [[nodiscard]] std::vector<double> log_likelihood(LoadedRun& run, const DatasetSplit& split,
                                                   const LogPrior& log_prior) const {
    const Tensor z = grid();
    const Tensor decoded = run.decode(z);  // [points, D], probabilities
    const auto width = static_cast<std::size_t>(decoded.shape()[1]);
    const auto probability = decoded.as<float>();
    const auto pixels = split.images->as<std::uint8_t>();
    std::vector<double> prior;
    for (const float at : z.as<float>()) prior.push_back(log_prior(static_cast<double>(at)));
    std::vector<double> rows;
    for (std::size_t row = 0; row < static_cast<std::size_t>(split.size()); ++row) {
      std::vector<double> logs;
      for (std::size_t i = 0; i < prior.size(); ++i) {
        double log_joint = prior[i];
        for (std::size_t j = 0; j < width; ++j) {
          const double p = probability[i * width + j];
          const double x = pixels[row * width + j] / 255.0;
          log_joint += x * std::log(p) + (1 - x) * std::log1p(-p);
        }
        logs.push_back(log_joint);
      }
      const double largest = *std::ranges::max_element(logs);
      double sum = 0;
      for (const double log_joint : logs) sum += std::exp(log_joint - largest);
      rows.push_back(largest + std::log(sum * step()));
    }
    return rows;
  }
};

}  // namespace cuvae::test
