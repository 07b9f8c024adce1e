#pragma once
// How far a device's values may lie from the reference's, element by element: first-order error
// analysis of an unfused training step, evaluated with the reference's own values.
//
// Every element y carries E(y), the standard deviation that rounding alone would give it:
//
//   E(y)^2 = sum over inputs of (dy/dx E(x))^2 + own(y)^2
//
// that is, errors of different elements are taken as independent (Higham and Mary, "A new approach
// to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019), because worst cases
// added up along a step of eleven products would allow errors of 1e-2 where 1e-6 are seen.
// `own` is what computing y from exact inputs may lose: for a reduction of n terms, `sigmas` * own
// is the tolerance of that length (base/tolerance.h) for the sum of the terms' magnitudes; for an
// elementwise function, own is a few units of roundoff. An element passes within `sigmas` * E, a
// whole tensor within `aggregate_sigmas` * ||E||: `own` overestimates a typical error several
// times, so that the factors need only cover the correlations that were neglected.
//
// A kinked activation (relu, leaky_relu) within sigmas * E of its kink may fall on either side. In
// the unfused run such elements take the reference's side, and derivatives are those of that side;
// the production plan is free, so there each such element adds its whole jump to E.
//
// Other optimisers are held to the change of the update over [g - err, g + err], with err of either
// number of sigmas.
//
// An Adam update u(g) is held to |du/dg| * err(g) with err(g) = sigmas * E(g), or to the change of
// u over [g - err, g + err] where that is larger, and to 2 * lr at most: in the first steps u is
// lr * sign(g), so that a gradient within its error of zero decides nothing.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cuvae/graph.h"
#include "cuvae/tensor.h"

namespace cuvae {

struct Rounding {
  DType device = DType::f32;
  DType reference = DType::f64;
  double normals = 0;  // the device's draws differ from the reference's by at most this
};

inline constexpr double element_sigmas = 8;
inline constexpr double aggregate_sigmas = 4;

// Reference values of one step by value id: reals as f64, and the clock. In-place updates: the old
// version under the persistent value, the new one under the version.
using ValueTable = std::vector<Tensor>;
// E by value id; empty for integers, which must be equal.
using ErrorTable = std::vector<std::vector<double>>;

enum class Kinks {
  agreed,  // the device takes the reference's side
  free,
};

// REQUIRES: `graph` is unfused. Throws Error(failed) for an operator that has no rule.
[[nodiscard]] ErrorTable error_bounds(const Graph& graph, const ValueTable& values,
                                      const Rounding& rounding, Kinks kinks);

// The absolute error that no value is held to less than: underflow of the device's type.
[[nodiscard]] double error_floor(const Rounding& rounding);

// True for an activation whose derivative jumps at 0.
[[nodiscard]] bool is_kinked(const Node& node);

// Indices of a pre-activation within its error bound of the kink.
[[nodiscard]] std::vector<std::int64_t> near_kink(const Tensor& reference,
                                                  std::span<const double> error, double floor);

struct Judgement {
  double aggregate = 0;  // ||a - b|| / ||b||; ||a - b|| where b is all zero
  double aggregate_limit = 0;
  double max_abs = 0;      // |a - b| of the worst element
  double share = 0;        // of its limit
  std::int64_t worst = 0;  // the element with the largest share
  bool passed = true;
};

// Finite check first; then every element and the aggregate against their limits. NaN and infinity
// fail, on either side. An empty `error` asks for equality.
[[nodiscard]] Judgement judge(const Tensor& device, const Tensor& reference,
                              std::span<const double> error, double floor);

}  // namespace cuvae
