#pragma once

#include "likelihoods/likelihood.h"
#include "likelihoods/special.h"

namespace cuvae::likelihoods {

// The negative binomial by its mean mu and inverse dispersion theta (variance mu + mu^2 / theta;
// Lopez et al., "Deep generative modeling for single-cell transcriptomics", 2018):
//   p(x) = Gamma(x + theta) / (Gamma(theta) x!) (theta/(theta + mu))^theta (mu/(theta + mu))^x
// log mu = soft_bound(raw[0] + offset), log theta = soft_bound(raw[1]). With Stirling's formula for
// each log-gamma, what is large is x g(d / x) + theta g(-d / theta), where g(y) = y - log(1 + y)
// and d = theta (mu - x) / (theta + mu), which is the derivative by log mu as well. For large theta
// this goes over into the Poisson distribution without any difference of large numbers.
struct negative_binomial {
  static constexpr int parameters = 2;
  static constexpr LikelihoodInfo info = {.name = "negative_binomial",
                                          .parameters = parameters,
                                          .names = {"log_mean", "log_theta"},
                                          .target = LikelihoodTarget::counts,
                                          .bits = LikelihoodBits::none,
                                          .offset = true};

  template <bool with_grad, class T>
  CUVAE_HOST_DEVICE static LikelihoodTerm<T, 2> term(const T (&raw)[2], T x, T offset,
                                                     const LikelihoodConstants<T>&) {
    const Bounded<T> log_mu = soft_bound(raw[0] + offset), log_theta = soft_bound(raw[1]);
    const T mu = std::exp(log_mu.value), theta = std::exp(log_theta.value);
    const T both = theta + mu;
    const T d = (mu - x) * (theta / both);
    LikelihoodTerm<T, 2> term = {};
    term.grad[0] = d * log_mu.slope;
    if (!(x > 0)) {
      term.nll = theta * std::log1p(mu / theta);
      if constexpr (with_grad)
        term.grad[1] = theta * log1p_gap(-mu / both, theta / both) * log_theta.slope;
      return term;
    }
    const T sum = x + theta;
    const T gap = theta * log1p_gap((x - mu) / both, sum / both);
    term.nll = x * log1p_gap(d / x, sum * mu / (both * x)) + gap +
               T(0.5) * (std::log(x) + std::log1p(x / theta)) + half_log_2pi<T> +
               stirling_error(x) + (stirling_error(theta) - stirling_error(sum));
    if constexpr (with_grad)
      term.grad[1] = (gap - x / (2 * sum) - theta * (digamma_error(theta) - digamma_error(sum))) *
                     log_theta.slope;
    return term;
  }

  template <class T>
  CUVAE_HOST_DEVICE static T expectation(const T (&raw)[2], T offset,
                                         const LikelihoodConstants<T>&) {
    return std::exp(soft_bound(raw[0] + offset).value);
  }
};

}  // namespace cuvae::likelihoods
