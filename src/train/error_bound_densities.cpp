#include "train/error_bound_densities.h"

#include <algorithm>
#include <cmath>

#include "ops/densities.h"

namespace cuvae {
namespace {

using Int = std::int64_t;
using Reals = std::vector<double>;

// Roundings of a standardised difference and its square, of an exponential, in units.
constexpr double few = 8;

double square(double x) {
  return x * x;
}

// A value with the error that it is known with.
struct Known {
  double value = 0;
  double error = 0;
};

// z, mean and logvar of one dimension of one pair.
struct Term {
  double t, inverse;   // (z - mean) / sigma, 1 / sigma
  double density;      // log N
  double size;         // of its parts
  double ez, em, elv;  // errors
  // Derivatives of the density: by z it is -slope, by the mean slope, by the logvar spread.
  [[nodiscard]] double slope() const { return t * inverse; }
  [[nodiscard]] double spread() const { return 0.5 * (t * t - 1); }
  // The density's variance without the part of z, which several terms may have in common.
  [[nodiscard]] double variance() const { return square(slope() * em) + square(spread() * elv); }
};

class DensityBounds {
 public:
  DensityBounds(const ErrorContext& context, const Node& node) : c_(context), node_(node) {}

  bool run() {
    switch (node_.op) {
      case Op::normal_log_density: normal(); return true;
      case Op::normal_log_density_grad: normal_grad(); return true;
      case Op::pair_log_density: pair(); return true;
      case Op::pair_log_density_grad: pair_grad(); return true;
      case Op::marginal_log_density: marginal(); return true;
      case Op::marginal_log_density_grad: marginal_grad(); return true;
      case Op::logsumexp: logsumexp(); return true;
      case Op::logsumexp_grad: logsumexp_grad(); return true;
      case Op::kernel_mean: kernel_mean(); return true;
      case Op::kernel_mean_grad: kernel_mean_grad(); return true;
      default: return false;
    }
  }

 private:
  [[nodiscard]] bool has(std::size_t i) const {
    return i < node_.inputs.size() && bool(node_.inputs[i]);
  }
  [[nodiscard]] Known in(std::size_t i, Int at) const {
    if (!has(i)) return {};
    const auto k = static_cast<std::size_t>(at);
    const Reals& error = c_.error(node_.inputs[i]);  // empty for what the host writes
    return {c_.value(node_.inputs[i])[k], error.empty() ? 0 : error[k]};
  }
  [[nodiscard]] Int dim(std::size_t i, int axis) const {
    return c_.graph[node_.inputs[i]].shape[axis];
  }
  Reals& error_out(std::size_t i) const { return c_.error(node_.outputs[i]); }
  static double& at(Reals& list, Int i) { return list[static_cast<std::size_t>(i)]; }

  // Of z at input `z`, element zi, and the mean and logvar behind it, element gi.
  [[nodiscard]] Term term(std::size_t z, Int zi, Int gi) const {
    const Known a = in(z, zi), mean = in(z + 1, gi), logvar = in(z + 2, gi);
    Term y{};
    y.inverse = std::exp(-0.5 * logvar.value);
    y.t = standardised(a.value, mean.value, y.inverse);
    y.density = log_normal(log_normal_constant(logvar.value), y.t);
    y.size = 0.5 * (2 + std::abs(logvar.value) + square(y.t));
    y.ez = a.error;
    y.em = mean.error;
    y.elv = logvar.error;
    return y;
  }

