#include "cuda/encoder.h"

#include <gtest/gtest.h>

#include "cuda/architectures.h"
#include "cuda/deferred_runtime.h"
#include "cuvae/error.h"

namespace cuvae::cuda {
namespace {

int sum = 0;
void add(int a, const int* b, double c) {
  sum += a + *b + static_cast<int>(c);
}
void nothing() {}

class EncoderTest : public ::testing::Test {
 protected:
  DeferredRuntime runtime_;
  Properties properties_ = runtime_.properties(0);
  Stream stream_{runtime_};
  Encoder encoder_{runtime_, properties_};

  void begin(bool overlap = false) { encoder_.begin("dense", stream_.get(), {}, overlap); }
  void launch(const LaunchSize& size) {
    encoder_.launch(typed_kernel<&nothing>(&nothing, "nothing"), size);
  }
  std::string refusal(const LaunchSize& size) {
    try {
      launch(size);
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::device);
      EXPECT_NE(std::string(error.what()).find("node `dense`, kernel nothing"), std::string::npos)
          << error.what();
      EXPECT_TRUE(runtime_.launches.empty());
      return error.what();
    }
    ADD_FAILURE() << "launched";
    return {};
  }
};

TEST_F(EncoderTest, PassesArgumentsOfTheKernelsTypes) {
  sum = 0;
  const int two = 2;
  begin();
  encoder_.launch(typed_kernel<&add>(&add, "add"), {}, std::int64_t{1}, &two, 3);
  stream_.synchronize();
  EXPECT_EQ(sum, 6);
  EXPECT_EQ(encoder_.launches(), 1);
}

TEST_F(EncoderTest, RefusesWhatNoGpuTakes) {
  begin();
  const auto has = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  has(refusal({.blocks_x = std::int64_t{1} << 31}), "a grid of 2147483648 x 1 x 1 blocks");
  has(refusal({.blocks_y = 65536}), "a grid of 1 x 65536 x 1");
  has(refusal({.blocks_z = 65536}), "a grid of 1 x 1 x 65536");
  has(refusal({.blocks_x = -1}), "a grid of -1");
  has(refusal({.threads = 1025}), "a block of 1025 threads, and the GPU takes 1 to 1024");
  has(refusal({.threads = 0}), "a block of 0 threads");
  has(refusal({.shared_bytes = 200 * 1024 + 1}), "of shared memory");
  has(refusal({.blocks_x = 33, .threads = 256, .cooperative = true}),
      "33 blocks at once, and 32 fit this GPU");
  // The most that is allowed.
  launch({.blocks_x = (std::int64_t{1} << 31) - 1,
          .blocks_y = 65535,
          .blocks_z = 65535,
          .threads = 1024,
          .shared_bytes = 200 * 1024});
  launch({.blocks_x = 32, .threads = 256, .cooperative = true});
  EXPECT_EQ(runtime_.launches.size(), 2U);
  EXPECT_TRUE(runtime_.launches.back().shape.cooperative);
  EXPECT_FALSE(runtime_.launches.back().shape.programmatic);
}

TEST_F(EncoderTest, AnEmptyGridIsNothingToDo) {
  begin();
  launch({.blocks_x = 0});
  launch({.blocks_y = 0});
  EXPECT_TRUE(runtime_.launches.empty());
  EXPECT_EQ(encoder_.launches(), 0);
  EXPECT_FALSE(encoder_.ends_with_kernel());
}

TEST_F(EncoderTest, RaisesTheSharedMemoryLimitOnceForEachKernel) {
  begin();
  const void* const kernel = typed_kernel<&nothing>(&nothing, "nothing").kernel.function;
  launch({.shared_bytes = 32 * 1024});  // with 16 KiB of static memory just what a GPU gives
  EXPECT_TRUE(runtime_.shared_limits.empty());
  launch({.shared_bytes = 64 * 1024});
  launch({.shared_bytes = 60 * 1024});
  launch({.shared_bytes = 64 * 1024});
  EXPECT_EQ(runtime_.shared_limits[kernel], (std::vector<std::size_t>{64 * 1024}));
  launch({.shared_bytes = 80 * 1024});
  EXPECT_EQ(runtime_.shared_limits[kernel], (std::vector<std::size_t>{64 * 1024, 80 * 1024}));
}

TEST_F(EncoderTest, OverlapsAsItIsTold) {
  begin(false);
  launch({});
  EXPECT_FALSE(runtime_.launches.back().shape.programmatic);
  launch({});  // with the node's own first kernel
  EXPECT_TRUE(runtime_.launches.back().shape.programmatic);
  EXPECT_TRUE(encoder_.ends_with_kernel());
  begin(true);
  launch({});
  EXPECT_TRUE(runtime_.launches.back().shape.programmatic);
  // Never with a fill.
  DeviceBuffer memory(runtime_, 64);
  begin(true);
  encoder_.zero(memory.get(), 64);
  EXPECT_FALSE(encoder_.ends_with_kernel());
  launch({});
  EXPECT_FALSE(runtime_.launches.back().shape.programmatic);
  stream_.synchronize();
}

TEST_F(EncoderTest, FailedLaunchesNameTheNode) {
  begin();
  runtime_.set_fault([](Call call) { return call == Call::launch ? DeferredRuntime::broken : 0; });
  try {
    launch({});
    FAIL() << "launched";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::device);
    EXPECT_NE(std::string(error.what()).find("nothing, grid 1x1x1"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("(node `dense`)"), std::string::npos) << error.what();
  }
}

TEST(Architectures, MachineCodeRunsWithinItsMajorVersionAndPtxOnWhatComesLater) {
  const auto runs = [](const char* compiled, int major, int minor) {
    return unsuitable_architecture(compiled, major, minor).empty();
  };
  EXPECT_TRUE(runs("80-real,90-real,100-real,120", 8, 0));
  EXPECT_TRUE(runs("80-real,90-real,100-real,120", 8, 9));
  EXPECT_TRUE(runs("80-real,90-real,100-real,120", 9, 0));
  EXPECT_TRUE(runs("80-real,90-real,100-real,120", 10, 3));
  EXPECT_TRUE(runs("80-real,90-real,100-real,120", 12, 1));
  EXPECT_TRUE(runs("80-real,90-real,100-real,120", 13, 0));
  EXPECT_FALSE(runs("80-real,90-real,100-real,120", 7, 5));
  EXPECT_FALSE(runs("80-real,90-real,100-real,120", 11, 0));
  EXPECT_FALSE(runs("90-real", 10, 0));
  EXPECT_FALSE(runs("90", 8, 9));
  EXPECT_TRUE(runs("90", 10, 0));
  EXPECT_TRUE(runs("80-virtual", 12, 0));
  EXPECT_FALSE(runs("86-real", 8, 0));
  EXPECT_TRUE(runs("90a", 9, 0));
  EXPECT_FALSE(runs("90a", 10, 0));
  EXPECT_FALSE(runs("", 9, 0));
  EXPECT_EQ(unsuitable_architecture("90-real", 8, 6),
            "it has compute capability 8.6, and the kernels are compiled for 90-real");
}

TEST(Architectures, TheCodeThatRunsMayBeOlderThanTheGpu) {
  EXPECT_EQ(code_architecture("80-real,90-real,100-real,120", 9, 0), 90);
  EXPECT_EQ(code_architecture("80-real,90-real,100-real,120", 8, 9), 80);
  EXPECT_EQ(code_architecture("80-real,90-real,100-real,120", 13, 0), 120);
  EXPECT_EQ(code_architecture("80", 9, 0), 80);  // its PTX
  EXPECT_EQ(code_architecture("80-real", 9, 0), 0);
  EXPECT_EQ(code_architecture("80,90-virtual", 10, 0), 90);
}

// Code of sm_80 has no instruction to wait for its producers.
class OldCode : public DeferredRuntime {
 public:
  [[nodiscard]] int code_architecture(const Properties&) const override { return 80; }
};
TEST(EncoderOverlap, OnlyWhereTheCodeThatRunsCanWait) {
  Properties gpu;
  gpu.major = 9;
  DeferredRuntime current;
  OldCode old;
  EXPECT_TRUE(Encoder(current, gpu).programmatic());
  EXPECT_FALSE(Encoder(old, gpu).programmatic());
  gpu.major = 8;
  EXPECT_FALSE(Encoder(current, gpu).programmatic());
}

}  // namespace
}  // namespace cuvae::cuda
