// Caches, device memory, copies.

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <string>

#include "kernels/device/device.cuh"
#include "units/measure.h"

namespace cuvae::units {
namespace {

// One thread follows indices past the L1 cache. out: the place at the end, cycles, nanoseconds.
__global__ void follow(const unsigned* next, unsigned start, int steps, long long* out) {
  unsigned place = start;
  long long began = 0;
  long long ended = 0;
  for (int i = 0; i < 64; ++i) place = __ldcg(next + place);  // page tables
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(began));
  const long long first = clock64();
  for (int i = 0; i < steps; ++i) place = __ldcg(next + place);
  const long long last = clock64();
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ended));
  out[0] = place;
  out[1] = last - first;
  out[2] = ended - began;
}

void latency(const Context& context, const std::string& row, std::size_t bytes, bool warm) {
  const std::size_t line = 128 / sizeof(unsigned);
  const std::size_t lines = bytes / 128;
  std::vector<unsigned> order(lines);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(7));
  std::vector<unsigned> next(bytes / sizeof(unsigned), 0);
  for (std::size_t i = 0; i < lines; ++i)
    next[order[i] * line] = order[(i + 1) % lines] * static_cast<unsigned>(line);
  Memory<unsigned> memory(next.size());
  memory.write(next);
  Memory<long long> out(3);
  const int steps = static_cast<int>(std::min<std::size_t>(lines - 64, 8192));
  std::vector<double> cycles;
  std::vector<double> nanoseconds;
  std::size_t at = 0;
  for (int i = 0; i < 9; ++i) {
    // What is to come from device memory has not been read before.
    const std::size_t from = warm ? 0 : at;
    launch(context, follow, {.threads = 1}, memory.get(), order[from] * static_cast<unsigned>(line),
           steps, out.get());
    const std::vector<long long> got = out.read(3);
    const std::size_t end = (from + 64 + static_cast<std::size_t>(steps)) % lines;
    expect(static_cast<std::size_t>(got[0]) == order[end] * line, "the chain was not followed");
    at = end;
    if (warm && i < 2) continue;
    cycles.push_back(static_cast<double>(got[1]) / steps);
    nanoseconds.push_back(static_cast<double>(got[2]) / steps);
  }
  const std::string which = "one thread, within " + std::to_string(bytes >> 20) + " MiB";
  context.figure(row, which, sample_of(cycles), "cycles");
  context.figure(row, which, sample_of(nanoseconds), "ns");
}

// All blocks read all of it, `rounds` times, each beginning elsewhere. sums [blocks]
__global__ void read_all(const uint4* from, unsigned count, int rounds, unsigned* sums) {
  unsigned sum = 0;
  for (int round = 0; round < rounds; ++round) {
    const unsigned offset = (blockIdx.x + static_cast<unsigned>(round)) * 4096u % count;
    for (unsigned i = threadIdx.x; i < count; i += 4 * blockDim.x) {
      uint4 values[4];
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) {
        unsigned place = i + j * blockDim.x + offset;
        place -= place >= count ? count : 0;
        values[j] = __ldcg(from + place);
      }
#pragma unroll
      for (const uint4& value : values) sum += value.x ^ value.y ^ value.z ^ value.w;
    }
  }
  sum = __reduce_add_sync(~0u, sum);
  if (threadIdx.x % 32 == 0) atomicAdd(sums + blockIdx.x, sum);
}

__global__ void copy_all(const uint4* from, uint4* to, std::size_t count) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    uint4 values[4];
#pragma unroll
    for (std::size_t j = 0; j < 4; ++j) values[j] = __ldcs(from + i + j * stride);
#pragma unroll
    for (std::size_t j = 0; j < 4; ++j) __stcs(to + i + j * stride, values[j]);
  }
  for (; i < count; i += stride) to[i] = from[i];
}

__global__ void scramble(unsigned* words, std::size_t count) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride)
    words[i] = (static_cast<unsigned>(i) + 1u) * 2654435761u;
}

// What scramble() left there.
void expect_scrambled(const unsigned* words, std::size_t count) {
  for (const std::size_t i : {std::size_t{0}, count / 3, count / 2, count - 1}) {
    unsigned word = 0;
    CUVAE_UNITS_CHECK(cudaMemcpy(&word, words + i, sizeof word, cudaMemcpyDeviceToHost));
    expect(word == (static_cast<unsigned>(i) + 1u) * 2654435761u, "a word was not copied");
  }
}

}  // namespace

