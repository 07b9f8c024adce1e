#pragma once

#include "likelihoods/likelihood.h"
#include "likelihoods/special.h"

namespace cuvae::likelihoods {

// mu - x log mu + lgamma(x + 1), log mu = soft_bound(raw + offset).
struct poisson {
  static constexpr int parameters = 1;
  static constexpr LikelihoodInfo info = {.name = "poisson",
                                          .parameters = parameters,
                                          .names = {"log_rate"},
                                          .target = LikelihoodTarget::counts,
                                          .bits = LikelihoodBits::none,
                                          .offset = true};

  template <bool with_grad, class T>
  CUVAE_HOST_DEVICE static LikelihoodTerm<T, 1> term(const T (&raw)[1], T x, T offset,
                                                     const LikelihoodConstants<T>&) {
    const Bounded<T> log_mu = soft_bound(raw[0] + offset);
    const T mu = std::exp(log_mu.value);
    return {poisson_nll(x, mu, log_mu.value), {(mu - x) * log_mu.slope}};
  }

  template <class T>
  CUVAE_HOST_DEVICE static T expectation(const T (&raw)[1], T offset,
                                         const LikelihoodConstants<T>&) {
    return std::exp(soft_bound(raw[0] + offset).value);
  }
};

}  // namespace cuvae::likelihoods
