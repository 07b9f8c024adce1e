#pragma once
// A density fitted to latents after training, from which an autoencoder, which has no prior, can be
// sampled; of a VAE it takes the place of the prior.

#include <cstdint>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

// A mixture of normals with full covariances, in double: weights w_c, means [d], and lower Cholesky
// factors L_c [d, d] of the covariances.
class FittedPrior {
 public:
  struct Component {
    double weight = 1;
    std::vector<double> mean;
    std::vector<double> factor;  // row-major
  };

  // The maximum likelihood of one normal: mean and covariance (divided by n), whose diagonal gets
  // 1e-6 of its average variance added, so that constant latents do no harm. latents: f32 [n, d].
  // Throws Error(usage) for n < 2, Error(diverged) for latents that are not finite.
  static FittedPrior gaussian(const Tensor& latents);
  // Expectation-maximisation from centres that k-means++ draws by `seed`, until the mean log
  // likelihood of a row gains less than 1e-5, or 200 rounds. The same bits for the same input.
  // Error(usage) for components < 1 or more than half the rows.
  static FittedPrior gmm(const Tensor& latents, int components, std::uint64_t seed);

  [[nodiscard]] const std::vector<Component>& components() const { return components_; }
  [[nodiscard]] std::int64_t latent() const;
  // Mean of log p over the rows, nats.
  [[nodiscard]] double log_likelihood(const Tensor& latents) const;
  // f32 [count, d]: components and normals by the generator's counters, purpose generation, streams
  // 1 and 0.
  [[nodiscard]] Tensor draw(std::int64_t count, std::uint64_t seed) const;

 private:
  std::vector<Component> components_;
};

}  // namespace cuvae
