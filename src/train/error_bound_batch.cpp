#include "train/error_bound_batch.h"

#include <algorithm>
#include <cmath>

#include "ops/augment.h"
#include "ops/objective.h"
#include "ops/samples.h"
#include "train/error_bound.h"

namespace cuvae {
namespace {

using Reals = std::vector<double>;

double square(double x) {
  return x * x;
}

class BatchBounds {
 public:
  BatchBounds(const ErrorContext& context, const Node& node) : c_(context), node_(node) {}

  bool run() {
    switch (node_.op) {
      case Op::repeat_rows: repeat_rows(); return true;
      case Op::segment_sum: segment_sum(); return true;
      case Op::row_scale: row_scale(); return true;
      case Op::gaussian_kl_elements: kl(); return true;
      case Op::gaussian_kl_elements_grad: kl_grad(); return true;
      case Op::floor: floor(); return true;
      case Op::floor_grad: masked(level_of(node_.attrs), 1); return true;
      case Op::capacity_gap: gap(); return true;
      case Op::capacity_gap_grad: masked(capacity(2), 2); return true;
      case Op::softmax: softmax(false); return true;
      case Op::log_softmax: softmax(true); return true;
      case Op::softmax_grad: softmax_grad(); return true;
      case Op::log_softmax_grad: log_softmax_grad(); return true;
      case Op::one_hot:
      case Op::one_hot_cycle:
      case Op::label_rows: return true;  // the same on both sides
      case Op::add_noise: noise(noise_of(node_.attrs, "sigma"), false); return true;
      case Op::augment: noise(augment_of(node_.attrs).noise, true); return true;
      case Op::log1p: log1p(); return true;
      case Op::log1p_grad: log1p_grad(); return true;
      default: return false;
    }
  }

 private:
  [[nodiscard]] std::span<const double> in(std::size_t i) const {
    return c_.value(node_.inputs[i]);
  }
  [[nodiscard]] std::span<const double> out(std::size_t i = 0) const {
    return c_.value(node_.outputs[i]);
  }
  // What the host has written is the same on both sides.
  [[nodiscard]] Reals error_in(std::size_t i) const {
    Reals e = c_.error(node_.inputs[i]);
    e.resize(in(i).size());
    return e;
  }
  [[nodiscard]] Reals& error_out(std::size_t i = 0) const { return c_.error(node_.outputs[i]); }
  [[nodiscard]] std::size_t columns() const {
    return static_cast<std::size_t>(c_.graph[node_.inputs[0]].shape[1]);
  }
  [[nodiscard]] double sum(std::size_t n) const { return c_.sum(static_cast<std::int64_t>(n)); }
  // Elements of a row of all that one row becomes, or comes of.
  [[nodiscard]] std::size_t width() const {
    const Shape& shape = c_.graph[node_.inputs[0]].shape;
    return shape[0] > 0 ? static_cast<std::size_t>(shape.elements() / shape[0]) : 0;
  }

  void repeat_rows() {
    const auto times = static_cast<std::size_t>(times_of(node_.attrs));
    const double factor = factor_of(node_.attrs);
    const Reals ex = error_in(0);
    const auto y = out();
    Reals& e = error_out();
    for (std::size_t i = 0; i < e.size(); ++i) {
      const std::size_t row = i / width(), from = row / times * width() + i % width();
      e[i] = std::sqrt(square(factor * ex[from]) + (factor == 1 ? 0 : square(2 * c_.unit * y[i])));
    }
  }

  void segment_sum() {
    const auto times = static_cast<std::size_t>(times_of(node_.attrs));
    const double factor = std::abs(factor_of(node_.attrs));
    const Reals ex = error_in(0);
    const auto x = in(0);
    Reals& e = error_out();
    for (std::size_t i = 0; i < e.size(); ++i) {
      double variance = 0, magnitude = 0;
      for (std::size_t k = 0; k < times; ++k) {
        const std::size_t from = (i / width() * times + k) * width() + i % width();
        variance += square(ex[from]);
        magnitude += std::abs(x[from]);
      }
      e[i] = factor * std::sqrt(variance + square((sum(times) + 2 * c_.unit) * magnitude));
    }
  }

