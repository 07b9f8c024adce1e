#pragma once
// What comes back through the sample and the KL term to the encoder's heads, one latent at a time:
// for its own kernel, for epilogues, and for kernels that hold several layers.

#include "kernels/activation.cuh"
#include "kernels/gaussian_kl.cuh"
#include "kernels/sample.cuh"

namespace CUVAE_KERNELS {

// The derivatives by the heads, before the bound of logvar.
struct HeadsGrad {
  float dmean;
  float draw;
};

// dz: the loss's derivative by z; dkl: by the row's KL.
__device__ __forceinline__ HeadsGrad heads_grad(float dz, float dkl, float mean, float logvar,
                                                float eps) {
  const float dlogvar = gaussian_kl_dlogvar(dkl, logvar) + sample_dlogvar(dz, eps, logvar);
  return {gaussian_kl_dmean(dkl, mean) + dz, bound_logvar_grad(dlogvar, logvar)};
}

}  // namespace CUVAE_KERNELS
