#include "cpu/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/tolerance.h"
#include "cpu/blas_coretype.h"

namespace cuvae {
namespace {

struct Sizes {
  std::int64_t m, n, k;
};
constexpr Sizes sizes[] = {{1, 1, 1},     {1, 784, 32},    {31, 33, 65},    {64, 63, 127},
                           {97, 127, 31}, {128, 512, 784}, {784, 512, 128}, {128, 784, 512},
                           {600, 530, 7}, {3, 5, 10007},   {5, 3, 0},       {0, 4, 3},
                           {4, 0, 3},     {1031, 257, 65}};

TEST(TileGrid, CoversEveryElementOnce) {
  for (const Sizes& s : sizes) {
    for (const std::int64_t most : {512 * 512, 256 * 256}) {
      const auto cut = most == 256 * 256 ? TileGrid::Cut::whole_rows : TileGrid::Cut::squares;
      const TileGrid grid(s.m, s.n, s.k, most, cut);
      std::vector<int> covered(static_cast<std::size_t>(s.m * s.n), 0);
      for (std::int64_t i = 0; i < grid.tiles(); ++i) {
        const Tile tile = grid.tile(i);
        EXPECT_LE(tile.rows() * tile.columns(), grid.largest());
        EXPECT_LE(tile.rows() * tile.columns(), most);
        for (std::int64_t m = tile.m0; m < tile.m1; ++m)
          for (std::int64_t n = tile.n0; n < tile.n1; ++n)
            ++covered[static_cast<std::size_t>(m * s.n + n)];
      }
      for (const int count : covered) ASSERT_EQ(count, 1);
    }
  }
}

TEST(TileGrid, LargeProductsHaveWorkForSeveralThreads) {
  EXPECT_GE(TileGrid(128, 512, 784).tiles(), 4);
  EXPECT_GE(TileGrid(4096, 512, 784).tiles(), 8);
  EXPECT_EQ(TileGrid(8, 8, 8).tiles(), 1);
}

template <class T>
class Products : public ::testing::Test {
 protected:
  void SetUp() override { cpu::use_single_threaded_blas(); }
};
using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Products, Reals);

template <class T, class Fill>
void check(Fill fill, bool exact) {
  Team one(1);
  Team three(3);
  for (const Sizes& s : sizes)
    for (const bool ta : {false, true})
      for (const bool tb : {false, true}) {
        SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << " " << ta << tb);
        std::vector<T> a(static_cast<std::size_t>(s.m * s.k)),
            b(static_cast<std::size_t>(s.n * s.k));
        for (T& x : a) x = fill();
        for (T& x : b) x = fill();
        const Product<T> p{
            ta, tb, s.m, s.n, s.k, a.data(), ta ? s.m : s.k, b.data(), tb ? s.k : s.n};
        const auto n = static_cast<std::size_t>(s.m * s.n);
        // What was there before, NaN included, must not matter.
        std::vector<T> c(n, std::numeric_limits<T>::quiet_NaN()), again = c;
        multiply(one, p, c.data(), s.n);
        multiply(three, p, again.data(), s.n);
        EXPECT_TRUE(n == 0 || std::memcmp(c.data(), again.data(), n * sizeof(T)) == 0);
        std::vector<double> wanted(n, 0.0);
        for (std::int64_t i = 0; i < s.m; ++i)
          for (std::int64_t l = 0; l < s.k; ++l) {
            const double left =
                static_cast<double>(a[static_cast<std::size_t>(ta ? l * s.m + i : i * s.k + l)]);
            for (std::int64_t j = 0; j < s.n; ++j)
              wanted[static_cast<std::size_t>(i * s.n + j)] +=
                  left *
                  static_cast<double>(b[static_cast<std::size_t>(tb ? j * s.k + l : l * s.n + j)]);
          }
        const Tolerance limit =
            exact ? Tolerance{}
                  : tolerance(dtype_of<T>(), s.k,
                              std::sqrt(std::max<double>(1, static_cast<double>(s.k))));
        const Comparison outcome = compare_elements<T, double>(c, wanted, limit);
        EXPECT_TRUE(outcome.passed) << outcome.str();
      }
}

TYPED_TEST(Products, OfIntegersAreExact) {
  std::mt19937 random(1);
  check<TypeParam>([&] { return static_cast<TypeParam>(static_cast<int>(random() % 9) - 4); },
                   true);
}

TYPED_TEST(Products, OfRealsAreWithinTolerance) {
  std::mt19937 random(2);
  std::uniform_real_distribution<TypeParam> uniform(-1, 1);
  check<TypeParam>([&] { return uniform(random); }, false);
}

}  // namespace
}  // namespace cuvae