  void row_scale() {
    const auto x = in(0), w = in(1);
    const Reals ex = error_in(0), ew = error_in(1);
    Reals& e = error_out();
    for (std::size_t i = 0; i < e.size(); ++i) {
      const std::size_t b = i / columns();
      e[i] = std::sqrt(square(w[b] * ex[i]) + square(x[i] * ew[b]) + square(c_.unit * w[b] * x[i]));
    }
  }

  void kl() {  // (mean^2 + (expm1(logvar) - logvar)) / 2
    const auto mean = in(0), logvar = in(1);
    const Reals em = error_in(0), el = error_in(1);
    Reals& e = error_out();
    for (std::size_t i = 0; i < e.size(); ++i) {
      const double grown = std::expm1(logvar[i]);
      const double magnitude = square(mean[i]) + std::abs(grown) + std::abs(logvar[i]);
      e[i] = std::sqrt(square(mean[i] * em[i]) + square(0.5 * grown * el[i]) +
                       square(0.5 * em[i] * em[i]) + square(0.25 * el[i] * el[i]) +
                       square(4 * c_.unit * magnitude));
    }
  }

  void kl_grad() {  // dkl mean; dkl expm1(logvar) / 2
    const auto dkl = in(0), mean = in(1), logvar = in(2);
    const Reals ek = error_in(0), em = error_in(1), el = error_in(2);
    Reals &dm = error_out(0), &dl = error_out(1);
    for (std::size_t i = 0; i < dm.size(); ++i) {
      const double grown = std::expm1(logvar[i]);
      dm[i] = std::sqrt(square(dkl[i] * em[i]) + square(mean[i] * ek[i]) +
                        square(2 * c_.unit * dkl[i] * mean[i]));
      dl[i] = 0.5 * std::sqrt(square(dkl[i] * (grown + 1) * el[i]) + square(grown * ek[i]) +
                              square(6 * c_.unit * dkl[i] * grown));
    }
  }

  void floor() {
    const double level = level_of(node_.attrs);
    const auto x = in(0);
    const Reals ex = error_in(0);
    Reals& e = error_out();
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = x[i] + element_sigmas * ex[i] > level ? ex[i] : 0;
    for (double& one : e) one = std::max(one, c_.unit * std::abs(level));
  }

  // dy times a factor of x that jumps by `jump` at the kink, which either side may be on where x
  // lies within its error of it.
  void masked(double kink, double jump) {
    const auto dy = in(0), x = in(1);
    const Reals edy = error_in(0), ex = error_in(1);
    Reals& e = error_out();
    for (std::size_t i = 0; i < e.size(); ++i) {
      const double reach = element_sigmas * (ex[i] + c_.unit * std::abs(kink));
      const bool either = std::abs(x[i] - kink) <= reach;
      const bool passes = out()[i] != 0 || dy[i] == 0;
      e[i] = std::sqrt((passes ? square(edy[i]) : 0) +
                       (either ? square(jump * (std::abs(dy[i]) / element_sigmas + edy[i])) : 0));
    }
  }

  [[nodiscard]] double capacity(std::size_t hyper) const {
    return in(hyper)[static_cast<std::size_t>(node_.attrs.integer("slot"))];
  }

  void gap() { error_out()[0] = std::sqrt(square(error_in(0)[0]) + square(c_.unit * out()[0])); }

  // p_i moves by p_i (e_i - sum p_j e_j), its logarithm by what stands in brackets.
  void softmax(bool log) {
    const std::size_t n = columns();
    const auto x = in(0), y = out();
    const Reals ex = error_in(0);
    Reals& e = error_out();
    for (std::size_t first = 0; first < e.size(); first += n) {
      const double largest = *std::max_element(x.begin() + static_cast<std::ptrdiff_t>(first),
                                               x.begin() + static_cast<std::ptrdiff_t>(first + n));
      double shared = 0;
      for (std::size_t i = first; i < first + n; ++i)
        shared += square((log ? std::exp(y[i]) : y[i]) * ex[i]);
      for (std::size_t i = first; i < first + n; ++i) {
        const double lost = 4 * c_.unit * (1 + std::abs(x[i] - largest)) + sum(n);
        e[i] = (log ? 1 : y[i]) * std::sqrt(square(ex[i]) + shared + square(lost));
      }
    }
  }

