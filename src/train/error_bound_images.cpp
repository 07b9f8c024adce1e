#include "train/error_bound_images.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "ops/conv.h"
#include "ops/dropout.h"
#include "ops/norm.h"
#include "ops/pool.h"
#include "train/error_bound.h"

namespace cuvae {
namespace {

using Int = std::int64_t;
using Reals = std::vector<double>;

double square(double x) {
  return x * x;
}

std::size_t at(Int i) {
  return static_cast<std::size_t>(i);
}

// c [m, n] += a b, each operand as stored or transposed.
void add_product(bool ta, bool tb, Int m, Int n, Int k, const double* a, const double* b,
                 double* c) {
  if (m == 0 || n == 0 || k == 0) return;
  const auto i = [](Int v) { return static_cast<int>(v); };
  cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, i(m),
              i(n), i(k), 1.0, a, i(ta ? m : k), b, i(tb ? k : n), 1.0, c, i(n));
}

// What a convolution does to its two operands, image by image.
class Convolution {
 public:
  Convolution(const Graph& graph, const Node& node)
      : s_(conv_of(graph, node)),
        op_(node.op),
        h_(forward_phase(s_.h)),
        w_(forward_phase(s_.w)),
        plane_(s_.h.in * s_.w.in),
        positions_(s_.h.out * s_.w.out),
        terms_(s_.in * s_.taps()) {}

  // Terms of one sum.
  [[nodiscard]] Int terms() const {
    if (op_ == Op::conv2d) return terms_;
    return op_ == Op::conv_transpose2d ? s_.out * s_.taps() : s_.batch * positions_;
  }

  [[nodiscard]] Reals operator()(const Reals& first, const Reals& second, std::size_t size) const {
    Reals result(size);
    Reals seen(at(terms_ * positions_));
    for (Int b = 0; b < s_.batch; ++b) {
      const Int x = b * s_.in * plane_, y = b * s_.out * positions_;
      if (op_ == Op::conv_transpose2d) {
        std::fill(seen.begin(), seen.end(), 0.0);
        add_product(true, false, terms_, positions_, s_.out, second.data(), first.data() + y,
                    seen.data());
        each([&](Int term, Int position, Int place) {
          result[at(x + place)] += seen[at(term * positions_ + position)];
        });
        continue;
      }
      const Reals& source = op_ == Op::conv2d ? first : second;
      std::fill(seen.begin(), seen.end(), 0.0);
      each([&](Int term, Int position, Int place) {
        seen[at(term * positions_ + position)] = source[at(x + place)];
      });
      if (op_ == Op::conv2d)
        add_product(false, false, s_.out, positions_, terms_, second.data(), seen.data(),
                    result.data() + y);
      else
        add_product(false, true, s_.out, terms_, positions_, first.data() + y, seen.data(),
                    result.data());
    }
    return result;
  }

 private:
  // f(term, position, place in the image) for all that is not padding.
  template <class F>
  void each(F f) const {
    for (Int c = 0; c < s_.in; ++c)
      for (Int i = 0; i < h_.taps; ++i)
        for (Int j = 0; j < w_.taps; ++j)
          for (Int p = 0; p < h_.positions; ++p)
            for (Int q = 0; q < w_.positions; ++q) {
              const Int row = p * h_.stride + h_.start + i * h_.step;
              const Int column = q * w_.stride + w_.start + j * w_.step;
              if (row < 0 || row >= s_.h.in || column < 0 || column >= s_.w.in) continue;
              f((c * h_.taps + i) * w_.taps + j, p * w_.positions + q,
                c * plane_ + row * s_.w.in + column);
            }
  }

  Conv2d s_;
  Op op_;
  ConvPhaseAxis h_, w_;
  Int plane_, positions_, terms_;
};

class ImageBounds {
 public:
  ImageBounds(const ErrorContext& context, const Node& node) : c_(context), node_(node) {}

  bool run() {
    switch (node_.op) {
      case Op::conv2d:
      case Op::conv_transpose2d:
      case Op::conv2d_wgrad: convolution(); return true;
      case Op::channel_sum: channel_sum(); return true;
      case Op::max_pool2d: max_pool(); return true;
      case Op::max_pool2d_grad: max_pool_grad(); return true;
      case Op::avg_pool2d:
      case Op::avg_pool2d_grad:
      case Op::upsample2d:
      case Op::upsample2d_grad: windows(); return true;
      case Op::reshape: error(node_.outputs[0]) = error(node_.inputs[0]); return true;
      case Op::norm:
      case Op::batch_norm_eval: norm(); return true;
      case Op::norm_grad: norm_grad(); return true;
      case Op::running_stats: running_stats(); return true;
      case Op::dropout: dropout(); return true;
      default: return false;
    }
  }