  // Adds up a gradient: terms w f(t), with the errors of w and of what t is made of.
  struct Sum {
    double variance = 0;
    double magnitude = 0;
    double common = 0;  // of what all terms have in common: its errors add up
    void add(double value, double v) {
      variance += v;
      magnitude += std::abs(value);
    }
    [[nodiscard]] double error(double own) const {
      return std::sqrt(variance + square(common) + square(own * magnitude));
    }
  };
  // w t / sigma and w (t^2 - 1) / 2 of one term, where w has an error of its own.
  void add_slope(Sum& sum, const Term& y, double w, double ew) const {
    const double value = w * y.slope();
    sum.add(value, square(ew * y.slope()) + square(w * square(y.inverse) * std::hypot(y.ez, y.em)) +
                       square(value * y.elv) + square(few * c_.unit * value));
  }
  void add_spread(Sum& sum, const Term& y, double w, double ew) const {
    sum.add(w * (0.5 * square(y.t) + 0.5),
            square(ew * y.spread()) + square(w * y.slope() * std::hypot(y.ez, y.em)) +
                square(w * 0.5 * square(y.t) * y.elv) +
                square(few * c_.unit * w * (0.5 * square(y.t) + 0.5)));
  }

  void normal() const {
    const Int n = dim(0, 0), d = dim(0, 1);
    for (Int row = 0; row < n; ++row) {
      double variance = 0, size = 0;
      for (Int j = 0; j < d; ++j) {
        const Term y = term(0, row * d + j, row * d + j);
        variance += y.variance() + square(y.slope() * y.ez);
        size += y.size;
      }
      at(error_out(0), row) = std::sqrt(variance + square((c_.sum(d) + few * c_.unit) * size));
    }
  }

  void normal_grad() const {
    const Int n = dim(1, 0), d = dim(1, 1);
    for (Int i = 0; i < n * d; ++i) {
      const Known g = in(0, i / d);
      const Term y = term(1, i, i);
      Sum slope, spread;
      add_slope(slope, y, g.value, g.error);
      add_spread(spread, y, g.value, g.error);
      std::size_t out = 0;
      at(error_out(out), i) = slope.error(0);
      if (has(2)) at(error_out(++out), i) = slope.error(0);
      if (has(3)) at(error_out(++out), i) = spread.error(0);
    }
  }

  void pair() const {
    const Int n = dim(0, 0), d = dim(0, 1), m = dim(1, 0);
    for (Int i = 0; i < n * m; ++i) {
      double variance = 0, size = 0;
      for (Int j = 0; j < d; ++j) {
        const Term y = term(0, i / m * d + j, i % m * d + j);
        variance += y.variance() + square(y.slope() * y.ez);
        size += y.size;
      }
      at(error_out(0), i) = std::sqrt(variance + square((c_.sum(d) + few * c_.unit) * size));
    }
  }

  // dz, dmean, dlogvar of pairs whose weights weigh(n, m, j, term) gives with their errors; each
  // weight's error may have a part in common with those of all other terms of z's sum.
  template <class Weigh>
  void pair_sums(std::size_t z, Weigh weigh) const {
    const Int n = dim(z, 0), d = dim(z, 1), m = dim(z + 1, 0);
    std::vector<Sum> dz(static_cast<std::size_t>(n * d)), dmean(static_cast<std::size_t>(m * d)),
        dlogvar(dmean.size());
    for (Int row = 0; row < n; ++row)
      for (Int k = 0; k < m; ++k)
        for (Int j = 0; j < d; ++j) {
          const Term y = term(z, row * d + j, k * d + j);
          const auto [w, own, common] = weigh(row, k, j, y);
          const auto zi = static_cast<std::size_t>(row * d + j);
          const auto gi = static_cast<std::size_t>(k * d + j);
          add_slope(dz[zi], y, w, own);
          dz[zi].common += std::abs(common * y.slope());
          add_slope(dmean[gi], y, w, std::hypot(own, common));
          add_spread(dlogvar[gi], y, w, std::hypot(own, common));
        }
    for (std::size_t i = 0; i < dz.size(); ++i) error_out(0)[i] = dz[i].error(c_.sum(m));
    for (std::size_t i = 0; i < dmean.size(); ++i) {
      error_out(1)[i] = dmean[i].error(c_.sum(n));
      error_out(2)[i] = dlogvar[i].error(c_.sum(n));
    }
  }

