#pragma once

#include "likelihoods/location_scale.h"

namespace cuvae::likelihoods {

// The logistic distribution's mass between the half-way points of the levels k / trials, the first
// and the last level open to the outside (Kingma et al., "Improved variational inference with
// inverse autoregressive flow", 2016; Salimans et al., "PixelCNN++", 2017). With c = (x - mean) / b
// and w = 1 / (2 trials b) the mass is
//   sigmoid(c + w) - sigmoid(c - w) = sigmoid(c + w) sigmoid(w - c) (1 - e^(-2 w)),
// which loses nothing where both sigmoids are near 0 or 1. log b is softly bounded at PixelCNN++'s
// -7, which is for data on [-1, 1], from below: -7 - log 2 on [0, 1].
struct discretised_logistic {
  static constexpr int parameters = 2;
  static constexpr LikelihoodInfo info = {.name = "discretised_logistic",
                                          .parameters = parameters,
                                          .names = {"mean", "log_scale"},
                                          .target = LikelihoodTarget::levels,
                                          .bits = LikelihoodBits::discrete,
                                          .fixed_scale = true,
                                          .trials = true};
  template <class T>
  static constexpr T log_scale_floor = T(-7.69314718055994530941723212146);

  template <bool with_grad, class T>
  CUVAE_HOST_DEVICE static LikelihoodTerm<T, 2> term(const T (&raw)[2], T x, T,
                                                     const LikelihoodConstants<T>& k) {
    const Scale<T> b = scale_of(raw[1], log_scale_floor<T>, k);
    const T level = std::rint(x * k.trials);
    const T half = T(0.5) / k.trials;
    const T center = level / k.trials;
    const T above = (center + half - raw[0]) * b.inverse;
    const T below = (center - half - raw[0]) * b.inverse;
    if (!(level > 0)) {
      const T s = -sigmoid(-above);
      return {softplus(-above), {-s * b.inverse, -s * above * b.slope}};
    }
    if (!(level < k.trials)) {
      const T s = sigmoid(below);
      return {softplus(below), {-s * b.inverse, -s * below * b.slope}};
    }
    // log(1 - e^-v), v = 2 w; of a small v by its logarithm, since v itself may have vanished
    const T v = 2 * half * b.inverse;
    const T log_width = v > T(1e-3) ? std::log(-std::expm1(-v))
                                    : std::log(2 * half) - b.log - T(0.5) * v + v * v * T(1.0 / 24);
    const T up = -sigmoid(-above), down = sigmoid(below);
    const T spread = v > 0 ? v / std::expm1(v) : T(1);
    return {softplus(-above) + softplus(below) - log_width,
            {-(up + down) * b.inverse, (spread - (above * up + below * down)) * b.slope}};
  }

  // The sum over the levels k >= 1 of P(level >= k), in units of the target.
  template <class T>
  CUVAE_HOST_DEVICE static T expectation(const T (&raw)[2], T, const LikelihoodConstants<T>& k) {
    const Scale<T> b = scale_of(raw[1], log_scale_floor<T>, k);
    T sum = 0;
    for (T level = 1; level <= k.trials; level += 1)
      sum += sigmoid((raw[0] - (level - T(0.5)) / k.trials) * b.inverse);
    return sum / k.trials;
  }
};

}  // namespace cuvae::likelihoods
