#pragma once
// The reparameterised sample, for its own kernels and for epilogues.

#include "kernels/random.cuh"
#include "ops/sample.h"

namespace CUVAE_KERNELS {

inline Draws prepare_draws(const CudaNode& node, std::int64_t d) {
  return {.purpose = purpose_of(node.attrs()),
          .stream = static_cast<std::uint16_t>(node.attrs().integer("stream")),
          .d = d};
}

// z = mean + eps exp(logvar / 2)
__device__ __forceinline__ float reparameterise(float mean, float logvar, float eps) {
  return fmaf(eps, expf(0.5f * logvar), mean);
}
// What it passes on to logvar.
__device__ __forceinline__ float sample_dlogvar(float dz, float eps, float logvar) {
  return dz * (eps * (0.5f * expf(0.5f * logvar)));
}

}  // namespace CUVAE_KERNELS
