#pragma once
// Terms of objectives: gaussian_kl_elements, floor and capacity_gap.
//
// How a model uses them:
//   free bits (Kingma et al. 2016, "Improving variational inference with inverse autoregressive
//   flow", appendix C.8), sum_j max(lambda, mean over the batch of KL_j):
//     kl [B, d] = gaussian_kl_elements(mean, logvar)
//     kl_j [d]  = reduce(kl; rows, mean)
//     loss      = reduce(floor(kl_j; level = lambda); all, sum)
//   capacity (Burgess et al. 2018, "Understanding disentangling in beta-VAE"), gamma |KL -
//   C(step)|:
//     scale(capacity_gap(mean KL, hyper; slot); factor = gamma)
//   with C in a column of `hyper` [steps, columns], a row for each unrolled step.
// What is not a number stays so, and is seen: NaN is not lifted to the level.

#include "ops/rules.h"

namespace cuvae {

double level_of(const Attrs& attrs);  // finite; throws Error(usage)

}  // namespace cuvae
