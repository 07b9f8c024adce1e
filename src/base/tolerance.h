#pragma once
// How two results are compared: the limits, from dtype and reduction length, and the comparison.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "cuvae/tensor.h"

namespace cuvae {

struct Tolerance {
  double abs = 0;
  double rel = 0;
};

// For results that are sums of `reduction_length` rounded terms (1: no sum). The roundings of n
// terms add up like a random walk, to about sqrt(n) units in the last place of the partial sums: 4
// of them for each, and 16 for what stands around the sum (an exponential, a quotient). `scale` is
// the size of the partial sums, to which the absolute part is proportional: a result near zero has
// the rounding errors of what cancelled. Sums of n terms of size 1 and either sign: sqrt(n).
//
// bf16 is a type of operands and results, never of sums, which are f32's. Each term has two rounded
// factors, of up to 2^-8 each; over a sum that is a random walk as well, which the scale has, and
// the result is rounded once more: 4 units for all three, beside f32's limit.
inline Tolerance tolerance(DType dtype, std::int64_t reduction_length, double scale = 1) {
  const double unit = dtype == DType::f64 ? 0x1p-53 : 0x1p-24;
  const double length = static_cast<double>(std::max<std::int64_t>(reduction_length, 1));
  const double stored = dtype == DType::bf16 ? 4 * 0x1p-8 : 0;
  const double limit = unit * (16 + 4 * std::sqrt(length)) + stored;
  return {limit * scale, limit};
}

struct Comparison {
  bool passed = true;
  double aggregate = 0;        // ||a - b|| / ||b||
  double aggregate_limit = 0;  // rel + abs / rms(b)
  double share = 0;            // the largest share of a limit that was used; > 1 fails
  std::int64_t worst = -1;     // the element with the largest share
  double a = 0;                // its values
  double b = 0;
  [[nodiscard]] std::string str() const {
    return "worst index " + std::to_string(worst) + ": " + std::to_string(a) + " against " +
           std::to_string(b) + ", share of the limit " + std::to_string(share) +
           ", aggregate error " + std::to_string(aggregate);
  }
};

// a against the reference b, element by element and in the aggregate. NaN never passes, and an
// infinity only beside the same one.
template <class A, class B>
Comparison compare_elements(std::span<const A> a, std::span<const B> b, Tolerance limit) {
  Comparison result;
  if (a.size() != b.size()) {
    result.passed = false;
    result.share = std::numeric_limits<double>::infinity();
    return result;
  }
  double squares_error = 0;
  double squares = 0;
  std::int64_t finite = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]);
    const double y = static_cast<double>(b[i]);
    double share = 0;
    if (std::isfinite(x) && std::isfinite(y)) {
      const double error = std::abs(x - y);
      const double most = limit.abs + limit.rel * std::abs(y);
      share = error == 0 ? 0 : error / most;
      squares_error += error * error;
      squares += y * y;
      ++finite;
    } else if (!(std::isinf(x) && std::isinf(y) && std::signbit(x) == std::signbit(y))) {
      share = std::numeric_limits<double>::infinity();
    }
    if (!(share <= result.share) || result.worst < 0) {
      result.share = share;
      result.worst = static_cast<std::int64_t>(i);
      result.a = x;
      result.b = y;
    }
    if (!(share <= 1)) result.passed = false;
  }
  if (finite > 0) {
    const double rms = std::sqrt(squares / static_cast<double>(finite));
    const double rms_error = std::sqrt(squares_error / static_cast<double>(finite));
    result.aggregate = rms_error == 0 ? 0 : rms_error / rms;
    result.aggregate_limit = limit.rel + (rms > 0 ? limit.abs / rms : 0);
    if (!(rms_error <= limit.abs + limit.rel * rms)) result.passed = false;
  }
  return result;
}

}  // namespace cuvae
