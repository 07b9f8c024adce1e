#pragma once
// The KL divergence of N(mean, exp(logvar)) from N(0, 1), per latent, in nats.

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

// (mean^2 + exp(logvar) - logvar - 1) / 2, without cancellation at logvar = 0.
__device__ __forceinline__ float gaussian_kl_term(float mean, float logvar) {
  return 0.5f * (mean * mean + (expm1f(logvar) - logvar));
}

// Its derivatives, times that of the row's KL.
__device__ __forceinline__ float gaussian_kl_dmean(float dkl, float mean) {
  return dkl * mean;
}
__device__ __forceinline__ float gaussian_kl_dlogvar(float dkl, float logvar) {
  return dkl * (0.5f * expm1f(logvar));
}

}  // namespace CUVAE_KERNELS
