// Seeded bugs that show in the results: which of the runner's ways of running finds which.

#include "simt/seeded_bugs.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "simt/runtime.h"
#include "simt/sanitizer.h"

namespace cuvae::gpu_on_simt {
namespace {

using simt::AsyncCopies;
using simt::Order;
using simt::SimtOptions;
using simt::StreamOrder;

struct Way {
  const char* name;
  SimtOptions options;
  bool chance = false;  // one of several seeds must find it
};
const Way ways[] = {
    {"sequential", {.order = Order::sequential}},
    {"reverse", {.order = Order::reverse}},
    {"random", {.order = Order::random}, true},
    {"greedy", {.order = Order::greedy}, true},
    {"greedy, early copies", {.order = Order::greedy, .async_copies = AsyncCopies::early}, true},
};

bool finds(const Way& way, BugRun run, StreamOrder streams) {
  SimtOptions options = way.options;
  options.streams = streams;
  for (options.seed = 1; options.seed <= (way.chance ? 8u : 1u); ++options.seed) {
    const auto runtime = simt::make_simt_runtime(options);
    if (!run(*runtime).empty()) return true;
  }
  return false;
}

// `found_by` has a letter for each way: x found, . not needed.
void expect_found(const char* bug, BugRun wrong, BugRun right, const std::string& found_by,
                  StreamOrder streams = StreamOrder::immediate) {
  if (simt::with_tsan) GTEST_SKIP() << "ThreadSanitizer reports these (sanitizer_test.cpp)";
  std::string row;
  for (std::size_t i = 0; i < std::size(ways); ++i) {
    EXPECT_FALSE(finds(ways[i], right, streams)) << ways[i].name;
    const bool found = finds(ways[i], wrong, streams);
    row += found ? 'x' : '-';
    EXPECT_TRUE(found || found_by[i] != 'x') << ways[i].name;
  }
  std::printf("%-28s %s\n", bug, row.c_str());
}

TEST(SeededBugs, NeighbourWithoutBarrier) {
  expect_found("no barrier", run_neighbour<true>, run_neighbour<false>, ".xxxx");
}
TEST(SeededBugs, ScratchWithoutSecondBarrier) {
  expect_found("no second barrier", run_sums<true>, run_sums<false>, "...xx");
}
TEST(SeededBugs, LanesInStep) {
  expect_found("no syncwarp", run_in_step<true>, run_in_step<false>, "xxxxx");
}
TEST(SeededBugs, CopyWithoutWait) {
  expect_found("cp.async without its wait", run_pipeline<CopyBug::no_wait>,
               run_pipeline<CopyBug::none>, "xxxx.");
}
TEST(SeededBugs, BufferReusedWithoutBarrier) {
  expect_found("buffer reused too soon", run_pipeline<CopyBug::no_barrier>,
               run_pipeline<CopyBug::none>, "....x");
}
TEST(SeededBugs, GridBarrierThatDoesNotWait) {
  expect_found("no grid barrier", run_rounds<true>, run_rounds<false>, "xxxxx");
}
TEST(SeededBugs, EarlyReadOfWhatIsWritten) {
  expect_found("read before the wait", run_early_read<true>, run_early_read<false>, "xxxxx",
               StreamOrder::deferred);
}
TEST(SeededBugs, Uninitialised) {
  expect_found("uninitialised memory", run_uninitialised<true>, run_uninitialised<false>, "xxxxx");
}

}  // namespace
}  // namespace cuvae::gpu_on_simt
