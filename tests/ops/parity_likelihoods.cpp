// The textbook's formulas in long double, nothing of src/likelihoods but the descriptions. Their
// own rounding, of log-gammas of up to 1e15, is the `slack` of what they expect; the formulas'
// sharp test is tests/likelihoods, against golden values.

#include "ops/parity_likelihoods.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>

#include "cuvae/rng.h"
#include "ops/nll.h"

namespace cuvae::testing {
namespace {

using Int = std::int64_t;
using Real = long double;

// Cases -------------------------------------------------------------------------------------------

CaseInput input(Shape shape, Fill fill, double scale = 1) {
  return {.shape = shape, .fill = fill, .scale = scale};
}
CaseInput left_out() {
  CaseInput none;
  none.absent = true;
  return none;
}

Fill target_fill(const LikelihoodInfo& info) {
  switch (info.target) {
    case LikelihoodTarget::reals: return Fill::normal;
    case LikelihoodTarget::unit: return Fill::unit;
    case LikelihoodTarget::levels: return Fill::levels;
    case LikelihoodTarget::counts: return Fill::counts;
    case LikelihoodTarget::labels: return Fill::labels;
  }
  return Fill::normal;
}

struct Builder {
  std::vector<Case> cases;

  void add(std::string op, std::string what, std::vector<CaseInput> inputs, Attrs attrs,
           Int reduction = 1, bool differentiable = false) {
    Int elements = 0;
    for (const CaseInput& one : inputs) elements += one.shape.elements();
    cases.push_back({std::move(op), std::move(what), std::move(inputs), std::move(attrs), reduction,
                     differentiable && elements > 0 && elements <= 4000});
  }

  // nll, nll_grad and expectation with these planes.
  void family(const std::string& what, const CaseInput& target, const CaseInput& offset,
              const std::vector<CaseInput>& planes, const Attrs& attrs, bool differentiable) {
    const Int d = target.shape[1];
    std::vector<CaseInput> inputs = {offset};
    inputs.insert(inputs.end(), planes.begin(), planes.end());
    add("expectation", what, inputs, attrs);
    inputs.insert(inputs.begin(), target);
    add("nll", what, inputs, attrs, d, differentiable);
    inputs.insert(inputs.begin(), input(Shape{target.shape[0]}, Fill::normal));
    add("nll_grad", what, inputs, attrs);
  }

  void elementwise() {
    constexpr Int shapes[][2] = {{0, 5},    {4, 0},   {1, 1},   {3, 7},
                                 {1, 2003}, {31, 33}, {65, 63}, {128, 100}};
    for (std::size_t kind = 0; kind < static_cast<std::size_t>(LikelihoodKind::count); ++kind) {
      const LikelihoodInfo& info = likelihood_info(static_cast<LikelihoodKind>(kind));
      const std::string name(info.name);
      const auto planes = [&](Shape shape, int n) {
        std::vector<CaseInput> list(static_cast<std::size_t>(n), input(shape, Fill::normal));
        if (n > 1) list[1].scale = 0.5;
        return list;
      };
      const Attrs plain = {{"likelihood", name}};
      for (const auto& [b, d] : shapes) {
        const Shape shape{b, d};
        const std::string what = name + "_" + std::to_string(b) + "x" + std::to_string(d);
        const CaseInput target = input(shape, target_fill(info));
        family(what, target, left_out(), planes(shape, info.parameters), plain, true);
        if (info.offset)
          family(what + "_offset", target, input(Shape{b}, Fill::normal),
                 planes(shape, info.parameters), plain, true);
        if (info.fixed_scale) {
          Attrs fixed = plain;
          fixed.set("scale", 0.4);
          family(what + "_fixed", target, left_out(), planes(shape, info.parameters - 1), fixed,
                 true);
        }
        if (info.trials) {
          Attrs fewer = plain;
          fewer.set("trials", Int{17});
          family(what + "_17", target, left_out(), planes(shape, info.parameters), fewer, false);
        }
      }
      // Of the discretised logistic the plain formula knows moderate scales only.
      const Shape shape{8, 40};
      std::vector<CaseInput> extreme = planes(shape, info.parameters);
      for (CaseInput& plane : extreme)
        if (name != "discretised_logistic")
          plane.fill = Fill::extreme;
        else
          plane.scale = 3;
      family(name + "_extreme",
             input(shape,
                   info.target == LikelihoodTarget::counts ? Fill::wide_counts : target_fill(info)),
             left_out(), extreme, plain, false);
    }
  }

