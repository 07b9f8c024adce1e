#include "cuda/runtime.h"

#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <vector>

#include "cuda/fake_runtime.h"
#include "cuvae/error.h"

namespace cuvae::cuda {
namespace {

void add_one(void* const* arguments) {
  ++*static_cast<int*>(arguments[0]);
}
const Kernel add_one_kernel{reinterpret_cast<const void*>(&add_one), "add_one"};

// The message of the Error(device) that `f` must throw.
template <class F>
std::string device_error(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::device);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(CudaRuntime, CopiesAndFills) {
  FakeRuntime runtime;
  {
    Stream stream(runtime);
    const std::array<int, 3> from{1, 2, 3};
    std::array<int, 3> to{};
    DeviceBuffer a(runtime, sizeof from);
    DeviceBuffer b(runtime, sizeof from);
    EXPECT_EQ(a.bytes(), sizeof from);
    runtime.copy_to_device(a.get(), from.data(), sizeof from, stream.get());
    runtime.copy_on_device(b.get(), a.get(), sizeof from, stream.get());
    runtime.copy_to_host(to.data(), b.get(), sizeof from, stream.get());
    stream.synchronize();
    EXPECT_EQ(from, to);
    runtime.fill(b.get(), 0xff, sizeof from, stream.get());
    runtime.copy_to_host(to.data(), b.get(), sizeof from, stream.get());
    EXPECT_EQ(to, (std::array<int, 3>{-1, -1, -1}));
    EXPECT_EQ(runtime.live.size(), 3u);
  }
  EXPECT_TRUE(runtime.live.empty());
  EXPECT_EQ(runtime.failed_releases(), 0);
}

TEST(CudaRuntime, NothingIsDoneForZeroBytes) {
  FakeRuntime runtime;
  runtime.set_fault([](Call) { return FakeRuntime::broken; });
  const DeviceBuffer buffer(runtime, 0);
  EXPECT_FALSE(buffer);
  EXPECT_EQ(buffer.bytes(), 0u);
  EXPECT_NO_THROW(runtime.copy_to_device(nullptr, nullptr, 0, nullptr));
  EXPECT_NO_THROW(runtime.fill(nullptr, 0, 0, nullptr));
}

TEST(CudaRuntime, HandlesMoveAndAreGivenBackOnce) {
  FakeRuntime runtime;
  {
    DeviceBuffer a(runtime, 8);
    void* const memory = a.get();
    DeviceBuffer b(std::move(a));
    EXPECT_EQ(b.get(), memory);
    // NOLINTBEGIN(bugprone-use-after-move,clang-analyzer-cplusplus.Move): that it is empty is the
    // contract.
    EXPECT_FALSE(a);
    EXPECT_EQ(a.bytes(), 0u);
    // NOLINTEND(bugprone-use-after-move,clang-analyzer-cplusplus.Move)
    b = DeviceBuffer(runtime, 16);
    EXPECT_EQ(runtime.live.count(memory), b.get() == memory ? 1u : 0u);
    EXPECT_EQ(b.bytes(), 16u);
    EXPECT_EQ(runtime.live.size(), 1u);
    Event event;
    EXPECT_FALSE(event);
    event = Event(runtime);
    HostBuffer host(runtime, 4);
    EXPECT_EQ(runtime.live.size(), 3u);
  }
  EXPECT_TRUE(runtime.live.empty());
}

TEST(CudaRuntime, OutOfMemorySaysWhatForHowMuchAndWhatIsFree) {
  FakeRuntime runtime;
  runtime.capacity = 1 << 20;
  const DeviceBuffer some(runtime, 1 << 18);
  const std::string text =
      device_error([&] { const DeviceBuffer big(runtime, std::size_t{1} << 30, "the arena"); });
  EXPECT_NE(text.find("out of memory"), std::string::npos) << text;
  EXPECT_NE(text.find("the arena, 1.0 GiB"), std::string::npos) << text;
  EXPECT_NE(text.find("768.0 KiB of 1.0 MiB are free"), std::string::npos) << text;
  EXPECT_NE(text.find("smaller batch"), std::string::npos) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_EQ(runtime.live.size(), 1u);
}

TEST(CudaRuntime, LaunchesPassTheirArguments) {
  FakeRuntime runtime;
  Stream stream(runtime);
  int value = 41;
  int* pointer = &value;
  const std::array<void*, 1> arguments{&pointer};
  runtime.launch(add_one_kernel, {.grid = {1}, .block = {32}}, arguments, stream.get());
  EXPECT_EQ(value, 42);
  EXPECT_EQ(runtime.occupancy(add_one_kernel, 256, 0), 8);
}

TEST(CudaRuntime, FailedLaunchesNameTheKernelAndItsShape) {
  FakeRuntime runtime;
  int* pointer = nullptr;
  const std::array<void*, 1> arguments{&pointer};
  EXPECT_NE(
      device_error([&] {
        runtime.launch(add_one_kernel, {.grid = {0, 1, 1}, .block = {32}}, arguments, nullptr);
      }).find("add_one, grid 0x1x1"),
      std::string::npos);
  runtime.set_fault([](Call call) { return call == Call::launch ? FakeRuntime::broken : 0; });
  const std::string text = device_error([&] {
    runtime.launch(add_one_kernel, {.grid = {7, 2}, .block = {32}, .shared_bytes = 64}, arguments,
                   nullptr);
  });
  EXPECT_NE(text.find("launching a kernel failed"), std::string::npos) << text;
  EXPECT_NE(text.find("add_one, grid 7x2x1, block 32x1x1, 64 bytes"), std::string::npos) << text;
  runtime.set_fault({});
  EXPECT_NE(device_error([&] {
              runtime.set_shared_limit(add_one_kernel, 4096);
            }).find("add_one, 4.0 KiB"),
            std::string::npos);
}

TEST(CudaRuntime, CapturedWorkRunsAtEachReplayAndNotBefore) {
  FakeRuntime runtime;
  {
    Stream stream(runtime);
    int value = 0;
    int* pointer = &value;
    const std::array<void*, 1> arguments{&pointer};
    Capture capture(runtime, stream);
    for (int i = 0; i < 3; ++i) {
      runtime.launch(add_one_kernel, {.grid = {1}, .block = {1}}, arguments, stream.get());
    }
    GraphExec executable = capture.finish().instantiate();
    EXPECT_EQ(value, 0);
    executable.launch(stream.get());
    executable.launch(stream.get());
    EXPECT_EQ(value, 6);
  }
  EXPECT_TRUE(runtime.live.empty());
}

TEST(CudaRuntime, AnUnfinishedCaptureIsThrownAway) {
  FakeRuntime runtime;
  Stream stream(runtime);
  const std::size_t before = runtime.live.size();
  try {
    const Capture capture(runtime, stream);
    throw std::runtime_error("in the middle");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(runtime.live.size(), before);
  // The stream can be captured again; a failing end leaves nothing behind either.
  runtime.set_fault([](Call call) { return call == Call::end_capture ? FakeRuntime::broken : 0; });
  {
    Capture capture(runtime, stream);
    EXPECT_NE(device_error([&] { static_cast<void>(capture.finish()); }).find("ending a capture"),
              std::string::npos);
  }
  EXPECT_EQ(runtime.live.size(), before);
  EXPECT_EQ(runtime.failed_releases(), 0);
}

TEST(CudaRuntime, FailingReleasesAreCountedAndDoNotThrow) {
  FakeRuntime runtime;
  {
    const DeviceBuffer buffer(runtime, 8);
    const Event event(runtime);
    runtime.release_code = FakeRuntime::broken;
  }
  EXPECT_EQ(runtime.failed_releases(), 2);
}

// Everything the interface can do, in one go.
void use_everything(Runtime& runtime) {
  static_cast<void>(runtime.device_count());
  static_cast<void>(runtime.properties(0));
  runtime.set_device(0);
  static_cast<void>(runtime.memory());
  Stream stream(runtime);
  Event start(runtime, true);
  Event stop(runtime, true);
  start.record(stream.get());
  stream.wait(start);
  DeviceBuffer memory(runtime, sizeof(int));
  DeviceBuffer other(runtime, sizeof(int));
  HostBuffer host(runtime, sizeof(int));
  runtime.fill(memory.get(), 0, sizeof(int), stream.get());
  runtime.copy_on_device(other.get(), memory.get(), sizeof(int), stream.get());
  runtime.copy_to_host(host.get(), other.get(), sizeof(int), stream.get());
  runtime.copy_to_device(memory.get(), host.get(), sizeof(int), stream.get());
  static_cast<void>(runtime.occupancy(add_one_kernel, 32, 0));
  runtime.set_shared_limit(add_one_kernel, 16);
  runtime.load(add_one_kernel);
  void* pointer = memory.get();
  const std::array<void*, 1> arguments{&pointer};
  Capture capture(runtime, stream);
  runtime.launch(add_one_kernel, {.grid = {1}, .block = {1}}, arguments, stream.get());
  const CapturedGraph graph = capture.finish();
  GraphExec executable = graph.instantiate();
  executable.launch(stream.get());
  stop.record(stream.get());
  stop.synchronize();
  EXPECT_EQ(stop.milliseconds_since(start), 1.5f);
  stream.synchronize();
  runtime.synchronize();
}

// A fault at each call in turn: each ends in its own Error(device), and nothing leaks.
TEST(CudaRuntime, AFaultAtAnyCallIsOneErrorAndLeaksNothing) {
  std::vector<Call> calls;
  {
    FakeRuntime runtime;
    runtime.set_fault([&](Call call) {
      calls.push_back(call);
      return 0;
    });
    use_everything(runtime);
    EXPECT_TRUE(runtime.live.empty());
  }
  // Every kind of call but `release` was met.
  const std::set<Call> kinds(calls.begin(), calls.end());
  EXPECT_EQ(kinds.size(), static_cast<std::size_t>(Call::release));

  for (std::size_t bad = 0; bad < calls.size(); ++bad) {
    FakeRuntime runtime;
    std::size_t count = 0;
    runtime.set_fault([&](Call) { return count++ == bad ? FakeRuntime::broken : 0; });
    const std::string text = device_error([&] { use_everything(runtime); });
    EXPECT_NE(text.find(name_of(calls[bad])), std::string::npos) << text;
    EXPECT_TRUE(runtime.live.empty()) << "after a fault in " << name_of(calls[bad]);
    EXPECT_EQ(runtime.failed_releases(), 0) << name_of(calls[bad]);
  }
}

}  // namespace
}  // namespace cuvae::cuda
