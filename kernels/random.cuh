#pragma once
// Random numbers in registers: the counters of cuvae/rng.h, drawn with the device's Philox.

#include "base/box_muller.h"
#include "base/counters.h"
#include "kernels/hyper.cuh"

namespace CUVAE_KERNELS {

__device__ __forceinline__ uint4 draw_words(const RandomKey& key, std::uint64_t group) {
  const std::uint64_t subsequence = random_subsequence(key.purpose, key.stream, group);
  const uint4 counter =
      make_uint4(static_cast<unsigned>(key.step), static_cast<unsigned>(key.step >> 32),
                 static_cast<unsigned>(subsequence), static_cast<unsigned>(subsequence >> 32));
  return device::philox(
      counter, make_uint2(static_cast<unsigned>(key.seed), static_cast<unsigned>(key.seed >> 32)));
}

// Elements 4 group to 4 group + 3 of the stream.
__device__ __forceinline__ float4 draw_normal4(const RandomKey& key, std::uint64_t group) {
  const uint4 words = draw_words(key, group);
  float4 normals;
  box_muller(words.x, words.y, normals.x, normals.y);
  box_muller(words.z, words.w, normals.z, normals.w);
  return normals;
}

__device__ __forceinline__ float draw_normal(const RandomKey& key, std::uint64_t i) {
  const uint4 words = draw_words(key, i / 4);
  const bool second_pair = (i & 2) != 0;
  float first;
  float second;
  box_muller(second_pair ? words.z : words.x, second_pair ? words.w : words.y, first, second);
  return (i & 1) != 0 ? second : first;
}

// Where a random node's numbers come from: element (b, j) of [B, d] is number b d + j of the step,
// or key[b] d + j of the clock's step where a key is given.
struct Draws {
  Purpose purpose;
  std::uint16_t stream;
  std::int64_t d;
  int step = 0;
  const std::int64_t* clock = nullptr;
  const std::int64_t* key = nullptr;  // [B]
  cuda::FaultWord fault = {};
};

inline Draws bind_draws(Draws draws, const CudaArgs& args, int clock, int key, bool keyed) {
  draws.step = args.step;
  draws.clock = args.in<std::int64_t>(clock);
  draws.key = keyed ? args.in<std::int64_t>(key) : nullptr;
  draws.fault = args.fault;
  return draws;
}

__device__ __forceinline__ RandomKey random_key(const Draws& draws) {
  const auto ahead = static_cast<std::uint64_t>(draws.key != nullptr ? 0 : draws.step);
  return {static_cast<std::uint64_t>(draws.clock[clock_seed]), draws.purpose, draws.stream,
          static_cast<std::uint64_t>(draws.clock[clock_step]) + ahead};
}

// The number of row b's first element. A key that is negative or too large is a fault, and 0.
__device__ __forceinline__ std::uint64_t first_draw(const Draws& draws, std::int64_t b) {
  std::int64_t row = b;
  if (draws.key != nullptr) {
    row = draws.key[b];
    const auto most = static_cast<std::int64_t>(max_random_groups * 4);
    if (row < 0 || row >= most / draws.d) {
      device::raise(draws.fault.word,
                    cuda::FaultWord::code(draws.fault.node, cuda::FaultKind::key));
      row = 0;
    }
  }
  return static_cast<std::uint64_t>(row * draws.d);
}

}  // namespace CUVAE_KERNELS
