// Kernels that break CUDA's rules, and what the runner says of each: what is wrong, the kernel's
// file and line, block and thread, and how to have it again.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "cuvae/error.h"
#include "kernels/launch.cuh"
#include "simt/launching.h"
#include "simt/runtime.h"
#include "simt/sanitizer.h"

namespace CUVAE_KERNELS {
namespace {

// Kernels write down the lines that reports have to name.
constexpr int lines_of_kernels = 16;
int lines[lines_of_kernels];
#define LINE_IS(i) __atomic_store_n(&lines[i], __LINE__, __ATOMIC_RELAXED)

__global__ void divergent_barrier() {
  LINE_IS(0);
  if (threadIdx.x < 5) {
    __syncthreads();  // + 2
  } else {
    __syncthreads();  // + 4
  }
}
__global__ void divergent_barrier_on_one_line() {
  LINE_IS(0);
  // clang-format off
  if (threadIdx.x < 5) __syncthreads(); else __syncthreads();
  // clang-format on
}
__global__ void exit_before_barrier() {
  if (threadIdx.x >= 60) return;
  LINE_IS(0);
  __syncthreads();
}
__global__ void barrier_and_warp() {
  LINE_IS(0);
  if (threadIdx.x == 3) {
    __syncwarp();  // + 2
  } else {
    __syncthreads();  // + 4
  }
}
__global__ void foreign_lane() {
  LINE_IS(0);
  __syncwarp(0xffff0000u);
}
__global__ void different_masks() {
  LINE_IS(0);
  __syncwarp(threadIdx.x < 16 ? 0xffffffffu : 0xffff8000u);
}
__global__ void different_operations(int* out) {
  LINE_IS(0);
  if (threadIdx.x % 2 == 0) {
    out[0] = __any_sync(~0u, 1);  // + 2
  } else {
    out[1] = __shfl_xor_sync(~0u, 1, 1);  // + 4
  }
}
__global__ void different_places(int* out) {
  LINE_IS(0);
  if (threadIdx.x % 2 == 0) {
    out[0] = __shfl_xor_sync(~0u, 1, 1);  // + 2
  } else {
    out[1] = __shfl_xor_sync(~0u, 1, 1);  // + 4
  }
}
__global__ void absent_lanes(int* out) {
  LINE_IS(0);
  if (threadIdx.x < 30) out[threadIdx.x] = __shfl_xor_sync(~0u, 1, 1);
  __syncthreads();
}
__global__ void reads_foreign_lane(int* out) {
  LINE_IS(0);
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1, 20);
}
__global__ void reads_ended_lane(int* out) {
  if (threadIdx.x == 7) return;
  LINE_IS(0);
  out[threadIdx.x] = __shfl_sync(~0u, 1, 7);
}
__global__ void shuffle_width(int* out) {
  LINE_IS(0);
  out[threadIdx.x] = __shfl_sync(~0u, 1, 0, 12);
}
__global__ void matrix_of_half_a_warp(float* out) {
  if (threadIdx.x >= 16) return;
  float d[4] = {};
  const std::uint32_t a[4] = {};
  const std::uint32_t b[2] = {};
  LINE_IS(0);
  device::mma_tf32(d, a, b);
  out[threadIdx.x] = d[0];
}
__global__ void load_matrix_askew(std::uint32_t* out) {
  CUVAE_SHARED(float, tile, [64]);
  tile[threadIdx.x] = 0;
  __syncwarp();
  std::uint32_t r[2];
  LINE_IS(0);
  device::ldmatrix_x2(r, &tile[threadIdx.x % 8 + 1]);
  out[threadIdx.x] = r[0];
}
__global__ void load_matrix_elsewhere(std::uint32_t* out) {
  std::uint32_t r[4];
  LINE_IS(0);
  device::ldmatrix_x4(r, out);
  out[threadIdx.x] = r[0];
}
__global__ void copy_askew(const float* in) {
  CUVAE_SHARED(float, tile, [64]);
  LINE_IS(0);
  device::cp_async16(&tile[4], in + 1);
}
__global__ void copy_too_much(const float* in) {
  CUVAE_SHARED(float, tile, [64]);
  LINE_IS(0);
  device::cp_async4(&tile[4], in, 5);
}
__global__ void copy_elsewhere(float* in) {
  LINE_IS(0);
  device::cp_async16(in + 4, in);
}
__global__ void copy_over_the_end(const float* in) {
  CUVAE_SHARED(float, tile, [64]);
  CUVAE_SHARED(float, other, [64]);
  other[0] = tile[0];
  LINE_IS(0);
  device::cp_async16(tile + 64, in);
}
__global__ void atomic_askew(unsigned char* word) {
  LINE_IS(0);
  atomicAdd(reinterpret_cast<unsigned*>(word + 2), 1u);
}
__global__ void large_array(float* out) {
  CUVAE_SHARED(float, fits, [8 * 1024]);
  LINE_IS(0);
  CUVAE_SHARED(float, does_not, [5 * 1024]);
  out[0] = fits[0] + does_not[0];
}
struct alignas(32) Wide {
  float values[8];
};
__global__ void dynamic_alignment(float* out) {
  LINE_IS(0);
  CUVAE_DYNAMIC_SHARED(Wide, wide);
  out[0] = wide->values[0];
}
__global__ void throws() {
  throw std::runtime_error("no reason");
}

__global__ void write_beside_array(int behind) {
  CUVAE_SHARED(float, first, [16]);
  CUVAE_SHARED(float, second, [16]);
  if (threadIdx.x != 0) return;
  second[0] = 1;
  float* volatile hidden = first;
  hidden[15 + behind] = 1;
}
__global__ void write_beside_memory(float* out, int offset) {
  if (threadIdx.x == 0 && blockIdx.x == 0) out[offset] = 1;
}

__global__ void wait_for_all(unsigned* counter, unsigned target) {
  device::add_acq_rel(counter, 1);
  LINE_IS(0);
  while (device::load_acquire(counter) < target) __nanosleep(20);
}
__global__ void lock_twice(unsigned* lock) {
  LINE_IS(0);
  while (atomicCAS(lock, 0, 1) != 0) __nanosleep(20);
}

__global__ void no_wait(int* out) {
  out[0] = 1;
}
__global__ void no_wait_in_some(int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  device::wait_for_producers();
}
__global__ void trigger_before_wait() {
  LINE_IS(0);
  device::let_dependents_start();
  device::wait_for_producers();
}

__global__ void fine(int* out) {
  __syncthreads();
  out[threadIdx.x] = 1;
}

}  // namespace
}  // namespace CUVAE_KERNELS

