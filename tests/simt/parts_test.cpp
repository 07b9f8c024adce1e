// The runner's parts on their own: orders, shared memory, asynchronous copies, kernels' names, the
// program's environment variables; and what running costs, printed.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

#include "cuvae/error.h"
#include "kernels/launch.cuh"
#include "simt/async_copy.h"
#include "simt/environment.h"
#include "simt/launching.h"
#include "simt/ready_queue.h"
#include "simt/runtime.h"
#include "simt/sanitizer.h"
#include "simt/shared_arena.h"
#include "simt/tsan_fibers.h"

namespace CUVAE_KERNELS {
namespace {

constexpr int tile = 64;

// c = a b^T by tiles of 64 x 64; a [m, k], b [n, k].
__global__ void product(const float* a, const float* b, float* c, int m, int n, int k) {
  CUVAE_SHARED(float, a_tile, [16][tile + 4]);
  CUVAE_SHARED(float, b_tile, [16][tile + 4]);
  const int t = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.y) * tile;
  const int column = static_cast<int>(blockIdx.x) * tile;
  float sum[4][4] = {};
  for (int begin = 0; begin < k; begin += 16) {
    for (int i = t; i < tile * 16; i += 256) {
      const int r = i / 16;
      const int d = i % 16;
      const bool inside = begin + d < k;
      a_tile[d][r] = inside && row + r < m ? a[(row + r) * k + begin + d] : 0.0f;
      b_tile[d][r] = inside && column + r < n ? b[(column + r) * k + begin + d] : 0.0f;
    }
    __syncthreads();
    for (int d = 0; d < 16; ++d)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j)
          sum[i][j] = fmaf(a_tile[d][t / 16 * 4 + i], b_tile[d][t % 16 * 4 + j], sum[i][j]);
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const int r = row + t / 16 * 4 + i;
      const int s = column + t % 16 * 4 + j;
      if (r < m && s < n) c[r * n + s] = sum[i][j];
    }
}
__global__ void each(float* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = static_cast<float>(i);
}
__global__ void many_barriers(int* out) {
  int x = 0;
  for (int i = 0; i < 100; ++i) {
    __syncthreads();
    x += i;
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = x;
}
template <int A, bool B>
__global__ void named(float*, int) {}

}  // namespace
}  // namespace CUVAE_KERNELS

namespace cuvae::simt {
namespace {

using testing::Device;
using testing::launch;

// Runs push_behind for `spinning` once, and gives the order of all.
std::vector<std::uint32_t> order_of(Order order, std::uint64_t seed) {
  Dice dice(seed);
  ReadyQueue queue(order, dice);
  std::vector<Thread> threads(8);
  for (std::uint32_t i = 0; i < 8; ++i) {
    threads[i].linear = i;
    threads[i].priority = std::uint64_t{i * 5 % 8 + 1} << 41;
    queue.push(threads[i]);
  }
  std::vector<std::uint32_t> result;
  queue.push_behind(*queue.pop());
  EXPECT_EQ(queue.size(), 8u);
  while (Thread* thread = queue.pop()) result.push_back(thread->linear);
  return result;
}
TEST(ReadyQueue, Orders) {
  const std::vector<std::uint32_t> by_number = {1, 2, 3, 4, 5, 6, 7, 0};
  EXPECT_EQ(order_of(Order::sequential, 1), by_number);
  EXPECT_EQ(order_of(Order::reverse, 1), by_number);  // blocks push in reverse
  // By priority, the most urgent one last, because it gave way.
  EXPECT_EQ(order_of(Order::greedy, 1), (std::vector<std::uint32_t>{6, 1, 4, 7, 2, 5, 0, 3}));
  std::set<std::vector<std::uint32_t>> seen;
  for (std::uint64_t seed = 0; seed < 20; ++seed) seen.insert(order_of(Order::random, seed));
  EXPECT_GT(seen.size(), 18u);
  EXPECT_EQ(order_of(Order::random, 3), order_of(Order::random, 3));
}

TEST(SharedArena, ArraysAndRedZones) {
  SharedArena arena;
  char keys[3] = {};
  for (int block = 0; block < 2; ++block) {
    arena.begin(40, 1000);
    auto* dynamic = static_cast<std::byte*>(arena.dynamic());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(dynamic) % 16, 0u);
    auto* first = static_cast<std::byte*>(arena.find(&keys[0], 100, 16, "first"));
    auto* second = static_cast<std::byte*>(arena.find(&keys[1], 700, 128, "second"));
    EXPECT_EQ(arena.find(&keys[0], 100, 16, "first"), first);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(second) % 128, 0u);
    EXPECT_EQ(arena.static_bytes(), 828u);
    EXPECT_EQ(arena.find(&keys[2], 200, 16, "third"), nullptr);  // over the capacity
    EXPECT_TRUE(std::all_of(first, first + 100, [](std::byte b) { return b == std::byte{0xFF}; }));
    EXPECT_TRUE(arena.contains(first + 84, 16));
    EXPECT_FALSE(arena.contains(first + 85, 16));
    EXPECT_EQ(arena.overrun(), "");
    if (!with_asan) {
      const std::pair<std::byte*, const char*> wrong[] = {{first + 100, "first"},
                                                          {second + 700, "second"},
                                                          {dynamic + 40, "dynamic shared memory"},
                                                          {dynamic - 1, "the block"}};
      for (const auto& [address, name] : wrong) {
        const std::byte before = std::exchange(*address, std::byte{1});
        EXPECT_EQ(arena.overrun(), name);
        *address = before;
      }
    }
    std::memset(first, 0, 100);
  }
}

