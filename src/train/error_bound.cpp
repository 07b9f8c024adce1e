#include "train/error_bound.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/tolerance.h"
#include "cuvae/error.h"
#include "graph/op.h"

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
      case Op::detach: error(node.outputs[0]) = error(node.inputs[0]); return;
      case Op::sample: return sample(node);
      case Op::sample_grad: return sample_grad(node);
      case Op::gaussian_kl: return gaussian_kl(node);
      case Op::gaussian_kl_grad: return gaussian_kl_grad(node);
      case Op::bernoulli_nll: return bernoulli_nll(node);
      case Op::bernoulli_nll_grad: return bernoulli_nll_grad(node);
      case Op::gaussian_nll: return gaussian_nll(node);
      case Op::gaussian_nll_grad: return gaussian_nll_grad(node);
      case Op::adam: return adam(node);
      default:
        throw Error(Status::failed, "this operator has no error bound",
                    "node `" + node.name + "` (" + std::string(op_def(node.op).name) + ")");
    }
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
    if (node.inputs.empty() || !node.inputs[0]) return;
    const auto y = value(node.outputs[0]);
    Reals& e = error(node.outputs[0]);
    for (std::size_t i = 0; i < e.size(); ++i) e[i] = std::abs(2 * unit_ * y[i]);
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
    const double eps = node.attrs.real("eps", 1e-8);
    const double decay = node.attrs.real("weight_decay", 0.0);
    const auto clock = values_.at(static_cast<std::size_t>(node.inputs[5].id)).as<std::int64_t>();
    const double t = static_cast<double>(clock[1] + 1);
    const double c1 = 1 - std::pow(b1, t);
    const double c2 = std::sqrt(1 - std::pow(b2, t));
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
      ew[i] = std::sqrt(square(step) + square(own) +
                        square(unit_ * std::max(std::abs(w[i]), std::abs(new_w[i]))));
    }
    if (node.outputs.size() > 3) error(node.outputs[3]) = ew;  // the shadow is the new w
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