 private:
  [[nodiscard]] bool has(std::size_t i) const {
    return i < node_.inputs.size() && bool(node_.inputs[i]);
  }
  [[nodiscard]] Reals in(std::size_t i) const {
    const auto x = c_.value(node_.inputs[i]);
    return {x.begin(), x.end()};
  }
  Reals& error(Value value) const { return c_.error(value); }
  Reals& error_in(std::size_t i) const { return c_.error(node_.inputs[i]); }
  Reals& error_out(std::size_t i) const { return c_.error(node_.outputs[i]); }
  [[nodiscard]] const Shape& shape(Value value) const { return c_.graph[value].shape; }

  template <class F>
  static Reals map(Reals x, F f) {
    for (double& v : x) v = f(v);
    return x;
  }
  static bool any(const Reals& x) {
    return std::any_of(x.begin(), x.end(), [](double v) { return v != 0; });
  }

  void convolution() {
    const Convolution convolve(c_.graph, node_);
    const auto size = [](double v) { return std::abs(v); };
    const Reals a = in(0), b = in(1);
    Reals& e = error_out(0);
    Reals magnitude = convolve(map(a, size), map(b, size), e.size());
    Reals variance(e.size());
    const auto more = [&](const Reals& by) {
      for (std::size_t i = 0; i < by.size(); ++i) variance[i] += by[i];
    };
    if (any(error_in(0))) more(convolve(map(error_in(0), square), map(b, square), e.size()));
    if (any(error_in(1))) more(convolve(map(a, square), map(error_in(1), square), e.size()));
    if (has(2)) {
      const Shape& y = shape(node_.outputs[0]);
      const Reals bias = in(2);
      for (std::size_t i = 0; i < e.size(); ++i) {
        const std::size_t channel = i / at(y[2] * y[3]) % at(y[1]);
        magnitude[i] += std::abs(bias[channel]);
        variance[i] += square(error_in(2)[channel]);
      }
    }
    const double own = c_.sum(convolve.terms() + 1);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(variance[i] + square(own * magnitude[i]));
  }

  void channel_sum() {
    const Shape& s = shape(node_.inputs[0]);
    const Reals x = in(0);
    Reals& e = error_out(0);
    Reals variance(e.size()), magnitude(e.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t channel = i / at(s[2] * s[3]) % at(s[1]);
      variance[channel] += square(error_in(0)[i]);
      magnitude[channel] += std::abs(x[i]);
    }
    const double own = c_.sum(s[0] * s[2] * s[3]);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(variance[i] + square(own * magnitude[i]));
  }

  // f(window, place in the large tensor) for what a pool covers.
  template <class F>
  void each_covered(F f) const {
    const Pool2d s = pool_of(c_.graph, node_);
    for (Int plane = 0; plane < s.planes; ++plane)
      for (Int p = 0; p < s.h.out; ++p)
        for (Int q = 0; q < s.w.out; ++q)
          for (Int i = 0; i < s.h.kernel; ++i)
            for (Int j = 0; j < s.w.kernel; ++j) {
              const Int row = p * s.h.stride - s.h.before + i;
              const Int column = q * s.w.stride - s.w.before + j;
              if (row >= 0 && row < s.h.in && column >= 0 && column < s.w.in)
                f(at((plane * s.h.out + p) * s.w.out + q),
                  at((plane * s.h.in + row) * s.w.in + column));
            }
  }

  // Sums over windows, or their transpose, all with one factor.
  void windows() {
    const bool back = node_.op == Op::avg_pool2d_grad || node_.op == Op::upsample2d;
    const bool mean = node_.op == Op::avg_pool2d || node_.op == Op::avg_pool2d_grad;
    const Pool2d s = pool_of(c_.graph, node_);
    const Int terms = s.h.kernel * s.w.kernel;
    const double factor = mean ? 1.0 / static_cast<double>(terms) : 1.0;
    const Reals x = in(0);
    Reals& e = error_out(0);
    Reals variance(e.size()), magnitude(e.size());
    each_covered([&](std::size_t window, std::size_t place) {
      const std::size_t from = back ? window : place, to = back ? place : window;
      variance[to] += square(error_in(0)[from]);
      magnitude[to] += std::abs(x[from]);
    });
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = factor * std::sqrt(variance[i] + square((c_.sum(terms) + 2 * c_.unit) * magnitude[i]));
  }