TEST(CopyQueue, EarlyAndLate) {
  const Quiet runner;  // as its hooks are
  for (const AsyncCopies when : {AsyncCopies::early, AsyncCopies::late}) {
    const bool late = when == AsyncCopies::late;
    CopyQueue queue;
    int from[4] = {1, 2, 3, 4};
    int to[3][4];
    std::memset(to, 0xFF, sizeof to);
    for (int group = 0; group < 3; ++group) {
      queue.issue(when, to[group], from, 16, 4 * (group + 1));
      queue.commit();
    }
    EXPECT_EQ(to[0][0], late ? -1 : 1);
    queue.wait(2);
    EXPECT_EQ(to[0][0], 1);
    EXPECT_EQ(to[0][1], 0);
    EXPECT_EQ(to[1][0], late ? -1 : 1);
    queue.wait(0);
    EXPECT_EQ(to[2][2], 3);
    EXPECT_EQ(to[2][3], 0);
    queue.issue(when, to[0], from, 4, 4);  // not committed
    from[0] = 9;
    queue.wait(0);
    EXPECT_EQ(to[0][0], 1);
    queue.finish();
    EXPECT_EQ(to[0][0], late ? 9 : 1);
  }
}

TEST(KernelEntry, Names) {
  EXPECT_EQ((kernel_entry<&gpu_on_simt::named<3, true>>("").name), "named<3, true>");
  const KernelEntry& entry = kernel_entry<&gpu_on_simt::each>("");
  EXPECT_EQ(entry.name, "each");
  ASSERT_EQ(entry.parameters, 2u);
  EXPECT_EQ(entry.bytes[0], sizeof(float*));
  EXPECT_EQ(entry.bytes[1], sizeof(int));
}

// Each variable of environment.h, and what it may not be.
class Environment : public ::testing::Test {
 protected:
  void set(const char* name, const char* value) {
    setenv(name, value, 1);
    names_.push_back(name);
  }
  void TearDown() override {
    for (const char* name : names_) unsetenv(name);
  }
  std::vector<const char*> names_;
};
TEST_F(Environment, Options) {
  const SimtOptions plain = options_of_environment();
  EXPECT_EQ(plain.chip, "sm_90");
  EXPECT_EQ(plain.order, Order::sequential);
  EXPECT_EQ(plain.seed, 1u);
  set("CUVAE_SIMT_CHIP", "sm_120");
  set("CUVAE_SIMT_ORDER", "greedy");
  set("CUVAE_SIMT_SEED", "77");
  set("CUVAE_SIMT_STREAMS", "deferred");
  set("CUVAE_SIMT_COPIES", "early");
  set("CUVAE_SIMT_DEPENDENTS", "late");
  set("CUVAE_SIMT_MEMORY", "123456");
  const SimtOptions options = options_of_environment();
  EXPECT_EQ(options.chip, "sm_120");
  EXPECT_EQ(options.order, Order::greedy);
  EXPECT_EQ(options.seed, 77u);
  EXPECT_EQ(options.streams, StreamOrder::deferred);
  EXPECT_EQ(options.async_copies, AsyncCopies::early);
  EXPECT_FALSE(options.programmatic_early);
  EXPECT_EQ(options.memory_bytes, 123456);
}
TEST_F(Environment, MistypedOptions) {
  for (const char* name : {"CUVAE_SIMT_ORDER", "CUVAE_SIMT_SEED", "CUVAE_SIMT_STREAMS",
                           "CUVAE_SIMT_COPIES", "CUVAE_SIMT_DEPENDENTS", "CUVAE_SIMT_MEMORY"}) {
    setenv(name, "12x", 1);
    try {
      static_cast<void>(options_of_environment());
      ADD_FAILURE() << name;
    } catch (const Error& e) {
      EXPECT_EQ(e.status(), Status::usage);
      EXPECT_NE(std::string(e.what()).find("(" + std::string(name) + "): use"), std::string::npos)
          << e.what();
    }
    unsetenv(name);
  }
}

