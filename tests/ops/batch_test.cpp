// Labels, weighted draws, noise and augmentation on the CPU, in float and double.

#include "ops/batch_check.h"

#include <gtest/gtest.h>

#include "ops/parity_check.h"

namespace cuvae::testing {
namespace {

void on_cpus(void (*check)(Device&)) {
  for (const Backend& backend : cpu_backends()) {
    SCOPED_TRACE(backend.name);
    check(*backend.make_device(2));
  }
}

TEST(WeightedBatches, AreTheAliasTablesDraws) {
  on_cpus(check_weighted_draws);
}

TEST(Labels, ThatAreNoClassAreSeen) {
  on_cpus(check_labels);
}

TEST(Augmentation, MovesWholeImages) {
  on_cpus(check_augmentation);
}

TEST(Batches, OfUnrolledStepsHaveTheirOwnCapacityAndNoise) {
  on_cpus(check_steps);
}

TEST(Classes, StandExtremeLogitsAndKeepWhatIsNotANumber) {
  on_cpus(check_extremes);
}

}  // namespace
}  // namespace cuvae::testing
