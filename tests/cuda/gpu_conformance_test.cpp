// What device code may count on, on the real GPU: the cases that the SIMT runner is held to
// (tests/simt/conformance*.cu), compiled by nvcc from the same source.

#include <gtest/gtest.h>

#include "cuda/devices.h"
#include "cuda/gpu_backends.h"
#include "simt/conformance.h"

namespace cuvae::testing {
namespace {

class GpuConformance : public ::testing::TestWithParam<KernelCase> {};

TEST_P(GpuConformance, AsOnTheRunner) {
  if (!no_gpu().empty()) GTEST_SKIP() << "no GPU: " << no_gpu();
  const auto runtime = open_cuda_runtime(0);
  const cuda::Properties gpu = runtime->properties(0);
  if (gpu.major < GetParam().major)
    GTEST_SKIP() << "for compute capability " << GetParam().major << " or later, this is "
                 << gpu.major << "." << gpu.minor;
  // More than once: a race need not show at the first try.
  for (int i = 0; i < 20; ++i) ASSERT_EQ(GetParam().run(*runtime), "") << "at try " << i + 1;
  EXPECT_EQ(runtime->failed_releases(), 0);
}

INSTANTIATE_TEST_SUITE_P(Gpu, GpuConformance, ::testing::ValuesIn(gpu::conformance_cases()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace cuvae::testing
