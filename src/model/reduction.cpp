#include "cuvae/model.h"

namespace cuvae {

ReductionFactors reduction_factors(const ObjectiveConfig& objective, std::int64_t features,
                                   std::int64_t latent) {
  ReductionFactors factors;
  const auto pixels = static_cast<double>(features);
  if (objective.pixel_reduction == "mean") factors.reconstruction = 1 / pixels;
  if (objective.pixel_reduction == "mse") factors.reconstruction = 2 / pixels;
  if (objective.latent_reduction == "mean") factors.kl = 1 / static_cast<double>(latent);
  return factors;
}

double effective_beta(const ObjectiveConfig& objective, std::int64_t features,
                      std::int64_t latent) {
  const ReductionFactors factors = reduction_factors(objective, features, latent);
  return objective.beta * factors.kl / factors.reconstruction;
}

}  // namespace cuvae
