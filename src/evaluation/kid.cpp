#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "cuvae/sample_quality.h"
#include "evaluation/labels.h"
#include "evaluation/parallel.h"
#include "evaluation/points.h"

namespace cuvae {
namespace {

constexpr std::int64_t block = 128;

// Sum of the kernel over all pairs, without those of a row with itself where `same`.
double kernel_sum(const Points& x, const Points& y, bool same) {
  const double scale = 1 / static_cast<double>(x.d);
  std::vector<double> products(static_cast<std::size_t>(block * y.n));
  double sum = 0;
  for (std::int64_t part = 0; part < blocks_of(x.n, block); ++part) {
    const Rows rows = block_rows(x.n, block, part);
    dot_products(x, rows.first, rows.last, y, 0, y.n, products.data());
    for (std::int64_t i = 0; i < rows.count(); ++i) {
      const double* row = products.data() + i * y.n;
      double of_row = 0;
      for (std::int64_t j = 0; j < y.n; ++j) {
        const double base = row[j] * scale + 1;
        of_row += base * base * base;
      }
      if (same) {
        const double base = row[rows.first + i] * scale + 1;
        of_row -= base * base * base;
      }
      sum += of_row;
    }
  }
  return sum;
}

double mmd2(const Points& x, const Points& y) {
  const auto m = static_cast<double>(x.n);
  const auto n = static_cast<double>(y.n);
  return kernel_sum(x, x, true) / (m * (m - 1)) + kernel_sum(y, y, true) / (n * (n - 1)) -
         2 * kernel_sum(x, y, false) / (m * n);
}

void require_sets(const Points& x, const Points& y, std::int64_t least) {
  require_same_width(x.d, y.d);
  if (x.n < least || y.n < least || x.d < 1) {
    throw Error(Status::usage, fmt::format("sets of {} and {} rows", x.n, y.n), "KID",
                fmt::format("give {} rows or more of each", least));
  }
}

Points chosen(const Points& all, const Shuffle& shuffle, std::int64_t count) {
  Points some;
  some.n = count;
  some.d = all.d;
  for (std::int64_t i = 0; i < count; ++i) {
    const double* row = all.row(shuffle(i));
    some.values.insert(some.values.end(), row, row + all.d);
  }
  return some;
}

}  // namespace

double polynomial_mmd2(const Tensor& x_rows, const Tensor& y_rows) {
  const Points x(x_rows, "features");
  const Points y(y_rows, "features");
  require_sets(x, y, 2);
  return mmd2(x, y);
}

Kid kernel_inception_distance(const Tensor& x_rows, const Tensor& y_rows,
                              const KidOptions& options) {
  const Points x(x_rows, "features");
  const Points y(y_rows, "features");
  require_sets(x, y, 4);
  if (options.subsets < 2 || options.subset_size < 2) {
    throw Error(Status::usage,
                fmt::format("{} subsets of {}", options.subsets, options.subset_size), "KID",
                "give two subsets or more, of two rows or more");
  }
  Kid kid;
  kid.subsets = options.subsets;
  // Subsets of all there is would not differ, and tell an error of 0.
  kid.subset_size = std::min({options.subset_size, x.n / 2, y.n / 2});
  std::vector<double> values(static_cast<std::size_t>(kid.subsets));
  for_blocks(kid.subsets, options.threads, [&](std::int64_t subset) {
    const auto epoch = static_cast<std::uint64_t>(subset);
    const Points a = chosen(x, Shuffle(options.seed, 2 * epoch, x.n), kid.subset_size);
    const Points b = chosen(y, Shuffle(options.seed, 2 * epoch + 1, y.n), kid.subset_size);
    values[static_cast<std::size_t>(subset)] = mmd2(a, b);
  });
  const auto n = static_cast<double>(kid.subsets);
  for (const double value : values) kid.value += value / n;
  double squares = 0;
  for (const double value : values) squares += (value - kid.value) * (value - kid.value);
  kid.std_error = std::sqrt(squares / (n - 1) / n);
  return kid;
}

}  // namespace cuvae
