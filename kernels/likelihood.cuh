#pragma once
// The terms of the likelihoods and their derivatives, for their own kernels and for epilogues.

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

// A term of the negative log-likelihood in nats, and d(term)/d(logit or mean).
struct NllTerm {
  float nll;
  float grad;
};

struct ExactFunctions {
  __device__ static __forceinline__ float exp(float x) { return expf(x); }
  __device__ static __forceinline__ float log1p(float x) { return log1pf(x); }
  __device__ static __forceinline__ float divide(float a, float b) { return a / b; }
};
// For kernels with this on their critical path, in a quarter of the instructions: off by some 1e-7
// of the term and of the derivative each, absolutely.
struct FastFunctions {
  __device__ static __forceinline__ float exp(float x) { return device::fast_exp(x); }
  __device__ static __forceinline__ float log1p(float x) { return device::fast_log(1.0f + x); }
  __device__ static __forceinline__ float divide(float a, float b) {
    return device::fast_divide(a, b);
  }
};

// max(l, 0) - l x + log1p(e^-|l|) from the logit l; sigmoid(l) - x from the same exponential.
template <class Functions = ExactFunctions>
__device__ __forceinline__ NllTerm bernoulli_term(float l, float x) {
  const float e = Functions::exp(-fabsf(l));
  return {(l < 0.0f ? 0.0f : l) - l * x + Functions::log1p(e),
          Functions::divide(l < 0.0f ? e : 1.0f, 1.0f + e) - x};
}

// ((x - m) / sigma)^2 / 2; what does not depend on m is added once for each row.
__device__ __forceinline__ NllTerm gaussian_term(float m, float x, float inverse_sigma) {
  const float r = (x - m) * inverse_sigma;
  return {0.5f * (r * r), (m - x) * inverse_sigma * inverse_sigma};
}

}  // namespace CUVAE_KERNELS
