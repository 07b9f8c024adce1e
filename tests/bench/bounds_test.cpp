// What the CPU backend owes to its machine: the share of the ceiling that a whole training step
// reaches. Measured in the best of three runs, because other work on the machine only ever slows
// one down.

#include <gtest/gtest.h>

#include <algorithm>

#include "cuvae/bench.h"

namespace cuvae {
namespace {

double best_share(std::int64_t batch) {
  const auto device = open_device("cpu", {});
  Config config;
  config.train.batch_size = batch;
  double best = 0;
  for (int run = 0; run < 3; ++run) {
    const BenchReport report = bench(config, nullptr, *device, {});
    printf("%s", bench_table(report).c_str());
    best = std::max(best, report.steps.at(0).share_of_ceiling);
  }
  return best;
}

TEST(Bounds, AStepOf128ReachesThreeQuartersOfTheCeiling) {
  EXPECT_GE(best_share(128), 0.75);
}

TEST(Bounds, AStepOf4096Reaches85PercentOfTheCeiling) {
  EXPECT_GE(best_share(4096), 0.85);
}

}  // namespace
}  // namespace cuvae
