#pragma once
// The CPU backend's own inner loops. In float they are compiled for three instruction sets and
// chosen at run time; every variant gives the same bits (explicit fma, sixteen fixed lanes for
// sums). In double they are plain loops over libm: the reference.
//
// Pointers may be equal where an operator works in place; they must not overlap otherwise.

#include <cstdint>
#include <span>

#include "cuvae/rng.h"
#include "ops/activation.h"

namespace cuvae {

enum class MathFunction : std::uint8_t { exp, expm1, log1p, tanh, sigmoid, erf };

// What one step of Adam multiplies with; bias corrections are taken in double.
template <class T>
struct AdamStep {
  T beta1, one_minus_beta1;
  T beta2, one_minus_beta2;
  T weight_decay;
  T step_size;       // lr / (1 - beta1^t)
  T root_corrected;  // 1 / sqrt(1 - beta2^t)
  T eps;
};

template <class T>
struct Loops {
  const char* isa;  // "x86-64-v4", ...

  void (*math)(MathFunction f, std::int64_t n, const T* x, T* y);
  void (*activation)(Activation f, std::int64_t n, const T* x, T* y);
  void (*activation_grad)(Activation f, std::int64_t n, const T* dy, const T* saved, T* dx);
  void (*add)(std::int64_t n, const T* a, const T* b, T* y);
  void (*mul)(std::int64_t n, const T* a, const T* b, T* y);
  void (*scale)(std::int64_t n, T factor, const T* x, T* y);
  void (*fill)(std::int64_t n, T value, T* y);
  T (*sum)(std::int64_t n, const T* x);
  void (*gather_u8)(std::int64_t n, T shift, T scale, const std::uint8_t* x, T* y);
  void (*gather_real)(std::int64_t n, T shift, T scale, const T* x, T* y);

  // Sums over a row; `bias` (may be null) is added to the logits or means first. The form `_both`
  // also replaces the row by d * derivative.
  T (*bernoulli_nll)(std::int64_t n, const T* logits, const T* target);
  void (*bernoulli_nll_grad)(std::int64_t n, T d, const T* logits, const T* target, T* dlogits);
  T (*bernoulli_both)(std::int64_t n, const T* bias, T d, const T* target, T* row);
  // Without the constant n (log sigma + log(2 pi) / 2).
  T (*gaussian_nll)(std::int64_t n, T inverse_sigma, const T* mean, const T* target);
  void (*gaussian_nll_grad)(std::int64_t n, T inverse_sigma, T d, const T* mean, const T* target,
                            T* dmean);
  T (*gaussian_both)(std::int64_t n, T inverse_sigma, const T* bias, T d, const T* target, T* row);

  T (*gaussian_kl)(std::int64_t n, const T* mean, const T* logvar);
  void (*gaussian_kl_grad)(std::int64_t n, T d, const T* mean, const T* logvar, T* dmean,
                           T* dlogvar);
  void (*sample)(std::int64_t n, const T* mean, const T* logvar, const T* eps, T* z);
  void (*sample_grad)(std::int64_t n, const T* dz, const T* eps, const T* logvar, T* dlogvar);
  // Standard normals of the elements first .. first + n: bits of random_normal(), widened.
  void (*normals)(const RandomKey& key, std::uint64_t first, std::int64_t n, T* out);

  void (*adam)(std::int64_t n, const AdamStep<T>& step, const T* g, T* w, T* m, T* v);
};

// The best variant that this CPU can run.
template <class T>
const Loops<T>& loops();
// All that this CPU can run, the best first.
std::span<const Loops<float>* const> float_variants();

}  // namespace cuvae
