#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace cuvae {

// What the Gaussian likelihood of n elements adds besides the squares, in nats.
inline double gaussian_constant(std::int64_t n, double sigma) {
  return static_cast<double>(n) * (std::log(sigma) + 0.5 * std::log(2 * std::numbers::pi));
}

}  // namespace cuvae
