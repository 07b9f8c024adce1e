#pragma once
// The activation functions and their derivatives, as src/ops/activation.h defines them.

#include "kernels/launch.cuh"
#include "ops/activation.h"

namespace CUVAE_KERNELS {

// Without a kind: the identity, whose derivative is 1.
struct DeviceActivation {
  int kind = -1;
  float alpha = 0;
};

inline DeviceActivation device_activation(const Activation& f) {
  return {static_cast<int>(f.kind), static_cast<float>(f.alpha)};
}

// 1 / (1 + e^-x) without overflow.
__device__ __forceinline__ float sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

// x on [-10, 10], else sign(x) (10 + 10 tanh((|x| - 10) / 10)); NaN stays.
__device__ __forceinline__ float bound_logvar(float x) {
  const float a = fabsf(x);
  return a > 10.0f ? copysignf(10.0f + 10.0f * tanhf((a - 10.0f) / 10.0f), x) : x;
}

// Its derivative at the bounded value, times dy.
__device__ __forceinline__ float bound_logvar_grad(float dy, float bounded) {
  const float t = (fabsf(bounded) - 10.0f) / 10.0f;
  return fabsf(bounded) > 10.0f ? dy * (1.0f - t * t) : dy;
}

__device__ __forceinline__ float activate(DeviceActivation f, float x) {
  switch (static_cast<ActivationKind>(f.kind)) {
    case ActivationKind::relu: return x < 0.0f ? 0.0f : x;
    case ActivationKind::leaky_relu: return x < 0.0f ? f.alpha * x : x;
    case ActivationKind::elu: return x < 0.0f ? f.alpha * expm1f(x) : x;
    case ActivationKind::gelu: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case ActivationKind::silu: return x * sigmoid(x);
    case ActivationKind::tanh: return tanhf(x);
    case ActivationKind::sigmoid: return sigmoid(x);
    case ActivationKind::softplus: return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x)));
    case ActivationKind::bound_logvar: return bound_logvar(x);
  }
  return x;
}

// Of several numbers, with one decision for all of them where it is the usual one.
template <int count>
__device__ __forceinline__ void activate_each(DeviceActivation f, float (&x)[count]) {
  if (f.kind == static_cast<int>(ActivationKind::relu)) {
#pragma unroll
    for (int i = 0; i < count; ++i) x[i] = x[i] < 0.0f ? 0.0f : x[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < count; ++i) x[i] = activate(f, x[i]);
}

// dy times the derivative at `saved`: the output, or for gelu and silu the input.
__device__ __forceinline__ float activate_grad(DeviceActivation f, float dy, float saved) {
  switch (static_cast<ActivationKind>(f.kind)) {
    case ActivationKind::relu: return saved > 0.0f ? dy : 0.0f;
    case ActivationKind::leaky_relu: return saved > 0.0f ? dy : f.alpha * dy;
    case ActivationKind::elu: return saved > 0.0f ? dy : dy * (saved + f.alpha);
    case ActivationKind::gelu: {
      const float cdf = 0.5f * (1.0f + erff(saved * 0.70710678f));
      const float pdf = 0.39894228f * expf(-0.5f * saved * saved);
      return dy * fmaf(saved, pdf, cdf);
    }
    case ActivationKind::silu: {
      const float s = sigmoid(saved);
      return dy * (s * (1.0f + saved * (1.0f - s)));
    }
    case ActivationKind::tanh: return dy * (1.0f - saved * saved);
    case ActivationKind::sigmoid: return dy * (saved * (1.0f - saved));
    case ActivationKind::softplus: return dy * -expm1f(-saved);
    case ActivationKind::bound_logvar: return bound_logvar_grad(dy, saved);
  }
  return dy;
}

// Of several numbers.
template <int count>
__device__ __forceinline__ void activate_grad_each(DeviceActivation f, float (&dy)[count],
                                                   const float (&saved)[count]) {
  if (f.kind == static_cast<int>(ActivationKind::relu)) {
#pragma unroll
    for (int i = 0; i < count; ++i) dy[i] = saved[i] > 0.0f ? dy[i] : 0.0f;
    return;
  }
#pragma unroll
  for (int i = 0; i < count; ++i) dy[i] = activate_grad(f, dy[i], saved[i]);
}

}  // namespace CUVAE_KERNELS
