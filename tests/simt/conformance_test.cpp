// The conformance cases on the SIMT runner: every thread order, both ways to copy asynchronously,
// both ways to order streams, both ways to switch between fibers.

#include "simt/conformance.h"

#include <gtest/gtest.h>

#include "simt/runtime.h"
#include "simt/sanitizer.h"

namespace cuvae::simt {
namespace {

class Conformance : public ::testing::TestWithParam<testing::KernelCase> {};

void run(const SimtOptions& options) {
  const testing::KernelCase& test = Conformance::GetParam();
  SCOPED_TRACE("order " + std::string(name_of(options.order)) + ", seed " +
               std::to_string(options.seed));
  const auto runtime = make_simt_runtime(options);
  EXPECT_EQ(test.run(*runtime), "");
  EXPECT_EQ(runtime->live().total(), 0u);
  EXPECT_EQ(runtime->failed_releases(), 0);
}

TEST_P(Conformance, SequentialAndReverse) {
  for (const Order order : {Order::sequential, Order::reverse})
    for (const AsyncCopies copies : {AsyncCopies::late, AsyncCopies::early})
      run({.order = order, .async_copies = copies});
}

TEST_P(Conformance, ByChance) {
  for (const Order order : {Order::random, Order::greedy})
    for (std::uint64_t seed = 1; seed <= (with_tsan ? 1 : 4); ++seed)
      run({.order = order,
           .seed = seed,
           .async_copies = seed % 2 == 0 ? AsyncCopies::late : AsyncCopies::early,
           .programmatic_early = seed != 4,
           .streams = seed < 3 ? StreamOrder::deferred : StreamOrder::immediate});
}

TEST_P(Conformance, OtherChips) {
  if (with_tsan) GTEST_SKIP() << "a chip's limits are nothing that ThreadSanitizer sees";
  if (GetParam().major <= 8) run({.chip = "sm_80"});
  run({.chip = "sm_120", .order = Order::greedy});
}

TEST_P(Conformance, PortableSwitching) {
  run({.order = Order::random, .switching = Switching::ucontext});
}

INSTANTIATE_TEST_SUITE_P(Simt, Conformance, ::testing::ValuesIn(gpu_on_simt::conformance_cases()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace cuvae::simt
