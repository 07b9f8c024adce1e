#include "bench/statistics.h"

#include <gtest/gtest.h>

namespace cuvae {
namespace {

TEST(Statistics, MedianAndSpreadInterpolate) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(quantile({1, 2, 3, 4, 5}, 0.25), 2);
  EXPECT_EQ(spread({5, 4, 3, 2, 1}), 2);
  EXPECT_EQ(quantile({1, 2}, 1), 2);
}

TEST(Statistics, OneOutlierMovesNeither) {
  EXPECT_EQ(median({1, 1, 1, 1, 1000}), 1);
  EXPECT_EQ(spread({1, 1, 1, 1, 1000}), 0);
}

TEST(Statistics, NothingMeasuredIsZero) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(spread({}), 0);
}

}  // namespace
}  // namespace cuvae
