#include "cuda/devices.h"

#include <gtest/gtest.h>

#include <string>

#include "cuda/runtime.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

TEST(CudaDevices, SayWhyTheyCannotBeUsed) {
  const std::string reason = cuda_unavailable_reason();
  EXPECT_EQ(reason.find('\n'), std::string::npos);
  if (cuda_device_count() == 0) {
    EXPECT_FALSE(reason.empty());
    EXPECT_TRUE(cuda_devices().empty());
  } else {
    EXPECT_EQ(cuda_devices().size(), static_cast<std::size_t>(cuda_device_count()));
  }
#if CUVAE_HAVE_CUDA
  EXPECT_NE(reason, "cuvae was built without CUDA");
#else
  EXPECT_EQ(reason, "cuvae was built without CUDA");
  EXPECT_EQ(cuda_device_count(), 0);
#endif
}

TEST(CudaDevices, OpeningWithoutAUsableGpuIsOneErrorOfStatus4) {
  const std::string reason = cuda_unavailable_reason();
  if (reason.empty()) GTEST_SKIP() << "a GPU can be used on this machine";
  try {
    static_cast<void>(open_cuda_runtime(0));
    FAIL() << "opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::device);
    EXPECT_EQ(std::string(error.what()),
              "CUDA cannot be used, " + reason + " (cuda:0): use --device cpu");
  }
}

#if CUVAE_HAVE_CUDA
// The real API, as far as it goes without a kernel of ours.
TEST(CudaDevices, TheRealRuntimeCopiesCapturesAndTimes) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU: " << cuda_unavailable_reason();
  const std::unique_ptr<cuda::Runtime> runtime = cuda::make_runtime();
  runtime->set_device(0);
  const cuda::Properties p = runtime->properties(0);
  EXPECT_GE(p.major, 8);
  EXPECT_GT(p.multiprocessors, 0);
  EXPECT_GT(runtime->memory().free_bytes, 0);
  cuda::Stream stream(*runtime);
  cuda::Event start(*runtime, true);
  cuda::Event stop(*runtime, true);
  cuda::HostBuffer host(*runtime, 4096);
  cuda::DeviceBuffer memory(*runtime, 4096);
  auto* bytes = static_cast<std::uint8_t*>(host.get());
  start.record(stream.get());
  cuda::Capture capture(*runtime, stream);
  runtime->fill(memory.get(), 0x5a, 4096, stream.get());
  runtime->copy_to_host(host.get(), memory.get(), 4096, stream.get());
  cuda::GraphExec executable = capture.finish().instantiate();
  for (int i = 0; i < 4096; ++i) bytes[i] = 0;
  stream.synchronize();
  EXPECT_EQ(bytes[0], 0);
  executable.launch(stream.get());
  stop.record(stream.get());
  stop.synchronize();
  for (int i = 0; i < 4096; ++i) ASSERT_EQ(bytes[i], 0x5a) << i;
  EXPECT_GE(stop.milliseconds_since(start), 0.0f);
  try {
    const cuda::DeviceBuffer big(*runtime, std::size_t{1} << 50, "a petabyte");
    FAIL() << "allocated";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::device);
    EXPECT_NE(std::string(error.what()).find("a petabyte"), std::string::npos) << error.what();
  }
  EXPECT_EQ(runtime->failed_releases(), 0);
}
#endif

}  // namespace
}  // namespace cuvae
