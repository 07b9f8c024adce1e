// Streams, events, copies and graphs: what CUDA promises holds in every order that the runner
// makes, and what it does not promise fails in some.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "cuvae/error.h"
#include "kernels/launch.cuh"
#include "simt/launching.h"
#include "simt/runtime.h"
#include "simt/sanitizer.h"

namespace CUVAE_KERNELS {
namespace {

// out = 2 in + add
__global__ void step(const float* in, float* out, float add) {
  out[threadIdx.x] = 2 * in[threadIdx.x] + add;
}
__global__ void sum_of_two(const float* a, const float* b, float* out) {
  out[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
}
// Draws two numbers from one counter: one before it waits, one after.
__global__ void tickets(unsigned* counter, unsigned* out) {
  const unsigned early = atomicAdd(counter, 1u);
  device::wait_for_producers();
  device::let_dependents_start();
  out[0] = early;
  out[1] = atomicAdd(counter, 1u);
}
__global__ void plain_ticket(unsigned* counter, unsigned* out) {
  out[0] = atomicAdd(counter, 1u);
}
__global__ void dynamic(float* out) {
  CUVAE_DYNAMIC_SHARED(float, buffer);
  buffer[threadIdx.x] = 1;
  out[threadIdx.x] = buffer[threadIdx.x];
}
__global__ void broken() {
  if (threadIdx.x < 7) return;
  __syncthreads();
}

}  // namespace
}  // namespace CUVAE_KERNELS

namespace cuvae::gpu_on_simt {
namespace {

using cuda::Capture;
using cuda::CapturedGraph;
using cuda::Event;
using cuda::GraphExec;
using cuda::HostBuffer;
using cuda::LaunchShape;
using cuda::Runtime;
using cuda::Stream;
using simt::make_simt_runtime;
using simt::SimtOptions;
using simt::SimtRuntime;
using simt::StreamOrder;
using testing::Device;
using testing::launch;

constexpr std::size_t n = 32;
constexpr LaunchShape warp = {.block = {n, 1, 1}};

std::vector<float> all(float value) {
  return std::vector<float>(n, value);
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}
#define EXPECT_ERROR(statement, part)                        \
  do {                                                       \
    const std::string text_ = error_of([&] { statement; });  \
    EXPECT_NE(text_.find(part), std::string::npos) << text_; \
  } while (false)

class Pinned {
 public:
  explicit Pinned(Runtime& runtime) : buffer_(runtime, n * sizeof(float)) {}
  float* get() const { return static_cast<float*>(buffer_.get()); }
  std::vector<float> values() const { return {get(), get() + n}; }
  void set(float value) { std::fill_n(get(), n, value); }