  // The largest of several values is off by no more than the worst of them.
  void max_pool() {
    Reals& e = error_out(0);
    each_covered([&](std::size_t window, std::size_t place) {
      e[window] = std::max(e[window], error_in(0)[place]);
    });
  }

  // Where two values of a window are as large within their errors, either may get dy.
  void max_pool_grad() {
    const Reals dy = in(0), x = in(1);
    const Reals &edy = error_in(0), &ex = error_in(1);
    Reals& e = error_out(0);
    std::vector<std::size_t> best(dy.size(), x.size());
    each_covered([&](std::size_t window, std::size_t place) {
      if (best[window] == x.size() || x[place] > x[best[window]]) best[window] = place;
    });
    Reals variance(e.size()), magnitude(e.size());
    for (std::size_t i = 0; i < dy.size(); ++i) {
      variance[best[i]] += square(edy[i]);
      magnitude[best[i]] += std::abs(dy[i]);
    }
    each_covered([&](std::size_t window, std::size_t place) {
      const std::size_t top = best[window];
      if (place == top || ex[place] + ex[top] == 0 ||
          x[top] - x[place] > element_sigmas * (ex[place] + ex[top]))
        return;
      const double moved = square(std::abs(dy[window]) / element_sigmas + edy[window]);
      variance[place] += moved;
      variance[top] += moved;
    });
    const Pool2d s = pool_of(c_.graph, node_);
    const double own = c_.sum(s.h.kernel * s.w.kernel);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(variance[i] + square(own * magnitude[i]));
  }

  static std::size_t place_of(const Classes& classes, std::size_t i) {
    return i / at(classes.inner) % at(classes.count);
  }

  [[nodiscard]] Norm norm_of_node(const Shape& x) const {
    Attrs attrs = node_.attrs;
    if (node_.op == Op::batch_norm_eval) attrs.set("kind", std::string("batch"));
    return norm_of(attrs, x);
  }

  // The error of (x - mean) / deviation.
  [[nodiscard]] double normalised(double x, double ex, double mean, double em, double inverse,
                                  double ev) const {
    const double xhat = (x - mean) * inverse;
    return std::sqrt(square(inverse) * (square(ex) + square(em)) +
                     square(0.5 * xhat * ev * square(inverse)) +
                     square(3 * c_.unit * (std::abs(x) + std::abs(mean)) * inverse));
  }

  void norm() {
    const bool eval = node_.op == Op::batch_norm_eval;
    const Norm s = norm_of_node(shape(node_.inputs[0]));
    const Reals x = in(0);
    const Reals& ex = error_in(0);
    const std::size_t groups = at(s.groups.count);
    Reals mean, var, em(groups), ev(groups);
    if (eval) {
      mean = in(1);
      var = in(2);
      em = error_in(1);
      ev = error_in(2);
    } else {
      const auto m = c_.value(node_.outputs[1]), v = c_.value(node_.outputs[2]);
      mean.assign(m.begin(), m.end());
      var.assign(v.begin(), v.end());
      const auto n = static_cast<double>(s.groups.elements());
      const double own = c_.sum(s.groups.elements());
      Reals magnitude(groups);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t g = place_of(s.groups, i);
        em[g] += square(ex[i] / n);
        ev[g] += square(2 / n * (x[i] - mean[g]) * ex[i]) + square(square(ex[i]) / n);
        magnitude[g] += std::abs(x[i]) / n;
      }
      for (std::size_t g = 0; g < groups; ++g) {
        em[g] = std::sqrt(em[g] + square(own * magnitude[g]));
        const double rounded = 3 * c_.unit * magnitude[g];
        ev[g] = std::sqrt(ev[g] + square((own + 3 * c_.unit) * var[g]) +
                          square(2 * std::sqrt(var[g]) * rounded + square(rounded)));
      }
      error_out(1) = em;
      error_out(2) = ev;
    }
    const std::size_t weight = eval ? 3 : 1;
    const bool affine = has(weight);
    const Reals w = affine ? in(weight) : Reals{};
    const Reals b = affine ? in(weight + 1) : Reals{};
    Reals& e = error_out(0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t g = place_of(s.groups, i), c = place_of(s.channels, i);
      const double inverse = 1 / std::sqrt(var[g] + s.eps);
      const double xhat = (x[i] - mean[g]) * inverse;
      const double by = affine ? w[c] : 1.0;
      double variance = square(by * normalised(x[i], ex[i], mean[g], em[g], inverse, ev[g])) +
                        square(4 * c_.unit * by * xhat);
      if (affine)
        variance += square(xhat * error_in(weight)[c]) + square(error_in(weight + 1)[c]) +
                    square(c_.unit * b[c]);
      e[i] = std::sqrt(variance);
    }
  }

