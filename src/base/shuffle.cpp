#include "base/counters.h"
#include "cuvae/rng.h"

namespace cuvae {

Shuffle::Shuffle(std::uint64_t seed, std::uint64_t epoch, std::int64_t n) noexcept
    : seed_(seed), epoch_(epoch), n_(n), half_bits_(shuffle_half_bits(n)) {}

std::int64_t Shuffle::operator()(std::int64_t position) const noexcept {
  return shuffled(position, n_, half_bits_, [this](int round, std::uint64_t half) {
    const RandomKey key{seed_, Purpose::shuffle, static_cast<std::uint16_t>(round), epoch_};
    return std::uint64_t{random_words(key, half)[0]};
  });
}

}  // namespace cuvae
