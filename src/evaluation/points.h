#pragma once
// Rows of a matrix as points, and distances between them.

#include <cstdint>
#include <string_view>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

struct Points {
  std::vector<double> values;   // [n, d]
  std::vector<double> squares;  // [n], |x|^2
  std::int64_t n = 0;
  std::int64_t d = 0;

  Points() = default;
  // Error(usage) naming `what` unless the tensor is a matrix of finite reals.
  Points(const Tensor& tensor, std::string_view what);
  // Distances are exact to rounding of the coordinates' size: keep that small.
  void subtract(const std::vector<double>& centre);
  [[nodiscard]] std::vector<double> mean() const;
  [[nodiscard]] const double* row(std::int64_t i) const { return values.data() + i * d; }
  void update_squares();
};

// products [rows of a, rows of b] = a b^T, rows [a0, a1) and [b0, b1).
void dot_products(const Points& a, std::int64_t a0, std::int64_t a1, const Points& b,
                  std::int64_t b0, std::int64_t b1, double* products);
// Squared Euclidean distances in the same places: |a|^2 + |b|^2 - 2 a.b, where what rounding may
// leave of 0 is 0.
void squared_distances(const Points& a, std::int64_t a0, std::int64_t a1, const Points& b,
                       std::int64_t b0, std::int64_t b1, double* distances);

// c [m, n] = op(a) b (+ c with `accumulate`), row-major; a is [m, k], or [k, m] where it is
// transposed, b is [k, n], or [n, k].
void multiply_doubles(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                      std::int64_t k, const double* a, const double* b, bool accumulate, double* c);

}  // namespace cuvae