namespace cuvae::gpu_on_simt {
namespace {

using simt::Order;
using simt::SimtOptions;
using simt::StreamOrder;
using testing::Device;
using testing::launch;

constexpr Order orders[] = {Order::sequential, Order::reverse, Order::random, Order::greedy};

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.status(), Status::device);
    return e.what();
  }
  return "no error";
}

std::string place(int line) {
  return "findings_test.cpp:" + std::to_string(line) + ":";
}

void expect_in(const std::string& report, const std::string& part) {
  EXPECT_NE(report.find(part), std::string::npos) << part << "\nis not in\n" << report;
}

// Launches the kernel in every order; `parts` are in every report, and the runtime works on.
template <class... P, class... A>
void expect_report(const cuda::TypedKernel<P...>& kernel, const cuda::LaunchShape& shape,
                   const std::function<std::vector<std::string>()>& parts, A... arguments) {
  for (const Order order : orders) {
    for (const StreamOrder streams : {StreamOrder::immediate, StreamOrder::deferred}) {
      if (simt::with_tsan && streams == StreamOrder::immediate) continue;  // which takes long
      SCOPED_TRACE(name_of(order));
      const auto runtime =
          simt::make_simt_runtime({.order = order, .seed = 42, .streams = streams});
      Device<std::uint32_t> memory(*runtime, std::vector<std::uint32_t>(64));
      const std::string report = error_of([&] {
        if constexpr (sizeof...(P) == 0) {
          launch(*runtime, kernel, shape, nullptr);
        } else {
          using First = std::tuple_element_t<0, std::tuple<P...>>;
          if constexpr (std::is_pointer_v<First>) {
            auto* pointer =
                reinterpret_cast<std::remove_const_t<std::remove_pointer_t<First>>*>(memory.get());
            launch(*runtime, kernel, shape, nullptr, pointer, arguments...);
          } else {
            launch(*runtime, kernel, shape, nullptr, arguments...);
          }
        }
        runtime->synchronize();
      });
      for (const std::string& part : parts()) expect_in(report, part);
      expect_in(report, "order " + std::string(name_of(order)) + ", seed 42");
      expect_in(report, "kernel " + std::string(kernel.kernel.name));
      Device<int> out(*runtime, std::size_t{64});
      launch(*runtime, CUVAE_KERNEL(fine), {.block = {64, 1, 1}}, nullptr, out.get());
      EXPECT_EQ(out.values(), std::vector<int>(64, 1));
    }
  }
}