  // y (dy - s), s = sum dy y
  void softmax_grad() {
    const std::size_t n = columns();
    const auto dy = in(0), y = in(1);
    const Reals ed = error_in(0), ey = error_in(1);
    Reals& e = error_out();
    for (std::size_t first = 0; first < e.size(); first += n) {
      double s = 0, variance = 0, magnitude = 0;
      for (std::size_t i = first; i < first + n; ++i) {
        s += dy[i] * y[i];
        variance += square(dy[i] * ey[i]) + square(y[i] * ed[i]);
        magnitude += std::abs(dy[i] * y[i]);
      }
      variance += square((sum(n) + c_.unit) * magnitude);
      for (std::size_t i = first; i < first + n; ++i)
        e[i] = std::sqrt(square((dy[i] - s) * ey[i]) +
                         square(y[i]) * (square(ed[i]) + variance +
                                         square(2 * c_.unit * (std::abs(dy[i]) + std::abs(s)))));
    }
  }

  // dy - p s, p = exp(y), s = sum dy
  void log_softmax_grad() {
    const std::size_t n = columns();
    const auto dy = in(0), y = in(1);
    const Reals ed = error_in(0), ey = error_in(1);
    Reals& e = error_out();
    for (std::size_t first = 0; first < e.size(); first += n) {
      double s = 0, variance = 0, magnitude = 0;
      for (std::size_t i = first; i < first + n; ++i) {
        s += dy[i];
        variance += square(ed[i]);
        magnitude += std::abs(dy[i]);
      }
      variance += square(sum(n) * magnitude);
      for (std::size_t i = first; i < first + n; ++i) {
        const double p = std::exp(y[i]);
        const double lost =
            4 * c_.unit * (std::abs(dy[i]) + std::abs(p * s) * (1 + std::abs(y[i])));
        e[i] =
            std::sqrt(square(ed[i]) + square(p * s * ey[i]) + square(p) * variance + square(lost));
      }
    }
  }

  // Draws are the normals' own; pixels of a row may have come from anywhere in it.
  void noise(double sigma, bool anywhere) {
    const std::size_t d = columns();
    const auto x = in(0), y = out();
    const Reals ex = error_in(0);
    Reals& e = error_out();
    for (std::size_t first = 0; first < e.size(); first += d) {
      double most = 0, largest = 0;
      for (std::size_t i = first; i < first + d; ++i) {
        most = std::max(most, ex[i]);
        largest = std::max(largest, std::abs(x[i]));
      }
      for (std::size_t i = first; i < first + d; ++i) {
        const double from = anywhere ? largest : std::abs(x[i]);
        const double own = sigma > 0 ? 2 * c_.unit * (from + std::abs(y[i]) + sigma) : 0;
        e[i] =
            std::sqrt(square(anywhere ? most : ex[i]) + square(sigma * c_.normals) + square(own));
      }
    }
  }

  void log1p() {
    const auto x = in(0), y = out();
    const Reals ex = error_in(0);
    Reals& e = error_out();
    for (std::size_t i = 0; i < e.size(); ++i) {
      const double slope = x[i] + element_sigmas * ex[i] < 0 ? 0 : 1 / (1 + std::max(x[i], 0.0));
      e[i] = std::sqrt(square(slope * ex[i]) + square(4 * c_.unit * y[i]));
    }
  }

  void log1p_grad() {
    const auto dy = in(0), x = in(1), y = out();
    const Reals ed = error_in(0), ex = error_in(1);
    Reals& e = error_out();
    for (std::size_t i = 0; i < e.size(); ++i) {
      const double slope = x[i] < 0 ? 0 : 1 / (1 + x[i]);
      const bool either = ex[i] > 0 && std::abs(x[i]) <= element_sigmas * ex[i];
      e[i] = std::sqrt(square(slope * ed[i]) + square(slope * y[i] * ex[i]) +
                       square(3 * c_.unit * y[i]) +
                       (either ? square(std::abs(dy[i]) / element_sigmas + ed[i]) : 0));
    }
  }

  const ErrorContext& c_;
  const Node& node_;
};

}  // namespace

bool batch_error_bound(const ErrorContext& context, const Node& node) {
  return BatchBounds(context, node).run();
}

}  // namespace cuvae