  struct Weight {
    double value, own, common;
  };

  void pair_grad() const {
    const Int m = dim(2, 0);
    pair_sums(1, [&](Int row, Int k, Int, const Term&) {
      const Known g = in(0, row * m + k);
      return Weight{g.value, g.error, 0};
    });
  }

  void marginal() const {
    const Int n = dim(0, 0), d = dim(0, 1), m = dim(1, 0);
    const ImportanceWeights<double> weights(importance_of(node_.attrs), m);
    const auto logsumexps = c_.value(node_.outputs[1]);
    for (Int row = 0; row < n; ++row) {
      double all = 0, size = 0;
      for (Int j = 0; j < d; ++j) {
        const double lse = logsumexps[static_cast<std::size_t>(row * d + j)];
        double variance = 0, of_z = 0, own = 0;
        for (Int k = 0; k < m; ++k) {
          const Term y = term(0, row * d + j, k * d + j);
          const double share = std::exp(at_most_zero(y.density + weights(row, k) - lse));
          variance += square(share) * y.variance();
          of_z += share * y.slope();
          own += share * few * (y.size + std::abs(weights(row, k)));
        }
        variance += square(of_z * in(0, row * d + j).error);
        variance += square(c_.unit * (own + few * std::abs(lse)) + c_.sum(m));
        at(error_out(1), row * d + j) = std::sqrt(variance);
        all += variance;
        size += std::abs(lse);
      }
      at(error_out(0), row) = std::sqrt(all + square(c_.sum(d) * size));
    }
  }

  void marginal_grad() const {
    const Int d = dim(2, 1), m = dim(3, 0);
    const ImportanceWeights<double> weights(importance_of(node_.attrs), m);
    pair_sums(2, [&](Int row, Int k, Int j, const Term& y) {
      const Known g = in(0, row), lse = in(1, row * d + j);
      const double share =
          std::exp(at_most_zero(y.density + weights(row, k) - finite_or_zero(lse.value)));
      const double rounded =
          few * c_.unit * (1 + y.size + std::abs(weights(row, k)) + std::abs(lse.value));
      const double w = g.value * share;
      // z moves the share and the term together; apart, both are only overestimated.
      return Weight{
          w, std::abs(w) * std::sqrt(y.variance() + square(y.slope() * y.ez) + square(rounded)),
          std::hypot(share * g.error, w * lse.error)};
    });
  }

  // The shares of a logsumexp's terms, with the errors of their logarithms but for the bias's.
  struct Shares {
    Reals share, error;
    double common = 0;  // of all
  };
  [[nodiscard]] Shares shares_of(std::size_t x, Int row) const {
    const Int m = dim(x, 1);
    const ImportanceWeights<double> weights(importance_of(node_.attrs), m);
    Shares s;
    s.share.resize(static_cast<std::size_t>(m));
    s.error.resize(s.share.size());
    double largest = -HUGE_VAL, most_x = -HUGE_VAL, most_bias = -HUGE_VAL, sum = 0;
    for (Int k = 0; k < m; ++k) {
      at(s.share, k) = in(x, row * m + k).value + in(x + 1, k).value + weights(row, k);
      largest = std::max(largest, at(s.share, k));
      most_x = std::max(most_x, in(x, row * m + k).value);
      most_bias = std::max(most_bias, in(x + 1, k).value);
    }
    largest = finite_or_zero(largest);
    for (double& share : s.share) sum += share = std::exp(share - largest);
    for (Int k = 0; k < m && sum > 0; ++k) {
      double& share = at(s.share, k);
      share /= sum;
      if (share == 0) continue;
      const Known value = in(x, row * m + k);
      at(s.error, k) = std::hypot(
          value.error, few * c_.unit *
                           (1 + std::abs(value.value - most_x) +
                            std::abs(in(x + 1, k).value - most_bias) + std::abs(weights(row, k))));
      s.common += square(share * at(s.error, k));
    }
    s.common = std::hypot(std::sqrt(s.common), c_.sum(m));
    return s;
  }
  // The bias's own softmax: what a normalised bias loses.
  [[nodiscard]] Reals normaliser(std::size_t bias) const {
    const Int m = has(bias) ? dim(bias, 0) : 0;
    Reals q(static_cast<std::size_t>(m));
    if (!flag_of(node_.attrs, "normalise")) return q;
    double largest = -HUGE_VAL, sum = 0;
    for (Int k = 0; k < m; ++k) largest = std::max(largest, in(bias, k).value);
    for (Int k = 0; k < m; ++k)
      sum += at(q, k) = std::exp(in(bias, k).value - finite_or_zero(largest));
    for (double& share : q) share /= sum;
    return q;
  }

