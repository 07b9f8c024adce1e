#include "train/error_bound.h"

#include <cblas.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/tolerance.h"
#include "cuvae/error.h"
#include "graph/op.h"
#include "likelihoods/likelihoods.h"
#include "ops/nll.h"
#include "train/error_bound_batch.h"
#include "train/error_bound_densities.h"
#include "train/error_bound_images.h"

namespace cuvae {
namespace {

using Reals = std::vector<double>;

double square(double x) {
  return x * x;
}
double unit_roundoff(DType real) {
  return 0.5 * (real == DType::f64 ? std::numeric_limits<double>::epsilon()
                                   : double{std::numeric_limits<float>::epsilon()});
}
double sigmoid(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

// Derivative of an activation at x.
double slope_at(const std::string& kind, double alpha, double x) {
  const double pi = 3.14159265358979323846;
  if (kind == "relu") return x > 0 ? 1 : 0;
  if (kind == "leaky_relu") return x > 0 ? 1 : alpha;
  if (kind == "elu") return x > 0 ? 1 : alpha * std::exp(x);
  if (kind == "gelu")
    return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-0.5 * x * x) / std::sqrt(2.0 * pi);
  if (kind == "silu") return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
  if (kind == "tanh") return 1 - square(std::tanh(x));
  if (kind == "sigmoid") return sigmoid(x) * (1 - sigmoid(x));
  if (kind == "softplus") return sigmoid(x);
  if (kind == "bound_logvar")
    return std::abs(x) <= 10 ? 1 : 1 - square(std::tanh((std::abs(x) - 10) / 10));
  throw Error(Status::failed, "no error bound for the activation " + kind);
}

// The same from what the backward pass has: the output, or the input for gelu and silu.
double slope_from(const std::string& kind, double alpha, double saved) {
  if (kind == "relu") return saved > 0 ? 1 : 0;
  if (kind == "leaky_relu") return saved > 0 ? 1 : alpha;
  if (kind == "elu") return saved > 0 ? 1 : saved + alpha;
  if (kind == "tanh") return 1 - saved * saved;
  if (kind == "sigmoid") return saved * (1 - saved);
  if (kind == "softplus") return -std::expm1(-saved);
  if (kind == "bound_logvar")
    return std::abs(saved) <= 10 ? 1 : 1 - square((std::abs(saved) - 10) / 10);
  return slope_at(kind, alpha, saved);
}

Reals absolute(std::span<const double> x) {
  Reals y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](double v) { return std::abs(v); });
  return y;
}
Reals squared(std::span<const double> x) {
  Reals y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](double v) { return v * v; });
  return y;
}

// c [m, n] += a b, each operand as stored or transposed.
void add_product(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const Reals& a,
                 const Reals& b, Reals& c) {
  if (m == 0 || n == 0 || k == 0) return;
  const auto i = [](std::int64_t v) { return static_cast<int>(v); };
  cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, i(m),
              i(n), i(k), 1.0, a.data(), i(ta ? m : k), b.data(), i(tb ? k : n), 1.0, c.data(),
              i(n));
}

class Propagation {
 public:
  Propagation(const Graph& graph, const ValueTable& values, const Rounding& rounding, Kinks kinks)
      : graph_(graph), values_(values), rounding_(rounding), kinks_(kinks) {
    floor_ = error_floor(rounding);
    unit_ = unit_roundoff(rounding.device) + unit_roundoff(rounding.reference);
    errors_.resize(graph.values().size());
    for (std::size_t id = 0; id < errors_.size(); ++id) {
      const ValueInfo& info = graph.values()[id];
      if (info.dtype != DType::f32 || info.storage == Storage::input) continue;
      // Persistent values are the same on both sides.
      errors_[id].assign(static_cast<std::size_t>(info.shape.elements()), 0.0);
    }
  }

  ErrorTable run() {
    for (const Node& node : graph_.nodes()) visit(node);
    return std::move(errors_);
  }

 private:
  // Rounding of a sum of n terms, relative to the sum of their magnitudes; both sides round.
  [[nodiscard]] double sum(std::int64_t n) const {
    return (tolerance(rounding_.device, n).rel + tolerance(rounding_.reference, n).rel) /
           element_sigmas;
  }
  [[nodiscard]] std::span<const double> value(Value v) const {
    return values_.at(static_cast<std::size_t>(v.id)).as<double>();
  }
  [[nodiscard]] Reals& error(Value v) { return errors_.at(static_cast<std::size_t>(v.id)); }
  [[nodiscard]] const Shape& shape(Value v) const { return graph_[v].shape; }

  void visit(const Node& node) {
    switch (node.op) {
      case Op::batch_index: return;
      case Op::fill: return fill(node);
      case Op::gather: return gather(node);
      case Op::linear: return linear(node);
      case Op::linear_dgrad: return linear_dgrad(node);
      case Op::linear_wgrad: return linear_wgrad(node);
      case Op::activation: return activation(node);
      case Op::activation_grad: return activation_grad(node);
      case Op::split: return split(node);
      case Op::concat: return concat(node);
      case Op::add: return add(node);
      case Op::mul: return mul(node);
      case Op::scale: return scale(node);
      case Op::reduce: return reduce(node);
      case Op::broadcast: return broadcast(node);
      case Op::log_count: return log_count(node);
      case Op::detach: error(node.outputs[0]) = error(node.inputs[0]); return;
      case Op::sample: return sample(node);
      case Op::sample_grad: return sample_grad(node);
      case Op::gaussian_kl: return gaussian_kl(node);
      case Op::gaussian_kl_grad: return gaussian_kl_grad(node);
      case Op::bernoulli_nll: return bernoulli_nll(node);
      case Op::bernoulli_nll_grad: return bernoulli_nll_grad(node);
      case Op::gaussian_nll: return gaussian_nll(node);
      case Op::gaussian_nll_grad: return gaussian_nll_grad(node);
      case Op::nll: return nll(node);
      case Op::nll_grad: return nll_grad(node);
      case Op::expectation: return expectation(node);
      case Op::categorical_nll:
      case Op::multinomial_nll: return softmax_nll(node);
      case Op::categorical_nll_grad:
      case Op::multinomial_nll_grad: return softmax_nll_grad(node);
      case Op::categorical_mean: return categorical_mean(node);
      case Op::quantise: return quantise(node);
      case Op::binarise: return;  // decided by equal numbers of equal pixels
      case Op::dequantise: return dequantise(node);
      case Op::adam: return adam(node);
      // Optimisers beside adam, gradients on their way to them, averages of weights.
      case Op::add_penalty: return add_penalty(node);
      case Op::clip_norm: return clip_norm(node);
      case Op::scale_by: return scale_by(node);
      case Op::weight_ema: return weight_ema(node);
      default:
        if (op_def(node.op).update != nullptr) return optimizer(node);
        if (image_error_bound(images(), node)) return;
        if (batch_error_bound(images(), node)) return;
        if (density_error_bound(images(), node)) return;
        throw Error(Status::failed, "this operator has no error bound",
                    "node `" + node.name + "` (" + std::string(op_def(node.op).name) + ")");
    }
  }

