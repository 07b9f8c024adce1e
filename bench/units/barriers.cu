// How fast one block learns what another did, and how long all blocks wait for one another.

#include <cooperative_groups.h>

#include <string>

#include "units/measure.h"
#include "units/spin.cuh"

namespace cuvae::units {
namespace {

// Two blocks hand a number back and forth: 2 hops a round. words: [0] and [32] the two counters,
// [64] failed, [65] the rounds done.
template <bool add>
__global__ void ping_pong(unsigned* words, int rounds) {
  if (threadIdx.x != 0) return;
  unsigned* const mine = words + (blockIdx.x == 0 ? 0 : 32);
  unsigned* const other = words + (blockIdx.x == 0 ? 32 : 0);
  unsigned* const failed = words + 64;
  unsigned round = 1;
  for (; round <= static_cast<unsigned>(rounds); ++round) {
    if (blockIdx.x == 1 && !wait_for(other, round, failed)) return;
    if constexpr (add) {
      add_release(mine, 1u);
    } else {
      store_release(mine, round);
    }
    if (blockIdx.x == 0 && !wait_for(other, round, failed)) return;
  }
  if (blockIdx.x == 0) words[65] = round - 1;
}

// A barrier of all blocks by one counter that only grows. words: [0] the counter, [64] failed, [65]
// the rounds done; seen [blocks]: what every block found in its neighbour's place.
__global__ void flat_barrier(unsigned* words, unsigned* places, unsigned* seen, int rounds) {
  for (unsigned round = 1; round <= static_cast<unsigned>(rounds); ++round) {
    if (threadIdx.x == 0) places[blockIdx.x] = round;
    __syncthreads();
    bool arrived = true;
    if (threadIdx.x == 0) {
      add_release(words, 1u);
      arrived = wait_for(words, round * gridDim.x, words + 64);
    }
    if (__syncthreads_or(static_cast<int>(!arrived)) != 0) return;
    if (threadIdx.x == 0 && round == static_cast<unsigned>(rounds))
      seen[blockIdx.x] = load_acquire(places + (blockIdx.x + 1) % gridDim.x);
  }
  if (threadIdx.x == 0 && blockIdx.x == 0) words[65] = static_cast<unsigned>(rounds);
}

// cooperative_groups' own; all blocks run at once, which is what a cooperative launch says.
__global__ void grid_sync(unsigned* words, unsigned* places, unsigned* seen, int rounds) {
  const auto grid = cooperative_groups::this_grid();
  for (unsigned round = 1; round <= static_cast<unsigned>(rounds); ++round) {
    if (threadIdx.x == 0) places[blockIdx.x] = round;
    grid.sync();
    if (threadIdx.x == 0 && round == static_cast<unsigned>(rounds))
      seen[blockIdx.x] = load_acquire(places + (blockIdx.x + 1) % gridDim.x);
  }
  if (threadIdx.x == 0 && blockIdx.x == 0) words[65] = static_cast<unsigned>(rounds);
}

void expect_rounds(const Memory<unsigned>& words, int rounds) {
  const std::vector<unsigned> got = words.read(66);
  expect(got[64] == 0, "a block waited too long for another");
  expect(got[65] == static_cast<unsigned>(rounds), "rounds were left out");
}

template <class Kernel>
Sample hop(const Context& context, Kernel kernel) {
  Memory<unsigned> words(128);
  const auto play = [&](int rounds) {
    CUVAE_UNITS_CHECK(
        cudaMemsetAsync(words.get(), 0, words.size() * sizeof(unsigned), context.stream));
    launch(context, kernel, {.blocks = 2, .threads = 32, .cooperative = true}, words.get(), rounds);
  };
  const Sample round = context.slope(1000, 5000, play);
  expect_rounds(words, 5000);
  return round * (0.5 * 1e9);
}

template <class Kernel>
Sample barrier(const Context& context, Kernel kernel, unsigned blocks, unsigned threads) {
  Memory<unsigned> words(128);
  Memory<unsigned> places(blocks);
  Memory<unsigned> seen(blocks);
  const auto play = [&](int rounds) {
    CUVAE_UNITS_CHECK(
        cudaMemsetAsync(words.get(), 0, words.size() * sizeof(unsigned), context.stream));
    launch(context, kernel, {.blocks = blocks, .threads = threads, .cooperative = true},
           words.get(), places.get(), seen.get(), rounds);
  };
  const Sample one = context.slope(500, 2500, play);
  expect_rounds(words, 2500);
  for (const unsigned round : seen.read(blocks))
    expect(round == 2500, "a barrier let a block pass");
  return one * 1e6;
}

}  // namespace

void measure_barriers(const Context& context) {
  if (context.gpu.cooperativeLaunch == 0) throw Unavailable("no cooperative launches");
  context.attempt(
      "counter hop", "red.release, ld.acquire", [&] { return hop(context, ping_pong<true>); },
      "ns");
  context.attempt(
      "counter hop", "st.release, ld.acquire", [&] { return hop(context, ping_pong<false>); },
      "ns");
  const auto all = static_cast<unsigned>(context.multiprocessors);
  for (const unsigned blocks : {all / 4, all / 2, all}) {
    const std::string which = std::to_string(blocks) + " blocks of 256 threads";
    context.attempt(
        "flat counter barrier", which, [&] { return barrier(context, flat_barrier, blocks, 256); },
        "us");
    context.attempt(
        "grid.sync", which, [&] { return barrier(context, grid_sync, blocks, 256); }, "us");
  }
}

}  // namespace cuvae::units