  void softmaxes() {
    constexpr Int groups[][3] = {{0, 3, 4},   {4, 0, 0},   {1, 1, 1},   {3, 7, 5},
                                 {31, 33, 3}, {5, 2, 300}, {65, 1, 10}, {2, 257, 2}};
    for (const auto& [b, d, classes] : groups) {
      const std::string what =
          std::to_string(b) + "x" + std::to_string(d) + "x" + std::to_string(classes);
      const CaseInput logits = input(Shape{b, d * classes}, Fill::normal);
      CaseInput labels = input(Shape{b, d}, Fill::labels);
      labels.limit = classes;
      add("categorical_nll", what, {logits, labels}, {}, d + classes, true);
      add("categorical_nll_grad", what, {input(Shape{b}, Fill::normal), logits, labels}, {},
          classes);
      if (classes > 0) add("categorical_mean", what, {logits}, {{"classes", classes}}, classes);
    }
    // As a convolution gives them: planes of `inner` pixels.
    constexpr Int planes[][4] = {{3, 1, 5, 4}, {2, 3, 2, 35}, {9, 2, 16, 33}};
    for (const auto& [b, channels, classes, inner] : planes) {
      const std::string what = std::to_string(b) + "x" + std::to_string(channels) + "x" +
                               std::to_string(classes) + "x" + std::to_string(inner) + "_planes";
      const Int d = channels * inner;
      const CaseInput logits = input(Shape{b, d * classes}, Fill::normal);
      CaseInput labels = input(Shape{b, d}, Fill::labels);
      labels.limit = classes;
      const Attrs attrs = {{"inner", inner}};
      add("categorical_nll", what, {logits, labels}, attrs, d + classes, true);
      add("categorical_nll_grad", what, {input(Shape{b}, Fill::normal), logits, labels}, attrs,
          classes);
      add("categorical_mean", what, {logits}, {{"classes", classes}, {"inner", inner}}, classes);
    }
    constexpr Int shapes[][2] = {{0, 5},  {4, 0},   {1, 1},    {3, 7},
                                 {2, 32}, {31, 33}, {9, 1000}, {2, 10007}};
    for (const auto& [b, d] : shapes) {
      const std::string what = std::to_string(b) + "x" + std::to_string(d);
      const CaseInput logits = input(Shape{b, d}, Fill::normal);
      const CaseInput counts = input(Shape{b, d}, Fill::counts);
      add("multinomial_nll", what, {logits, counts}, {}, d, true);
      add("multinomial_nll_grad", what, {input(Shape{b}, Fill::normal), logits, counts}, {}, d);
    }
    const Shape shape{6, 40};
    const CaseInput logits = input(shape, Fill::extreme);
    CaseInput labels = input(Shape{6, 8}, Fill::labels);
    labels.limit = 5;
    add("categorical_nll", "extreme", {logits, labels}, {}, 13);
    add("categorical_nll_grad", "extreme", {input(Shape{6}, Fill::normal), logits, labels}, {}, 5);
    add("categorical_mean", "extreme", {logits}, {{"classes", Int{5}}}, 5);
    const CaseInput counts = input(shape, Fill::wide_counts);
    add("multinomial_nll", "extreme", {logits, counts}, {}, 40);
    add("multinomial_nll_grad", "extreme", {input(Shape{6}, Fill::normal), logits, counts}, {}, 40);
  }