  void logsumexp() const {
    const Int n = dim(0, 0), m = dim(0, 1);
    Reals q = normaliser(1);
    const auto y = c_.value(node_.outputs[0]);
    for (Int row = 0; row < n; ++row) {
      Shares s = shares_of(0, row);
      double variance = square(s.common);
      for (Int k = 0; k < m && has(1); ++k)
        variance += square((at(s.share, k) - at(q, k)) * in(1, k).error);
      const double value = finite_or_zero(y[static_cast<std::size_t>(row)]);
      double bias = 0;
      for (Int k = 0; k < m && has(1); ++k)
        if (at(s.share, k) > 0) bias = std::max(bias, std::abs(in(1, k).value));
      at(error_out(0), row) = std::sqrt(variance + square(2 * c_.sum(m)) +
                                        square(few * c_.unit * (std::abs(value) + bias)));
    }
  }

  void logsumexp_grad() const {
    const Int n = dim(1, 0), m = dim(1, 1);
    Reals q = normaliser(2);
    std::vector<Sum> dbias(static_cast<std::size_t>(m));
    Sum all;
    for (Int row = 0; row < n; ++row) {
      const Known g = in(0, row);
      Shares s = shares_of(1, row);
      double of_bias = 0;
      for (Int k = 0; k < m; ++k) of_bias += square(at(s.share, k) * in(2, k).error);
      double variance_of_all = 0;
      for (Int k = 0; k < m; ++k) {
        const double dx = g.value * at(s.share, k);
        const double own = square(at(s.share, k) * g.error) +
                           square(dx) * (square(at(s.error, k)) + square(s.common));
        const double moved = std::abs(dx) * std::hypot(in(2, k).error, std::sqrt(of_bias));
        at(error_out(0), row * m + k) = std::sqrt(own + square(moved));
        if (!has(2)) continue;
        Sum& sum = dbias[static_cast<std::size_t>(k)];
        sum.add(dx, own);
        sum.common += moved;  // the bias is that of all rows
        variance_of_all += square(dx) * (square(at(s.error, k)) + square(s.common));
      }
      all.add(g.value, square(g.error) + variance_of_all);
    }
    for (Int k = 0; k < m && has(2); ++k) {
      Sum sum = dbias[static_cast<std::size_t>(k)];
      const double lost = at(q, k);
      sum.variance += square(lost) * all.variance;
      sum.magnitude += lost * all.magnitude;
      sum.common += lost * all.magnitude * 2 * in(2, k).error;
      at(error_out(1), k) = sum.error(c_.sum(n) + (lost > 0 ? c_.sum(m) + few * c_.unit : 0));
    }
  }

  // The squared distance of two rows, and its errors.
  struct Distance {
    double squared = 0;
    double variance = 0;  // by the errors of y and by rounding
    Reals differences;
  };
  [[nodiscard]] Distance distance(std::size_t z, Int row, Int k) const {
    const Int d = dim(z, 1);
    Distance r;
    for (Int j = 0; j < d; ++j) {
      const Known a = in(z, row * d + j), b = in(z + 1, k * d + j);
      r.differences.push_back(a.value - b.value);
      r.squared += square(a.value - b.value);
      r.variance += square(2 * (a.value - b.value) * b.error);
    }
    r.variance += square((c_.sum(d) + 3 * c_.unit) * r.squared);
    return r;
  }

