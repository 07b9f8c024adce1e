#pragma once

#include "likelihoods/location_scale.h"

namespace cuvae::likelihoods {

// |x - mean| / b + log(2 b), with log b bounded as the Gaussian's log sigma. The derivative by the
// mean is 0 where x equals it.
struct laplace {
  static constexpr int parameters = 2;
  static constexpr LikelihoodInfo info = {.name = "laplace",
                                          .parameters = parameters,
                                          .names = {"mean", "log_scale"},
                                          .target = LikelihoodTarget::reals,
                                          .bits = LikelihoodBits::continuous,
                                          .fixed_scale = true};

  template <bool with_grad, class T>
  CUVAE_HOST_DEVICE static LikelihoodTerm<T, 2> term(const T (&raw)[2], T x, T,
                                                     const LikelihoodConstants<T>& k) {
    const Scale<T> b = scale_of(raw[1], T(-6), k);
    const T distance = x - raw[0];
    const T r = std::fabs(distance) * b.inverse;
    const T toward = distance > 0 ? -b.inverse : distance < 0 ? b.inverse : T(0);
    return {r + b.log + T(0.693147180559945309417232121458), {toward, (1 - r) * b.slope}};
  }

  template <class T>
  CUVAE_HOST_DEVICE static T expectation(const T (&raw)[2], T, const LikelihoodConstants<T>&) {
    return raw[0];
  }
};

}  // namespace cuvae::likelihoods