using Parts = std::vector<std::string>;
constexpr cuda::LaunchShape one_warp = {.grid = {2, 1, 1}, .block = {32, 1, 1}};
constexpr cuda::LaunchShape one_block = {.block = {64, 1, 1}};
constexpr cuda::LaunchShape two_warps = {.grid = {2, 1, 1}, .block = {64, 1, 1}};

TEST(Findings, DivergentBarrier) {
  expect_report(CUVAE_KERNEL(divergent_barrier), two_warps, [] {
    return Parts{"divergent barrier: thread (0, 0, 0) waits at tests/simt/" + place(lines[0] + 2),
                 "thread (5, 0, 0) at tests/simt/" + place(lines[0] + 4)};
  });
  expect_report(CUVAE_KERNEL(divergent_barrier_on_one_line), two_warps, [] {
    return Parts{"divergent barrier", place(lines[0] + 2)};
  });
}

TEST(Findings, ExitBeforeBarrier) {
  expect_report(CUVAE_KERNEL(exit_before_barrier), two_warps, [] {
    return Parts{"a barrier after 4 of 64 threads of the block have ended", place(lines[0] + 1)};
  });
}

TEST(Findings, Deadlock) {
  expect_report(CUVAE_KERNEL(barrier_and_warp), one_block, [] {
    return Parts{
        "deadlock",
        "1 threads wait in __syncwarp of lanes 0xffffffff at tests/simt/" + place(lines[0] + 2),
        "63 threads wait in __syncthreads at tests/simt/" + place(lines[0] + 4),
        "0 threads of these blocks have ended", "(the first: block "};
  });
  expect_report(CUVAE_KERNEL(absent_lanes), {.block = {32, 1, 1}}, [] {
    return Parts{"30 threads wait in a shuffle of lanes 0xffffffff", place(lines[0] + 1),
                 "2 threads wait in __syncthreads"};
  });
}

TEST(Findings, Masks) {
  expect_report(CUVAE_KERNEL(foreign_lane), one_warp, [] {
    return Parts{"__syncwarp: the caller's lane is not in its mask at", place(lines[0] + 1)};
  });
  expect_report(CUVAE_KERNEL(different_masks), one_warp, [] { return Parts{place(lines[0] + 1)}; });
}

TEST(Findings, OperationsThatDoNotMeet) {
  expect_report(CUVAE_KERNEL(different_operations), one_warp, [] {
    return Parts{"meet in different operations", "__any_sync", "a shuffle", place(lines[0] + 2),
                 place(lines[0] + 4)};
  });
  expect_report(CUVAE_KERNEL(different_places), one_warp, [] {
    return Parts{"meet in different operations", place(lines[0] + 2), place(lines[0] + 4)};
  });
}