TEST_F(Environment, UnknownVariables) {
  for (const char* name : {"CUVAE_SIMT_ORDRE", "CUVAE_SIMT_", "CUVAE_SIMT_ORDER_"}) {
    for (const char* value : {"greedy", ""}) {
      setenv(name, value, 1);
      try {
        static_cast<void>(options_of_environment());
        ADD_FAILURE() << name;
      } catch (const Error& e) {
        EXPECT_EQ(e.status(), Status::usage);
        EXPECT_NE(std::string(e.what()).find("unknown variable of the runner (" +
                                             std::string(name) + "): there are CUVAE_SIMT_CHIP "),
                  std::string::npos)
            << e.what();
        EXPECT_NE(std::string(e.what()).find(" CUVAE_SIMT_MUTATION"), std::string::npos);
      }
      unsetenv(name);
    }
  }
  set("CUVAE_SIMTORDER", "greedy");  // somebody else's
  EXPECT_EQ(options_of_environment().order, Order::sequential);
}

// Not held to anything: machines differ.
TEST(Speed, IsPrinted) {
  if (with_asan || with_tsan) GTEST_SKIP() << "sanitizers are slow, and say nothing about speed";
  const auto runtime = make_simt_runtime();
  const auto time = [&](const char* what, auto&& run) {
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      run();
      best = std::min(
          best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::printf("%-46s %8.4f s\n", what, best);
  };
  const int m = 128;
  const int n = 512;
  const int k = 784;
  Device<float> a(*runtime, std::vector<float>(std::size_t{m} * k, 1.0f));
  Device<float> b(*runtime, std::vector<float>(std::size_t{n} * k, 2.0f));
  Device<float> c(*runtime, std::size_t{m} * n);
  time("product 128 x 784 x 512, float", [&] {
    launch(*runtime, CUVAE_KERNEL(gpu_on_simt::product), {.grid = {8, 2, 1}, .block = {256, 1, 1}},
           nullptr, a.get(), b.get(), c.get(), m, n, k);
  });
  EXPECT_EQ(c.values(), std::vector<float>(std::size_t{m} * n, 2.0f * k));
  const int million = 1'000'000;
  Device<float> out(*runtime, std::size_t{million});
  time("a million threads", [&] {
    launch(*runtime, CUVAE_KERNEL(gpu_on_simt::each), {.grid = {3907, 1, 1}, .block = {256, 1, 1}},
           nullptr, out.get(), million);
  });
  EXPECT_EQ(out.values().back(), 999'999.0f);
  Device<int> sums(*runtime, std::size_t{16 * 256});
  time("100 barriers of 16 blocks of 256 threads", [&] {
    launch(*runtime, CUVAE_KERNEL(gpu_on_simt::many_barriers),
           {.grid = {16, 1, 1}, .block = {256, 1, 1}}, nullptr, sums.get());
  });
  EXPECT_EQ(sums.values(), std::vector<int>(16 * 256, 4950));
}

TEST(Past, KnowsWhatHasEnded) {
  Past past;
  EXPECT_FALSE(past.contains(0));
  past.add(7);
  past.add(4);
  EXPECT_TRUE(past.contains(4) && past.contains(7));
  EXPECT_FALSE(past.contains(3) || past.contains(5) || past.contains(8));
  Past other;
  other.add_all_before(4);
  other.add(9);
  past.add(other);
  EXPECT_TRUE(past.contains(0) && past.contains(3) && past.contains(4) && past.contains(7) &&
              past.contains(9));
  EXPECT_FALSE(past.contains(5) || past.contains(6) || past.contains(8) || past.contains(10));
  past.add(2);  // known
  past.add_all_before(20);
  EXPECT_TRUE(past.contains(19));
  EXPECT_FALSE(past.contains(20));
  past.add_all_before(6);
  EXPECT_TRUE(past.contains(19));
  EXPECT_FALSE(past.contains(20));
}

}  // namespace
}  // namespace cuvae::simt
