#pragma once
// The layout of random numbers and the shuffle's network, apart from the generator itself, so that
// host and device code share them.

#include <cstdint>

#include "base/host_device.h"
#include "cuvae/rng.h"

namespace cuvae {

// The high half of the counter: purpose << 56 | stream << 40 | group. The low half is the step.
CUVAE_HOST_DEVICE constexpr std::uint64_t random_subsequence(Purpose purpose, std::uint16_t stream,
                                                             std::uint64_t group) {
  return static_cast<std::uint64_t>(purpose) << 56 | static_cast<std::uint64_t>(stream) << 40 |
         group;
}

inline constexpr int shuffle_rounds = 8;

// Half of the bits of the smallest network that covers n.
CUVAE_HOST_DEVICE constexpr int shuffle_half_bits(std::int64_t n) {
  int half_bits = 1;
  while ((std::int64_t{1} << (2 * half_bits)) < n) ++half_bits;
  return half_bits;
}

// What stands at `position` of [0, n): a Feistel network whose round function is mix(round, half).
// It permutes [0, 4^half_bits); following its cycle until it is back in [0, n) permutes [0, n)
// (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The domain is less than four
// times n (or four values), so a walk is short on average.
template <class Mix>
CUVAE_HOST_DEVICE constexpr std::int64_t shuffled(std::int64_t position, std::int64_t n,
                                                  int half_bits, Mix mix) {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits) - 1;
  auto value = static_cast<std::uint64_t>(position);
  do {
    std::uint64_t left = value >> half_bits;
    std::uint64_t right = value & mask;
    for (int round = 0; round < shuffle_rounds; ++round) {
      const std::uint64_t mixed = left ^ (mix(round, right) & mask);
      left = right;
      right = mixed;
    }
    value = left << half_bits | right;
  } while (value >= static_cast<std::uint64_t>(n));
  return static_cast<std::int64_t>(value);
}

}  // namespace cuvae
