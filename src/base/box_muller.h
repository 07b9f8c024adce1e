#pragma once
// The arithmetic of random_normal4, inline so that vector loops share it. Only +, -, *, / and sqrt
// in float, each rounded once (the project compiles with -ffp-contract=off) and no libm: the same
// bits on every machine, at every vector width, and on a device that writes the same roundings.

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace cuvae {

// Uniform on (0, 1]. The product is exact, so the sum is the only rounding after the conversion.
CUVAE_HOST_DEVICE inline float uniform_of_word(std::uint32_t word) noexcept {
  return static_cast<float>(word) * 0x1p-32F + 0x1p-33F;
}

// ln(u) for a positive normal u: u = 2^e m with m in [sqrt(1/2), sqrt(2)), s = (m - 1)/(m + 1),
// ln m = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + s^7/7 + s^9/9); the next term is 2e-9 of the sum.
// ln 2 in two parts: e times the first is exact.
CUVAE_HOST_DEVICE inline float log_of_uniform(float u) noexcept {
  constexpr std::uint32_t sqrt_half = 0x3f3504f3;
  const auto bits = std::bit_cast<std::uint32_t>(u);
  const std::int32_t exponent = static_cast<std::int32_t>(bits - sqrt_half) >> 23;
  const float m = std::bit_cast<float>(bits - (static_cast<std::uint32_t>(exponent) << 23));
  const auto e = static_cast<float>(exponent);
  const float s = (m - 1.0F) / (m + 1.0F);
  const float z = s * s;
  const float tail = ((((1.0F / 9) * z + (1.0F / 7)) * z + (1.0F / 5)) * z + (1.0F / 3)) * z;
  const float log_m = 2.0F * (s + s * tail);
  constexpr float ln2_high = 0x1.62e4p-1F;
  constexpr float ln2_low = 1.42860682e-06F;  // ln 2 - ln2_high
  return e * ln2_high + (e * ln2_low + log_m);
}

// sin and cos of 2 pi (word + 1/2) / 2^32. The quarter turn is taken off in integers, without
// error; what is left lies in [-pi/4, pi/4], where the Taylor terms left out are below 3e-8.
CUVAE_HOST_DEVICE inline void sincos_of_word(std::uint32_t word, float& sine,
                                             float& cosine) noexcept {
  constexpr float turn = 0x1.921fb6p-30F;  // 2 pi / 2^32
  const std::uint32_t quarter = (word + (std::uint32_t{1} << 29)) >> 30;
  const auto rest = static_cast<std::int32_t>(word - (quarter << 30));
  const float x = static_cast<float>(rest) * turn + 0.5F * turn;
  const float z = x * x;
  const float s =
      x + x * (z * (((1.0F / 362880 * z - 1.0F / 5040) * z + 1.0F / 120) * z - 1.0F / 6));
  const float c = 1.0F - z * (0.5F - z * (1.0F / 24 - z * (1.0F / 720 - z * (1.0F / 40320))));
  const bool swap = (quarter & 1) != 0;
  const float a = swap ? c : s;
  const float b = swap ? s : c;
  sine = (quarter & 2) != 0 ? -a : a;
  cosine = ((quarter + 1) & 2) != 0 ? -b : b;
}

// Two standard normals (r sin, r cos), r = sqrt(-2 ln u): Box and Muller, "A note on the generation
// of random normal deviates", 1958. ln u <= 0 up to rounding at u = 1, where it is exactly 0.
CUVAE_HOST_DEVICE inline void box_muller(std::uint32_t w0, std::uint32_t w1, float& first,
                                         float& second) noexcept {
  const float r = std::sqrt(-2.0F * log_of_uniform(uniform_of_word(w0)));
  float sine;
  float cosine;
  sincos_of_word(w1, sine, cosine);
  first = r * sine;
  second = r * cosine;
}

}  // namespace cuvae
