// What the sanitizers see in kernels, because the runner tells them (simt/sanitizer.h): each bug
// ends a program of its own with the sanitizer's report, which names the kernel's line. Builds
// without the sanitizer skip.

#include <gtest/gtest.h>

#include <cstdlib>

#include "cuvae/error.h"
#include "simt/runtime.h"
#include "simt/sanitizer.h"
#include "simt/seeded_bugs.h"

namespace CUVAE_KERNELS {
namespace {

__global__ void copy_one(const float* in, float* out) {
  out[threadIdx.x] = in[threadIdx.x];
}
__global__ void copy_early(const float* in, float* out) {
  const float value = in[threadIdx.x];
  device::wait_for_producers();
  out[threadIdx.x] = value;
}
__global__ void write_early(float* in, float* out) {
  out[threadIdx.x] = 1;
  device::wait_for_producers();
  out[threadIdx.x] = in[threadIdx.x];
}
__global__ void over_an_array(float* out, int index) {
  CUVAE_SHARED(float, first, [16]);
  CUVAE_SHARED(float, second, [16]);
  CUVAE_DYNAMIC_SHARED(float, buffer);
  if (threadIdx.x < 16) second[threadIdx.x] = first[threadIdx.x] = 0;
  __syncthreads();
  float* volatile from = index < 100 ? first : buffer;
  out[threadIdx.x] = from[index % 100];
}
__global__ void vector_load(const float* in, float* out) {
  const float4 four = *reinterpret_cast<const float4*>(in);
  out[threadIdx.x] = four.x;
}
__global__ void one_word(float* out) {
  out[0] = static_cast<float>(blockIdx.x);
}
// A flag without release and acquire orders nothing.
__global__ void relaxed_message(unsigned* flag, float* mail, float* out) {
  if (blockIdx.x == 0) {
    mail[0] = 1;
    atomicExch(flag, 1u);
  } else {
    while (atomicCAS(flag, 1u, 1u) == 0) __nanosleep(20);
    out[0] = mail[0];
  }
}

}  // namespace
}  // namespace CUVAE_KERNELS

namespace cuvae::gpu_on_simt {
namespace {

using cuda::Access;
using cuda::Event;
using cuda::HostBuffer;
using cuda::LaunchShape;
using cuda::Stream;
using simt::make_simt_runtime;
using simt::SimtRuntime;
using simt::StreamOrder;

constexpr std::size_t n = 32;
constexpr LaunchShape warp = {.block = {n, 1, 1}};

// AddressSanitizer --------------------------------------------------------------------------------

class Address : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!simt::with_asan) GTEST_SKIP() << "not built with AddressSanitizer";
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
};

constexpr const char* in_kernel =
    "use-after-poison.*seeded_bugs.h|use-after-poison.*sanitizer_test";

