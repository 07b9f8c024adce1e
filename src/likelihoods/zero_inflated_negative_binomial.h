#pragma once

#include "likelihoods/negative_binomial.h"

namespace cuvae::likelihoods {

// A zero with probability pi = sigmoid(raw[2]), else a draw of the negative binomial NB. The mass
// at 0 is 1 - (1 - pi) (1 - NB(0)).
struct zero_inflated_negative_binomial {
  static constexpr int parameters = 3;
  static constexpr LikelihoodInfo info = {.name = "zero_inflated_negative_binomial",
                                          .parameters = parameters,
                                          .names = {"log_mean", "log_theta", "zero_logits"},
                                          .target = LikelihoodTarget::counts,
                                          .bits = LikelihoodBits::none,
                                          .offset = true};

  template <bool with_grad, class T>
  CUVAE_HOST_DEVICE static LikelihoodTerm<T, 3> term(const T (&raw)[3], T x, T offset,
                                                     const LikelihoodConstants<T>& k) {
    const T counts[2] = {raw[0], raw[1]};
    const LikelihoodTerm<T, 2> nb = negative_binomial::term<with_grad>(counts, x, offset, k);
    const T l = raw[2];
    if (x > 0) return {softplus(l) + nb.nll, {nb.grad[0], nb.grad[1], sigmoid(l)}};
    const T not_inflated = sigmoid(-l);
    const T not_zero = -std::expm1(-nb.nll);
    const T other = not_inflated * not_zero;
    // log(pi + (1 - pi) NB(0)) = log(e^l + e^-nll) - log(1 + e^l)
    const T apart = l + nb.nll;
    const T larger = apart > 0 ? l : -nb.nll;
    const T nll = other < T(0.5) ? -std::log1p(-other)
                                 : softplus(l) - (larger + std::log1p(std::exp(-std::fabs(apart))));
    const T drawn = sigmoid(-apart);  // the share of NB(0) in the mass
    return {nll, {nb.grad[0] * drawn, nb.grad[1] * drawn, -sigmoid(apart) * other}};
  }

  template <class T>
  CUVAE_HOST_DEVICE static T expectation(const T (&raw)[3], T offset,
                                         const LikelihoodConstants<T>& k) {
    const T counts[2] = {raw[0], raw[1]};
    return sigmoid(-raw[2]) * negative_binomial::expectation(counts, offset, k);
  }
};

}  // namespace cuvae::likelihoods
