#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011) laid out as cuRAND's device API lays it out after
// curand_init(seed, subsequence, offset), and a keyed shuffle without a permutation array.
// Everything here is a pure function of its arguments, so that every backend, thread count,
// replay and resumed run draws the same numbers.

#include <array>
#include <cstdint>

namespace cuvae {

// What a draw is for. Part of the counter: never renumber.
enum class Purpose : std::uint8_t {
  init = 0,
  shuffle = 1,
  latent = 2,
  binarisation = 3,
  dropout = 4,
  augmentation = 5,
  generation = 6,
  evaluation = 7,
  resampling = 8,
  data = 16,  // of `synthetic:` sources
};

using PhiloxWords = std::array<std::uint32_t, 4>;

// Ten rounds; key = seed (low word, high word).
[[nodiscard]] PhiloxWords philox4x32(PhiloxWords counter, std::uint64_t key) noexcept;

// A stream of random numbers. subsequence = purpose << 56 | stream << 40 | group; the counter is
// (step lo, step hi, subsequence lo, subsequence hi), which is cuRAND's offset = 4 * step.
// `stream` is the ordinal of the random node or parameter in definition order.
struct RandomKey {
  std::uint64_t seed = 0;
  Purpose purpose = Purpose::init;
  std::uint16_t stream = 0;
  std::uint64_t step = 0;
};

inline constexpr std::uint64_t max_random_groups = std::uint64_t{1} << 40;

// The four words of one group. REQUIRES: group < max_random_groups. Graph::parameter and Graph::add
// refuse parameters and draws of more elements; draws keyed by dataset index are checked against it
// as they are made.
[[nodiscard]] PhiloxWords random_words(const RandomKey& key, std::uint64_t group) noexcept;

// Element i uses group i / 4, word i % 4.
// Uniform on (0, 1], as curand_uniform: w * 2^-32 + 2^-33 in float.
[[nodiscard]] float uniform_from_word(std::uint32_t word) noexcept;
[[nodiscard]] float random_uniform(const RandomKey& key, std::uint64_t i) noexcept;
// Four standard normals of a group: Box-Muller on (w0, w1) and (w2, w3), each as (r sin, r cos),
// as curand_normal4, within 4e-6 of its host compilation; float arithmetic without libm, the same
// bits on every machine (src/base/box_muller.h).
[[nodiscard]] std::array<float, 4> random_normal4(const RandomKey& key,
                                                  std::uint64_t group) noexcept;
[[nodiscard]] float random_normal(const RandomKey& key, std::uint64_t i) noexcept;

// A keyed bijection on [0, n): a Feistel network of 8 rounds over the smallest even number of bits
// that covers n (at least 2), with cycle walking. The round function of (epoch, round, half) is the
// first word of random_words({seed, Purpose::shuffle, stream = round, step = epoch}, half).
class Shuffle {
 public:
  // REQUIRES: n >= 0, n < 2^62.
  Shuffle(std::uint64_t seed, std::uint64_t epoch, std::int64_t n) noexcept;
  // REQUIRES: 0 <= position < n. The dataset index that stands at `position` in this epoch.
  [[nodiscard]] std::int64_t operator()(std::int64_t position) const noexcept;

 private:
  std::uint64_t seed_;
  std::uint64_t epoch_;
  std::int64_t n_;
  int half_bits_;
};

}  // namespace cuvae