void measure_l2(const Context& context) {
  latency(context, "L2 latency", std::size_t{4} << 20, true);
  const auto blocks = static_cast<unsigned>(context.multiprocessors) * 2;
  for (const std::size_t bytes : {std::size_t{2} << 20, std::size_t{12} << 20}) {
    const auto count = static_cast<unsigned>(bytes / sizeof(uint4));
    Memory<uint4> memory(count);
    launch(context, scramble, {.blocks = blocks}, reinterpret_cast<unsigned*>(memory.get()),
           std::size_t{count} * 4);
    Memory<unsigned> sums(blocks);
    constexpr int rounds = 8;
    const Sample time = context.seconds_of(15, [&] {
      launch(context, read_all, {.blocks = blocks, .threads = 512}, memory.get(), count, rounds,
             sums.get());
    });
    // All blocks have read the same, as often.
    const std::vector<unsigned> got = sums.read(blocks);
    unsigned once = 0;
    for (std::uint32_t i = 0; i < 4 * count; i += 4) {
      unsigned value = 0;
      for (std::uint32_t j = 1; j <= 4; ++j) value ^= (i + j) * 2654435761u;
      once += value;
    }
    for (const unsigned sum : got) expect(sum == once * rounds * 18u, "reads were left out");
    const double amount = static_cast<double>(bytes) * blocks * rounds;
    context.figure("L2 bandwidth",
                   "all blocks read the same " + std::to_string(bytes >> 20) + " MiB",
                   rate_of(amount, time) * 1e-12, "TB/s");
  }
}

void measure_hbm(const Context& context) {
  latency(context, "device memory latency", std::size_t{512} << 20, false);
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  CUVAE_UNITS_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  const std::size_t bytes =
      std::min<std::size_t>(std::size_t{4} << 30, free_bytes / 4) / 4096 * 4096;
  Memory<uint4> from(bytes / sizeof(uint4));
  Memory<uint4> to(bytes / sizeof(uint4));
  const auto blocks = static_cast<unsigned>(context.multiprocessors);
  launch(context, scramble, {.blocks = 16 * blocks}, reinterpret_cast<unsigned*>(from.get()),
         bytes / sizeof(unsigned));
  const std::string which = std::to_string(bytes >> 20) + " MiB read and written";
  const Sample own = context.seconds_of(9, [&] {
    launch(context, copy_all, {.blocks = 8 * blocks, .threads = 512}, from.get(), to.get(),
           from.size());
  });
  CUVAE_UNITS_CHECK(cudaStreamSynchronize(context.stream));
  expect_scrambled(reinterpret_cast<const unsigned*>(to.get()), bytes / sizeof(unsigned));
  context.figure("device memory copy", which + ", a kernel",
                 rate_of(2.0 * static_cast<double>(bytes), own) * 1e-12, "TB/s");
  to.zero();
  const Sample driver = context.seconds_of(9, [&] {
    CUVAE_UNITS_CHECK(
        cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice, context.stream));
  });
  CUVAE_UNITS_CHECK(cudaStreamSynchronize(context.stream));
  expect_scrambled(reinterpret_cast<const unsigned*>(to.get()), bytes / sizeof(unsigned));
  context.figure("device memory copy", which + ", cudaMemcpy",
                 rate_of(2.0 * static_cast<double>(bytes), driver) * 1e-12, "TB/s");
}

void measure_copies(const Context& context) {
  constexpr std::size_t most = std::size_t{64} << 20;
  struct HostDeleter {
    void operator()(unsigned* memory) const { static_cast<void>(cudaFreeHost(memory)); }
  };
  void* made = nullptr;
  CUVAE_UNITS_CHECK(cudaMallocHost(&made, most));
  const std::unique_ptr<unsigned, HostDeleter> host(static_cast<unsigned*>(made));
  Memory<unsigned> memory(most / sizeof(unsigned));
  for (const std::size_t bytes :
       {std::size_t{4}, std::size_t{4096}, std::size_t{65536}, std::size_t{1} << 20, most}) {
    for (const bool up : {true, false}) {
      std::vector<double> times;
      for (int i = 0; i < 33; ++i) {
        if (up) host.get()[0] = static_cast<unsigned>(i) + 7u;
        CUVAE_UNITS_CHECK(cudaStreamSynchronize(context.stream));
        const double start = now();
        CUVAE_UNITS_CHECK(
            cudaMemcpyAsync(up ? memory.get() : host.get(), up ? host.get() : memory.get(), bytes,
                            up ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, context.stream));
        CUVAE_UNITS_CHECK(cudaStreamSynchronize(context.stream));
        if (i > 2) times.push_back(now() - start);
      }
      expect(memory.read(1)[0] == 32u + 7u, "nothing was copied");
      const Sample time = sample_of(times);
      const std::string which = std::string(up ? "to the GPU, " : "to the host, ") +
                                std::to_string(bytes) + " bytes, call and wait";
      context.figure("pinned copy", which, time * 1e6, "us");
      if (bytes == most)
        context.figure("pinned copy", which, rate_of(static_cast<double>(bytes), time) * 1e-9,
                       "GB/s");
    }
  }
}

}  // namespace cuvae::units
