#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuvae/error.h"
#include "cuvae/evaluation.h"
#include "cuvae/rng.h"
#include "evaluation/parallel.h"
#include "evaluation/posterior.h"

namespace cuvae {
namespace {

// Beside the streams of any graph's evaluation noise.
constexpr std::uint16_t noise_stream = 0xFFFF;
// An epoch that no training reaches.
constexpr std::uint64_t choice_epoch = std::numeric_limits<std::uint64_t>::max();
constexpr std::int64_t block = 16;

}  // namespace

MutualInformation mutual_information(const Tensor& mean, const Tensor& logvar,
                                     const MutualInformationOptions& options) {
  const Posterior q(mean, logvar);
  if (options.rows < 1) {
    throw Error(Status::usage, fmt::format("{} rows", options.rows), "mutual information",
                "give a positive number");
  }
  MutualInformation result;
  result.n = std::min(options.rows, q.n);
  if (result.n == 0) return result;
  result.cap = std::log(static_cast<double>(result.n));

  // Column by column, so that loops over rows are long: means, 1 / deviations, and of each row
  // -1/2 sum of logvar.
  const std::int64_t n = result.n;
  const auto rows = static_cast<std::size_t>(n);
  const auto d = static_cast<std::size_t>(q.d);
  const Shuffle shuffle(options.seed, choice_epoch, q.n);
  std::vector<double> centre(d * rows);
  std::vector<double> inverse(d * rows);
  std::vector<double> z(d * rows);
  std::vector<double> constant(rows, 0.0);
  const RandomKey key{
      .seed = options.seed, .purpose = Purpose::evaluation, .stream = noise_stream, .step = 0};
  for (std::size_t i = 0; i < rows; ++i) {
    const auto row = static_cast<std::size_t>(shuffle(static_cast<std::int64_t>(i)));
    for (std::size_t j = 0; j < d; ++j) {
      const double m = q.mean[row * d + j];
      const double half = 0.5 * q.logvar[row * d + j];
      const double eps = random_normal(key, row * d + j);
      centre[j * rows + i] = m;
      inverse[j * rows + i] = std::exp(-half);
      z[j * rows + i] = m + std::exp(half) * eps;
      constant[i] -= half;
    }
  }

  std::vector<double> information(rows);
  for_blocks(blocks_of(n, block), options.threads, [&](std::int64_t which) {
    const Rows range = block_rows(n, block, which);
    std::vector<double> squares(rows);
    for (auto i = static_cast<std::size_t>(range.first); i < static_cast<std::size_t>(range.last);
         ++i) {
      std::ranges::fill(squares, 0.0);
      for (std::size_t j = 0; j < d; ++j) {
        const double zj = z[j * rows + i];
        const double* m = centre.data() + j * rows;
        const double* s = inverse.data() + j * rows;
        for (std::size_t r = 0; r < rows; ++r) {
          const double t = (zj - m[r]) * s[r];
          squares[r] += t * t;
        }
      }
      // l_r = log q(z|x_r) up to a constant; p(r|z) = exp(l_r) / sum.
      double largest = -std::numeric_limits<double>::infinity();
      for (std::size_t r = 0; r < rows; ++r) {
        squares[r] = constant[r] - 0.5 * squares[r];
        largest = std::max(largest, squares[r]);
      }
      double sum = 0;
      double weighted = 0;
      for (std::size_t r = 0; r < rows; ++r) {
        const double l = squares[r] - largest;
        const double p = std::exp(l);
        if (p > 0) {
          sum += p;
          weighted += p * l;
        }
      }
      // log n - H(r|z)
      information[i] = result.cap - std::log(sum) + weighted / sum;
    }
  });
  for (const double value : information) result.value += value / static_cast<double>(n);
  result.value = std::clamp(result.value, 0.0, result.cap);  // rounding alone is beyond
  result.at_cap = result.value >= 0.95 * result.cap;
  return result;
}

}  // namespace cuvae
