#pragma once

#include "likelihoods/likelihood.h"
#include "likelihoods/special.h"

namespace cuvae::likelihoods {

// x of n trials, whose probability has the beta distribution of a and b (of bytes: Townsend, Bird
// and Barber, "Practical lossless compression with latent variables using bits back coding", 2019):
//   p(x) = C(n, x) B(x + a, n - x + b) / B(a, b)
// from log a and log b, bounded by soft_bound. With Stirling's formula for each log-gamma, what is
// large are n KL(x/n || p') + (a + b) KL(a/(a + b) || p') with p' = (x + a)/(n + a + b), four terms
// t (y - log(1 + y)) none of which is negative.
struct beta_binomial {
  static constexpr int parameters = 2;
  static constexpr LikelihoodInfo info = {.name = "beta_binomial",
                                          .parameters = parameters,
                                          .names = {"log_alpha", "log_beta"},
                                          .target = LikelihoodTarget::levels,
                                          .bits = LikelihoodBits::discrete,
                                          .trials = true};

  // log(1 + y)
  template <class T>
  CUVAE_HOST_DEVICE static T log_of(T y, T one_plus_y) {
    return std::fabs(y) > T(0.25) ? std::log(one_plus_y) : std::log1p(y);
  }

  template <bool with_grad, class T>
  CUVAE_HOST_DEVICE static LikelihoodTerm<T, 2> term(const T (&raw)[2], T target, T,
                                                     const LikelihoodConstants<T>& k) {
    const Bounded<T> log_a = soft_bound(raw[0]), log_b = soft_bound(raw[1]);
    const T a = std::exp(log_a.value), b = std::exp(log_b.value);
    const T n = k.trials;
    const T x = std::rint(target * n);
    const T rest = n - x;
    const T prior = a + b;
    const T a1 = x + a, b1 = rest + b, all = n + prior;
    // n p' - x = (a + b) (a/(a + b) - p')
    const T d = (rest * a - x * b) / all;
    const T up_a = prior * a1 / (all * a), up_b = prior * b1 / (all * b);  // 1 -+ d/a, d/b
    T nll = a * log1p_gap(-d / a, up_a) + b * log1p_gap(d / b, up_b);
    nll += x > 0 ? x * log1p_gap(d / x, n * a1 / (all * x)) : d;
    nll += rest > 0 ? rest * log1p_gap(-d / rest, n * b1 / (all * rest)) : -d;
    if (x > 0 && rest > 0)
      nll += T(0.5) * std::log(x * rest / n) + half_log_2pi<T> +
             (stirling_error(x) + stirling_error(rest) - stirling_error(n));
    nll += (stirling_error(all) - stirling_error(prior)) +
           (stirling_error(a) - stirling_error(a1)) + (stirling_error(b) - stirling_error(b1));
    nll += T(0.5) * (std::log1p(x / a) + std::log1p(rest / b) - std::log1p(n / prior));
    LikelihoodTerm<T, 2> term = {nll, {}};
    if constexpr (with_grad) {
      const T share = n / (2 * prior * all);
      const T both = digamma_error(prior) - digamma_error(all);
      const T da = -a * log_of(-d / a, up_a) - x / (2 * a1) + a * share +
                   a * (digamma_error(a1) - digamma_error(a) + both);
      const T db = -b * log_of(d / b, up_b) - rest / (2 * b1) + b * share +
                   b * (digamma_error(b1) - digamma_error(b) + both);
      term.grad[0] = da * log_a.slope;
      term.grad[1] = db * log_b.slope;
    }
    return term;
  }

  template <class T>
  CUVAE_HOST_DEVICE static T expectation(const T (&raw)[2], T, const LikelihoodConstants<T>&) {
    return sigmoid(soft_bound(raw[0]).value - soft_bound(raw[1]).value);
  }
};

}  // namespace cuvae::likelihoods
