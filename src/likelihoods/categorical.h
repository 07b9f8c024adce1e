#pragma once
// Likelihoods of a softmax over several logits: one label of C classes (categorical), and counts of
// D items (multinomial). Operators of their own, since a term needs more than its own logit.

#include <cstdint>

#include "likelihoods/likelihood.h"
#include "likelihoods/special.h"

namespace cuvae::likelihoods {

inline constexpr LikelihoodInfo categorical_info = {.name = "categorical",
                                                    .op = "categorical_nll",
                                                    .parameters = 1,
                                                    .names = {"logits"},
                                                    .target = LikelihoodTarget::labels,
                                                    .bits = LikelihoodBits::discrete};
inline constexpr LikelihoodInfo multinomial_info = {.name = "multinomial",
                                                    .op = "multinomial_nll",
                                                    .parameters = 1,
                                                    .names = {"logits"},
                                                    .target = LikelihoodTarget::counts,
                                                    .bits = LikelihoodBits::none};

// Where the logits of a row of D labels lie: those of a label beside one another (inner = 1), or as
// a convolution gives them, [D / inner, classes, inner] with `inner` the pixels of a plane.
struct ClassLayout {
  std::int64_t classes;
  std::int64_t inner;
  // Of label i of all rows; its logits are `inner` apart.
  CUVAE_HOST_DEVICE std::int64_t first(std::int64_t i) const {
    return inner == 1 ? i * classes : i / inner * classes * inner + i % inner;
  }
};

// The softmax of n logits: p_c = e^(l_c - largest) / sum.
template <class T>
struct Softmax {
  T largest;
  T sum;  // of e^(l - largest): at least 1
};

template <class T>
CUVAE_HOST_DEVICE inline Softmax<T> softmax(const T* logits, std::int64_t n,
                                            std::int64_t stride = 1) {
  T largest = logits[0];
  for (std::int64_t c = 1; c < n; ++c)
    if (logits[c * stride] > largest) largest = logits[c * stride];
  T sum = 0;
  for (std::int64_t c = 0; c < n; ++c) sum += std::exp(logits[c * stride] - largest);
  return {largest, sum};
}

// The class that a target names; -1: none, and the likelihood is NaN, which no step survives.
template <class T>
CUVAE_HOST_DEVICE inline std::int64_t label_of(T target, std::int64_t classes) {
  const T label = std::rint(target);
  return label >= 0 && label < static_cast<T>(classes) ? static_cast<std::int64_t>(label) : -1;
}

// -log p of the target's class.
template <class T>
CUVAE_HOST_DEVICE inline T categorical_nll(const T* logits, std::int64_t classes, T target,
                                           std::int64_t stride = 1) {
  const std::int64_t label = label_of(target, classes);
  if (label < 0) return static_cast<T>(NAN);
  const Softmax<T> p = softmax(logits, classes, stride);
  return std::log(p.sum) - (logits[label * stride] - p.largest);
}

// dlogits = d (p - [c is the target]). May work in place.
template <class T>
CUVAE_HOST_DEVICE inline void categorical_grad(T d, const T* logits, std::int64_t classes, T target,
                                               T* dlogits, std::int64_t stride = 1) {
  const std::int64_t label = label_of(target, classes);
  const Softmax<T> p = softmax(logits, classes, stride);
  const T share = 1 / p.sum;
  for (std::int64_t c = 0; c < classes; ++c) {
    const T value = std::exp(logits[c * stride] - p.largest) * share - (c == label ? T(1) : T(0));
    dlogits[c * stride] = label < 0 ? static_cast<T>(NAN) : d * value;
  }
}

// The mean class as a share of the last one: sum_c p_c c / (classes - 1), in [0, 1]; 0 of a single
// class.
template <class T>
CUVAE_HOST_DEVICE inline T categorical_mean(const T* logits, std::int64_t classes,
                                            std::int64_t stride = 1) {
  if (classes < 2) return 0;
  const Softmax<T> p = softmax(logits, classes, stride);
  T sum = 0;
  for (std::int64_t c = 1; c < classes; ++c)
    sum += std::exp(logits[c * stride] - p.largest) * static_cast<T>(c);
  return sum / (p.sum * static_cast<T>(classes - 1));
}

// The level of a byte x = byte / 255 among `levels` bins of equal width, floor(byte levels / 256),
// as a share of the last: k / (levels - 1).
template <class T>
CUVAE_HOST_DEVICE inline T quantised(T x, std::int64_t levels) {
  const auto byte = static_cast<std::int64_t>(std::rint(x * 255));
  return static_cast<T>(byte * levels / 256) / static_cast<T>(levels - 1);
}

// -log(n! prod_j p_j^x_j / x_j!), with its coefficient: a sum of Poisson terms at the means n p_j
// (multinomial_term), less what Poisson's distribution has for n at the mean n (multinomial_total).
template <class T>
CUVAE_HOST_DEVICE inline T multinomial_term(T x, T n, T log_p) {
  return n > 0 ? poisson_nll(x, n * std::exp(log_p), std::log(n) + log_p) : T(0);
}
template <class T>
CUVAE_HOST_DEVICE inline T multinomial_total(T n) {
  return n > 0 ? T(0.5) * std::log(n) + half_log_2pi<T> + stirling_error(n) : T(0);
}

}  // namespace cuvae::likelihoods