  ErrorContext images() {
    return {.graph = graph_,
            .value = [this](Value v) { return value(v); },
            .error = [this](Value v) -> Reals& { return error(v); },
            .sum = [this](std::int64_t n) { return sum(n); },
            .unit = unit_,
            .normals = rounding_.normals / element_sigmas};
  }

  void gather(const Node& node) {
    const auto y = value(node.outputs[0]);
    const double offset = std::abs(node.attrs.real("shift", 0.0) * node.attrs.real("scale", 1.0));
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) e[i] = 2 * unit_ * (std::abs(y[i]) + offset);
  }

  // e = sqrt(variance + (own * magnitude)^2), elementwise.
  static void combine(Reals& e, const Reals& variance, const Reals& magnitude, double own) {
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(variance[i] + square(own * magnitude[i]));
  }
  // variance of a product: E(a)^2 b^2 + a^2 E(b)^2. Weights are exact: their half is left out.
  void product(Value a, Value b, bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k,
               Reals& variance, Reals& magnitude) {
    add_product(ta, tb, m, n, k, absolute(value(a)), absolute(value(b)), magnitude);
    const auto inexact = [&](Value v) {
      const Reals& e = error(v);
      return std::any_of(e.begin(), e.end(), [](double x) { return x != 0; });
    };
    if (inexact(a)) add_product(ta, tb, m, n, k, squared(error(a)), squared(value(b)), variance);
    if (inexact(b)) add_product(ta, tb, m, n, k, squared(value(a)), squared(error(b)), variance);
  }

  void linear(const Node& node) {
    const Value x = node.inputs[0];
    const Value w = node.inputs[1];
    const std::int64_t rows = shape(x)[0];
    const std::int64_t in = shape(x)[1];
    const std::int64_t out = shape(w)[0];
    Reals& e = error(node.outputs[0]);
    Reals variance(e.size());
    Reals magnitude(e.size());
    if (node.inputs.size() > 2 && node.inputs[2]) {
      const auto b = value(node.inputs[2]);
      const Reals& eb = error(node.inputs[2]);
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t o = 0; o < out; ++o) {
          magnitude[static_cast<std::size_t>(r * out + o)] =
              std::abs(b[static_cast<std::size_t>(o)]);
          variance[static_cast<std::size_t>(r * out + o)] = square(eb[static_cast<std::size_t>(o)]);
        }
      }
    }
    product(x, w, false, true, rows, out, in, variance, magnitude);
    combine(e, variance, magnitude, sum(in + 1));
  }

  void linear_dgrad(const Node& node) {
    const Value dy = node.inputs[0];
    const Value w = node.inputs[1];
    Reals& e = error(node.outputs[0]);
    Reals variance(e.size());
    Reals magnitude(e.size());
    product(dy, w, false, false, shape(dy)[0], shape(w)[1], shape(w)[0], variance, magnitude);
    combine(e, variance, magnitude, sum(shape(w)[0]));
  }

  void linear_wgrad(const Node& node) {
    const Value dy = node.inputs[0];
    const Value x = node.inputs[1];
    const std::int64_t rows = shape(dy)[0];
    const std::int64_t out = shape(dy)[1];
    Reals& e = error(node.outputs[0]);
    Reals variance(e.size());
    Reals magnitude(e.size());
    product(dy, x, true, false, out, shape(x)[1], rows, variance, magnitude);
    combine(e, variance, magnitude, sum(rows));
    if (node.outputs.size() < 2 || !node.outputs[1]) return;
    const auto g = value(dy);
    const Reals& eg = error(dy);
    Reals& eb = error(node.outputs[1]);
    for (std::int64_t o = 0; o < out; ++o) {
      double total = 0;
      double var = 0;
      for (std::int64_t r = 0; r < rows; ++r) {
        const auto i = static_cast<std::size_t>(r * out + o);
        total += std::abs(g[i]);
        var += square(eg[i]);
      }
      eb[static_cast<std::size_t>(o)] = std::sqrt(var + square(sum(rows) * total));
    }
  }

  struct Kind {
    std::string name;
    double alpha;
  };
  static Kind kind_of(const Node& node) {
    const std::string name = node.attrs.text("kind");
    return {name, node.attrs.real("alpha", name == "elu" ? 1.0 : 0.01)};
  }

  void activation(const Node& node) {
    const Kind kind = kind_of(node);
    const auto x = value(node.inputs[0]);
    const auto y = value(node.outputs[0]);
    const Reals& ex = error(node.inputs[0]);
    Reals& e = error(node.outputs[0]);
    // A mask loses nothing; leaky_relu rounds one product.
    const double own = kind.name == "relu" || kind.name == "bound_logvar" ? 0 : 4 * unit_;
    const bool kinked = is_kinked(node);
    for (std::size_t i = 0; i < e.size(); ++i) {
      double slope = std::abs(slope_at(kind.name, kind.alpha, x[i]));
      if (kinked && kinks_ == Kinks::free && std::abs(x[i]) <= element_sigmas * ex[i] + floor_)
        slope = std::max(1.0, std::abs(kind.alpha));
      double rounding = own * (std::abs(y[i]) + std::abs(x[i]) * slope);
      if (kind.name == "bound_logvar" && std::abs(x[i]) > 10) rounding = 4 * unit_ * 20;
      e[i] = std::sqrt(square(slope * ex[i]) + square(rounding));
    }
  }

  void activation_grad(const Node& node) {
    const Kind kind = kind_of(node);
    const auto dy = value(node.inputs[0]);
    const auto saved = value(node.inputs[1]);
    const Reals& edy = error(node.inputs[0]);
    const Reals& es = error(node.inputs[1]);
    Reals& e = error(node.outputs[0]);
    const ValueInfo& info = graph_[node.inputs[1]];
    const bool kinked = is_kinked(node) && info.producer >= 0;
    const Value pre =
        kinked ? graph_.nodes()[static_cast<std::size_t>(info.producer)].inputs[0] : Value{};
    for (std::size_t i = 0; i < e.size(); ++i) {
      const double slope = slope_from(kind.name, kind.alpha, saved[i]);
      double variance = square(slope * edy[i]);
      if (!is_kinked(node)) {
        const double change = slope_from(kind.name, kind.alpha, saved[i] + es[i]) -
                              slope_from(kind.name, kind.alpha, saved[i] - es[i]);
        variance += square(0.5 * change * dy[i]);
        variance += square(4 * unit_ * dy[i] * std::max(1.0, std::abs(slope)));
      } else {
        if (kind.name != "relu") variance += square(unit_ * dy[i] * slope);
        const double jump = 1 - (kind.name == "relu" ? 0.0 : kind.alpha);
        if (pre && kinks_ == Kinks::free &&
            std::abs(value(pre)[i]) <= element_sigmas * error(pre)[i] + floor_)
          variance += square(jump * (std::abs(dy[i]) / element_sigmas + edy[i]));
      }
      e[i] = std::sqrt(variance);
    }
  }

  // Copies columns between a wide error [B, sum] and narrow ones [B, d], in order.
  template <class Copy>
  void columns(Value wide, std::span<const Value> narrow, Copy copy) {
    const std::int64_t rows = shape(wide)[0];
    const std::int64_t total = shape(wide)[1];
    std::int64_t first = 0;
    for (const Value part : narrow) {
      const std::int64_t width = shape(part)[1];
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t j = 0; j < width; ++j)
          copy(error(wide)[static_cast<std::size_t>(r * total + first + j)],
               error(part)[static_cast<std::size_t>(r * width + j)]);
      first += width;
    }
  }
  void split(const Node& node) {
    columns(node.inputs[0], node.outputs, [](double from, double& to) { to = from; });
  }
  void concat(const Node& node) {
    columns(node.outputs[0], node.inputs, [](double& to, double from) { to = from; });
  }

  void add(const Node& node) {
    const auto y = value(node.outputs[0]);
    const Reals& ea = error(node.inputs[0]);
    const Reals& eb = error(node.inputs[1]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(square(ea[i]) + square(eb[i]) + square(unit_ * y[i]));
  }

  void mul(const Node& node) {
    const auto a = value(node.inputs[0]);
    const auto b = value(node.inputs[1]);
    const Reals& ea = error(node.inputs[0]);
    const Reals& eb = error(node.inputs[1]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(square(a[i] * eb[i]) + square(b[i] * ea[i]) + square(unit_ * a[i] * b[i]));
  }

  // y = x * factor, where the factor may come from `hyper`, which is exact.
  void scale(const Node& node) {
    double factor = node.attrs.real("factor", 1.0);
    if (node.inputs.size() > 1 && node.inputs[1])
      factor *= value(node.inputs[1])[static_cast<std::size_t>(node.attrs.integer("slot", 0))];
    const auto y = value(node.outputs[0]);
    const Reals& ex = error(node.inputs[0]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(square(factor * ex[i]) + square(2 * unit_ * y[i]));
  }

  void fill(const Node& node) {
    const double constant = node.attrs.real("value", 0.0);
    const bool exact = static_cast<double>(static_cast<float>(constant)) == constant;
    if ((node.inputs.empty() || !node.inputs[0]) && exact) return;
    const auto y = value(node.outputs[0]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) e[i] = std::abs(2 * unit_ * y[i]);
  }

  void log_count(const Node& node) {  // log(max(x, 1))
    const auto x = value(node.inputs[0]);
    const auto y = value(node.outputs[0]);
    const Reals& ex = error(node.inputs[0]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) {
      const double from = x[i] + ex[i] > 1 ? ex[i] / std::max(x[i], 1.0) : 0;
      e[i] = from + 4 * unit_ * std::abs(y[i]);
    }
  }

  void reduce(const Node& node) {
    const Value in = node.inputs[0];
    const auto x = value(in);
    const Reals& ex = error(in);
    const std::string axis = node.attrs.text("axis");
    const std::int64_t rows = shape(in).rank() == 2 ? shape(in)[0] : 1;
    const std::int64_t cols = shape(in).rank() == 2 ? shape(in)[1] : shape(in).elements();
    const std::int64_t terms = axis == "all" ? rows * cols : axis == "rows" ? rows : cols;
    Reals& e = error(node.outputs[0]);
    Reals variance(e.size());
    Reals magnitude(e.size());
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        const auto i = static_cast<std::size_t>(r * cols + c);
        const auto to = static_cast<std::size_t>(axis == "all" ? 0 : axis == "rows" ? c : r);
        variance[to] += square(ex[i]);
        magnitude[to] += std::abs(x[i]);
      }
    }
    const double factor =
        node.attrs.text("op") == "mean" && terms > 0 ? 1.0 / static_cast<double>(terms) : 1.0;
    for (std::size_t i = 0; i < e.size(); ++i) {
      e[i] = factor * std::sqrt(variance[i] + square((sum(terms) + 2 * unit_) * magnitude[i]));
    }
  }

  void broadcast(const Node& node) {
    const Value out = node.outputs[0];
    const std::string axis = node.attrs.text("axis");
    const double factor = std::abs(node.attrs.real("factor", 1.0));
    const auto y = value(out);
    const Reals& ex = error(node.inputs[0]);
    Reals& e = error(out);
    const std::int64_t cols =
        shape(out).rank() == 2 ? shape(out)[1] : std::max<std::int64_t>(shape(out).elements(), 1);
    for (std::size_t i = 0; i < e.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      const std::int64_t from = axis == "all" ? 0 : axis == "rows" ? at % cols : at / cols;
      e[i] =
          std::sqrt(square(factor * ex[static_cast<std::size_t>(from)]) + square(2 * unit_ * y[i]));
    }
  }

  void sample(const Node& node) {  // z = mean + eps exp(logvar / 2)
    const auto mean = value(node.inputs[0]);
    const auto logvar = value(node.inputs[1]);
    const auto eps = value(node.outputs[1]);
    const Reals& em = error(node.inputs[0]);
    const Reals& el = error(node.inputs[1]);
    Reals& ez = error(node.outputs[0]);
    Reals& ee = error(node.outputs[1]);
    for (std::size_t i = 0; i < ez.size(); ++i) {
      const double sd = std::exp(0.5 * logvar[i]);
      ee[i] = rounding_.normals / element_sigmas;
      ez[i] = std::sqrt(square(em[i]) + square(sd * ee[i]) + square(0.5 * eps[i] * sd * el[i]) +
                        square(4 * unit_ * (std::abs(mean[i]) + std::abs(eps[i] * sd))));
    }
  }

  void sample_grad(const Node& node) {  // dlogvar = dz eps exp(logvar / 2) / 2
    const auto dz = value(node.inputs[0]);
    const auto eps = value(node.inputs[1]);
    const auto logvar = value(node.inputs[2]);
    const Reals& edz = error(node.inputs[0]);
    const Reals& ee = error(node.inputs[1]);
    const Reals& el = error(node.inputs[2]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) {
      const double half = 0.5 * std::exp(0.5 * logvar[i]);
      const double y = dz[i] * eps[i] * half;
      e[i] = std::sqrt(square(eps[i] * half * edz[i]) + square(dz[i] * half * ee[i]) +
                       square(0.5 * y * el[i]) + square(6 * unit_ * y));
    }
  }

  void gaussian_kl(const Node& node) {  // sum_j (mean^2 + (expm1(logvar) - logvar)) / 2
    const auto mean = value(node.inputs[0]);
    const auto logvar = value(node.inputs[1]);
    const Reals& em = error(node.inputs[0]);
    const Reals& el = error(node.inputs[1]);
    const std::int64_t rows = shape(node.inputs[0])[0];
    const std::int64_t d = shape(node.inputs[0])[1];
    Reals& e = error(node.outputs[0]);
    for (std::int64_t r = 0; r < rows; ++r) {
      double variance = 0;
      double magnitude = 0;
      for (std::int64_t j = 0; j < d; ++j) {
        const auto i = static_cast<std::size_t>(r * d + j);
        const double grown = std::expm1(logvar[i]);
        variance += square(mean[i] * em[i]) + square(0.5 * grown * el[i]);
        variance += square(0.5 * em[i] * em[i]) + square(0.25 * el[i] * el[i]);
        magnitude += 0.5 * (square(mean[i]) + std::abs(grown) + std::abs(logvar[i]));
      }
      e[static_cast<std::size_t>(r)] =
          std::sqrt(variance + square((sum(d) + 4 * unit_) * magnitude));
    }
  }

  void gaussian_kl_grad(const Node& node) {  // dmean = dkl mean; dlogvar = dkl expm1(logvar) / 2
    const auto dkl = value(node.inputs[0]);
    const auto mean = value(node.inputs[1]);
    const auto logvar = value(node.inputs[2]);
    const Reals& ek = error(node.inputs[0]);
    const Reals& em = error(node.inputs[1]);
    const Reals& el = error(node.inputs[2]);
    const std::int64_t d = shape(node.inputs[1])[1];
    Reals& dm = error(node.outputs[0]);
    Reals& dl = error(node.outputs[1]);
    for (std::size_t i = 0; i < dm.size(); ++i) {
      const auto r = i / static_cast<std::size_t>(d);
      const double grown = std::expm1(logvar[i]);
      dm[i] = std::sqrt(square(dkl[r] * em[i]) + square(mean[i] * ek[r]) +
                        square(2 * unit_ * dkl[r] * mean[i]));
      dl[i] = 0.5 * std::sqrt(square(dkl[r] * (grown + 1) * el[i]) + square(grown * ek[r]) +
                              square(4 * unit_ * dkl[r] * grown));
    }
  }

  // Rows of a likelihood: variance and magnitude of each term, summed.
  template <class Term>
  void nll_rows(const Node& node, Term term) {
    const std::int64_t rows = shape(node.inputs[0])[0];
    const std::int64_t d = shape(node.inputs[0])[1];
    Reals& e = error(node.outputs[0]);
    for (std::int64_t r = 0; r < rows; ++r) {
      double variance = 0;
      double magnitude = 0;
      for (std::int64_t j = 0; j < d; ++j)
        term(static_cast<std::size_t>(r * d + j), variance, magnitude);
      e[static_cast<std::size_t>(r)] =
          std::sqrt(variance + square((sum(d) + 4 * unit_) * magnitude));
    }
  }

  void bernoulli_nll(const Node& node) {  // max(l, 0) - l x + log1p(exp(-|l|))
    const auto l = value(node.inputs[0]);
    const auto x = value(node.inputs[1]);
    const Reals& el = error(node.inputs[0]);
    const Reals& ex = error(node.inputs[1]);
    nll_rows(node, [&](std::size_t i, double& variance, double& magnitude) {
      variance += square((sigmoid(l[i]) - x[i]) * el[i]) + square(l[i] * ex[i]);
      magnitude +=
          std::max(l[i], 0.0) + std::abs(l[i] * x[i]) + std::log1p(std::exp(-std::abs(l[i])));
    });
  }

  void bernoulli_nll_grad(const Node& node) {  // dnll (sigmoid(l) - x)
    const auto dn = value(node.inputs[0]);
    const auto l = value(node.inputs[1]);
    const auto x = value(node.inputs[2]);
    const Reals& en = error(node.inputs[0]);
    const Reals& el = error(node.inputs[1]);
    const Reals& ex = error(node.inputs[2]);
    const auto d = static_cast<std::size_t>(shape(node.inputs[1])[1]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) {
      const double p = sigmoid(l[i]);
      e[i] = std::sqrt(square(dn[i / d] * p * (1 - p) * el[i]) + square(dn[i / d] * ex[i]) +
                       square((p - x[i]) * en[i / d]) +
                       square(4 * unit_ * dn[i / d] * (p + std::abs(x[i]))));
    }
  }

  void gaussian_nll(const Node& node) {  // ((x - m) / sigma)^2 / 2 + log sigma + log(2 pi) / 2
    const auto m = value(node.inputs[0]);
    const auto x = value(node.inputs[1]);
    const Reals& em = error(node.inputs[0]);
    const Reals& ex = error(node.inputs[1]);
    const double sigma = node.attrs.real("sigma", 1.0);
    const double constant = std::abs(std::log(sigma)) + 0.92;
    nll_rows(node, [&](std::size_t i, double& variance, double& magnitude) {
      const double distance = (x[i] - m[i]) / (sigma * sigma);
      variance += square(distance * em[i]) + square(distance * ex[i]);
      magnitude += square((std::abs(x[i]) + std::abs(m[i])) / sigma) + constant;
    });
  }

  void gaussian_nll_grad(const Node& node) {  // dnll (m - x) / sigma^2
    const auto dn = value(node.inputs[0]);
    const auto m = value(node.inputs[1]);
    const auto x = value(node.inputs[2]);
    const Reals& en = error(node.inputs[0]);
    const Reals& em = error(node.inputs[1]);
    const Reals& ex = error(node.inputs[2]);
    const double precision = 1 / square(node.attrs.real("sigma", 1.0));
    const auto d = static_cast<std::size_t>(shape(node.inputs[1])[1]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) {
      e[i] =
          precision * std::sqrt(square(dn[i / d] * em[i]) + square(dn[i / d] * ex[i]) +
                                square((m[i] - x[i]) * en[i / d]) +
                                square(4 * unit_ * dn[i / d] * (std::abs(m[i]) + std::abs(x[i]))));
    }
  }

  // The likelihoods of the list, from their own formulas in double. A formula loses no more than
  // its inputs do when each is off by a few roundings, which is what moving them shows.

  // An element's raw numbers with the offset, and how far each may be off.
  struct RawNumbers {
    std::array<double, most_planes> raw = {};
    std::array<double, most_planes> off = {};
    double x = 0;
    double offset = 0;
  };
  // `first`: the plane after the offset.
  RawNumbers raw_numbers(const Node& node, std::size_t first, int planes, std::size_t i,
                         std::size_t row) {
    RawNumbers r;
    if (node.inputs[first - 1]) r.offset = value(node.inputs[first - 1])[row];
    for (std::size_t p = 0; p < static_cast<std::size_t>(planes); ++p) {
      const Value plane = node.inputs[first + p];
      r.raw[p] = value(plane)[i];
      r.off[p] = std::sqrt(square(error(plane)[i]) +
                           square(4 * unit_ * (1 + std::abs(r.raw[p]) + std::abs(r.offset))));
    }
    return r;
  }

  // nll and slopes of one element.
  using LikelihoodValues = std::array<double, 1 + most_planes>;
  template <class L>
  static LikelihoodValues term_of(const RawNumbers& r, const LikelihoodConstants<double>& k) {
    double raw[L::parameters];
    std::copy_n(r.raw.begin(), L::parameters, raw);
    const auto term = L::template term<true>(raw, r.x, r.offset, k);
    LikelihoodValues values = {term.nll};
    std::copy_n(term.grad, L::parameters, values.begin() + 1);
    return values;
  }
  template <class L>
  static LikelihoodValues mean_of(const RawNumbers& r, const LikelihoodConstants<double>& k) {
    double raw[L::parameters];
    std::copy_n(r.raw.begin(), L::parameters, raw);
    return {L::expectation(raw, r.offset, k)};
  }
  using LikelihoodFormula = LikelihoodValues (*)(const RawNumbers&,
                                                 const LikelihoodConstants<double>&);
  static constexpr LikelihoodFormula term_formulas[] = {
#define CUVAE_LIKELIHOOD(name) term_of<likelihoods::name>,
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
  };
  static constexpr LikelihoodFormula mean_formulas[] = {
#define CUVAE_LIKELIHOOD(name) mean_of<likelihoods::name>,
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
  };

  // What the results vary by with the inputs: each moved to both sides by as many standard
  // deviations as a limit has, so that a kink within reach (Laplace's) shows with its whole jump.
  static LikelihoodValues variances(LikelihoodFormula formula, const RawNumbers& r, int planes,
                                    const LikelihoodConstants<double>& k) {
    LikelihoodValues total = {};
    for (std::size_t p = 0; p < static_cast<std::size_t>(planes); ++p) {
      RawNumbers above = r, below = r;
      above.raw[p] += element_sigmas * r.off[p];
      below.raw[p] -= element_sigmas * r.off[p];
      const LikelihoodValues a = formula(above, k), b = formula(below, k);
      for (std::size_t i = 0; i < total.size(); ++i)
        total[i] += square((a[i] - b[i]) / element_sigmas);
    }
    return total;
  }

  void nll(const Node& node) {
    const NllAttrs attrs = nll_attrs(node.attrs);
    const LikelihoodFormula formula = term_formulas[static_cast<std::size_t>(attrs.kind)];
    const auto x = value(node.inputs[0]);
    const Reals& ex = error(node.inputs[0]);
    const auto d = static_cast<std::size_t>(shape(node.inputs[0])[1]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t row = 0; row < e.size(); ++row) {
      double variance = 0;
      double magnitude = 0;
      for (std::size_t i = row * d; i < (row + 1) * d; ++i) {
        RawNumbers r = raw_numbers(node, 2, attrs.planes, i, row);
        r.x = x[i];
        magnitude += std::abs(formula(r, attrs.constants)[0]);
        variance += variances(formula, r, attrs.planes, attrs.constants)[0];
        variance += square(target_change(formula, r, target_error(r.x, ex, i), attrs)[0]);
      }
      e[row] =
          std::sqrt(variance + square((sum(static_cast<std::int64_t>(d)) + 4 * unit_) * magnitude));
    }
  }

  // Targets are data: what gather may lose of them, and what a formula may lose of a count.
  [[nodiscard]] double target_error(double x, const Reals& ex, std::size_t i) const {
    return std::sqrt(square(ex.empty() ? 0.0 : ex[i]) + square(2 * unit_ * x));
  }
  static LikelihoodValues target_change(LikelihoodFormula formula, const RawNumbers& r, double off,
                                        const NllAttrs& attrs) {
    RawNumbers above = r, below = r;
    above.x += element_sigmas * off;
    below.x -= element_sigmas * off;
    LikelihoodValues a = formula(above, attrs.constants);
    const LikelihoodValues b = formula(below, attrs.constants);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = (a[i] - b[i]) / element_sigmas;
    return a;
  }

  void nll_grad(const Node& node) {
    const NllAttrs attrs = nll_attrs(node.attrs);
    const LikelihoodFormula formula = term_formulas[static_cast<std::size_t>(attrs.kind)];
    const auto dn = value(node.inputs[0]);
    const Reals& en = error(node.inputs[0]);
    const auto x = value(node.inputs[1]);
    const Reals& ex = error(node.inputs[1]);
    const auto d = static_cast<std::size_t>(shape(node.inputs[1])[1]);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t row = i / d;
      RawNumbers r = raw_numbers(node, 3, attrs.planes, i, row);
      r.x = x[i];
      const LikelihoodValues y = formula(r, attrs.constants);
      const LikelihoodValues variance = variances(formula, r, attrs.planes, attrs.constants);
      const LikelihoodValues change = target_change(formula, r, target_error(r.x, ex, i), attrs);
      for (std::size_t p = 0; p < node.outputs.size(); ++p)
        error(node.outputs[p])[i] = std::sqrt(
            square(dn[row]) * (variance[p + 1] + square(change[p + 1])) +
            square(en[row] * y[p + 1]) + square(8 * unit_ * dn[row]) * (square(y[p + 1]) + 1));
    }
  }

  void expectation(const Node& node) {
    const NllAttrs attrs = nll_attrs(node.attrs);
    const LikelihoodFormula formula = mean_formulas[static_cast<std::size_t>(attrs.kind)];
    const auto y = value(node.outputs[0]);
    const auto d = static_cast<std::size_t>(shape(node.outputs[0])[1]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) {
      const RawNumbers r = raw_numbers(node, 1, attrs.planes, i, i / d);
      e[i] = std::sqrt(variances(formula, r, attrs.planes, attrs.constants)[0] +
                       square(8 * unit_ * y[i]));
    }
  }

  // Softmax likelihoods: the groups of a row are its labels, or the row itself.
  struct SoftmaxGroups {
    std::size_t rows, d, groups, classes;
    bool labels;
    likelihoods::ClassLayout at;
  };
  SoftmaxGroups softmax_groups(const Node& node, std::size_t logits) {
    const auto size = [&](std::size_t i, int axis) {
      return static_cast<std::size_t>(shape(node.inputs[i])[axis]);
    };
    const bool labels = node.op == Op::categorical_nll || node.op == Op::categorical_nll_grad;
    const std::size_t d = size(logits + 1, 1), groups = labels ? d : 1;
    const std::size_t classes = groups > 0 ? size(logits, 1) / groups : 0;
    return {size(logits, 0), d,
            groups,          classes,
            labels,          {static_cast<std::int64_t>(classes), node.attrs.integer("inner", 1)}};
  }
  // f(logit's index, its group's, x, n, log p, loss of log p)
  template <class F>
  void for_logits(const Node& node, std::size_t at, std::size_t row, F f) {
    const SoftmaxGroups s = softmax_groups(node, at);
    const auto l = value(node.inputs[at]);
    const auto x = value(node.inputs[at + 1]);
    for (std::size_t g = 0; g < s.groups && s.classes > 0; ++g) {
      const std::size_t group = row * s.groups + g;
      const auto first = static_cast<std::size_t>(s.at.first(static_cast<std::int64_t>(group)));
      const auto stride = static_cast<std::size_t>(s.at.inner);
      const auto p = likelihoods::softmax(l.data() + first, s.at.classes, s.at.inner);
      const auto counted = [&](std::size_t j) {
        if (!s.labels) return x[row * s.d + j];
        return std::rint(x[row * s.d + g]) == static_cast<double>(j) ? 1.0 : 0.0;
      };
      double n = 0;
      for (std::size_t j = 0; j < s.classes; ++j) n += counted(j);
      for (std::size_t j = 0; j < s.classes; ++j) {
        const double log_p = l[first + j * stride] - p.largest - std::log(p.sum);
        const double lost =
            4 * unit_ * (1 + std::abs(log_p)) + sum(static_cast<std::int64_t>(s.classes));
        f(first + j * stride, group, counted(j), n, log_p, lost);
      }
    }
  }

  void softmax_nll(const Node& node) {
    const Reals& el = error(node.inputs[0]);
    const auto y = value(node.outputs[0]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t row = 0; row < e.size(); ++row) {
      double variance = 0;
      double magnitude = std::abs(y[row]);
      std::int64_t terms_of_row = 1;
      const auto term = [&](std::size_t i, std::size_t, double x, double n, double log_p,
                            double lost) {
        // A label's term is log p itself; a count's moves with n p - x.
        const double slope = n * std::exp(log_p) - x;
        variance += square(slope * el[i]);
        variance += square(lost) * (node.op == Op::categorical_nll ? square(x) : square(slope));
        magnitude +=
            node.op == Op::categorical_nll ? x * std::abs(log_p)
            : x > 0
                ? std::abs(likelihoods::poisson_nll(x, n * std::exp(log_p), std::log(n) + log_p))
                : n * std::exp(log_p);
        ++terms_of_row;
      };
      for_logits(node, 0, row, term);
      e[row] = std::sqrt(variance + square((sum(terms_of_row) + 4 * unit_) * magnitude));
    }
  }

  void softmax_nll_grad(const Node& node) {
    const auto dn = value(node.inputs[0]);
    const Reals& en = error(node.inputs[0]);
    const Reals& el = error(node.inputs[1]);
    const SoftmaxGroups s = softmax_groups(node, 1);
    Reals& e = error(node.outputs[0]);
    // d(n p_i)/d(l_j) = n p_i ([i = j] - p_j): the others' part is at most n p_i sum p_j e_j.
    Reals shared(s.rows * s.groups);
    for (std::size_t row = 0; row < s.rows; ++row)
      for_logits(node, 1, row,
                 [&](std::size_t i, std::size_t group, double, double, double log_p, double) {
                   shared[group] += square(std::exp(log_p) * el[i]);
                 });
    for (std::size_t row = 0; row < s.rows; ++row) {
      const auto slope = [&](std::size_t i, std::size_t group, double x, double n, double log_p,
                             double lost) {
        const double mean = n * std::exp(log_p);
        e[i] = std::sqrt(square(dn[row] * mean) * (square(el[i]) + shared[group] + square(lost)) +
                         square(en[row] * (mean - x)) + square(4 * unit_ * dn[row] * (mean + x)));
      };
      for_logits(node, 1, row, slope);
    }
  }

  // dy/dl_c = p_c (v_c - y), v_c = c / (C - 1)
  void categorical_mean(const Node& node) {
    const likelihoods::ClassLayout at{node.attrs.integer("classes"),
                                      node.attrs.integer("inner", 1)};
    if (at.classes < 2) return;
    const auto l = value(node.inputs[0]);
    const auto y = value(node.outputs[0]);
    const Reals& el = error(node.inputs[0]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) {
      const auto first = static_cast<std::size_t>(at.first(static_cast<std::int64_t>(i)));
      const auto p = likelihoods::softmax(l.data() + first, at.classes, at.inner);
      double variance = square((sum(at.classes) + 8 * unit_) * y[i]);
      for (std::int64_t c = 0; c < at.classes; ++c) {
        const std::size_t j = first + static_cast<std::size_t>(c * at.inner);
        const double share = std::exp(l[j] - p.largest) / p.sum;
        const double at_c = static_cast<double>(c) / static_cast<double>(at.classes - 1);
        const double lost = 4 * unit_ * (1 + std::abs(l[j] - p.largest));
        variance += square(share * (at_c - y[i])) * (square(el[j]) + square(lost));
      }
      e[i] = std::sqrt(variance);
    }
  }

  // Equal bytes have equal levels.
  void quantise(const Node& node) {
    const auto y = value(node.outputs[0]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) e[i] = 2 * unit_ * y[i];
  }

  void dequantise(const Node& node) {
    const auto y = value(node.outputs[0]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) e[i] = 4 * unit_ * (y[i] + 1.0 / 256);
  }

  void adam(const Node& node) {
    const auto w = value(node.inputs[0]);
    const auto m = value(node.inputs[1]);
    const auto v = value(node.inputs[2]);
    const auto g = value(node.inputs[3]);
    const auto new_w = value(node.outputs[0]);
    const auto new_m = value(node.outputs[1]);
    const auto new_v = value(node.outputs[2]);
    const Reals& eg = error(node.inputs[3]);
    Reals& ew = error(node.outputs[0]);
    Reals& em = error(node.outputs[1]);
    Reals& ev = error(node.outputs[2]);
    const double lr = value(node.inputs[4])[0];
    const double b1 = node.attrs.real("beta1", 0.9);
    const double b2 = node.attrs.real("beta2", 0.999);
    const bool decoupled = node.attrs.integer("decoupled", 0) != 0;
    const double decay = decoupled ? 0.0 : node.attrs.real("weight_decay", 0.0);
    const auto clock = values_.at(static_cast<std::size_t>(node.inputs[5].id)).as<std::int64_t>();
    const double t = static_cast<double>(clock[1] + 1);
    const double c1 = 1 - std::pow(b1, t);
    const double c2 = std::sqrt(1 - std::pow(b2, t));
    const double eps =
        node.attrs.real("eps", 1e-8) / (node.attrs.integer("eps_hat", 0) != 0 ? c2 : 1.0);
    for (std::size_t i = 0; i < ew.size(); ++i) {
      const double grad = g[i] + decay * w[i];
      const double own_g = decay == 0 ? 0 : 2 * unit_ * (std::abs(g[i]) + std::abs(decay * w[i]));
      const double error_g = std::sqrt(square(eg[i]) + square(own_g));
      em[i] = std::sqrt(square((1 - b1) * error_g) +
                        square(2 * unit_ * (std::abs(b1 * m[i]) + std::abs((1 - b1) * grad))));
      ev[i] = std::sqrt(square((1 - b2) * (2 * std::abs(grad) + error_g) * error_g) +
                        square(3 * unit_ * new_v[i]));
      const auto update = [&](double at) {
        const double moment = b1 * m[i] + (1 - b1) * at;
        const double second = b2 * v[i] + (1 - b2) * at * at;
        return lr / c1 * moment / (std::sqrt(second) / c2 + eps);
      };
      const double limit_g = element_sigmas * error_g;
      const double root = std::sqrt(new_v[i]);
      const double denominator = root / c2 + eps;
      double slope = (1 - b1) / denominator;
      if (root > 0) slope -= new_m[i] * (1 - b2) * grad / (root * c2 * square(denominator));
      const double here = update(grad);
      const double moved =
          std::max({std::abs(slope * lr / c1) * limit_g, std::abs(update(grad + limit_g) - here),
                    std::abs(update(grad - limit_g) - here)});
      const double step = std::min(moved, 2 * lr) / element_sigmas;
      // Rounding of the moments, of the quotient, and of the weight itself.
      const double own =
          6 * unit_ * (std::abs(b1 * m[i]) + std::abs((1 - b1) * grad)) / denominator * lr / c1;
      const double rounding =
          std::sqrt(square(own) + square(unit_ * std::max(std::abs(w[i]), std::abs(new_w[i]))));
      // A step at its largest is no spread that roundings could hide in: they come on top.
      ew[i] = moved < 2 * lr ? std::sqrt(square(step) + square(rounding)) : step + rounding;
    }
    if (node.outputs.size() > 3) error(node.outputs[3]) = ew;  // the shadow is the new w
  }

  // Any optimiser whose inputs are w, g, hyper, clock, commit and its states, by its meaning in
  // double: what moving g within its error changes, and what moving each operand by a few units in
  // the last place does, which stands for the roundings on the way.
  void optimizer(const Node& node) {
    constexpr double units = 8;
    constexpr std::size_t first_state = 5;
    const auto update = op_def(node.op).update;
    const auto w = value(node.inputs[0]);
    const auto g = value(node.inputs[1]);
    const Reals& eg = error(node.inputs[1]);
    const double lr = value(node.inputs[2])[0];
    const auto clock = values_.at(static_cast<std::size_t>(node.inputs[3].id)).as<std::int64_t>();
    const double t = static_cast<double>(clock[1] + 1);
    const std::size_t outputs = node.outputs.size();
    // x: w, g, then the states. Returns the next w, then the states.
    const auto next = [&](Reals x) {
      const double gradient = x[1];
      double weight = x[0];
      update(node.attrs, lr, t, gradient, weight, x.data() + 2);
      x.erase(x.begin());
      x[0] = weight;
      return x;
    };
    for (std::size_t i = 0; i < w.size(); ++i) {
      Reals x = {w[i], g[i]};
      for (std::size_t k = first_state; k < node.inputs.size(); ++k)
        x.push_back(value(node.inputs[k])[i]);
      const Reals here = next(x);
      Reals variance(outputs);
      for (std::size_t k = 0; k < outputs; ++k) variance[k] = square(2 * unit_ * here[k]);
      variance[0] += square(units * unit_ * (here[0] - w[i])) + square(unit_ * w[i]);
      const auto moved = [&](std::size_t operand, double by, double sigmas) {
        Reals most(outputs);
        if (by == 0) return most;
        Reals above = x, below = x;
        above[operand] += by;
        below[operand] -= by;
        above = next(above);
        below = next(below);
        for (std::size_t k = 0; k < outputs; ++k)
          most[k] = std::max(std::abs(above[k] - here[k]), std::abs(below[k] - here[k])) / sigmas;
        return most;
      };
      const auto add = [&](const Reals& a, const Reals& b) {
        for (std::size_t k = 0; k < outputs; ++k) variance[k] += square(std::max(a[k], b[k]));
      };
      // An update that goes by the sign of g has changed all that it can before the widest move:
      // the whole tensor is held to the change of the narrower one.
      add(moved(1, element_sigmas * eg[i], element_sigmas),
          moved(1, aggregate_sigmas * eg[i], aggregate_sigmas));
      for (std::size_t k = 1; k < x.size(); ++k) {
        const Reals most = moved(k, units * unit_ * std::abs(x[k]), 1);
        add(most, most);
      }
      for (std::size_t k = 0; k < outputs; ++k) error(node.outputs[k])[i] = std::sqrt(variance[k]);
    }
  }

  void add_penalty(const Node& node) {  // g + l2 w + l1 sign(w), of exact weights
    const auto g = value(node.inputs[0]);
    const auto w = value(node.inputs[1]);
    const Reals& eg = error(node.inputs[0]);
    const double l1 = node.attrs.real("l1", 0.0);
    const double l2 = node.attrs.real("l2", 0.0);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(square(eg[i]) +
                       square(3 * unit_ * (std::abs(g[i]) + std::abs(l2 * w[i]) + l1)));
  }

  // The norm is a sum of squares in double, rounded once; factor = min(1, limit / (norm + 1e-6)).
  void clip_norm(const Node& node) {
    constexpr std::size_t first = 2;
    const double norm = value(node.outputs[0])[0];
    double variance = 0;
    for (std::size_t k = first; k < node.inputs.size(); ++k) {
      const auto g = value(node.inputs[k]);
      const Reals& eg = error(node.inputs[k]);
      for (std::size_t i = 0; i < eg.size(); ++i)
        variance += norm > 0 ? square(g[i] / norm * eg[i]) : square(eg[i]);
    }
    error(node.outputs[0])[0] = std::sqrt(variance + square(2 * unit_ * norm));
    const double limit = node.attrs.real("limit", 0.0);
    const double reach = element_sigmas * error(node.outputs[0])[0];
    const auto factor = [&](double at) {
      return limit == 0 ? 1.0 : std::min(1.0, limit / (std::max(at, 0.0) + 1e-6));
    };
    error(node.outputs[1])[0] = std::max(std::abs(factor(norm + reach) - factor(norm)),
                                         std::abs(factor(norm - reach) - factor(norm))) /
                                    element_sigmas +
                                2 * unit_;
  }

  void scale_by(const Node& node) {
    const auto x = value(node.inputs[0]);
    const double s = value(node.inputs[1])[0];
    const Reals& ex = error(node.inputs[0]);
    const double es = error(node.inputs[1])[0];
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(square(s * ex[i]) + square(x[i] * es) + square(unit_ * x[i] * s));
  }

  // s + gain (w - s): whatever the gain, at most the weight's own error.
  void weight_ema(const Node& node) {
    const auto s = value(node.inputs[0]);
    const auto w = value(node.inputs[1]);
    const Reals& ew = error(node.inputs[1]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i)
      e[i] = std::sqrt(square(ew[i]) + square(4 * unit_ * (std::abs(s[i]) + std::abs(w[i]))));
  }

  const Graph& graph_;
  const ValueTable& values_;
  Rounding rounding_;
  Kinks kinks_;
  double floor_ = 0;
  double unit_ = 0;
  ErrorTable errors_;
};

}  // namespace

