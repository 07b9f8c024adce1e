#include "cuvae/rng.h"

#include "base/box_muller.h"
#include "base/counters.h"

namespace cuvae {
namespace {

// The high and low words of a 32 by 32 bit product.
struct Product {
  std::uint32_t high;
  std::uint32_t low;
};
Product multiply(std::uint32_t a, std::uint32_t b) noexcept {
  const std::uint64_t product = std::uint64_t{a} * b;
  return {static_cast<std::uint32_t>(product >> 32), static_cast<std::uint32_t>(product)};
}

}  // namespace

PhiloxWords philox4x32(PhiloxWords counter, std::uint64_t key) noexcept {
  // The multipliers and the Weyl increments of the SC 2011 paper, section 4.
  constexpr std::uint32_t multiplier0 = 0xD2511F53;
  constexpr std::uint32_t multiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t weyl0 = 0x9E3779B9;
  constexpr std::uint32_t weyl1 = 0xBB67AE85;
  auto key0 = static_cast<std::uint32_t>(key);
  auto key1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const Product a = multiply(multiplier0, counter[0]);
    const Product b = multiply(multiplier1, counter[2]);
    counter = {b.high ^ counter[1] ^ key0, b.low, a.high ^ counter[3] ^ key1, a.low};
    key0 += weyl0;
    key1 += weyl1;
  }
  return counter;
}

PhiloxWords random_words(const RandomKey& key, std::uint64_t group) noexcept {
  const std::uint64_t subsequence = random_subsequence(key.purpose, key.stream, group);
  return philox4x32(
      {static_cast<std::uint32_t>(key.step), static_cast<std::uint32_t>(key.step >> 32),
       static_cast<std::uint32_t>(subsequence), static_cast<std::uint32_t>(subsequence >> 32)},
      key.seed);
}

float uniform_from_word(std::uint32_t word) noexcept {
  return uniform_of_word(word);
}

float random_uniform(const RandomKey& key, std::uint64_t i) noexcept {
  return uniform_of_word(random_words(key, i / 4)[i % 4]);
}

std::array<float, 4> random_normal4(const RandomKey& key, std::uint64_t group) noexcept {
  const PhiloxWords words = random_words(key, group);
  std::array<float, 4> normals;
  box_muller(words[0], words[1], normals[0], normals[1]);
  box_muller(words[2], words[3], normals[2], normals[3]);
  return normals;
}

float random_normal(const RandomKey& key, std::uint64_t i) noexcept {
  return random_normal4(key, i / 4)[i % 4];
}

}  // namespace cuvae
