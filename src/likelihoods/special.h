#pragma once
// Functions that the likelihoods share, in float and double. Where the textbook's formula takes the
// difference of large numbers (log-gammas, of 1e7 nats for a count of a million), these are the
// parts that are left when the large ones have been taken off on paper:
//
//   lgamma(z)  = (z - 1/2) log z - z + log(2 pi)/2 + stirling_error(z)
//   digamma(z) = log z - 1/(2 z) - digamma_error(z)
//
// Catherine Loader, "Fast and accurate computation of binomial probabilities" (2000), does this for
// the binomial and Poisson distributions; the asymptotic series are Abramowitz and Stegun's 6.1.41
// and 6.3.18, and smaller arguments go there by the recurrence, whose steps are series in
// 1 / (2 z + 1), free of cancellation.

#include <cmath>

#include "base/host_device.h"

namespace cuvae::likelihoods {

template <class T>
inline constexpr bool is_single = sizeof(T) == 4;

template <class T>
inline constexpr T half_log_2pi = T(0.918938533204672741780329736406);

// log(1 + e^x)
template <class T>
CUVAE_HOST_DEVICE inline T softplus(T x) {
  return (x > 0 ? x : T(0)) + std::log1p(std::exp(-std::fabs(x)));
}

template <class T>
CUVAE_HOST_DEVICE inline T sigmoid(T x) {
  const T e = std::exp(-std::fabs(x));
  return (x < 0 ? e : T(1)) / (1 + e);
}

// A raw number kept within bounds, and the derivative.
template <class T>
struct Bounded {
  T value;
  T slope;
};

// floor + log(1 + e^(raw - floor)), without its cancellation: the bound from below of Rybkin,
// Daniilidis and Levine, "Simple and effective VAE training with calibrated decoders" (sigma-VAE,
// ICML 2021), which they put at -6 for log sigma.
template <class T>
CUVAE_HOST_DEVICE inline Bounded<T> soft_floor(T raw, T floor) {
  const T e = std::exp(-std::fabs(raw - floor));
  return {(raw > floor ? raw : floor) + std::log1p(e), (raw < floor ? e : T(1)) / (1 + e)};
}

// The logarithm of a rate, a dispersion, a count: itself on [-20, 20], beyond it
// sign(v) (20 + 10 tanh((|v| - 20) / 10)), so that e^v stays between 1e-13 and 1e13.
template <class T>
CUVAE_HOST_DEVICE inline Bounded<T> soft_bound(T raw) {
  const T beyond = std::fabs(raw) - 20;
  if (beyond <= 0) return {raw, T(1)};
  // The tangent (1 - e) / (1 + e), and its slope without the cancellation near 1.
  const T e = std::exp(T(-0.2) * beyond);
  const T most = 20 + 10 * (-std::expm1(T(-0.2) * beyond) / (1 + e));
  return {raw < 0 ? -most : most, 4 * e / ((1 + e) * (1 + e))};
}

// y - log(1 + y) >= 0, for y > -1. `one_plus_y` is given apart, where it is known without the
// rounding of y near -1. Small y: with s = y / (2 + y), log(1 + y) = 2 atanh(s) and y = 2 s + s y.
template <class T>
CUVAE_HOST_DEVICE inline T log1p_gap(T y, T one_plus_y) {
  if (std::fabs(y) > T(0.25)) return y - std::log(one_plus_y);
  const T s = y / (2 + y);
  const T z = s * s;
  T tail;
  if constexpr (is_single<T>) {
    tail = T(1.0 / 3) + z * (T(1.0 / 5) + z * (T(1.0 / 7) + z * T(1.0 / 9)));
  } else {
    tail = T(1.0 / 15) + z * (T(1.0 / 17) + z * T(1.0 / 19));
    tail = T(1.0 / 9) + z * (T(1.0 / 11) + z * (T(1.0 / 13) + z * tail));
    tail = T(1.0 / 3) + z * (T(1.0 / 5) + z * (T(1.0 / 7) + z * tail));
  }
  return s * y - 2 * s * z * tail;
}

// Arguments from here on go to the asymptotic series: its last terms are below the rounding.
template <class T>
inline constexpr T asymptotic_from = is_single<T> ? T(4) : T(12);

// z > 0, else NaN. About 1 / (12 z) for large z, and -log(z) / 2 for small.
template <class T>
CUVAE_HOST_DEVICE inline T stirling_error(T z) {
  if (!(z > 0)) return static_cast<T>(NAN);
  T sum = 0;
  if (z < 1) {
    sum = (z + T(0.5)) * std::log1p(1 / z) - 1;
    z += 1;
  }
  for (; z < asymptotic_from<T>; z += 1) {
    // (z + 1/2) log(1 + 1/z) - 1 = q/3 + q^2/5 + .., q = 1 / (2 z + 1)^2 <= 1/9
    const T s = 1 / (2 * z + 1);
    const T q = s * s;
    T tail = 0;
    if constexpr (!is_single<T>) {
      tail = q * (T(1.0 / 29) + q * (T(1.0 / 31) + q * T(1.0 / 33)));
      tail = q * (T(1.0 / 23) + q * (T(1.0 / 25) + q * (T(1.0 / 27) + tail)));
      tail = q * (T(1.0 / 17) + q * (T(1.0 / 19) + q * (T(1.0 / 21) + tail)));
    }
    tail = q * (T(1.0 / 11) + q * (T(1.0 / 13) + q * (T(1.0 / 15) + tail)));
    sum += q * (T(1.0 / 3) + q * (T(1.0 / 5) + q * (T(1.0 / 7) + q * (T(1.0 / 9) + tail))));
  }
  const T r = 1 / z;
  const T q = r * r;
  T tail = 0;
  if constexpr (!is_single<T>)
    tail = q * (T(691.0 / 360360) - q * (T(1.0 / 156) - q * T(3617.0 / 122400)));
  tail = q * (T(1.0 / 1680) - q * (T(1.0 / 1188) - tail));
  return sum + r * (T(1.0 / 12) - q * (T(1.0 / 360) - q * (T(1.0 / 1260) - tail)));
}

// z > 0, else NaN. About 1 / (12 z^2) for large z, and 1 / (2 z) for small.
template <class T>
CUVAE_HOST_DEVICE inline T digamma_error(T z) {
  if (!(z > 0)) return static_cast<T>(NAN);
  T sum = 0;
  if (z < 1) {
    sum = (2 * z + 1) / (2 * z * (z + 1)) - std::log1p(1 / z);
    z += 1;
  }
  for (; z < asymptotic_from<T>; z += 1) {
    // 1/(2 z) + 1/(2 (z + 1)) - log(1 + 1/z) = 2 s (2/3 q + 4/5 q^2 + ..), s = 1 / (2 z + 1)
    const T s = 1 / (2 * z + 1);
    const T q = s * s;
    T tail = 0;
    if constexpr (!is_single<T>) {
      tail = q * (T(30.0 / 31) + q * (T(32.0 / 33) + q * T(34.0 / 35)));
      tail = q * (T(24.0 / 25) + q * (T(26.0 / 27) + q * (T(28.0 / 29) + tail)));
      tail = q * (T(18.0 / 19) + q * (T(20.0 / 21) + q * (T(22.0 / 23) + tail)));
    }
    tail = q * (T(12.0 / 13) + q * (T(14.0 / 15) + q * (T(16.0 / 17) + tail)));
    tail = q * (T(6.0 / 7) + q * (T(8.0 / 9) + q * (T(10.0 / 11) + tail)));
    sum += 2 * s * q * (T(2.0 / 3) + q * (T(4.0 / 5) + tail));
  }
  const T r = 1 / z;
  const T q = r * r;
  T tail = 0;
  if constexpr (!is_single<T>)
    tail = q * (T(691.0 / 32760) - q * (T(1.0 / 12) - q * T(3617.0 / 8160)));
  tail = q * (T(1.0 / 240) - q * (T(1.0 / 132) - tail));
  return sum + q * (T(1.0 / 12) - q * (T(1.0 / 120) - q * (T(1.0 / 252) - tail)));
}

// -log of the Poisson probability of x at the mean mu = e^log_mu: mu - x log mu + lgamma(x + 1),
// as x log(x / mu) - x + mu, which is never negative and 0 at x = mu, and the rest.
template <class T>
CUVAE_HOST_DEVICE inline T poisson_nll(T x, T mu, T log_mu) {
  if (!(x > 0)) return mu;
  const T y = (mu - x) / x;
  T deviance;
  if (std::fabs(y) <= T(0.25)) {
    deviance = x * log1p_gap(y, 1 + y);
  } else {
    const T ratio = mu / x;
    // A mean that has vanished still has its logarithm.
    deviance = (mu - x) - x * (ratio > T(1e-30) ? std::log(ratio) : log_mu - std::log(x));
  }
  return deviance + (T(0.5) * std::log(x) + half_log_2pi<T> + stirling_error(x));
}

}  // namespace cuvae::likelihoods
