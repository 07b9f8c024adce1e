#include "cuvae/rng.h"

namespace cuvae {
namespace {

constexpr std::uint16_t rounds = 8;

}  // namespace

Shuffle::Shuffle(std::uint64_t seed, std::uint64_t epoch, std::int64_t n) noexcept
    : seed_(seed), epoch_(epoch), n_(n), half_bits_(1) {
  while ((std::int64_t{1} << (2 * half_bits_)) < n) ++half_bits_;
}

std::int64_t Shuffle::operator()(std::int64_t position) const noexcept {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<std::uint64_t>(position);
  // The network permutes [0, 4^half_bits); following its cycle until it is back in [0, n) permutes
  // [0, n) (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The domain is less
  // than four times n (or four values), so a walk is short on average.
  do {
    std::uint64_t left = value >> half_bits_;
    std::uint64_t right = value & mask;
    for (std::uint16_t round = 0; round < rounds; ++round) {
      const RandomKey key{seed_, Purpose::shuffle, round, epoch_};
      const std::uint64_t mixed = left ^ (random_words(key, right)[0] & mask);
      left = right;
      right = mixed;
    }
    value = (left << half_bits_) | right;
  } while (value >= static_cast<std::uint64_t>(n_));
  return static_cast<std::int64_t>(value);
}

}  // namespace cuvae
