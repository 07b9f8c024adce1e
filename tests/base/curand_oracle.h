#pragma once
// cuRAND's device generator, compiled for the host from NVIDIA's own headers: the oracle of the
// random numbers. Behind plain functions, so that no CUDA header reaches a test.

#include <array>
#include <cstdint>

namespace cuvae::oracle {

// Four draws after curand_init(seed, subsequence, offset) of a curandStatePhilox4_32_10_t.
std::array<std::uint32_t, 4> curand_words(std::uint64_t seed, std::uint64_t subsequence,
                                          std::uint64_t offset);
std::array<float, 4> curand_uniforms(std::uint64_t seed, std::uint64_t subsequence,
                                     std::uint64_t offset);
std::array<float, 4> curand_normals(std::uint64_t seed, std::uint64_t subsequence,
                                    std::uint64_t offset);

}  // namespace cuvae::oracle