TEST_F(Address, KernelBeyondDeviceMemory) {
  for (const int behind : {1, -1}) {
    EXPECT_DEATH(
        {
          const auto runtime = make_simt_runtime();
          Device<float> a(*runtime, std::vector<float>(n));
          Device<float> b(*runtime, n);
          launch(*runtime, CUVAE_KERNEL(copy_one), warp, nullptr, a.get() + behind, b.get());
        },
        in_kernel);
  }
}
TEST_F(Address, KernelBeyondWhatItsLaunchSaid) {
  const auto run = [](std::size_t bytes) {
    const auto runtime = make_simt_runtime();
    Device<float> a(*runtime, std::vector<float>(n));
    Device<float> b(*runtime, n);
    const Access accesses[] = {{.memory = a.get(), .bytes = bytes},
                               {.memory = b.get(), .bytes = b.bytes(), .write = true}};
    LaunchShape shape = warp;
    shape.accesses = accesses;
    launch(*runtime, CUVAE_KERNEL(copy_one), shape, nullptr, a.get(), b.get());
    return b.values();
  };
  EXPECT_EQ(run(n * sizeof(float)), std::vector<float>(n));
  EXPECT_DEATH(run((n - 1) * sizeof(float)), in_kernel);
}
TEST_F(Address, EarlyReadThatWasNotSaid) {
  const auto run = [](bool early) {
    const auto runtime = make_simt_runtime({.streams = StreamOrder::deferred});
    Device<float> a(*runtime, std::vector<float>(n));
    Device<float> b(*runtime, n);
    Device<float> c(*runtime, n);
    runtime->synchronize();
    const Access accesses[] = {{.memory = a.get(), .bytes = a.bytes(), .early = early},
                               {.memory = b.get(), .bytes = b.bytes(), .write = true}};
    LaunchShape shape = warp;
    shape.programmatic = true;
    shape.accesses = accesses;
    launch(*runtime, CUVAE_KERNEL(copy_one), warp, nullptr, a.get(), c.get());
    launch(*runtime, CUVAE_KERNEL(copy_early), shape, nullptr, a.get(), b.get());
    return b.values();
  };
  EXPECT_EQ(run(true), std::vector<float>(n));
  EXPECT_DEATH(run(false), in_kernel);
}
TEST_F(Address, FreedDeviceMemory) {
  EXPECT_DEATH(
      {
        const auto runtime = make_simt_runtime();
        Device<float> b(*runtime, n);
        const float* freed = Device<float>(*runtime, n).get();
        launch(*runtime, CUVAE_KERNEL(copy_one), warp, nullptr, freed, b.get());
      },
      "use-after-free.*sanitizer_test");
}
TEST_F(Address, HostInDeviceMemory) {
  EXPECT_DEATH(
      {
        const auto runtime = make_simt_runtime();
        Device<float> a(*runtime, std::vector<float>(n));
        runtime->synchronize();
        std::exit(a.get()[3] == 0 ? 0 : 1);
      },
      "use-after-poison");
}
TEST_F(Address, SharedArrays) {
  const auto run = [](int index) {
    const auto runtime = make_simt_runtime();
    Device<float> out(*runtime, n);
    LaunchShape shape = warp;
    shape.shared_bytes = 16 * sizeof(float);
    launch(*runtime, CUVAE_KERNEL(over_an_array), shape, nullptr, out.get(), index);
    return out.values();
  };
  EXPECT_EQ(run(15), std::vector<float>(n));
  EXPECT_DEATH(run(16), in_kernel);
  EXPECT_DEATH(run(116), in_kernel);
}
// Blocks that end in the middle leave the sanitizer's view of the stacks as it should be.
TEST_F(Address, FindingsUnwind) {
  for (int i = 0; i < 3; ++i) {
    const auto runtime = make_simt_runtime();
    Device<float> a(*runtime, std::vector<float>(4 * 128));
    const auto kernel = CUVAE_KERNEL(sums<false>);
    LaunchShape shape = {.block = {96, 1, 1}};  // a warp is missing: wrong, but no finding
    launch(*runtime, kernel, shape, nullptr, a.get(), a.get());
    shape.block.x = 80;
    EXPECT_THROW(launch(*runtime, kernel, shape, nullptr, a.get(), a.get()), Error);
  }
}

TEST(Undefined, MisalignedVectorLoad) {
  if (std::string(CUVAE_SANITIZERS).find("undefined") == std::string::npos)
    GTEST_SKIP() << "not built with UndefinedBehaviorSanitizer";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        const auto runtime = make_simt_runtime();
        Device<float> a(*runtime, std::vector<float>(n));
        launch(*runtime, CUVAE_KERNEL(vector_load), {}, nullptr, a.get() + 1, a.get());
      },
      "sanitizer_test.*misaligned address");
}

// ThreadSanitizer ---------------------------------------------------------------------------------

class Races : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!simt::with_tsan) GTEST_SKIP() << "not built with ThreadSanitizer";
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
};

constexpr int tsan_status = 66;
#define EXPECT_RACE(statement, where) \
  EXPECT_EXIT(                        \
      {                               \
        statement;                    \
        std::exit(0);                 \
      },                              \
      ::testing::ExitedWithCode(tsan_status), "data race.*" where)

void run_on(BugRun run, StreamOrder streams = StreamOrder::immediate) {
  const auto runtime = make_simt_runtime({.streams = streams});
  static_cast<void>(run(*runtime));
}

