#pragma once

#include "likelihoods/location_scale.h"

namespace cuvae::likelihoods {

// ((x - mean) / sigma)^2 / 2 + log sigma + log(2 pi) / 2. The raw log sigma is softly bounded at -6
// from below (sigma-VAE, see soft_floor): a plane for a sigma of each pixel, a scalar parameter
// that the model broadcasts for one of all. The mean squared error is what is left of sigma = 1.
struct gaussian {
  static constexpr int parameters = 2;
  static constexpr double log_sigma_floor = -6;
  static constexpr LikelihoodInfo info = {.name = "gaussian",
                                          .parameters = parameters,
                                          .names = {"mean", "log_sigma"},
                                          .target = LikelihoodTarget::reals,
                                          .bits = LikelihoodBits::continuous,
                                          .fixed_scale = true};

  template <bool with_grad, class T>
  CUVAE_HOST_DEVICE static LikelihoodTerm<T, 2> term(const T (&raw)[2], T x, T,
                                                     const LikelihoodConstants<T>& k) {
    const Scale<T> sigma = scale_of(raw[1], T(log_sigma_floor), k);
    const T r = (x - raw[0]) * sigma.inverse;
    return {T(0.5) * (r * r) + sigma.log + half_log_2pi<T>,
            {-r * sigma.inverse, (1 - r * r) * sigma.slope}};
  }

  template <class T>
  CUVAE_HOST_DEVICE static T expectation(const T (&raw)[2], T, const LikelihoodConstants<T>&) {
    return raw[0];
  }
};

}  // namespace cuvae::likelihoods