TEST(Findings, Shuffles) {
  expect_report(CUVAE_KERNEL(reads_foreign_lane), one_warp, [] {
    return Parts{"lane 0 reads lane 20, which takes no part in the shuffle", place(lines[0] + 1)};
  });
  expect_report(CUVAE_KERNEL(reads_ended_lane), one_warp, [] {
    return Parts{"lane 0 reads lane 7, which takes no part in the shuffle", place(lines[0] + 1)};
  });
  expect_report(CUVAE_KERNEL(shuffle_width), one_warp, [] {
    return Parts{"a shuffle's width is a power of two up to 32 at", place(lines[0] + 1)};
  });
}

TEST(Findings, Matrices) {
  expect_report(CUVAE_KERNEL(matrix_of_half_a_warp), one_warp, [] {
    return Parts{"mma_tf32 needs all 32 lanes of the warp, and 16 take part", place(lines[0] + 1)};
  });
  expect_report(CUVAE_KERNEL(load_matrix_askew), one_warp, [] {
    return Parts{"ldmatrix: the row's address is not aligned to 16 bytes", place(lines[0] + 1)};
  });
  expect_report(CUVAE_KERNEL(load_matrix_elsewhere), one_warp, [] {
    return Parts{"ldmatrix: the row does not lie in shared memory", place(lines[0] + 1)};
  });
}

TEST(Findings, AsynchronousCopies) {
  expect_report(CUVAE_KERNEL(copy_askew), one_warp, [] {
    return Parts{"cp_async: an address is not aligned to 16 bytes", place(lines[0] + 1)};
  });
  expect_report(CUVAE_KERNEL(copy_too_much), one_warp, [] {
    return Parts{"cp_async: 5 valid bytes of 4", place(lines[0] + 1)};
  });
  for (const auto& kernel : {CUVAE_KERNEL(copy_elsewhere)})
    expect_report(kernel, one_warp, [] {
      return Parts{"cp_async: the destination does not lie in shared memory", place(lines[0] + 1)};
    });
  expect_report(CUVAE_KERNEL(copy_over_the_end), one_warp, [] {
    return Parts{"cp_async: the destination does not lie in shared memory", place(lines[0] + 1)};
  });
}

TEST(Findings, Atomics) {
  expect_report(CUVAE_KERNEL(atomic_askew), one_warp, [] {
    return Parts{"an atomic operation on an address that is not aligned to 4 bytes",
                 place(lines[0] + 1)};
  });
}

TEST(Findings, SharedMemory) {
  expect_report(CUVAE_KERNEL(large_array), one_warp, [] {
    return Parts{"too much shared memory: does_not, 20480 bytes", place(lines[0] + 1)};
  });
  expect_report(CUVAE_KERNEL(dynamic_alignment), one_warp, [] {
    return Parts{"dynamic shared memory is aligned to 16 bytes", place(lines[0] + 1)};
  });
}

TEST(Findings, Exceptions) {
  expect_report(CUVAE_KERNEL(throws), one_warp, [] {
    return Parts{"an exception: no reason", "thread ("};
  });
}

TEST(Findings, WritesBeside) {
  if (simt::with_asan) GTEST_SKIP() << "AddressSanitizer ends the program (sanitizer_test.cpp)";
  expect_report(
      CUVAE_KERNEL(write_beside_array), one_warp,
      [] {
        return Parts{"a write beside shared memory, at first", "block ("};
      },
      1);
  expect_report(
      CUVAE_KERNEL(write_beside_memory), one_warp,
      [] { return Parts{"a write beside device memory, behind an allocation of 256 bytes"}; }, 64);
  expect_report(
      CUVAE_KERNEL(write_beside_memory), one_warp,
      [] { return Parts{"a write beside device memory, before an allocation of 256 bytes"}; }, -1);
}

