#pragma once
// The terms of the likelihoods and their derivatives, for their own kernels and for epilogues.

#include "kernels/launch.cuh"
#include "kernels/storage.cuh"

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

// A row's -log p(x|z), and its derivative where dnll is given. Written over the logits it may be.
struct RowNll {
  std::int64_t d;
  bool bernoulli;
  float inverse_sigma;
  float constant;  // of a row
  const float* logits;
  const float* target;
  const float* dnll;  // [B]
  float* nll;         // [B]
  RealsOut dlogits;
  __device__ float term(std::int64_t b, std::int64_t j) const {
    const std::int64_t at = b * d + j;
    const NllTerm term = bernoulli ? bernoulli_term(logits[at], target[at])
                                   : gaussian_term(logits[at], target[at], inverse_sigma);
    if (dnll != nullptr) dlogits.set(at, dnll[b] * term.grad);
    return term.nll;
  }
  __device__ void finish(std::int64_t b, float sum) const { nll[b] = constant + sum; }
};

// Its derivative alone.
struct RowNllGrad {
  std::int64_t d;
  bool bernoulli;
  float inverse_sigma;
  const float* dnll;
  const float* logits;
  const float* target;
  float* dlogits;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * d + j;
    const NllTerm term = bernoulli ? bernoulli_term(logits[i], target[i])
                                   : gaussian_term(logits[i], target[i], inverse_sigma);
    dlogits[i] = dnll[b] * term.grad;
  }
};

}  // namespace CUVAE_KERNELS
