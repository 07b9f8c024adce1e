#pragma once

#include "likelihoods/likelihood.h"
#include "likelihoods/special.h"

namespace cuvae::likelihoods {

// Loaiza-Ganem and Cunningham, "The continuous Bernoulli: fixing a pervasive error in variational
// autoencoders" (NeurIPS 2019): the density C(p) p^x (1 - p)^(1 - x) on [0, 1]. With the logit l of
// p, C = l / tanh(l / 2) and log((1 + e^l) / C) = log((e^l - 1) / l), whose derivative is the mean
// 1 / (1 - e^-l) - 1 / l; about p = 1/2 the mean is its Taylor series.
struct continuous_bernoulli {
  static constexpr int parameters = 1;
  static constexpr LikelihoodInfo info = {.name = "continuous_bernoulli",
                                          .parameters = parameters,
                                          .names = {"logits"},
                                          .target = LikelihoodTarget::unit,
                                          .bits = LikelihoodBits::continuous};

  template <class T>
  CUVAE_HOST_DEVICE static T mean(T l) {
    if (std::fabs(l) > T(0.7)) return -1 / std::expm1(-l) - 1 / l;
    const T q = l * l;
    T tail = 0;  // l^(2 k - 1) B_2k / (2 k)!
    if constexpr (!is_single<T>) {
      tail = q * (T(3617.0 / 10670622842880000) - q * T(43867.0 / 5109094217170944000));
      tail = q * (T(691.0 / 1307674368000) - q * (T(1.0 / 74724249600) - tail));
    }
    tail = q * (T(1.0 / 1209600) - q * (T(1.0 / 47900160) - tail));
    return T(0.5) + l * (T(1.0 / 12) - q * (T(1.0 / 720) - q * (T(1.0 / 30240) - tail)));
  }

  template <bool with_grad, class T>
  CUVAE_HOST_DEVICE static LikelihoodTerm<T, 1> term(const T (&raw)[1], T x, T,
                                                     const LikelihoodConstants<T>&) {
    const T l = raw[0];
    const T size = std::fabs(l);
    const T shape = size > 0 ? std::log(-std::expm1(-size) / size) : T(0);
    return {size * (l > 0 ? 1 - x : x) + shape, {mean(l) - x}};
  }

  template <class T>
  CUVAE_HOST_DEVICE static T expectation(const T (&raw)[1], T, const LikelihoodConstants<T>&) {
    return mean(raw[0]);
  }
};

}  // namespace cuvae::likelihoods