TEST_F(Races, Barriers) {
  EXPECT_RACE(run_on(run_neighbour<true>), "seeded_bugs.h");
  EXPECT_RACE(run_on(run_sums<true>), "seeded_bugs.h");
  EXPECT_RACE(run_on(run_in_step<true>), "seeded_bugs.h");
  EXPECT_RACE(run_on(run_rounds<true>), "seeded_bugs.h");
}
TEST_F(Races, AsynchronousCopies) {
  EXPECT_RACE(run_on(run_pipeline<CopyBug::no_barrier>), "seeded_bugs.h");
}
TEST_F(Races, BlocksThatWriteOneWord) {
  EXPECT_RACE(
      {
        const auto runtime = make_simt_runtime();
        Device<float> out(*runtime, n);
        launch(*runtime, CUVAE_KERNEL(one_word), {.grid = {2, 1, 1}}, nullptr, out.get());
      },
      "sanitizer_test.cpp");
}
TEST_F(Races, MessagesWithoutRelease) {
  EXPECT_RACE(
      {
        const auto runtime = make_simt_runtime();
        Device<unsigned> flag(*runtime, std::vector<unsigned>(1));
        Device<float> mail(*runtime, n);
        launch(*runtime, CUVAE_KERNEL(relaxed_message), {.grid = {2, 1, 1}}, nullptr, flag.get(),
               mail.get(), mail.get() + 1);
      },
      "sanitizer_test.cpp");
}

enum class Between { nothing, event, early_read, early_write };
void two_kernels(Between between, StreamOrder order) {
  const auto runtime = make_simt_runtime({.streams = order});
  Stream first(*runtime);
  Stream second(*runtime);
  Event event(*runtime);
  Device<float> a(*runtime, std::vector<float>(n));
  Device<float> b(*runtime, std::vector<float>(n));
  runtime->synchronize();
  launch(*runtime, CUVAE_KERNEL(copy_one), warp, first.get(), a.get(), b.get());
  LaunchShape shape = warp;
  switch (between) {
    case Between::event:
      event.record(first.get());
      second.wait(event);
      [[fallthrough]];
    case Between::nothing:
      launch(*runtime, CUVAE_KERNEL(copy_one), warp, second.get(), b.get(), a.get());
      break;
    case Between::early_read:
      shape.programmatic = true;
      launch(*runtime, CUVAE_KERNEL(copy_early), shape, first.get(), b.get(), a.get());
      break;
    case Between::early_write:
      shape.programmatic = true;
      launch(*runtime, CUVAE_KERNEL(write_early), shape, first.get(), b.get(), a.get());
      break;
  }
  runtime->synchronize();
}
TEST_F(Races, Streams) {
  for (const StreamOrder order : {StreamOrder::immediate, StreamOrder::deferred}) {
    EXPECT_RACE(two_kernels(Between::nothing, order), "sanitizer_test.cpp");
    two_kernels(Between::event, order);
  }
}
TEST_F(Races, ProgrammaticLaunches) {
  EXPECT_RACE(two_kernels(Between::early_read, StreamOrder::deferred), "sanitizer_test.cpp");
  EXPECT_RACE(two_kernels(Between::early_write, StreamOrder::deferred), "sanitizer_test.cpp");
}

enum class Host { waits, reads_too_soon, writes_too_soon };
void copy_and(Host host, StreamOrder order) {
  const auto runtime = make_simt_runtime({.streams = order});
  Stream stream(*runtime);
  Device<float> a(*runtime, std::vector<float>(n));
  HostBuffer pinned(*runtime, a.bytes());
  auto* values = static_cast<float*>(pinned.get());
  values[3] = 1;
  runtime->synchronize();
  runtime->copy_to_device(a.get(), values, a.bytes(), stream.get());
  if (host == Host::writes_too_soon) values[3] = 2;
  runtime->copy_to_host(values, a.get(), a.bytes(), stream.get());
  float seen = 0;
  if (host == Host::reads_too_soon) seen = values[3];
  stream.synchronize();
  seen += values[3];
  values[3] = seen;
}
TEST_F(Races, HostAndCopies) {
  for (const StreamOrder order : {StreamOrder::immediate, StreamOrder::deferred}) {
    EXPECT_RACE(copy_and(Host::reads_too_soon, order), "sanitizer_test.cpp");
    EXPECT_RACE(copy_and(Host::writes_too_soon, order), "sanitizer_test.cpp");
    copy_and(Host::waits, order);
  }
}

// No false reports: the same kernels without their bugs.
TEST_F(Races, NoneInRightKernels) {
  for (const BugRun run : {run_neighbour<false>, run_sums<false>, run_in_step<false>,
                           run_rounds<false>, run_pipeline<CopyBug::none>, run_early_read<false>}) {
    for (const StreamOrder order : {StreamOrder::immediate, StreamOrder::deferred}) {
      const auto runtime = make_simt_runtime({.order = simt::Order::greedy, .streams = order});
      EXPECT_EQ(run(*runtime), "");
    }
  }
}

}  // namespace
}  // namespace cuvae::gpu_on_simt
