// Optimisers over several steps by the GPU's kernels on the SIMT runner: what
// tests/ops/optimizer_test.cpp asks of the CPU.

#include "kernels/simt_backends.h"
#include "ops/optimizer_golden.h"
#include "simt/sanitizer.h"

namespace cuvae::testing {
namespace {

TEST(SimtOptimizers, AreThoseOfPyTorchAndKeras) {
  if (simt::with_tsan) GTEST_SKIP() << "the plain build says it";
  check_golden_optimizers(*make_simt_device(simt_variant(0)), 2e-5);
}

TEST(SimtOptimizers, UnrolledStepsCountAndReadTheirRates) {
  if (simt::with_tsan) GTEST_SKIP() << "the plain build says it";
  check_unrolled_steps(*make_simt_device(simt_variant(3)));
}

TEST(SimtClipping, SkipsWhatIsNotFiniteAndClipsTheRest) {
  if (simt::with_tsan) GTEST_SKIP() << "the plain build says it";
  check_clipping(*make_simt_device(simt_variant(4)));
}

}  // namespace
}  // namespace cuvae::testing
