// Random numbers against cuRAND's own device headers, compiled for the host.

#include <gtest/gtest.h>

#include "cuvae/rng.h"

#ifdef CUVAE_CURAND_ORACLE

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/curand_oracle.h"

namespace cuvae {
namespace {

constexpr std::array<std::uint64_t, 4> seeds = {0, 1, 0x123456789ABCDEF0, ~std::uint64_t{0}};
constexpr std::array<std::uint64_t, 5> steps = {0, 1, 468, 0x3FFFFFFFF,
                                                (std::uint64_t{1} << 62) - 1};
constexpr std::array<std::uint64_t, 5> groups = {0, 1, 65535, 0x123456789, max_random_groups - 1};
constexpr std::array<std::uint16_t, 3> streams = {0, 7, 65535};

std::uint64_t subsequence_of(const RandomKey& key, std::uint64_t group) {
  return static_cast<std::uint64_t>(key.purpose) << 56 |
         static_cast<std::uint64_t>(key.stream) << 40 | group;
}

template <class Check>
void for_each_corner(Check check) {
  for (const std::uint64_t seed : seeds) {
    for (const std::uint64_t step : steps) {
      for (const std::uint16_t stream : streams) {
        for (int purpose = 0; purpose <= static_cast<int>(Purpose::resampling); ++purpose) {
          for (const std::uint64_t group : groups) {
            check(RandomKey{seed, static_cast<Purpose>(purpose), stream, step}, group);
          }
        }
      }
    }
  }
}

TEST(Curand, WordsAreTheSame) {
  for_each_corner([](const RandomKey& key, std::uint64_t group) {
    ASSERT_EQ(random_words(key, group),
              oracle::curand_words(key.seed, subsequence_of(key, group), 4 * key.step));
  });
  const RandomKey key{77, Purpose::latent, 3, 12345};
  for (std::uint64_t group = 0; group < 100000; ++group) {
    ASSERT_EQ(random_words(key, group),
              oracle::curand_words(key.seed, subsequence_of(key, group), 4 * key.step))
        << "group " << group;
  }
}

TEST(Curand, UniformsAreTheSameBits) {
  const auto check = [](const RandomKey& key, std::uint64_t group) {
    const auto expected =
        oracle::curand_uniforms(key.seed, subsequence_of(key, group), 4 * key.step);
    for (std::uint64_t word = 0; word < 4; ++word) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(random_uniform(key, 4 * group + word)),
                std::bit_cast<std::uint32_t>(expected[word]));
    }
  };
  for_each_corner(check);
  const RandomKey key{78, Purpose::dropout, 1, 9};
  for (std::uint64_t group = 0; group < 25000; ++group) check(key, group);
}

TEST(Curand, NormalsAgree) {
  double worst = 0.0;
  const auto check = [&](const RandomKey& key, std::uint64_t group) {
    const auto expected =
        oracle::curand_normals(key.seed, subsequence_of(key, group), 4 * key.step);
    const auto actual = random_normal4(key, group);
    for (std::size_t word = 0; word < 4; ++word) {
      const double error =
          std::abs(static_cast<double>(actual[word]) - static_cast<double>(expected[word]));
      ASSERT_TRUE(error <= 4e-6) << actual[word] << " for " << expected[word];
      worst = std::max(worst, error);
    }
  };
  for_each_corner(check);
  const RandomKey key{79, Purpose::latent, 0, 1};
  for (std::uint64_t group = 0; group < (std::uint64_t{1} << 19); ++group) check(key, group);
  RecordProperty("largest_error", std::to_string(worst));
}

}  // namespace
}  // namespace cuvae

#else

TEST(Curand, NotBuilt) {
  GTEST_SKIP() << "the comparison with cuRAND is not built: no curand_kernel.h where this was "
                  "configured (it comes with the CUDA toolkit; set CUDA_PATH)";
}

#endif
