// The definitions as ops/densities.h states them, in long double, nothing of it included: weights
// w(n, m) are a matrix that is filled at flat places, as the authors of beta-TCVAE fill it.

#include "ops/parity_densities.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cuvae::testing {
namespace {

using Int = std::int64_t;
using Real = long double;
using Reals = std::vector<Real>;

// Cases -------------------------------------------------------------------------------------------

CaseInput input(Shape shape, double scale = 1, Fill fill = Fill::normal) {
  return {.shape = shape, .fill = fill, .scale = scale};
}
CaseInput left_out() {
  CaseInput none;
  none.absent = true;
  return none;
}
std::string text(std::initializer_list<Int> sizes) {
  std::string all;
  for (const Int n : sizes) {
    if (!all.empty()) all += 'x';
    all += std::to_string(n);
  }
  return all;
}

struct Sizes {
  Int n, m, d;
};

struct Builder {
  std::vector<Case> cases;

  void add(std::string op, std::string what, std::vector<CaseInput> inputs, Attrs attrs,
           Int reduction, bool differentiable = false) {
    Int elements = 0;
    for (const CaseInput& one : inputs) elements += one.shape.elements();
    Case c{std::move(op),    std::move(what), std::move(inputs),
           std::move(attrs), reduction,       differentiable && elements > 0 && elements <= 3000};
    c.flowing = 1;  // nothing flows from what is kept for the gradient
    cases.push_back(std::move(c));
  }

  void normal(const std::string& what, const CaseInput& z, const CaseInput& mean,
              const CaseInput& logvar, bool differentiable) {
    const Shape& shape = z.shape;
    add("normal_log_density", what, {z, mean, logvar}, {}, shape[1], differentiable);
    add("normal_log_density_grad", what, {input(Shape{shape[0]}), z, mean, logvar}, {}, 1);
  }

  void pair(const std::string& what, const CaseInput& z, const CaseInput& mean,
            const CaseInput& logvar, bool differentiable) {
    const Int n = z.shape[0], m = mean.shape[0], d = z.shape[1];
    add("pair_log_density", what, {z, mean, logvar}, {}, d, differentiable);
    add("pair_log_density_grad", what, {input(Shape{n, m}), z, mean, logvar}, {}, std::max(n, m));
  }

  void marginal(const std::string& what, const CaseInput& z, const CaseInput& mean,
                const CaseInput& logvar, const Attrs& attrs, bool differentiable) {
    const Int n = z.shape[0], m = mean.shape[0], d = z.shape[1];
    add("marginal_log_density", what, {z, mean, logvar}, attrs, m + d, differentiable);
    add("marginal_log_density_grad", what, {input(Shape{n}), input(z.shape), z, mean, logvar},
        attrs, std::max(n, m));
  }

  void logsumexp(const std::string& what, const CaseInput& x, const CaseInput& bias,
                 const Attrs& attrs, bool differentiable) {
    const Int n = x.shape[0], m = x.shape[1];
    add("logsumexp", what, {x, bias}, attrs, m, differentiable);
    add("logsumexp_grad", what, {input(Shape{n}), x, bias}, attrs, n + m);
  }

  void kernel(const std::string& what, const CaseInput& z, const CaseInput& y, const Attrs& attrs,
              bool differentiable) {
    const Int n = z.shape[0], m = y.shape[0], d = z.shape[1];
    add("kernel_mean", what, {z, y}, attrs, m + d, differentiable);
    add("kernel_mean_grad", what, {input(Shape{n}), z, y}, attrs, std::max(n, m) + d);
  }

  void normals() {
    constexpr Int shapes[][2] = {{0, 5},    {4, 0},   {1, 1},   {3, 7},
                                 {1, 2003}, {31, 33}, {65, 63}, {128, 100}};
    for (const auto& [n, d] : shapes) {
      const CaseInput x = input(Shape{n, d});
      const std::string what = text({n, d});
      normal(what, x, x, x, true);
      normal(what + "_standard", x, left_out(), left_out(), true);
      normal(what + "_mean", x, x, left_out(), true);
      normal(what + "_logvar", x, left_out(), x, true);
    }
    // Logvars to +-20 with latents in the thousands; to +-100 with what float can square.
    const Shape shape{7, 40};
    normal("thousands", input(shape, 300), input(shape, 300), input(shape, 5.7), false);
    normal("wide", input(shape, 1e-12), input(shape, 1e-12), input(shape, 1, Fill::wide_logvar),
           false);
  }