  void kernel_mean() const {
    const Int n = dim(0, 0), d = dim(0, 1), m = dim(1, 0);
    const KernelMeanAttrs attrs = kernel_mean_of(node_.attrs);
    const KernelFunction<double> kernel(attrs);
    for (Int row = 0; row < n; ++row) {
      double variance = 0, size = 0;
      Reals of_z(static_cast<std::size_t>(d));
      for (Int k = 0; k < m; ++k) {
        if (attrs.skip_diagonal && row == k) continue;
        const Distance r = distance(0, row, k);
        const double slope = kernel.slope(r.squared);
        variance += square(slope / 2) * r.variance +
                    square(few * c_.unit * (kernel.value(r.squared) + slope * r.squared));
        for (Int j = 0; j < d; ++j)
          at(of_z, j) += slope * r.differences[static_cast<std::size_t>(j)];
        size += kernel.value(r.squared);
      }
      for (Int j = 0; j < d; ++j) variance += square(at(of_z, j) * in(0, row * d + j).error);
      at(error_out(0), row) =
          attrs.share(m) * std::sqrt(variance + square((c_.sum(m) + 2 * c_.unit) * size));
    }
  }

  void kernel_mean_grad() const {
    const Int n = dim(1, 0), d = dim(1, 1), m = dim(2, 0);
    const KernelMeanAttrs attrs = kernel_mean_of(node_.attrs);
    const KernelFunction<double> kernel(attrs);
    std::vector<Sum> dz(static_cast<std::size_t>(n * d)), dy(static_cast<std::size_t>(m * d));
    for (Int row = 0; row < n; ++row)
      for (Int k = 0; k < m; ++k) {
        if (attrs.skip_diagonal && row == k) continue;
        const Known g = in(0, row);
        const Distance r = distance(1, row, k);
        const double slope = kernel.slope(r.squared);
        // d(log slope)/d(squared distance): -1 / (2 h^2), or -2 / (C + r).
        const double relative = attrs.kind == PairKernel::imq ? 2 / (attrs.bandwidth + r.squared)
                                                              : 0.5 / square(attrs.bandwidth);
        double of_z = 0;
        for (Int j = 0; j < d; ++j)
          of_z += square(2 * r.differences[static_cast<std::size_t>(j)] * in(1, row * d + j).error);
        const double w = attrs.share(m) * g.value * slope;
        const double own =
            attrs.share(m) * slope *
            std::sqrt(square(g.error) +
                      square(g.value) * (square(relative) * (r.variance + of_z) +
                                         square(few * c_.unit * (1 + relative * r.squared))));
        for (Int j = 0; j < d; ++j) {
          const double x = r.differences[static_cast<std::size_t>(j)];
          const double moved =
              std::hypot(in(1, row * d + j).error, in(2, k * d + j).error) + c_.unit * std::abs(x);
          const double variance = square(own * x) + square(w * moved);
          dz[static_cast<std::size_t>(row * d + j)].add(w * x, variance);
          dy[static_cast<std::size_t>(k * d + j)].add(w * x, variance);
        }
      }
    for (std::size_t i = 0; i < dz.size(); ++i) error_out(0)[i] = dz[i].error(c_.sum(m));
    for (std::size_t i = 0; i < dy.size(); ++i) error_out(1)[i] = dy[i].error(c_.sum(n));
  }

  const ErrorContext& c_;
  const Node& node_;
};

}  // namespace

bool density_error_bound(const ErrorContext& context, const Node& node) {
  return DensityBounds(context, node).run();
}

}  // namespace cuvae
