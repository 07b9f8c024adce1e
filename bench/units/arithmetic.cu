// Rates of mma.sync and FFMA, and what a block's barrier takes.

#include <cmath>
#include <random>
#include <string>

#include "kernels/device/device.cuh"
#include "units/measure.h"

namespace cuvae::units {
namespace {

constexpr int tiles = 8;  // independent accumulators of a warp

// d = steps (a b) for `tiles` different b, over and over. operands [6 + 2 tiles][32] words; sums
// [threads of the grid] of all of a thread's results.
template <bool tf32>
__global__ void __launch_bounds__(512) multiply(const unsigned* operands, int steps, float* sums) {
  const unsigned lane = threadIdx.x % 32;
  std::uint32_t a[4];
  std::uint32_t b[tiles][2];
  float d[tiles][4];
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = operands[i * 32 + lane];
#pragma unroll
  for (int t = 0; t < tiles; ++t) {
    for (int i = 0; i < 2; ++i) b[t][i] = operands[(4 + 2 * t + i) * 32 + lane];
    for (int i = 0; i < 4; ++i) d[t][i] = 0.0f;
  }
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int t = 0; t < tiles; ++t) {
      if constexpr (tf32) {
        gpu::device::mma_tf32(d[t], a, b[t]);
      } else {
        gpu::device::mma_bf16(d[t], a, b[t]);
      }
    }
  }
  float sum = 0.0f;
#pragma unroll
  for (int t = 0; t < tiles; ++t)
    for (int i = 0; i < 4; ++i) sum += d[t][i];
  sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// Random operands: on constant ones the chip clocks higher than on data.
std::vector<unsigned> operands(bool tf32) {
  std::mt19937 random(11);
  std::uniform_real_distribution<float> uniform(0.25f, 1.0f);
  const auto bits = [&](unsigned low) {
    const float value = uniform(random);
    unsigned word = 0;
    static_assert(sizeof word == sizeof value);
    __builtin_memcpy(&word, &value, sizeof word);
    return word & ~((1u << low) - 1u);  // exact in the narrower type
  };
  std::vector<unsigned> words((4 + 2 * tiles) * 32);
  for (unsigned& word : words) word = tf32 ? bits(13) : (bits(16) | bits(16) >> 16);
  return words;
}

template <bool tf32>
void mma(const Context& context) {
  const std::vector<unsigned> words = operands(tf32);
  Memory<unsigned> input(words.size());
  input.write(words);
  for (const unsigned warps : {4u, 8u, 16u}) {
    const auto blocks = static_cast<unsigned>(context.multiprocessors);
    const unsigned threads = 32 * warps;
    Memory<float> sums(std::size_t{blocks} * threads);
    const auto play = [&](int steps) {
      launch(context, multiply<tf32>, {.blocks = blocks, .threads = threads}, input.get(), steps,
             sums.get());
    };
    // The sums grow with the steps; partial sums are rounded, so nearly.
    play(16);
    const std::vector<float> few = sums.read(sums.size());
    const Sample step = context.slope(8192, 40960, play, 9);
    play(1600);
    const std::vector<float> many = sums.read(sums.size());
    for (std::size_t i = 0; i < sums.size(); ++i)
      expect(few[i] > 0 && std::abs(many[i] / few[i] - 100.0f) < 1.0f, "products were left out");
    const double flops = 2.0 * 16 * 8 * (tf32 ? 8 : 16) * tiles * warps * blocks;
    context.figure(tf32 ? "mma.sync tf32" : "mma.sync bf16",
                   std::to_string(warps) + " warps a multiprocessor, random operands",
                   rate_of(flops, step) * 1e-12, "TFLOP/s");
  }
}

constexpr int chains = 16;
// x = x a + b over and over, 16 chains a thread. clocks: cycles and nanoseconds of one block.
__global__ void __launch_bounds__(512) fused(float a, int steps, float* sums, long long* clocks) {
  float x[chains];
  float b[chains];
#pragma unroll
  for (int i = 0; i < chains; ++i) {
    x[i] = 0.0f;
    b[i] = static_cast<float>((threadIdx.x * 5 + static_cast<unsigned>(i) * 3) % 61 + 1);
  }
  long long began = 0;
  long long ended = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(began));
  const long long first = clock64();
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int i = 0; i < chains; ++i) x[i] = fmaf(x[i], a, b[i]);
  }
  const long long last = clock64();
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ended));
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < chains; ++i) sum += x[i] / static_cast<float>(b[i]);
  sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    clocks[0] = last - first;
    clocks[1] = ended - began;
  }
}

// The barrier's own cycles, once all warps are there. out: cycles; what thread 0 counted.
__global__ void barriers(int rounds, unsigned* out) {
  __syncthreads();
  const long long first = clock64();
  unsigned counted = 0;
  for (int i = 0; i < rounds; ++i) counted += static_cast<unsigned>(__syncthreads_count(1) > 0);
  const long long middle = clock64();
  for (int i = 0; i < rounds; ++i) __syncthreads();
  const long long last = clock64();
  if (threadIdx.x == 0) {
    out[0] = static_cast<unsigned>(last - middle);
    out[1] = static_cast<unsigned>(middle - first);
    out[2] = counted;
  }
}

}  // namespace

void measure_mma(const Context& context) {
  mma<true>(context);
  mma<false>(context);
}

void measure_ffma(const Context& context) {
  const auto blocks = static_cast<unsigned>(context.multiprocessors) * 2;
  constexpr unsigned threads = 512;
  Memory<float> sums(std::size_t{blocks} * threads);
  Memory<long long> clocks(2);
  int steps_done = 0;
  const Sample step = context.slope(
      16384, 131072,
      [&](int steps) {
        launch(context, fused, {.blocks = blocks, .threads = threads}, 1.0f, steps, sums.get(),
               clocks.get());
        steps_done = steps;
      },
      9);
  // Sums of integers below 2^24: exact.
  for (const float sum : sums.read(sums.size()))
    expect(sum == static_cast<float>(steps_done) * chains, "operations were left out");
  context.figure("FFMA", "16 chains a thread, 1024 threads a multiprocessor",
                 rate_of(2.0 * chains * threads * blocks, step) * 1e-12, "TFLOP/s");
  const std::vector<long long> clock = clocks.read(2);
  const double rate = 1e3 * static_cast<double>(clock[0]) / static_cast<double>(clock[1]);
  context.figure("clock", "of a multiprocessor under FFMA", {rate, rate, rate}, "MHz");
}

void measure_syncthreads(const Context& context) {
  Memory<unsigned> out(3);
  constexpr int rounds = 1000;
  for (const unsigned threads : {64u, 128u, 256u, 512u, 1024u}) {
    std::vector<double> cycles;
    std::vector<double> counting;
    for (int i = 0; i < 11; ++i) {
      launch(context, barriers, {.threads = threads}, rounds, out.get());
      const std::vector<unsigned> got = out.read(3);
      expect(got[2] == rounds, "barriers were left out");
      cycles.push_back(static_cast<double>(got[0]) / rounds);
      counting.push_back(static_cast<double>(got[1]) / rounds);
    }
    const std::string which = std::to_string(threads) + " threads";
    context.figure("__syncthreads", which, sample_of(cycles), "cycles");
    context.figure("__syncthreads_count", which, sample_of(counting), "cycles");
  }
}

}  // namespace cuvae::units