  static constexpr Sizes sizes[] = {{0, 3, 2},   {3, 4, 0},    {1, 1, 1},
                                    {2, 3, 5},   {31, 33, 7},  {65, 10, 32},
                                    {5, 70, 33}, {128, 20, 2}, {9, 300, 3}};

  void pairs() {
    for (const auto& [n, m, d] : sizes)
      pair(text({n, m, d}), input(Shape{n, d}), input(Shape{m, d}), input(Shape{m, d}, 0.7), true);
    pair("3x0x2", input(Shape{3, 2}), input(Shape{0, 2}), input(Shape{0, 2}), false);
    const Shape z{9, 40}, g{11, 40};
    pair("thousands", input(z, 300), input(g, 300), input(g, 5.7), false);
    pair("wide", input(z, 1e-12), input(g, 1e-12), input(g, 1, Fill::wide_logvar), false);
  }

  static Attrs importance(const char* name) {
    return {{"importance", std::string(name)}, {"dataset", Int{1009}}};
  }

  void marginals() {
    for (const auto& [n, m, d] : sizes)
      for (const char* how : {"none", "mws"})
        marginal(text({n, m, d}) + "_" + how, input(Shape{n, d}), input(Shape{m, d}),
                 input(Shape{m, d}, 0.5), importance(how), true);
    for (const auto& [n, d] : {std::pair<Int, Int>{2, 1}, {3, 2}, {7, 3}, {33, 5}, {64, 34}})
      marginal(text({n, n, d}) + "_mss", input(Shape{n, d}), input(Shape{n, d}),
               input(Shape{n, d}, 0.5), importance("mss"), true);
    // Gaussians far from all samples, and others around them.
    const Shape z{9, 40}, g{11, 40};
    add("marginal_log_density", "thousands", {input(z, 300), input(g, 300), input(g, 5.7)}, {}, 51);
    add("marginal_log_density", "wide",
        {input(z, 1e-12), input(g, 1e-12), input(g, 1, Fill::wide_logvar)}, {}, 51);
    marginal("tens", input(z, 10), input(g, 10), input(g), {}, false);
  }

  void logsumexps() {
    constexpr Int shapes[][2] = {{0, 5},   {1, 1},   {3, 7},    {2, 32}, {31, 33},
                                 {65, 10}, {9, 300}, {2, 2003}, {300, 3}};
    const Attrs normalised = {{"normalise", Int{1}}};
    for (const auto& [n, m] : shapes) {
      const CaseInput x = input(Shape{n, m}), bias = input(Shape{m});
      const std::string what = text({n, m});
      logsumexp(what, x, left_out(), {}, true);
      logsumexp(what + "_bias", x, bias, {}, true);
      logsumexp(what + "_normalised", x, bias, normalised, true);
      if (m <= 1009) logsumexp(what + "_mws", x, left_out(), importance("mws"), true);
    }
    for (const Int n : {Int{2}, Int{3}, Int{7}, Int{40}})
      logsumexp(text({n, n}) + "_mss", input(Shape{n, n}), left_out(), importance("mss"), true);
    const Shape shape{12, 40};
    logsumexp("large", input(shape, 3000), left_out(), {}, false);
    logsumexp("large_bias", input(shape, 3000), input(Shape{40}, 3000), normalised, false);
    logsumexp("extreme", input(shape, 1, Fill::extreme), input(Shape{40}), {}, false);
    for (const auto& [n, m] : {std::pair<Int, Int>{5, 10}, {40, 3}, {12, 40}}) {
      const CaseInput x = input(Shape{n, m}, 1, Fill::gaps);
      logsumexp(text({n, m}) + "_gaps", x, left_out(), {}, false);
      logsumexp(text({n, m}) + "_gaps_normalised", x, input(Shape{m}), normalised, false);
    }
    // Components without a share.
    logsumexp("gaps_bias", input(shape), input(Shape{40}, 1, Fill::gaps), normalised, false);
    logsumexp("gaps_all", input(Shape{7, 10}), input(Shape{10}, 1, Fill::gaps), {}, false);
  }

