#pragma once
// The scale of a location-scale family: learned, as the raw logarithm raw[1], or fixed.

#include "likelihoods/likelihood.h"
#include "likelihoods/special.h"

namespace cuvae::likelihoods {

template <class T>
struct Scale {
  T log;
  T inverse;
  T slope;  // d(log scale) / d(raw)
};

template <class T>
CUVAE_HOST_DEVICE inline Scale<T> scale_of(T raw, T floor, const LikelihoodConstants<T>& k) {
  if (k.fixed) return {k.log_scale, k.inverse_scale, T(0)};
  const Bounded<T> log = soft_floor(raw, floor);
  return {log.value, std::exp(-log.value), log.slope};
}

}  // namespace cuvae::likelihoods
