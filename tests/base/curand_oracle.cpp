#include "base/curand_oracle.h"

#include <cuda_runtime.h>

#include <cmath>

#define QUALIFIERS static inline
#include <curand_kernel.h>

namespace cuvae::oracle {
namespace {

curandStatePhilox4_32_10_t state_at(std::uint64_t seed, std::uint64_t subsequence,
                                    std::uint64_t offset) {
  curandStatePhilox4_32_10_t state;
  curand_init(seed, subsequence, offset, &state);
  return state;
}

}  // namespace

std::array<std::uint32_t, 4> curand_words(std::uint64_t seed, std::uint64_t subsequence,
                                          std::uint64_t offset) {
  auto state = state_at(seed, subsequence, offset);
  const uint4 words = curand4(&state);
  return {words.x, words.y, words.z, words.w};
}

std::array<float, 4> curand_uniforms(std::uint64_t seed, std::uint64_t subsequence,
                                     std::uint64_t offset) {
  auto state = state_at(seed, subsequence, offset);
  const float4 uniforms = curand_uniform4(&state);
  return {uniforms.x, uniforms.y, uniforms.z, uniforms.w};
}

std::array<float, 4> curand_normals(std::uint64_t seed, std::uint64_t subsequence,
                                    std::uint64_t offset) {
  auto state = state_at(seed, subsequence, offset);
  const float4 normals = curand_normal4(&state);
  return {normals.x, normals.y, normals.z, normals.w};
}

}  // namespace cuvae::oracle