  void kernels() {
    for (const char* name : {"rbf", "imq"}) {
      const Attrs attrs = {{"kernel", std::string(name)}, {"bandwidth", 1.5}};
      for (const auto& [n, m, d] : sizes)
        kernel(text({n, m, d}) + "_" + name, input(Shape{n, d}), input(Shape{m, d}), attrs, true);
      Attrs skipped = attrs;
      skipped.set("skip_diagonal", Int{1});
      for (const auto& [n, d] : {std::pair<Int, Int>{2, 1}, {7, 3}, {40, 33}})
        kernel(text({n, n, d}) + "_" + name + "_skipped", input(Shape{n, d}), input(Shape{n, d}),
               skipped, true);
      kernel(std::string("thousands_") + name, input(Shape{8, 5}, 300), input(Shape{9, 5}, 300),
             attrs, false);
      for (const double width : {1e-6, 1e6})
        kernel(std::string(name) + (width < 1 ? "_narrow" : "_broad"), input(Shape{8, 5}),
               input(Shape{9, 5}), {{"kernel", std::string(name)}, {"bandwidth", width}}, false);
    }
  }
};

// Meaning -----------------------------------------------------------------------------------------

struct Operands {
  const Case& c;
  const std::vector<Tensor>& tensors;
  [[nodiscard]] bool has(std::size_t i) const { return i < c.inputs.size() && !c.inputs[i].absent; }
  [[nodiscard]] Reals real(std::size_t i, std::size_t zeros) const {
    if (!has(i)) return Reals(zeros);
    const Tensor wide = tensors[i].to(DType::f64);
    return {wide.as<double>().begin(), wide.as<double>().end()};
  }
  [[nodiscard]] std::size_t dim(std::size_t i, int axis) const {
    return static_cast<std::size_t>(c.inputs[i].shape[axis]);
  }
};

// `size`: of what a result adds up.
Expected expected(const Reals& values, Real size = 1) {
  Expected e;
  e.scale = std::max(1.0, static_cast<double>(size));
  for (const Real v : values) {
    e.real.push_back(static_cast<double>(v));
    if (std::isfinite(v)) e.scale = std::max(e.scale, std::abs(e.real.back()));
  }
  return e;
}

struct Density {
  Real t, sigma, log;
};
Density density(Real z, Real mean, Real logvar) {
  const Real sigma = std::exp(logvar / 2), t = (z - mean) / sigma;
  return {t, sigma, -(std::log(2 * std::numbers::pi_v<Real>) + logvar + t * t) / 2};
}

Reals weights_of(const Attrs& attrs, std::size_t rows, std::size_t columns) {
  const std::string how = attrs.text("importance", "none");
  const auto data = static_cast<Real>(attrs.integer("dataset", 1));
  const auto batch = static_cast<Real>(columns);
  Reals w(rows * columns);
  if (how == "mws") std::fill(w.begin(), w.end(), -std::log(data * batch));
  if (how != "mss") return w;
  const Real m = batch - 1, stratified = (data - m) / (data * m);
  std::fill(w.begin(), w.end(), 1 / m);
  for (std::size_t i = 0; i < w.size(); i += columns) w[i] = 1 / data;
  for (std::size_t i = 1; i < w.size(); i += columns) w[i] = stratified;
  w[(columns - 2) * columns] = stratified;
  for (Real& x : w) x = std::log(x);
  return w;
}

Real log_sum(const Reals& terms) {
  const Real most = *std::max_element(terms.begin(), terms.end());
  if (std::isinf(most)) return most;
  Real sum = 0;
  for (const Real x : terms) sum += std::exp(x - most);
  return most + std::log(sum);
}

std::vector<Expected> normal_reference(const Operands& o) {
  const bool grad = o.c.op.ends_with("_grad");
  const std::size_t at = grad ? 1 : 0, rows = o.dim(at, 0), d = o.dim(at, 1);
  const Reals z = o.real(at, 0), mean = o.real(at + 1, rows * d), lv = o.real(at + 2, rows * d);
  const Reals g = grad ? o.real(0, 0) : Reals(rows, 1);
  Reals sum(rows), size(rows), slope(rows * d), spread(rows * d);
  for (std::size_t i = 0; i < rows * d; ++i) {
    const Density p = density(z[i], mean[i], lv[i]);
    sum[i / d] += p.log;
    size[i / d] += std::abs(lv[i]) + p.t * p.t;
    slope[i] = g[i / d] * p.t / p.sigma;
    spread[i] = g[i / d] * (p.t * p.t - 1) / 2;
  }
  if (!grad) return {expected(sum, rows > 0 ? *std::max_element(size.begin(), size.end()) : 0)};
  Reals minus = slope;
  for (Real& x : minus) x = -x;
  std::vector<Expected> outputs = {expected(minus)};
  if (o.has(2)) outputs.push_back(expected(slope));
  if (o.has(3)) outputs.push_back(expected(spread));
  return outputs;
}

// Of pairs with weights w [N, M, d].
std::vector<Expected> pair_gradients(const Reals& w, const Reals& z, const Reals& mean,
                                     const Reals& lv, std::size_t n, std::size_t m, std::size_t d) {
  Reals dz(n * d), dmean(m * d), dlv(m * d);
  Real size[3] = {0, 0, 0};
  Reals of_z(n * d), of_mean(m * d), of_lv(m * d);
  for (std::size_t i = 0; i < n * m * d; ++i) {
    const std::size_t j = i % d, k = i / d % m, row = i / d / m;
    const Density p = density(z[row * d + j], mean[k * d + j], lv[k * d + j]);
    const Real slope = w[i] == 0 ? 0 : w[i] * p.t / p.sigma;
    const Real spread = w[i] == 0 ? 0 : w[i] * (p.t * p.t - 1) / 2;
    dz[row * d + j] -= slope;
    dmean[k * d + j] += slope;
    dlv[k * d + j] += spread;
    size[0] = std::max(size[0], of_z[row * d + j] += std::abs(slope));
    size[1] = std::max(size[1], of_mean[k * d + j] += std::abs(slope));
    size[2] = std::max(size[2], of_lv[k * d + j] += std::abs(spread) + std::abs(w[i]));
  }
  return {expected(dz, size[0]), expected(dmean, size[1]), expected(dlv, size[2])};
}

std::vector<Expected> pair_reference(const Operands& o) {
  const bool grad = o.c.op.ends_with("_grad");
  const std::size_t at = grad ? 1 : 0, n = o.dim(at, 0), d = o.dim(at, 1), m = o.dim(at + 1, 0);
  const Reals z = o.real(at, 0), mean = o.real(at + 1, 0), lv = o.real(at + 2, 0);
  if (grad) {
    const Reals g = o.real(0, 0);
    Reals w(n * m * d);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = g[i / d];
    return pair_gradients(w, z, mean, lv, n, m, d);
  }
  Reals y(n * m);
  Real size = 0;
  for (std::size_t i = 0; i < n * m; ++i) {
    Real magnitude = 0;
    for (std::size_t j = 0; j < d; ++j) {
      const Density p = density(z[i / m * d + j], mean[i % m * d + j], lv[i % m * d + j]);
      y[i] += p.log;
      magnitude += std::abs(lv[i % m * d + j]) + p.t * p.t;
    }
    size = std::max(size, magnitude);
  }
  return {expected(y, size)};
}

std::vector<Expected> marginal_reference(const Operands& o) {
  const bool grad = o.c.op.ends_with("_grad");
  const std::size_t at = grad ? 2 : 0, n = o.dim(at, 0), d = o.dim(at, 1), m = o.dim(at + 1, 0);
  const Reals z = o.real(at, 0), mean = o.real(at + 1, 0), lv = o.real(at + 2, 0);
  const Reals weights = weights_of(o.c.attrs, n, m);
  const auto term = [&](std::size_t row, std::size_t k, std::size_t j) {
    return density(z[row * d + j], mean[k * d + j], lv[k * d + j]).log + weights[row * m + k];
  };
  if (grad) {
    const Reals g = o.real(0, 0), lse = o.real(1, 0);
    Reals w(n * m * d);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const std::size_t j = i % d, k = i / d % m, row = i / d / m;
      // The case's logsumexps are any numbers: a share is never more than all.
      w[i] = g[row] * std::exp(std::min(Real{0}, term(row, k, j) - lse[row * d + j]));
    }
    return pair_gradients(w, z, mean, lv, n, m, d);
  }
  Reals sums(n), lses(n * d);
  Real size = 0;
  for (std::size_t row = 0; row < n; ++row) {
    Real magnitude = 0;
    for (std::size_t j = 0; j < d; ++j) {
      Reals terms;
      for (std::size_t k = 0; k < m; ++k) terms.push_back(term(row, k, j));
      lses[row * d + j] = log_sum(terms);
      sums[row] += lses[row * d + j];
      magnitude += std::abs(lses[row * d + j]);
    }
    size = std::max(size, magnitude);
  }
  return {expected(sums, size), expected(lses)};
}