  void pixels() {
    constexpr Int shapes[][2] = {{0, 5},   {4, 0},   {1, 1},    {3, 7},  {5, 31},
                                 {31, 33}, {65, 64}, {9, 2001}, {300, 6}};
    const CaseInput clock{.shape = Shape{5}, .fill = Fill::clock, .dtype = DType::i64};
    for (const auto& [b, d] : shapes) {
      const std::string what = std::to_string(b) + "x" + std::to_string(d);
      const CaseInput x = input(Shape{b, d}, Fill::levels);
      const CaseInput key{
          .shape = Shape{b}, .fill = Fill::rows, .dtype = DType::i64, .limit = 100000};
      const auto mode = [](const char* name) {
        return Attrs{{"mode", std::string(name)}, {"stream", Int{5}}};
      };
      add("binarise", what + "_threshold", {x}, mode("threshold"));
      add("binarise", what + "_static", {x, clock, key}, mode("static"));
      add("binarise", what + "_dynamic", {x, clock}, mode("dynamic"));
      add("binarise", what + "_dynamic_keyed", {x, clock, key}, mode("dynamic"));
      add("dequantise", what + "_drawn", {x, clock}, {{"stream", Int{6}}});
      add("dequantise", what + "_keyed", {x, clock, key}, {{"stream", Int{6}}});
      add("dequantise", what + "_static", {x, clock, key}, mode("static"));
      for (const Int levels : {2, 7, 16, 256})
        add("quantise", what + "_" + std::to_string(levels), {x}, {{"levels", levels}});
    }
  }
};

// Meaning -----------------------------------------------------------------------------------------

Real plus(Real x) {  // softplus
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}
Real sigmoid(Real x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}
Real digamma(Real z) {
  Real sum = 0;
  for (; z < 25; z += 1) sum -= 1 / z;
  const Real q = 1 / (z * z);
  return sum + std::log(z) - 1 / (2 * z) -
         q * (1 / Real{12} -
              q * (1 / Real{120} -
                   q * (1 / Real{252} -
                        q * (1 / Real{240} -
                             q * (1 / Real{132} - q * (691 / Real{32760} - q / 12))))));
}

struct Bound {
  Real value, slope;
};
Bound from_below(Real raw, Real floor) {
  return {floor + plus(raw - floor), sigmoid(raw - floor)};
}
Bound both_sides(Real raw) {
  if (std::abs(raw) <= 20) return {raw, 1};
  const Real beyond = (std::abs(raw) - 20) / 10, slope = 1 / std::cosh(beyond);
  return {std::copysign(20 + 10 * std::tanh(beyond), raw), slope * slope};
}

// A term, its derivatives and the mean; `size` is what the largest part of it was.
struct Meaning {
  Real nll = 0;
  Real grad[most_planes] = {};
  Real mean = 0;
  Real size = 1;
  void part(Real value) {
    nll += value;
    size = std::max(size, std::abs(value));
  }
};

struct Constants {
  Real trials, scale;  // 0: learned
};

Bound scale_of(Real raw, Real floor, const Constants& k) {
  return k.scale > 0 ? Bound{std::log(k.scale), 0} : from_below(raw, floor);
}

Meaning negative_binomial(const Real* raw, Real x, Real offset) {
  const Bound m = both_sides(raw[0] + offset), t = both_sides(raw[1]);
  const Real mu = std::exp(m.value), theta = std::exp(t.value);
  Meaning y;
  y.part(std::lgamma(theta));
  y.part(std::lgamma(x + 1));
  y.part(-std::lgamma(x + theta));
  y.part(theta * std::log1p(mu / theta));
  y.part(x * (std::log(theta + mu) - m.value));
  y.grad[0] = m.slope * theta * (mu - x) / (theta + mu);
  y.grad[1] =
      t.slope * theta *
      (digamma(theta) - digamma(x + theta) + std::log1p(mu / theta) + (x - mu) / (theta + mu));
  y.size = std::max(y.size, theta * 40);
  y.mean = mu;
  return y;
}

Meaning meaning(const std::string& name, const Real* raw, Real x, Real offset, const Constants& k) {
  Meaning y;
  if (name == "gaussian") {
    const Bound s = scale_of(raw[1], -6, k);
    const Real r = (x - raw[0]) / std::exp(s.value);
    y.part(r * r / 2 + s.value + std::log(2 * std::numbers::pi_v<Real>) / 2);
    y.grad[0] = -r / std::exp(s.value);
    y.grad[1] = (1 - r * r) * s.slope;
    y.mean = raw[0];
  } else if (name == "laplace") {
    const Bound s = scale_of(raw[1], -6, k);
    const Real b = std::exp(s.value), r = std::abs(x - raw[0]) / b;
    y.part(r + std::log(2 * b));
    y.grad[0] = x == raw[0] ? 0 : x > raw[0] ? -1 / b : 1 / b;
    y.grad[1] = (1 - r) * s.slope;
    y.mean = raw[0];
  } else if (name == "continuous_bernoulli") {
    const Real l = raw[0], size = std::abs(l);
    y.mean = size < 1e-3L ? Real{0.5} + l / 12 - l * l * l / 720 : -1 / std::expm1(-l) - 1 / l;
    y.part(plus(l));
    y.part(-l * x);
    // log C, C = l / tanh(l / 2)
    y.part(size < 1e-9L ? -std::log(Real{2}) : std::log(std::tanh(l / 2) / l));
    y.grad[0] = y.mean - x;
  } else if (name == "discretised_logistic") {
    const Bound s = scale_of(raw[1], -7 - std::log(Real{2}), k);
    const Real b = std::exp(s.value), n = k.trials, level = std::rint(x * n);
    Real above = (level / n + 1 / (2 * n) - raw[0]) / b;
    Real below = (level / n - 1 / (2 * n) - raw[0]) / b;
    const auto log_cdf = [](Real v) { return -plus(-v); };
    const bool first = level <= 0, last = level >= n;
    Real mass;  // its logarithm, from the side where both cumulative ones are small
    if (first)
      mass = log_cdf(above);
    else if (last)
      mass = log_cdf(-below);
    else if (below > 0)
      mass = log_cdf(-below) + std::log1p(-std::exp(log_cdf(-above) - log_cdf(-below)));
    else
      mass = log_cdf(above) + std::log1p(-std::exp(log_cdf(below) - log_cdf(above)));
    y.nll = -mass;
    const auto density = [&](Real v) { return std::exp(log_cdf(v) + log_cdf(-v) - mass); };
    const Real up = last ? 0 : -density(above), down = first ? 0 : density(below);
    y.grad[0] = -(up + down) / b;
    y.grad[1] = -((last ? 0 : above * up) + (first ? 0 : below * down)) * s.slope;
    y.size = std::abs(up / b) + std::abs(down / b) + std::abs(above * up) + 1;
    for (Real j = 1; j <= n; ++j) y.mean += sigmoid((raw[0] - (j - Real{0.5}) / n) / b) / n;
  } else if (name == "beta_binomial") {
    const Bound la = both_sides(raw[0]), lb = both_sides(raw[1]);
    const Real a = std::exp(la.value), b = std::exp(lb.value), n = k.trials, c = std::rint(x * n);
    for (const Real z : {n + 1, c + a, n - c + b, a + b}) y.part(-std::lgamma(z));
    for (const Real z : {c + 1, n - c + 1, n + a + b, a, b}) y.part(std::lgamma(z));
    const Real shared = digamma(n + a + b) - digamma(a + b);
    y.grad[0] = la.slope * a * (digamma(a) - digamma(c + a) + shared);
    y.grad[1] = lb.slope * b * (digamma(b) - digamma(n - c + b) + shared);
    y.mean = a / (a + b);
  } else if (name == "poisson") {
    const Bound m = both_sides(raw[0] + offset);
    y.part(std::exp(m.value));
    y.part(-x * m.value);
    y.part(std::lgamma(x + 1));
    y.grad[0] = (std::exp(m.value) - x) * m.slope;
    y.mean = std::exp(m.value);
  } else if (name == "negative_binomial") {
    y = negative_binomial(raw, x, offset);
  } else if (name == "zero_inflated_negative_binomial") {
    y = negative_binomial(raw, x, offset);
    const Real l = raw[2], rest = y.nll;
    y.mean *= sigmoid(-l);
    if (x > 0) {
      y.nll = plus(l) + rest;
      y.grad[2] = sigmoid(l);
    } else {
      const Real more = std::max(l, -rest), less = std::min(l, -rest);
      y.nll = plus(l) - (more + std::log1p(std::exp(less - more)));
      const Real inflated = sigmoid(l + rest);
      y.grad[0] *= 1 - inflated;
      y.grad[1] *= 1 - inflated;
      y.grad[2] = sigmoid(l) - inflated;
      y.size = std::max(y.size, std::abs(l));
    }
  } else {
    throw std::logic_error("no meaning of " + name);
  }
  return y;
}

Expected expected(const std::vector<Real>& values, Real size) {
  Expected e;
  for (const Real v : values) {
    e.real.push_back(static_cast<double>(v));
    e.scale = std::max(e.scale, std::abs(e.real.back()));
  }
  e.slack = static_cast<double>(size) * 0x1p-58;  // of a dozen roundings of 64 bits
  return e;
}

std::vector<Expected> elementwise_reference(const Case& c, const std::vector<Tensor>& tensors) {
  const std::string name = c.attrs.text("likelihood");
  const Constants k = {static_cast<Real>(c.attrs.integer("trials", 255)),
                       static_cast<Real>(c.attrs.real("scale", 0))};
  const std::size_t offset_at = c.op == "nll" ? 1 : c.op == "nll_grad" ? 2 : 0;
  const std::size_t planes = c.inputs.size() - offset_at - 1;
  const Shape& shape = c.inputs.back().shape;
  const std::size_t rows = static_cast<std::size_t>(shape[0]),
                    d = static_cast<std::size_t>(shape[1]);
  const auto real = [&](std::size_t i, std::size_t at) {
    return static_cast<Real>(tensors[i].as<float>()[at]);
  };
  std::vector<Real> nll(rows), mean(rows * d);
  std::vector<std::vector<Real>> grads(planes, std::vector<Real>(rows * d));
  Real size = 1;
  for (std::size_t i = 0; i < rows * d; ++i) {
    const std::size_t b = i / d;
    Real raw[most_planes] = {};
    for (std::size_t p = 0; p < planes; ++p) raw[p] = real(offset_at + 1 + p, i);
    const Real offset = c.inputs[offset_at].absent ? 0 : real(offset_at, b);
    const Real x = c.op == "expectation" ? 0 : real(offset_at - 1, i);
    const Meaning y = meaning(name, raw, x, offset, k);
    nll[b] += y.nll;
    mean[i] = y.mean;
    for (std::size_t p = 0; p < planes; ++p)
      grads[p][i] = c.op == "nll_grad" ? real(0, b) * y.grad[p] : 0;
    size = std::max(size, y.size);
  }
  if (c.op == "nll") return {expected(nll, size)};
  if (c.op == "expectation") return {expected(mean, 1)};
  std::vector<Expected> outputs;
  for (const auto& grad : grads) outputs.push_back(expected(grad, size));
  return outputs;
}

std::vector<Real> log_softmax(const float* logits, std::size_t n, std::size_t stride) {
  Real largest = -HUGE_VALL, sum = 0;
  const auto logit = [&](std::size_t c) { return static_cast<Real>(logits[c * stride]); };
  for (std::size_t c = 0; c < n; ++c) largest = std::max(largest, logit(c));
  for (std::size_t c = 0; c < n; ++c) sum += std::exp(logit(c) - largest);
  std::vector<Real> log_p;
  for (std::size_t c = 0; c < n; ++c) log_p.push_back(logit(c) - largest - std::log(sum));
  return log_p;
}

std::vector<Expected> mean_reference(const Case& c, const std::vector<Tensor>& tensors) {
  const auto logits = tensors[0].as<float>();
  const auto classes = static_cast<std::size_t>(c.attrs.integer("classes"));
  const auto inner = static_cast<std::size_t>(c.attrs.integer("inner", 1));
  std::vector<Real> means;
  for (std::size_t i = 0; i < logits.size() / classes; ++i) {
    const std::size_t first = i / inner * classes * inner + i % inner;
    const std::vector<Real> log_p = log_softmax(logits.data() + first, classes, inner);
    Real mean = 0;
    for (std::size_t k = 1; k < classes; ++k)
      mean += std::exp(log_p[k]) * static_cast<Real>(k) / static_cast<Real>(classes - 1);
    means.push_back(mean);
  }
  return {expected(means, 1)};
}

std::vector<Expected> softmax_reference(const Case& c, const std::vector<Tensor>& tensors) {
  const bool grad = c.op.ends_with("_grad"), labels = c.op.starts_with("categorical");
  const std::size_t at = grad ? 1 : 0;
  const auto logits = tensors[at].as<float>(), target = tensors[at + 1].as<float>();
  const std::size_t rows = static_cast<std::size_t>(c.inputs[at].shape[0]);
  const std::size_t width = static_cast<std::size_t>(c.inputs[at].shape[1]);
  const std::size_t d = static_cast<std::size_t>(c.inputs[at + 1].shape[1]);
  const std::size_t groups = labels ? d : 1, n = groups > 0 ? width / groups : 0;
  std::vector<Real> nll(rows), grads(rows * width);
  Real size = 1;
  const auto inner = static_cast<std::size_t>(c.attrs.integer("inner", 1));
  for (std::size_t b = 0; b < rows; ++b)
    for (std::size_t g = 0; g < groups && n > 0; ++g) {
      const std::size_t first = b * width + g / inner * n * inner + g % inner;
      const std::vector<Real> log_p = log_softmax(logits.data() + first, n, inner);
      const float* counts = target.data() + b * d;
      Real all = 0;
      for (std::size_t j = 0; j < n; ++j) {
        const Real x =
            labels ? (static_cast<float>(j) == counts[g] ? 1 : 0) : static_cast<Real>(counts[j]);
        all += x;
        nll[b] += std::lgamma(x + 1) - (x > 0 ? x * log_p[j] : 0);
        size = std::max({size, std::lgamma(x + 1), x * std::abs(log_p[j])});
      }
      nll[b] -= std::lgamma(all + 1);
      size = std::max(size, std::lgamma(all + 1));
      for (std::size_t j = 0; j < n && grad; ++j) {
        const Real x =
            labels ? (static_cast<float>(j) == counts[g] ? 1 : 0) : static_cast<Real>(counts[j]);
        grads[first + j * inner] = tensors[0].as<float>()[b] * (all * std::exp(log_p[j]) - x);
      }
    }
  return {grad ? expected(grads, size) : expected(nll, size)};
}

std::vector<Expected> pixel_reference(const Case& c, const std::vector<Tensor>& tensors) {
  const auto x = tensors[0].as<float>();
  const std::size_t rows = static_cast<std::size_t>(c.inputs[0].shape[0]);
  const std::size_t d = static_cast<std::size_t>(c.inputs[0].shape[1]);
  const bool dequantise = c.op == "dequantise";
  const std::string mode = c.op == "binarise" || c.attrs.has("mode") ? c.attrs.text("mode") : "";
  Expected y;
  for (std::size_t i = 0; i < rows * d; ++i) {
    if (c.op == "quantise") {
      const Int levels = c.attrs.integer("levels");
      const auto byte = static_cast<Int>(std::rint(static_cast<double>(x[i]) * 255));
      Int level = 0;  // the bin [256 level / levels, 256 (level + 1) / levels) that holds the byte
      while (256 * (level + 1) <= byte * levels) ++level;
      y.real.push_back(static_cast<double>(level) / static_cast<double>(levels - 1));
      continue;
    }
    if (mode == "threshold") {
      y.real.push_back(x[i] > 0.5F ? 1 : 0);
      continue;
    }
    const auto clock = tensors[1].as<Int>();
    const std::size_t row =
        c.inputs.size() > 2 ? static_cast<std::size_t>(tensors[2].as<Int>()[i / d]) : i / d;
    const RandomKey key{.seed = static_cast<std::uint64_t>(clock[0]),
                        .purpose = dequantise ? Purpose::augmentation : Purpose::binarisation,
                        .stream = static_cast<std::uint16_t>(c.attrs.integer("stream")),
                        .step = mode == "static" ? 0 : static_cast<std::uint64_t>(clock[1])};
    const float u = random_uniform(key, row * d + i % d);
    if (dequantise)
      y.real.push_back((std::rint(static_cast<double>(x[i]) * 255) + 1 - static_cast<double>(u)) /
                       256);
    else
      y.real.push_back(u <= x[i] ? 1 : 0);
  }
  return {y};
}

}  // namespace

std::vector<Case> likelihood_cases() {
  Builder b;
  b.elementwise();
  b.softmaxes();
  b.pixels();
  return b.cases;
}

std::vector<Expected> likelihood_reference(const Case& c, const std::vector<Tensor>& inputs) {
  if (c.op == "nll" || c.op == "nll_grad" || c.op == "expectation")
    return elementwise_reference(c, inputs);
  if (c.op == "categorical_mean") return mean_reference(c, inputs);
  if (c.op.starts_with("categorical_nll") || c.op.starts_with("multinomial_nll"))
    return softmax_reference(c, inputs);
  if (c.op == "binarise" || c.op == "dequantise" || c.op == "quantise")
    return pixel_reference(c, inputs);
  return {};
}

}  // namespace cuvae::testing
