#include "evaluation/points.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "cuvae/error.h"

namespace cuvae {

Points::Points(const Tensor& tensor, std::string_view what) {
  if (tensor.shape().rank() != 2) {
    throw Error(Status::usage, "a tensor of shape " + tensor.shape().str(), what,
                "give a matrix, [n, d]");
  }
  n = tensor.shape()[0];
  d = tensor.shape()[1];
  const Tensor reals = tensor.to(DType::f64);
  const auto from = reals.as<double>();
  values.assign(from.begin(), from.end());
  for (const double value : values) {
    if (!std::isfinite(value)) {
      throw Error(Status::usage, "a value that is not finite", what, "give finite numbers");
    }
  }
  update_squares();
}

void Points::update_squares() {
  squares.assign(static_cast<std::size_t>(n), 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    const double* x = row(i);
    double sum = 0;
    for (std::int64_t j = 0; j < d; ++j) sum += x[j] * x[j];
    squares[static_cast<std::size_t>(i)] = sum;
  }
}

std::vector<double> Points::mean() const {
  std::vector<double> centre(static_cast<std::size_t>(d), 0.0);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < d; ++j) centre[static_cast<std::size_t>(j)] += row(i)[j];
  for (double& value : centre) value /= static_cast<double>(n);
  return centre;
}

void Points::subtract(const std::vector<double>& centre) {
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < d; ++j)
      values[static_cast<std::size_t>(i * d + j)] -= centre[static_cast<std::size_t>(j)];
  update_squares();
}

void multiply_doubles(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                      std::int64_t k, const double* a, const double* b, bool accumulate,
                      double* c) {
  if (m == 0 || n == 0) return;
  const auto i = [](std::int64_t v) { return static_cast<int>(v); };
  cblas_dgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
              transpose_b ? CblasTrans : CblasNoTrans, i(m), i(n), i(k), 1.0, a,
              i(std::max<std::int64_t>(1, transpose_a ? m : k)), b,
              i(std::max<std::int64_t>(1, transpose_b ? k : n)), accumulate ? 1.0 : 0.0, c, i(n));
}

void dot_products(const Points& a, std::int64_t a0, std::int64_t a1, const Points& b,
                  std::int64_t b0, std::int64_t b1, double* products) {
  multiply_doubles(false, true, a1 - a0, b1 - b0, a.d, a.row(a0), b.row(b0), false, products);
}

void squared_distances(const Points& a, std::int64_t a0, std::int64_t a1, const Points& b,
                       std::int64_t b0, std::int64_t b1, double* distances) {
  dot_products(a, a0, a1, b, b0, b1, distances);
  const double unit = 4 * std::numeric_limits<double>::epsilon() *
                      std::sqrt(static_cast<double>(std::max<std::int64_t>(a.d, 1)));
  const std::int64_t width = b1 - b0;
  for (std::int64_t i = a0; i < a1; ++i) {
    double* out = distances + (i - a0) * width;
    const double square = a.squares[static_cast<std::size_t>(i)];
    const double* others = b.squares.data() + b0;
    for (std::int64_t j = 0; j < width; ++j) {
      const double sum = square + others[j];
      const double distance = sum - 2 * out[j];
      out[j] = distance > unit * sum ? distance : 0.0;
    }
  }
}

}  // namespace cuvae