std::vector<Expected> logsumexp_reference(const Operands& o) {
  const bool grad = o.c.op.ends_with("_grad"), normalise = o.c.attrs.integer("normalise", 0) != 0;
  const std::size_t at = grad ? 1 : 0, n = o.dim(at, 0), m = o.dim(at, 1);
  const Reals x = o.real(at, 0), raw = o.real(at + 1, m), weights = weights_of(o.c.attrs, n, m);
  const Reals g = grad ? o.real(0, 0) : Reals(n, 1);
  Reals bias = raw, softmax(m);
  if (normalise)
    for (std::size_t k = 0; k < m; ++k) {
      bias[k] = raw[k] - log_sum(raw);
      softmax[k] = std::exp(bias[k]);
    }
  Reals y(n), dx(n * m), dbias(m), size(m);
  Real all = 0, magnitude = 0;
  for (std::size_t row = 0; row < n; ++row) {
    Reals terms;
    for (std::size_t k = 0; k < m; ++k)
      terms.push_back(x[row * m + k] + bias[k] + weights[row * m + k]);
    y[row] = log_sum(terms);
    for (std::size_t k = 0; k < m; ++k) {
      const Real share = std::isinf(y[row]) ? 0 : g[row] * std::exp(terms[k] - y[row]);
      dx[row * m + k] = share;
      dbias[k] += share;
      all += share;
      size[k] += std::abs(share);
      magnitude += std::abs(share);
    }
  }
  if (!grad) {
    // What an output is the difference of.
    Real parts = 1;
    for (const Reals* list : {&x, &raw})
      for (const Real v : *list)
        if (std::isfinite(v)) parts = std::max(parts, std::abs(v));
    return {expected(y, parts)};
  }
  std::vector<Expected> outputs = {expected(dx)};
  if (!o.has(at + 1)) return outputs;
  Real most = 0;
  for (std::size_t k = 0; k < m; ++k) {
    dbias[k] -= softmax[k] * all;
    most = std::max(most, size[k] + softmax[k] * magnitude);
  }
  outputs.push_back(expected(dbias, most));
  return outputs;
}