  void norm_grad() {
    const Norm s = norm_of_node(shape(node_.inputs[0]));
    const Reals dy = in(0), x = in(1), mean = in(2), var = in(3);
    const bool affine = has(4);
    const Reals w = affine ? in(4) : Reals{};
    const std::size_t groups = at(s.groups.count), channels = at(s.channels.count);
    const auto n = static_cast<double>(std::max<Int>(s.groups.elements(), 1));
    // Sums, their magnitudes and the variances of what they add.
    struct Sum {
      double value = 0, magnitude = 0, variance = 0;
      void add(double term, double v) {
        value += term;
        magnitude += std::abs(term);
        variance += v;
      }
      [[nodiscard]] double deviation(double own) const {
        return std::sqrt(variance + square(own * magnitude));
      }
    };
    std::vector<Sum> sum(groups), product(groups), dweight(channels), dbias(channels);
    struct Element {
      double d, ed, xhat, ehat, inverse;
    };
    const auto element = [&](std::size_t i) {
      const std::size_t g = place_of(s.groups, i), c = place_of(s.channels, i);
      const double inverse = 1 / std::sqrt(var[g] + s.eps);
      const double by = affine ? w[c] : 1.0;
      const double ew = affine ? error_in(4)[c] : 0.0;
      return Element{
          dy[i] * by, std::sqrt(square(by * error_in(0)[i]) + square(dy[i] * ew)),
          (x[i] - mean[g]) * inverse,
          normalised(x[i], error_in(1)[i], mean[g], error_in(2)[g], inverse, error_in(3)[g]),
          inverse};
    };
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t g = place_of(s.groups, i), c = place_of(s.channels, i);
      const Element a = element(i);
      sum[g].add(a.d, square(a.ed));
      product[g].add(a.d * a.xhat, square(a.ed * a.xhat) + square(a.d * a.ehat));
      dbias[c].add(dy[i], square(error_in(0)[i]));
      dweight[c].add(dy[i] * a.xhat, square(error_in(0)[i] * a.xhat) + square(dy[i] * a.ehat));
    }
    const double own = c_.sum(s.groups.elements());
    Reals& e = error_out(0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t g = place_of(s.groups, i);
      const Element a = element(i);
      const double s1 = sum[g].value / n, s2 = product[g].value / n;
      const double dx = a.inverse * (a.d - s1 - a.xhat * s2);
      e[i] = std::sqrt(
          square(a.inverse) *
              (square(a.ed) + square(sum[g].deviation(own) / n) +
               square(a.xhat * product[g].deviation(own) / n) + square(s2 * a.ehat)) +
          square(0.5 * dx * error_in(3)[g] * square(a.inverse)) +
          square(8 * c_.unit * a.inverse * (std::abs(a.d) + std::abs(s1) + std::abs(a.xhat * s2))));
    }
    if (!affine) return;
    const double own_channel = c_.sum(s.channels.elements());
    for (std::size_t c = 0; c < channels; ++c) {
      error_out(1)[c] = dweight[c].deviation(own_channel + 3 * c_.unit);
      error_out(2)[c] = dbias[c].deviation(own_channel);
    }
  }

  void running_stats() {
    const double momentum = node_.attrs.real("momentum", 0.1);
    const auto count = static_cast<double>(node_.attrs.integer("count"));
    const double takes[] = {momentum, momentum * count / (count - 1)};
    for (std::size_t k = 0; k < 2; ++k) {
      const Reals old = in(k), now = in(3 + k);
      Reals& e = error_out(k);
      for (std::size_t i = 0; i < e.size(); ++i)
        e[i] = std::sqrt(square((1 - momentum) * error_in(k)[i]) +
                         square(takes[k] * error_in(3 + k)[i]) +
                         square(3 * c_.unit *
                                (std::abs((1 - momentum) * old[i]) + std::abs(takes[k] * now[i]))));
    }
  }

  void dropout() {
    const double scale = 1 / (1 - dropout_rate(node_.attrs));
    const auto y = c_.value(node_.outputs[0]);
    const Reals x = in(0);
    Reals& e = error_out(0);
    for (std::size_t i = 0; i < e.size(); ++i) {
      const bool dropped = y[i] == 0 && x[i] != 0;
      e[i] = dropped ? 0 : std::sqrt(square(scale * error_in(0)[i]) + square(2 * c_.unit * y[i]));
    }
  }

  const ErrorContext& c_;
  const Node& node_;
};

}  // namespace

bool image_error_bound(const ErrorContext& context, const Node& node) {
  return ImageBounds(context, node).run();
}

}  // namespace cuvae