TEST(Findings, SpinningForEver) {
  expect_report(
      CUVAE_KERNEL(wait_for_all), one_warp,
      [] {
        return Parts{"no thread gets on: all that run spin", place(lines[0] + 1)};
      },
      65u);
  expect_report(CUVAE_KERNEL(lock_twice), one_warp, [] {
    return Parts{"no thread gets on", "in 2 blocks of 2", place(lines[0] + 1)};
  });
}

// Blocks that wait for one another and do not fit the chip together.
TEST(Findings, SpinningBlocksThatDoNotFit) {
  for (const Order order : orders) {
    if (simt::with_tsan && order != Order::greedy) continue;  // thousands of threads take long
    const auto runtime = simt::make_simt_runtime({.order = order, .multiprocessors = 2});
    Device<unsigned> counter(*runtime, std::vector<unsigned>(1));
    const cuda::LaunchShape fits = {.grid = {4, 1, 1}, .block = {1024, 1, 1}};
    launch(*runtime, CUVAE_KERNEL(wait_for_all), fits, nullptr, counter.get(), 4 * 1024u);
    EXPECT_EQ(counter.values(), std::vector<unsigned>{4 * 1024u});
    const cuda::LaunchShape too_many = {.grid = {5, 1, 1}, .block = {1024, 1, 1}};
    expect_in(error_of([&] {
                launch(*runtime, CUVAE_KERNEL(wait_for_all), too_many, nullptr, counter.get(),
                       9 * 1024u);
              }),
              "in 4 blocks of 5, of which 4 run at once");
  }
}

TEST(Findings, ProgrammaticKernelsWait) {
  const cuda::LaunchShape programmatic = {.block = {32, 1, 1}, .programmatic = true};
  expect_report(CUVAE_KERNEL(no_wait), programmatic, [] {
    return Parts{"a thread ended without wait_for_producers()", "kernel no_wait, block (0, 0, 0)"};
  });
  expect_report(
      CUVAE_KERNEL(no_wait_in_some), programmatic,
      [] {
        return Parts{"a thread ended without wait_for_producers()", "thread (31, 0, 0)"};
      },
      31);
  expect_report(CUVAE_KERNEL(trigger_before_wait), programmatic, [] {
    return Parts{"let_dependents_start() before wait_for_producers()", place(lines[0] + 1)};
  });
}

TEST(Findings, AccessesOutsideDeviceMemory) {
  const auto runtime = simt::make_simt_runtime();
  Device<int> out(*runtime, std::size_t{64});
  const cuda::Access too_long = {.memory = out.get(), .bytes = 257, .write = true};
  expect_in(error_of([&] {
              launch(*runtime, CUVAE_KERNEL(fine),
                     {.block = {64, 1, 1}, .accesses = {&too_long, 1}}, nullptr, out.get());
            }),
            "an access of the launch lies neither in device nor in pinned memory: 257 bytes");
}

TEST(Findings, WritesThatWereNotSaid) {
  for (const bool said : {true, false}) {
    const auto runtime = simt::make_simt_runtime({.check_writes = true});
    Device<int> memory(*runtime, std::size_t{200});
    int* const out = memory.get() + 100;
    const cuda::Access accesses[] = {
        {.memory = memory.get(), .bytes = 50 * sizeof(int), .write = true},
        {.memory = out, .bytes = 64 * sizeof(int), .write = said}};
    const std::string error = error_of([&] {
      launch(*runtime, CUVAE_KERNEL(fine), {.block = {64, 1, 1}, .accesses = accesses}, nullptr,
             out);
    });
    expect_in(error, said ? "no error"
                          : "a write that the launch did not say, among 600 bytes at 200 of an "
                            "allocation of 800 bytes; kernel fine");
  }
}

}  // namespace
}  // namespace cuvae::gpu_on_simt