std::vector<Expected> kernel_reference(const Operands& o) {
  const bool grad = o.c.op.ends_with("_grad"), skip = o.c.attrs.integer("skip_diagonal", 0) != 0;
  const bool rbf = o.c.attrs.text("kernel") == "rbf";
  const Real width = o.c.attrs.real("bandwidth");
  const std::size_t at = grad ? 1 : 0, n = o.dim(at, 0), d = o.dim(at, 1), m = o.dim(at + 1, 0);
  const Reals z = o.real(at, 0), y = o.real(at + 1, 0);
  const Reals g = grad ? o.real(0, 0) : Reals(n, 1);
  const Real count = static_cast<Real>(skip ? m - 1 : m);
  Reals mean(n), dz(n * d), dy(m * d), of_z(n * d), of_y(m * d);
  Real size[2] = {0, 0};
  for (std::size_t row = 0; row < n; ++row)
    for (std::size_t k = 0; k < m; ++k) {
      if (skip && row == k) continue;
      Real squared = 0;
      for (std::size_t j = 0; j < d; ++j)
        squared += (z[row * d + j] - y[k * d + j]) * (z[row * d + j] - y[k * d + j]);
      const Real value = rbf ? std::exp(-squared / (2 * width * width)) : width / (width + squared);
      const Real by =
          rbf ? value / (width * width) : 2 * width / ((width + squared) * (width + squared));
      mean[row] += value / count;
      for (std::size_t j = 0; j < d; ++j) {
        const Real term = g[row] / count * by * (z[row * d + j] - y[k * d + j]);
        dz[row * d + j] -= term;
        dy[k * d + j] += term;
        size[0] = std::max(size[0], of_z[row * d + j] += std::abs(term));
        size[1] = std::max(size[1], of_y[k * d + j] += std::abs(term));
      }
    }
  if (!grad) return {expected(mean)};
  return {expected(dz, size[0]), expected(dy, size[1])};
}

}  // namespace

std::vector<Case> density_cases() {
  Builder b;
  b.normals();
  b.pairs();
  b.marginals();
  b.logsumexps();
  b.kernels();
  return b.cases;
}

std::vector<Expected> density_reference(const Case& c, const std::vector<Tensor>& inputs) {
  const Operands o{c, inputs};
  if (c.op.starts_with("normal_log_density")) return normal_reference(o);
  if (c.op.starts_with("pair_log_density")) return pair_reference(o);
  if (c.op.starts_with("marginal_log_density")) return marginal_reference(o);
  if (c.op.starts_with("logsumexp")) return logsumexp_reference(o);
  if (c.op.starts_with("kernel_mean")) return kernel_reference(o);
  return {};
}

}  // namespace cuvae::testing
