#pragma once
// The KL divergence of N(mean, exp(logvar)) from N(0, 1), per latent, in nats.

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

// (mean^2 + exp(logvar) - logvar - 1) / 2, without cancellation at logvar = 0.
__device__ __forceinline__ float gaussian_kl_term(float mean, float logvar) {
  return 0.5f * (mean * mean + (expm1f(logvar) - logvar));
}

}  // namespace CUVAE_KERNELS