ErrorTable error_bounds(const Graph& graph, const ValueTable& values, const Rounding& rounding,
                        Kinks kinks) {
  return Propagation(graph, values, rounding, kinks).run();
}

double error_floor(const Rounding& rounding) {
  // A result below the smallest normal number may be flushed, and a moment squares its gradient.
  return 4 * (rounding.device == DType::f64 ? std::numeric_limits<double>::min()
                                            : double{std::numeric_limits<float>::min()});
}

bool is_kinked(const Node& node) {
  if (node.op != Op::activation && node.op != Op::activation_grad) return false;
  const std::string& kind = node.attrs.text("kind");
  return kind == "relu" || kind == "leaky_relu";
}

std::vector<std::int64_t> near_kink(const Tensor& reference, std::span<const double> error,
                                    double floor) {
  std::vector<std::int64_t> found;
  const auto x = reference.as<double>();
  for (std::size_t i = 0; i < x.size(); ++i)
    if (std::abs(x[i]) <= element_sigmas * error[i] + floor)
      found.push_back(static_cast<std::int64_t>(i));
  return found;
}

Judgement judge(const Tensor& device, const Tensor& reference, std::span<const double> error,
                double floor) {
  Judgement result;
  const Tensor wide_device = device.to(DType::f64);
  const Tensor wide_reference = reference.to(DType::f64);
  const auto a = wide_device.as<double>();
  const auto b = wide_reference.as<double>();
  if (a.size() != b.size() || (!error.empty() && error.size() != b.size()))
    throw Error(Status::failed, "tensors of different sizes are compared");
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (std::isfinite(a[i]) && std::isfinite(b[i])) continue;
    const double infinity = std::numeric_limits<double>::infinity();
    result = {.aggregate = infinity,
              .aggregate_limit = 0,
              .max_abs = infinity,
              .share = infinity,
              .worst = static_cast<std::int64_t>(i),
              .passed = false};
    return result;
  }
  double difference = 0;
  double norm = 0;
  double allowed = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double err = std::abs(a[i] - b[i]);
    const double deviation = error.empty() ? 0 : error[i];
    const double limit = error.empty() ? 0 : element_sigmas * deviation + floor;
    const double share = err == 0 ? 0 : err / limit;
    if (!(share <= result.share)) {
      result.share = share;
      result.max_abs = err;
      result.worst = static_cast<std::int64_t>(i);
    }
    if (!(err <= limit)) result.passed = false;
    difference += square(err);
    norm += square(b[i]);
    allowed += square(deviation);
  }
  const double scale = norm > 0 ? std::sqrt(norm) : 1;
  const double slack = error.empty() ? 0 : floor * std::sqrt(static_cast<double>(b.size()));
  result.aggregate = std::sqrt(difference) / scale;
  result.aggregate_limit = (aggregate_sigmas * std::sqrt(allowed) + slack) / scale;
  if (!(result.aggregate <= result.aggregate_limit)) result.passed = false;
  return result;
}

}  // namespace cuvae