 private:
  HostBuffer buffer_;
};

// For every seed of deferred streams, and for immediate ones.
template <class F>
void in_every_order(F&& f) {
  for (std::uint64_t seed = 0; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto runtime = make_simt_runtime(
        {.seed = seed, .streams = seed == 0 ? StreamOrder::immediate : StreamOrder::deferred});
    f(*runtime);
    EXPECT_EQ(runtime->live().total(), 0u);
    EXPECT_EQ(runtime->failed_releases(), 0);
  }
}
// How many of the seeds give true.
template <class F>
int of_twelve(F&& f) {
  int count = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed)
    if (f(*make_simt_runtime({.seed = seed, .streams = StreamOrder::deferred}))) ++count;
  return count;
}

TEST(Streams, WorkOfOneStreamIsInOrder) {
  in_every_order([](SimtRuntime& runtime) {
    Stream stream(runtime);
    Device<float> a(runtime, n);
    Device<float> b(runtime, n);
    Pinned host(runtime);
    Pinned back(runtime);
    host.set(3);
    runtime.copy_to_device(a.get(), host.get(), a.bytes(), stream.get());
    launch(runtime, CUVAE_KERNEL(step), warp, stream.get(), a.get(), b.get(), 1.0f);
    runtime.copy_on_device(a.get(), b.get(), a.bytes(), stream.get());
    launch(runtime, CUVAE_KERNEL(step), warp, stream.get(), a.get(), a.get(), 2.0f);
    runtime.fill(b.get(), 0, b.bytes(), stream.get());
    launch(runtime, CUVAE_KERNEL(sum_of_two), warp, stream.get(), a.get(), b.get(), b.get());
    runtime.copy_to_host(back.get(), b.get(), b.bytes(), stream.get());
    stream.synchronize();
    EXPECT_EQ(back.values(), all(16));
  });
}

TEST(Streams, EventsOrderStreams) {
  in_every_order([](SimtRuntime& runtime) {
    Stream first(runtime);
    Stream second(runtime);
    Event written(runtime);
    Device<float> a(runtime, all(1));
    Device<float> b(runtime, n);
    runtime.synchronize();
    launch(runtime, CUVAE_KERNEL(step), warp, first.get(), a.get(), a.get(), 5.0f);
    written.record(first.get());
    second.wait(written);
    launch(runtime, CUVAE_KERNEL(step), warp, second.get(), a.get(), b.get(), 0.0f);
    second.synchronize();
    EXPECT_EQ(b.values(), all(14));
  });
}

TEST(Streams, WithoutAnEventTheOrderIsOpen) {
  if (simt::with_tsan) GTEST_SKIP() << "ThreadSanitizer reports it (sanitizer_test.cpp)";
  const int wrong = of_twelve([](SimtRuntime& runtime) {
    Stream first(runtime);
    Stream second(runtime);
    Device<float> a(runtime, all(1));
    Device<float> b(runtime, n);
    runtime.synchronize();
    launch(runtime, CUVAE_KERNEL(step), warp, first.get(), a.get(), a.get(), 5.0f);
    launch(runtime, CUVAE_KERNEL(step), warp, second.get(), a.get(), b.get(), 0.0f);
    second.synchronize();
    return b.values() != all(14);
  });
  EXPECT_GT(wrong, 0);
  EXPECT_LT(wrong, 12);
}

TEST(Streams, PinnedCopiesHappenLater) {
  if (simt::with_tsan) GTEST_SKIP() << "a race, on purpose";
  EXPECT_EQ(of_twelve([](SimtRuntime& runtime) {
              Stream stream(runtime);
              Device<float> a(runtime, n);
              Pinned from(runtime);
              Pinned to(runtime);
              from.set(1);
              to.set(2);
              runtime.copy_to_device(a.get(), from.get(), a.bytes(), stream.get());
              from.set(7);  // too soon
              runtime.copy_to_host(to.get(), a.get(), a.bytes(), stream.get());
              const bool unknown = std::isnan(to.get()[0]);  // read too soon
              stream.synchronize();
              return unknown && to.values() == all(7);
            }),
            12);
}

TEST(Streams, PageableCopiesAreDoneWithTheHostMemory) {
  in_every_order([](SimtRuntime& runtime) {
    Stream stream(runtime);
    Device<float> a(runtime, n);
    std::vector<float> from = all(4);
    runtime.copy_to_device(a.get(), from.data(), a.bytes(), stream.get());
    from = all(9);
    std::vector<float> to(n);
    runtime.copy_to_host(to.data(), a.get(), a.bytes(), stream.get());
    EXPECT_EQ(to, all(4));
  });
}

TEST(Streams, WorkOutlivesItsStreamAndEvent) {
  in_every_order([](SimtRuntime& runtime) {
    Device<float> a(runtime, all(1));
    Device<float> b(runtime, n);
    Stream second(runtime);
    {
      Stream first(runtime);
      Event done(runtime);
      runtime.synchronize();
      launch(runtime, CUVAE_KERNEL(step), warp, first.get(), a.get(), a.get(), 1.0f);
      done.record(first.get());
      second.wait(done);
    }
    launch(runtime, CUVAE_KERNEL(step), warp, second.get(), a.get(), b.get(), 1.0f);
    second.synchronize();
    EXPECT_EQ(b.values(), all(7));
  });
}

TEST(Streams, FreeingMemoryWaitsForTheDevice) {
  in_every_order([](SimtRuntime& runtime) {
    Stream stream(runtime);
    Device<float> b(runtime, n);
    {
      Device<float> a(runtime, all(1));
      runtime.synchronize();
      launch(runtime, CUVAE_KERNEL(step), warp, stream.get(), a.get(), b.get(), 1.0f);
    }
    stream.synchronize();
    EXPECT_EQ(b.values(), all(3));
  });
}

TEST(Streams, ReleasesLeaveFindingsToTheNextCall) {
  const auto runtime = make_simt_runtime({.streams = StreamOrder::deferred});
  {
    Device<float> a(*runtime, n);
    launch(*runtime, CUVAE_KERNEL(broken), warp, nullptr);
  }
  EXPECT_EQ(runtime->failed_releases(), 0);
  EXPECT_ERROR(runtime->synchronize(), "a barrier after 7 of 32 threads");
  EXPECT_EQ(error_of([&] { runtime->synchronize(); }), "no error");
}

TEST(Events, Time) {
  const auto runtime = make_simt_runtime({.streams = StreamOrder::deferred});
  Stream stream(*runtime);
  Event start(*runtime, true);
  Event stop(*runtime, true);
  Event untimed(*runtime);
  EXPECT_ERROR(static_cast<void>(stop.milliseconds_since(start)), "cudaErrorInvalidResourceHandle");
  start.record(stream.get());
  stop.record(stream.get());
  untimed.record(stream.get());
  EXPECT_ERROR(static_cast<void>(stop.milliseconds_since(start)), "cudaErrorNotReady");
  untimed.synchronize();
  EXPECT_GE(stop.milliseconds_since(start), 0.0f);
  EXPECT_ERROR(static_cast<void>(untimed.milliseconds_since(start)),
               "cudaErrorInvalidResourceHandle");
}

TEST(Events, UnrecordedOnesAreNoReasonToWait) {
  const auto runtime = make_simt_runtime({.streams = StreamOrder::deferred});
  Stream stream(*runtime);
  Event event(*runtime);
  stream.wait(event);
  event.synchronize();
  stream.synchronize();
}

// Graphs ------------------------------------------------------------------------------------------

TEST(Graphs, ReplayWhatWasCaptured) {
  in_every_order([](SimtRuntime& runtime) {
    Stream stream(runtime);
    Device<float> a(runtime, all(1));
    Pinned from(runtime);
    Pinned to(runtime);
    runtime.synchronize();
    CapturedGraph graph;
    {
      float add = 1;
      Capture capture(runtime, stream);
      launch(runtime, CUVAE_KERNEL(step), warp, stream.get(), a.get(), a.get(), add);
      add = 50;  // arguments are those at the launch
      runtime.copy_to_host(to.get(), a.get(), a.bytes(), stream.get());
      graph = capture.finish();
    }
    EXPECT_EQ(a.values(), all(1));  // captured, not run
    GraphExec executable = graph.instantiate();
    graph = CapturedGraph();
    executable.launch(stream.get());
    executable.launch(stream.get());
    stream.synchronize();
    EXPECT_EQ(to.values(), all(7));
    executable.launch(stream.get());
    stream.synchronize();
    EXPECT_EQ(to.values(), all(15));
  });
}

// A diamond: two branches between a fork and a join.
float diamond(SimtRuntime& runtime, bool join) {
  Stream stream(runtime);
  Stream branch(runtime);
  Event fork(runtime);
  Event joined(runtime);
  Device<float> a(runtime, all(1));
  Device<float> b(runtime, all(0));
  Device<float> c(runtime, all(0));
  Device<float> d(runtime, n);
  runtime.synchronize();
  Capture capture(runtime, stream);
  launch(runtime, CUVAE_KERNEL(step), warp, stream.get(), a.get(), a.get(), 1.0f);
  fork.record(stream.get());
  branch.wait(fork);
  launch(runtime, CUVAE_KERNEL(step), warp, branch.get(), a.get(), b.get(), 10.0f);
  launch(runtime, CUVAE_KERNEL(step), warp, branch.get(), b.get(), b.get(), 0.0f);
  joined.record(branch.get());
  launch(runtime, CUVAE_KERNEL(step), warp, stream.get(), a.get(), c.get(), 100.0f);
  if (join) stream.wait(joined);
  launch(runtime, CUVAE_KERNEL(sum_of_two), warp, stream.get(), b.get(), c.get(), d.get());
  stream.wait(joined);
  GraphExec executable = capture.finish().instantiate();
  executable.launch(stream.get());
  stream.synchronize();
  return d.values()[0];
}
TEST(Graphs, BranchesForkAndJoin) {
  in_every_order([](SimtRuntime& runtime) { EXPECT_EQ(diamond(runtime, true), 32 + 106); });
}
TEST(Graphs, AMissingJoinShows) {
  if (simt::with_tsan) GTEST_SKIP() << "a race, on purpose";
  const int wrong = of_twelve([](SimtRuntime& runtime) { return diamond(runtime, false) != 138; });
  EXPECT_GT(wrong, 0);
}

TEST(Graphs, LaunchesOfOneExecutableFollowEachOther) {
  in_every_order([](SimtRuntime& runtime) {
    Stream first(runtime);
    Stream second(runtime);
    Device<float> a(runtime, all(0));
    runtime.synchronize();
    Capture capture(runtime, first);
    launch(runtime, CUVAE_KERNEL(step), warp, first.get(), a.get(), a.get(), 1.0f);
    GraphExec executable = capture.finish().instantiate();
    executable.launch(first.get());
    executable.launch(second.get());
    executable.launch(first.get());
    first.synchronize();
    EXPECT_EQ(a.values(), all(7));
  });
}

TEST(Graphs, FindingsComeOutOfReplays) {
  const auto runtime = make_simt_runtime({.streams = StreamOrder::deferred});
  Stream stream(*runtime);
  Capture capture(*runtime, stream);
  launch(*runtime, CUVAE_KERNEL(broken), warp, stream.get());
  GraphExec executable = capture.finish().instantiate();
  for (int i = 0; i < 2; ++i) {
    executable.launch(stream.get());
    EXPECT_ERROR(stream.synchronize();
                 executable.launch(stream.get()), "a barrier after 7 of 32 threads");
  }
}

class Capturing : public ::testing::Test {
 protected:
  std::unique_ptr<SimtRuntime> runtime = make_simt_runtime({.streams = StreamOrder::deferred});
  Stream stream{*runtime};
  Stream other{*runtime};
  Event event{*runtime};
  Device<float> a{*runtime, all(1)};
  void run(const Stream& in) {
    launch(*runtime, CUVAE_KERNEL(step), warp, in.get(), a.get(), a.get(), 1.0f);
  }
  void SetUp() override { runtime->synchronize(); }
  // A new capture works.
  void TearDown() override {
    runtime->synchronize();
    Capture capture(*runtime, stream);
    run(stream);
    GraphExec executable = capture.finish().instantiate();
    executable.launch(stream.get());
    stream.synchronize();
    EXPECT_EQ(a.values(), all(3));
  }
};

TEST_F(Capturing, UnjoinedWork) {
  std::optional<Capture> capture(std::in_place, *runtime, stream);
  event.record(stream.get());
  other.wait(event);
  run(other);
  std::string error = "no error";
  try {
    static_cast<void>(capture->finish());
  } catch (const Error& e) {
    error = e.what();
  }
  EXPECT_NE(error.find("cudaErrorStreamCaptureUnjoined"), std::string::npos) << error;
}
TEST_F(Capturing, WaitingForTheDevice) {
  for (int kind = 0; kind < 5; ++kind) {
    SCOPED_TRACE(kind);
    Capture capture(*runtime, stream);
    run(stream);
    std::string error;
    switch (kind) {
      case 0: error = error_of([&] { stream.synchronize(); }); break;
      case 1: error = error_of([&] { runtime->synchronize(); }); break;
      case 2: error = error_of([&] { Device<float> more(*runtime, n); }); break;
      case 3: error = error_of([&] { Pinned more(*runtime); }); break;
      case 4: error = error_of([&] { static_cast<void>(Capture(*runtime, stream)); }); break;
    }
    const bool begun_twice = kind == 4;
    EXPECT_NE(
        error.find(begun_twice ? "cudaErrorIllegalState" : "cudaErrorStreamCaptureUnsupported"),
        std::string::npos)
        << error;
    error = error_of([&] { static_cast<void>(capture.finish()); });
    EXPECT_NE(error.find(begun_twice ? "no error" : "cudaErrorStreamCaptureInvalidated"),
              std::string::npos)
        << error;
  }
}
TEST_F(Capturing, WorkFromOutside) {
  run(other);
  event.record(other.get());
  {
    Capture capture(*runtime, stream);
    EXPECT_ERROR(stream.wait(event), "cudaErrorStreamCaptureIsolation");
    const std::string error = error_of([&] { static_cast<void>(capture.finish()); });
    EXPECT_NE(error.find("cudaErrorStreamCaptureInvalidated"), std::string::npos) << error;
  }
  runtime->synchronize();
  const std::vector<float> one = all(1);
  runtime->copy_to_device(a.get(), one.data(), a.bytes(), nullptr);
}
TEST_F(Capturing, CapturedEvents) {
  {
    Capture capture(*runtime, stream);
    run(stream);
    event.record(stream.get());
    EXPECT_ERROR(event.synchronize(), "cudaErrorCapturedEvent");
  }
  EXPECT_ERROR(other.wait(event), "cudaErrorCapturedEvent");
  event.record(other.get());  // recorded anew
  event.synchronize();
}
TEST_F(Capturing, GraphsWithinGraphs) {
  std::optional<Capture> capture(std::in_place, *runtime, other);
  launch(*runtime, CUVAE_KERNEL(sum_of_two), warp, other.get(), a.get(), a.get(), a.get());
  GraphExec executable = capture->finish().instantiate();
  capture.emplace(*runtime, stream);
  EXPECT_ERROR(executable.launch(stream.get()), "cudaErrorStreamCaptureUnsupported");
}
TEST_F(Capturing, ThrownAway) {
  Capture capture(*runtime, stream);
  run(stream);
}

// Programmatic launches ---------------------------------------------------------------------------

constexpr LaunchShape one = {};
constexpr LaunchShape one_programmatic = {.programmatic = true};

std::vector<unsigned> ticket_order(SimtRuntime& runtime, bool graph, bool event_between) {
  Stream stream(runtime);
  Stream other(runtime);
  Event event(runtime);
  Device<unsigned> counter(runtime, std::vector<unsigned>(1));
  Device<unsigned> out(runtime, std::vector<unsigned>(6));
  event.record(other.get());
  runtime.synchronize();
  std::optional<Capture> capture;
  if (graph) capture.emplace(runtime, stream);
  for (unsigned i = 0; i < 3; ++i) {
    if (i == 2 && event_between) {
      if (graph) {
        event.record(stream.get());
        other.wait(event);
        runtime.fill(out.get(), 0, 0, other.get());
        launch(runtime, CUVAE_KERNEL(plain_ticket), one, other.get(), counter.get(), out.get() + 5);
        event.record(other.get());
      }
      stream.wait(event);
    }
    launch(runtime, CUVAE_KERNEL(tickets), i == 0 ? one : one_programmatic, stream.get(),
           counter.get(), out.get() + 2 * i);
  }
  if (graph) capture->finish().instantiate().launch(stream.get());
  stream.synchronize();
  return out.values();
}
TEST(Programmatic, BeginsBeforeItsProducer) {
  for (const bool graph : {false, true}) {
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      const auto runtime = make_simt_runtime({.seed = seed, .streams = StreamOrder::deferred});
      // The second begins before the first does anything, the third before the second goes on.
      EXPECT_EQ(ticket_order(*runtime, graph, false), (std::vector<unsigned>{1, 2, 0, 4, 3, 5}));
    }
    const auto late =
        make_simt_runtime({.programmatic_early = false, .streams = StreamOrder::deferred});
    EXPECT_EQ(ticket_order(*late, graph, false), (std::vector<unsigned>{0, 1, 2, 3, 4, 5}));
  }
}
TEST(Programmatic, NotBesideAnEvent) {
  const auto runtime = make_simt_runtime({.streams = StreamOrder::deferred});
  EXPECT_EQ(ticket_order(*runtime, false, true), (std::vector<unsigned>{1, 2, 0, 3, 4, 5}));
  EXPECT_EQ(ticket_order(*runtime, true, true), (std::vector<unsigned>{1, 2, 0, 3, 5, 6}));
}
TEST(Programmatic, PendingOnesGoAwayWithTheRuntime) {
  const auto runtime = make_simt_runtime({.streams = StreamOrder::deferred});
  Device<unsigned> counter(*runtime, std::vector<unsigned>(1));
  Device<unsigned> out(*runtime, std::vector<unsigned>(4));
  runtime->synchronize();
  Stream stream(*runtime);
  Event event(*runtime);
  launch(*runtime, CUVAE_KERNEL(tickets), one, stream.get(), counter.get(), out.get());
  event.record(stream.get());
  launch(*runtime, CUVAE_KERNEL(tickets), one_programmatic, stream.get(), counter.get(),
         out.get() + 2);
  event.synchronize();
}

// Limits ------------------------------------------------------------------------------------------

TEST(Limits, OfALaunch) {
  const auto runtime = make_simt_runtime();
  Device<float> out(*runtime, n);
  const auto kernel = CUVAE_KERNEL(dynamic);
  const auto error = [&](const LaunchShape& shape) {
    return error_of([&] { launch(*runtime, kernel, shape, nullptr, out.get()); });
  };
  const auto expect = [&](const LaunchShape& shape, const char* name) {
    const std::string text = error(shape);
    EXPECT_NE(text.find(name), std::string::npos) << text;
  };
  expect({.block = {1025, 1, 1}}, "cudaErrorInvalidConfiguration");
  expect({.block = {32, 33, 1}}, "cudaErrorInvalidConfiguration");
  expect({.block = {1, 1, 65}}, "cudaErrorInvalidConfiguration");
  expect({.grid = {1, 65536, 1}}, "cudaErrorInvalidConfiguration");
  expect({.grid = {1, 1, 65536}}, "cudaErrorInvalidConfiguration");
  expect({.grid = {0x80000000u, 1, 1}}, "cudaErrorInvalidConfiguration");
  expect({.grid = {0, 1, 1}}, "an empty launch");
  expect({.shared_bytes = 48 * 1024 + 16}, "cudaErrorInvalidValue");
  expect({.grid = {132 * 2 + 1, 1, 1}, .block = {1024, 1, 1}, .cooperative = true},
         "cudaErrorCooperativeLaunchTooLarge");
  runtime->set_shared_limit(kernel.kernel, 227 * 1024);
  EXPECT_EQ(error({.block = {n, 1, 1}, .shared_bytes = 227 * 1024}), "no error");
  EXPECT_ERROR(runtime->set_shared_limit(kernel.kernel, 227 * 1024 + 1), "cudaErrorInvalidValue");
  EXPECT_EQ(error({.block = {n, 1, 1}, .shared_bytes = 128}), "no error");
  const auto old = make_simt_runtime({.chip = "sm_80"});
  Device<unsigned> words(*old, std::vector<unsigned>(4));
  EXPECT_ERROR(
      launch(*old, CUVAE_KERNEL(tickets), one_programmatic, nullptr, words.get(), words.get() + 1),
      "cudaErrorNotSupported");
}

TEST(Limits, Occupancy) {
  const auto kernel = CUVAE_KERNEL(dynamic);
  const auto blocks = [&](const char* chip, int threads, std::size_t shared) {
    return make_simt_runtime({.chip = chip})->occupancy(kernel.kernel, threads, shared);
  };
  EXPECT_EQ(blocks("sm_90", 256, 0), 8);
  EXPECT_EQ(blocks("sm_90", 32, 0), 32);
  EXPECT_EQ(blocks("sm_90", 33, 0), 32);
  EXPECT_EQ(blocks("sm_90", 1024, 0), 2);
  EXPECT_EQ(blocks("sm_90", 128, 100 * 1024), 2);
  EXPECT_EQ(blocks("sm_90", 128, 227 * 1024), 1);
  EXPECT_EQ(blocks("sm_80", 128, 100 * 1024), 1);
  EXPECT_EQ(blocks("sm_120", 1024, 0), 1);
  EXPECT_EQ(blocks("sm_120", 32, 0), 24);
  EXPECT_EQ(blocks("sm_120", 128, 100 * 1024), 0);
  EXPECT_ERROR(static_cast<void>(make_simt_runtime({.chip = "sm_70"})),
               "use sm_80, sm_90 or sm_120");
}

TEST(Limits, Memory) {
  const auto runtime = make_simt_runtime({.memory_bytes = 1024});
  EXPECT_EQ(runtime->properties(0).memory_bytes, 1024);
  Device<float> a(*runtime, std::size_t{128});
  EXPECT_EQ(runtime->memory().free_bytes, 512);
  EXPECT_ERROR(Device<float>(*runtime, std::size_t{129}), "cudaErrorMemoryAllocation");
  {
    Device<float> b(*runtime, std::size_t{100});
    EXPECT_EQ(runtime->memory().free_bytes, 0);
    EXPECT_EQ(runtime->live().device_allocations, 2u);
  }
  EXPECT_EQ(runtime->memory().free_bytes, 512);
  const std::vector<float> host(129);
  EXPECT_ERROR(runtime->copy_to_device(a.get(), host.data(), 129 * sizeof(float), nullptr),
               "cudaErrorInvalidValue");
  EXPECT_ERROR(runtime->copy_on_device(a.get(), host.data(), 4, nullptr), "cudaErrorInvalidValue");
  EXPECT_ERROR(runtime->fill(a.get() + 1, 0, 512, nullptr), "cudaErrorInvalidValue");
  for (const float value : a.values()) EXPECT_TRUE(std::isnan(value));  // new memory
}

TEST(Limits, Devices) {
  const auto runtime = make_simt_runtime();
  EXPECT_EQ(runtime->device_count(), 1);
  EXPECT_EQ(runtime->properties(0).multiprocessors, 132);
  EXPECT_ERROR(runtime->set_device(1), "cudaErrorInvalidDevice");
  EXPECT_ERROR(static_cast<void>(runtime->properties(1)), "cudaErrorInvalidDevice");
}

TEST(Kernels, AreListed) {
  const auto kernels = simt::all_kernels();
  const auto listed = [&](std::string_view name) {
    return std::find_if(kernels.begin(), kernels.end(),
                        [&](const auto* kernel) { return kernel->name == name; });
  };
  ASSERT_NE(listed("sum_of_two"), kernels.end());
  ASSERT_NE(listed("step"), kernels.end());
  EXPECT_EQ((*listed("step"))->parameters, 3u);
  EXPECT_EQ(listed("no_such_kernel"), kernels.end());
}

}  // namespace
}  // namespace cuvae::gpu_on_simt
