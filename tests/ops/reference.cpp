// What the operators mean, in double, by the shortest loops: nothing of src/cpu is used here.

#include "ops/reference.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>

#include "cuvae/rng.h"
#include "ops/parity_batch.h"
#include "ops/parity_densities.h"
#include "ops/parity_images.h"
#include "ops/parity_likelihoods.h"
#include "ops/parity_table.h"

namespace cuvae::testing {
namespace {

using Reals = std::vector<double>;
using Int = std::int64_t;

double sigmoid(double x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}

double bounded(double x) {
  if (std::abs(x) <= 10) return x;
  return std::copysign(10 + 10 * std::tanh((std::abs(x) - 10) / 10), x);
}

double plain_activation_grad(Activation f, double saved) {
  switch (f.kind) {
    case ActivationKind::relu: return saved > 0 ? 1 : 0;
    case ActivationKind::leaky_relu: return saved > 0 ? 1 : f.alpha;
    case ActivationKind::elu: return saved > 0 ? 1 : saved + f.alpha;
    case ActivationKind::gelu:
      return 0.5 * std::erfc(-saved / std::numbers::sqrt2) +
             saved * std::exp(-saved * saved / 2) / std::sqrt(2 * std::numbers::pi);
    case ActivationKind::silu: {
      const double s = sigmoid(saved);
      return s + saved * s * (1 - s);
    }
    case ActivationKind::tanh: return 1 - saved * saved;
    case ActivationKind::sigmoid: return saved * (1 - saved);
    case ActivationKind::softplus: return -std::expm1(-saved);
    case ActivationKind::bound_logvar: {
      if (std::abs(saved) <= 10) return 1;
      const double t = (std::abs(saved) - 10) / 10;
      return 1 - t * t;
    }
  }
  throw std::logic_error("no such activation");
}

// The tensors of a case, as reals.
struct Operands {
  const Case& c;
  const std::vector<Tensor>& tensors;
  Rounding rounding;

  [[nodiscard]] bool has(std::size_t i) const { return i < c.inputs.size() && !c.inputs[i].absent; }
  [[nodiscard]] Reals real(std::size_t i) const {
    if (tensors[i].dtype() == DType::f64) {
      const auto values = tensors[i].as<double>();
      return {values.begin(), values.end()};
    }
    const auto values = tensors[i].as<float>();
    return {values.begin(), values.end()};
  }
  // An operand of a product, as the backend rounds it.
  [[nodiscard]] Reals factor(std::size_t i) const {
    Reals values = real(i);
    if (rounding != nullptr)
      for (double& v : values) v = rounding(v);
    return values;
  }
  [[nodiscard]] std::vector<Int> integers(std::size_t i) const {
    const auto values = tensors[i].as<Int>();
    return {values.begin(), values.end()};
  }
  [[nodiscard]] const Shape& shape(std::size_t i) const { return tensors[i].shape(); }
  [[nodiscard]] std::size_t dim(std::size_t i, int d) const {
    return static_cast<std::size_t>(tensors[i].shape()[d]);
  }
};

double largest(const Reals& values) {
  double most = 1;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

Expected expect(Reals values) {
  const double scale = largest(values);
  return {std::move(values), {}, scale, 0};
}

// x [B, in] w^T
Reals times(const Reals& x, const Reals& w, std::size_t batch, std::size_t in, std::size_t out) {
  Reals y(batch * out);
  for (std::size_t b = 0; b < batch; ++b)
    for (std::size_t j = 0; j < out; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k < in; ++k) sum += x[b * in + k] * w[j * in + k];
      y[b * out + j] = sum;
    }
  return y;
}

// y [B, out] = x w^T + b
Reals linear(const Operands& o) {
  const std::size_t batch = o.dim(0, 0), out = o.dim(1, 0);
  Reals y = times(o.factor(0), o.factor(1), batch, o.dim(0, 1), out);
  if (o.has(2)) {
    const Reals bias = o.real(2);
    for (std::size_t b = 0; b < batch; ++b)
      for (std::size_t j = 0; j < out; ++j) y[b * out + j] += bias[j];
  }
  return y;
}

// dy [B, out] w [out, in]
Reals times_untransposed(const Reals& dy, const Reals& w, std::size_t batch, std::size_t out,
                         std::size_t in) {
  Reals dx(batch * in);
  for (std::size_t b = 0; b < batch; ++b)
    for (std::size_t j = 0; j < out; ++j)
      for (std::size_t k = 0; k < in; ++k) dx[b * in + k] += dy[b * out + j] * w[j * in + k];
  return dx;
}

// dx [B, in] = dy w
Reals dgrad(const Operands& o) {
  return times_untransposed(o.factor(0), o.factor(1), o.dim(0, 0), o.dim(0, 1), o.dim(1, 1));
}

// The same for values that the operator itself makes.
Reals rounded(Reals values, Rounding rounding) {
  if (rounding != nullptr)
    for (double& v : values) v = rounding(v);
  return values;
}

// What one of them on the other side of its boundary may change of a product with `w`, twice: the
// format's distance from 1 to the next number says how far apart neighbours are.
double slack_of(const Reals& values, const Reals& w, Rounding rounding) {
  if (rounding == nullptr) return 0;
  double next = 1;
  while (rounding(1 + next / 2) == 1 + next / 2) next /= 2;
  return 2 * next * largest(values) * largest(w);
}

// dw [out, in] = dy^T x and db [out]
std::pair<Reals, Reals> wgrad(const Operands& o) {
  const std::size_t batch = o.dim(0, 0), out = o.dim(0, 1), in = o.dim(1, 1);
  const Reals dy = o.factor(0), x = o.factor(1), plain = o.real(0);
  Reals dw(out * in), db(out);
  for (std::size_t b = 0; b < batch; ++b)
    for (std::size_t j = 0; j < out; ++j) {
      db[j] += plain[b * out + j];
      for (std::size_t k = 0; k < in; ++k) dw[j * in + k] += dy[b * out + j] * x[b * in + k];
    }
  return {dw, db};
}

Expected constant_rows(Reals rows, double terms) {
  Expected e = expect(std::move(rows));
  e.scale = std::max(e.scale, std::sqrt(terms));
  return e;
}

Reals nll_rows(const std::string& likelihood, double sigma, const Reals& l, const Reals& x,
               std::size_t batch) {
  Reals nll(batch);
  const std::size_t d = batch > 0 ? l.size() / batch : 0;
  for (std::size_t b = 0; b < batch; ++b)
    for (std::size_t i = b * d; i < (b + 1) * d; ++i) {
      if (likelihood == "bernoulli")
        nll[b] += std::max(l[i], 0.0) - l[i] * x[i] + std::log1p(std::exp(-std::abs(l[i])));
      else
        nll[b] += std::pow((x[i] - l[i]) / sigma, 2) / 2 + std::log(sigma) +
                  std::log(2 * std::numbers::pi) / 2;
    }
  return nll;
}

Reals nll_grad(const std::string& likelihood, double sigma, const Reals& d, const Reals& l,
               const Reals& x) {
  Reals grad(l.size());
  for (std::size_t i = 0; i < l.size(); ++i) {
    const double slope =
        likelihood == "bernoulli" ? sigmoid(l[i]) - x[i] : (l[i] - x[i]) / (sigma * sigma);
    grad[i] = d[i / (l.size() / d.size())] * slope;
  }
  return grad;
}

Reals draws(const Operands& o, std::size_t clock_at, std::size_t key_at, std::size_t batch,
            std::size_t d) {
  const std::vector<Int> clock = o.integers(clock_at);
  const RandomKey key{.seed = static_cast<std::uint64_t>(clock[0]),
                      .purpose = static_cast<Purpose>(o.c.attrs.integer("purpose")),
                      .stream = static_cast<std::uint16_t>(o.c.attrs.integer("stream")),
                      .step = static_cast<std::uint64_t>(clock[1])};
  const std::vector<Int> rows = o.has(key_at) ? o.integers(key_at) : std::vector<Int>{};
  Reals eps(batch * d);
  for (std::size_t b = 0; b < batch; ++b)
    for (std::size_t j = 0; j < d; ++j) {
      const std::size_t row = rows.empty() ? b : static_cast<std::size_t>(rows[b]);
      eps[b * d + j] = static_cast<double>(random_normal(key, row * d + j));
    }
  return eps;
}

Reals kl_rows(const Reals& mean, const Reals& logvar, std::size_t batch) {
  Reals kl(batch);
  const std::size_t d = batch > 0 ? mean.size() / batch : 0;
  for (std::size_t b = 0; b < batch; ++b)
    for (std::size_t i = b * d; i < (b + 1) * d; ++i)
      kl[b] += 0.5 * (mean[i] * mean[i] + std::expm1(logvar[i]) - logvar[i]);
  return kl;
}

Reals sampled(const Reals& mean, const Reals& logvar, const Reals& eps) {
  Reals z(mean.size());
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = mean[i] + eps[i] * std::exp(logvar[i] / 2);
  return z;
}

// torch.optim.Adam on w, m, v with gradient g.
std::vector<Expected> adam(const Operands& o, std::size_t first, const Reals& gradient,
                           std::size_t hyper) {
  Reals w = o.real(first), m = o.real(first + 1), v = o.real(first + 2);
  if (o.integers(hyper + 2)[0] != 0) {
    const Attrs& a = o.c.attrs;
    const double b1 = a.real("beta1", 0.9), b2 = a.real("beta2", 0.999);
    const double t = static_cast<double>(o.integers(hyper + 1)[1] + 1);
    const double lr = o.real(hyper)[0];
    const double decay = a.real("weight_decay", 0), eps = a.real("eps", 1e-8);
    const bool decoupled = a.integer("decoupled", 0) != 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double g = gradient[i] + (decoupled ? 0 : decay) * w[i];
      if (decoupled) w[i] -= lr * decay * w[i];
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(b1, t));
      const double v_hat = v[i] / (1 - std::pow(b2, t));
      if (a.integer("eps_hat", 0) != 0)  // Kingma and Ba, the end of section 2
        w[i] -= lr * std::sqrt(1 - std::pow(b2, t)) * m_hat / (std::sqrt(v[i]) + eps);
      else
        w[i] -= lr * m_hat / (std::sqrt(v_hat) + eps);
    }
  }
  return {expect(w), expect(m), expect(v)};
}

// One element by optimiser `op` in step t: the formulas of torch.optim and Keras as they are
// written there, of the states the case keeps.
void update_element(const std::string& op, const Attrs& a, double lr, double t, double g, double& w,
                    Reals& s) {
  const double momentum = a.real("momentum", 0);
  if (op == "sgd") {
    if (momentum == 0) {
      w -= lr * g;
      return;
    }
    s[0] = t == 1 ? g : momentum * s[0] + (1 - a.real("dampening", 0)) * g;
    w -= lr * (a.integer("nesterov", 0) != 0 ? g + momentum * s[0] : s[0]);
  } else if (op == "rmsprop") {
    const bool keras = a.text("convention", "torch") == "keras";
    const bool centered = a.integer("centered", 0) != 0;
    const double rho = a.real("rho", keras ? 0.9 : 0.99);
    s[0] = rho * s[0] + (1 - rho) * g * g;
    double variance = s[0];
    if (centered) {
      s[1] = rho * s[1] + (1 - rho) * g;
      variance -= s[1] * s[1];
    }
    const double quotient =
        keras ? lr * g / std::sqrt(variance + 1e-7) : g / (std::sqrt(variance) + 1e-8);
    double moved = quotient;
    if (momentum != 0) moved = s[centered ? 2 : 1] = momentum * s[centered ? 2 : 1] + quotient;
    w -= keras ? moved : lr * moved;
  } else if (op == "adagrad") {
    s[0] += g * g;
    w -= lr / (1 + (t - 1) * a.real("lr_decay", 0)) * g / (std::sqrt(s[0]) + 1e-10);
  } else if (op == "adamax") {
    const double b1 = a.real("beta1", 0.9), b2 = a.real("beta2", 0.999);
    s[0] = b1 * s[0] + (1 - b1) * g;
    s[1] = std::max(b2 * s[1], std::abs(g) + a.real("eps", 1e-8));
    w -= lr / (1 - std::pow(b1, t)) * s[0] / s[1];
  } else if (op == "iwae_adam") {
    const double alpha = lr * std::sqrt(1 - std::pow(0.999, t)) / (1 - std::pow(0.99, t));
    w -= alpha * s[0] / (std::sqrt(s[1]) + 1e-4);
    s[0] = 0.99 * s[0] + (1 - 0.99) * g;
    s[1] = 0.999 * s[1] + (1 - 0.999) * g * g;
  } else {
    throw std::logic_error("no reference for " + op);
  }
}

// w, g, hyper, clock, commit, states
std::vector<Expected> optimizer(const Operands& o) {
  const Attrs& a = o.c.attrs;
  const bool decoupled = a.integer("decoupled", 0) != 0;
  const double decay = a.real("weight_decay", 0), lr = o.real(2)[0];
  const double t = static_cast<double>(o.integers(3)[1] + 1);
  std::vector<Reals> next = {o.real(0)};
  for (std::size_t k = 5; k < o.c.inputs.size(); ++k) next.push_back(o.real(k));
  const Reals g = o.real(1);
  for (std::size_t i = 0; i < g.size() && o.integers(4)[0] != 0; ++i) {
    double w = next[0][i];
    const double gradient = decoupled ? g[i] : g[i] + decay * w;
    if (decoupled) w -= lr * decay * w;
    Reals s;
    for (std::size_t k = 1; k < next.size(); ++k) s.push_back(next[k][i]);
    update_element(o.c.op, a, lr, t, gradient, w, s);
    next[0][i] = w;
    for (std::size_t k = 1; k < next.size(); ++k) next[k][i] = s[k - 1];
  }
  std::vector<Expected> outputs;
  for (Reals& values : next) outputs.push_back(expect(std::move(values)));
  return outputs;
}

std::vector<Expected> clip_norm(const Operands& o) {
  long double squares = 0;  // the sum's own rounding is no part of what it means
  for (std::size_t k = 2; k < o.c.inputs.size(); ++k)
    for (const double g : o.real(k)) squares += g * g;
  const double norm = std::sqrt(static_cast<double>(squares)), limit = o.c.attrs.real("limit", 0);
  Expected commit, skipped;
  commit.integer = {o.integers(0)[0]};
  skipped.integer = {0};  // norms of the table are finite
  return {expect({norm}), expect({limit == 0 ? 1 : std::min(1.0, limit / (norm + 1e-6))}), commit,
          skipped};
}

// s, w, clock, commit
std::vector<Expected> weight_ema(const Operands& o) {
  Reals s = o.real(0);
  const Reals w = o.real(1);
  const double t = static_cast<double>(o.integers(2)[1] + 1);
  double d = o.c.attrs.real("decay");
  const std::string start = o.c.attrs.text("start");
  if (start == "corrected") d *= (1 - std::pow(d, t - 1)) / (1 - std::pow(d, t));
  if (start == "warmup") d = std::min(d, (1 + t) / (10 + t));
  for (std::size_t i = 0; i < s.size() && o.integers(3)[0] != 0; ++i)
    s[i] = d * s[i] + (1 - d) * w[i];
  return {expect(s)};
}

std::vector<Expected> reduce(const Operands& o) {
  const std::string& axis = o.c.attrs.text("axis");
  const Reals x = o.real(0);
  const std::size_t columns = o.shape(0).rank() == 2 ? o.dim(0, 1) : x.size();
  const std::size_t rows = o.shape(0).rank() == 2 ? o.dim(0, 0) : 1;
  Reals y(axis == "all" ? 1 : axis == "rows" ? columns : rows);
  for (std::size_t i = 0; i < x.size(); ++i)
    y[axis == "all" ? 0 : axis == "rows" ? i % columns : i / columns] += x[i];
  if (o.c.attrs.text("op") == "mean") {
    const double terms = static_cast<double>(axis == "all"    ? x.size()
                                             : axis == "rows" ? rows
                                                              : columns);
    for (double& v : y) v /= terms;
  }
  return {expect(y)};
}

std::vector<Expected> broadcast(const Operands& o) {
  const std::string& axis = o.c.attrs.text("axis");
  const Shape full = case_graph(o.c).graph[Value{1}].shape;
  const Reals x = o.real(0);
  Reals y(static_cast<std::size_t>(full.elements()));
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t columns = static_cast<std::size_t>(full[full.rank() - 1]);
    y[i] = x[axis == "all"    ? 0
             : axis == "rows" ? i % columns
                              : i / columns] *
           o.c.attrs.real("factor", 1.0);
  }
  return {expect(y)};
}

std::vector<Expected> batch_index(const Operands& o) {
  const Attrs& a = o.c.attrs;
  const std::vector<Int> clock = o.integers(0);
  const Shuffle order(static_cast<std::uint64_t>(clock[0]), static_cast<std::uint64_t>(clock[2]),
                      a.integer("rows"));
  Expected row, index;
  for (Int b = 0; b < a.integer("batch"); ++b) {
    const Int position = clock[3] * a.integer("times", 1) + b;
    index.integer.push_back(a.integer("shuffle", 0) ? order(position) : position);
    row.integer.push_back((a.integer("staged", 0) ? position : index.integer.back()) - clock[4]);
  }
  return {row, index};
}

std::vector<Expected> gather(const Operands& o) {
  const std::size_t d = o.dim(0, 1);
  const double scale = static_cast<float>(o.c.attrs.real("scale", 1.0));
  const double shift = static_cast<float>(o.c.attrs.real("shift", 0.0));
  Reals window;
  if (o.tensors[0].dtype() == DType::u8)
    for (const std::uint8_t p : o.tensors[0].as<std::uint8_t>()) window.push_back(p);
  else
    window = o.real(0);
  Reals y;
  for (const Int row : o.integers(1))
    for (std::size_t j = 0; j < d; ++j)
      y.push_back((window[static_cast<std::size_t>(row) * d + j] - shift) * scale);
  return {expect(y)};
}

std::vector<Expected> split(const Operands& o) {
  const std::size_t width = o.dim(0, 1);
  const Reals x = o.real(0);
  std::vector<Expected> parts;
  std::size_t begin = 0;
  const CaseGraph g = case_graph(o.c);
  for (const Value output : g.outputs) {
    const std::size_t columns = static_cast<std::size_t>(g.graph[output].shape[1]);
    Reals part;
    for (std::size_t b = 0; b < o.dim(0, 0); ++b)
      for (std::size_t j = 0; j < columns; ++j) part.push_back(x[b * width + begin + j]);
    parts.push_back(expect(part));
    begin += columns;
  }
  return parts;
}

std::vector<Expected> concat(const Operands& o) {
  Reals y;
  for (std::size_t b = 0; b < o.dim(0, 0); ++b)
    for (std::size_t i = 0; i < o.c.inputs.size(); ++i) {
      const Reals part = o.real(i);
      for (std::size_t j = 0; j < o.dim(i, 1); ++j) y.push_back(part[b * o.dim(i, 1) + j]);
    }
  return {expect(y)};
}

std::vector<Expected> sample_kl(const Operands& o, const Reals& heads, std::size_t d,
                                std::size_t clock) {
  const std::size_t batch = o.dim(0, 0);
  Reals mean, logvar;
  for (std::size_t b = 0; b < batch; ++b)
    for (std::size_t j = 0; j < d; ++j) {
      mean.push_back(heads[b * 2 * d + j]);
      logvar.push_back(bounded(heads[b * 2 * d + d + j]));
    }
  const Reals eps = draws(o, clock, clock + 1, batch, d);
  return {expect(mean), expect(logvar), expect(sampled(mean, logvar, eps)), expect(eps),
          expect(kl_rows(mean, logvar, batch))};
}

// linear_sample_kl, and y = f(z w^T + b)
std::vector<Expected> linear_bottleneck(const Operands& o) {
  auto outputs = sample_kl(o, linear(o), o.dim(1, 0) / 2, 5);
  const std::size_t batch = o.dim(0, 0), out = o.dim(3, 0), d = o.dim(3, 1);
  const Reals z = outputs[2].real, w = o.factor(3), bias = o.real(4);
  Reals pre = times(rounded(z, o.rounding), w, batch, d, out);
  for (std::size_t i = 0; i < pre.size(); ++i) pre[i] += bias[i % out];
  Reals y(pre.size());
  for (std::size_t i = 0; i < y.size(); ++i)
    y[i] = plain_activation(activation_of(o.c.attrs), pre[i]);
  outputs.push_back(expect(y));
  if (o.c.attrs.integer("save_input", 0) != 0) outputs.push_back(expect(pre));
  for (std::size_t i = 5; i < outputs.size(); ++i) outputs[i].slack = slack_of(z, w, o.rounding);
  return outputs;
}

// The heads' gradient [B, 2 d].
Reals heads_gradient(const Reals& dz, const Reals& eps, const Reals& mean, const Reals& lv,
                     const Reals& dkl, std::size_t d) {
  Reals heads(2 * dz.size());
  for (std::size_t i = 0; i < dz.size(); ++i) {
    const std::size_t b = i / d, at = b * 2 * d + i % d;
    heads[at] = dz[i] + dkl[b] * mean[i];
    const double dlv =
        dz[i] * eps[i] * 0.5 * std::exp(lv[i] / 2) + dkl[b] * 0.5 * std::expm1(lv[i]);
    heads[at + d] = dlv * plain_activation_grad({ActivationKind::bound_logvar, 0}, lv[i]);
  }
  return heads;
}

template <class F>
std::vector<Expected> map(const Reals& a, F f) {
  Reals y(a.size());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = f(i);
  return {expect(y)};
}

}  // namespace

double plain_activation(Activation f, double x) {
  switch (f.kind) {
    case ActivationKind::relu: return x > 0 ? x : 0;
    case ActivationKind::leaky_relu: return x > 0 ? x : f.alpha * x;
    case ActivationKind::elu: return x > 0 ? x : f.alpha * std::expm1(x);
    case ActivationKind::gelu: return x * 0.5 * std::erfc(-x / std::numbers::sqrt2);
    case ActivationKind::silu: return x * sigmoid(x);
    case ActivationKind::tanh: return std::tanh(x);
    case ActivationKind::sigmoid: return sigmoid(x);
    case ActivationKind::softplus: return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    case ActivationKind::bound_logvar: return bounded(x);
  }
  throw std::logic_error("no such activation");
}

double round_to_tf32(double x) {
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);  // 0.1xxx: 11 bits of it stay
  return std::ldexp(std::round(std::ldexp(fraction, 11)), exponent - 11);
}

double round_to_bf16(double x) {
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);
}

std::vector<Expected> reference(const Case& c, const std::vector<Tensor>& inputs,
                                Rounding rounding) {
  const Operands o{c, inputs, rounding};
  const std::string& op = c.op;
  const Attrs& a = c.attrs;
  if (auto expected = batch_reference(c, inputs); !expected.empty()) return expected;
  if (op == "batch_index") return batch_index(o);
  if (op == "gather") return gather(o);
  if (op == "linear") return {expect(linear(o))};
  if (op == "linear_dgrad") return {expect(dgrad(o))};
  if (op == "linear_wgrad") {
    const auto [dw, db] = wgrad(o);
    if (a.integer("bias", 0) == 0) return {expect(dw)};
    return {expect(dw), expect(db)};
  }
  if (op == "activation") {
    const Reals x = o.real(0);
    return map(x, [&](std::size_t i) { return plain_activation(activation_of(a), x[i]); });
  }
  if (op == "activation_grad") {
    const Reals dy = o.real(0), saved = o.real(1);
    return map(dy, [&](std::size_t i) {
      return dy[i] * plain_activation_grad(activation_of(a), saved[i]);
    });
  }
  if (op == "split") return split(o);
  if (op == "concat") return concat(o);
  if (op == "add" || op == "mul") {
    const Reals x = o.real(0), y = o.real(1);
    return map(x, [&](std::size_t i) { return op == "add" ? x[i] + y[i] : x[i] * y[i]; });
  }
  if (op == "scale") {
    const Reals x = o.real(0);
    const double h = o.has(1) ? o.real(1)[static_cast<std::size_t>(a.integer("slot"))] : 1.0;
    return map(x, [&](std::size_t i) { return x[i] * a.real("factor") * h; });
  }
  if (op == "reduce") return reduce(o);
  if (op == "broadcast") return broadcast(o);
  if (op == "fill") {
    const CaseGraph g = case_graph(c);
    const auto n = static_cast<std::size_t>(g.graph[g.outputs.front()].shape.elements());
    const double h = o.has(0) ? o.real(0)[static_cast<std::size_t>(a.integer("slot"))] : 1.0;
    return {expect(Reals(n, a.real("value") * h))};
  }
  if (op == "detach") return {expect(o.real(0))};
  if (op == "log_count") {
    Reals y = o.real(0);
    for (double& x : y) x = std::log(std::max(x, 1.0));
    return {expect(y)};
  }
  if (op == "sample") {
    const Reals mean = o.real(0), logvar = o.real(1);
    const Reals eps = draws(o, 2, 3, o.dim(0, 0), o.dim(0, 1));
    return {expect(sampled(mean, logvar, eps)), expect(eps)};
  }
  if (op == "sample_grad") {
    const Reals dz = o.real(0), eps = o.real(1), lv = o.real(2);
    return map(dz, [&](std::size_t i) { return dz[i] * eps[i] * 0.5 * std::exp(lv[i] / 2); });
  }
  if (op == "gaussian_kl") return {expect(kl_rows(o.real(0), o.real(1), o.dim(0, 0)))};
  if (op == "gaussian_kl_grad") {
    const Reals d = o.real(0), mean = o.real(1), lv = o.real(2);
    Reals dmean(mean.size()), dlv(mean.size());
    for (std::size_t i = 0; i < mean.size(); ++i) {
      const double row = d[i / o.dim(1, 1)];
      dmean[i] = row * mean[i];
      dlv[i] = row * 0.5 * std::expm1(lv[i]);
    }
    return {expect(dmean), expect(dlv)};
  }
  if (op == "bernoulli_nll" || op == "gaussian_nll")
    return {constant_rows(nll_rows(op.substr(0, op.find('_')), a.real("sigma", 1.0), o.real(0),
                                   o.real(1), o.dim(0, 0)),
                          1)};
  if (op == "bernoulli_nll_grad" || op == "gaussian_nll_grad")
    return {expect(nll_grad(op.substr(0, op.find('_')), a.real("sigma", 1.0), o.real(0), o.real(1),
                            o.real(2)))};
  if (op == "adam") {
    auto outputs = adam(o, 0, o.real(3), 4);
    if (o.c.inputs.size() > 7)
      outputs.push_back(o.integers(6)[0] != 0 ? outputs[0] : expect(o.real(7)));
    return outputs;
  }
  if (op_def(op).update != nullptr) return optimizer(o);
  if (op == "add_penalty") {
    const Reals g = o.real(0), w = o.real(1);
    const double l1 = a.real("l1", 0), l2 = a.real("l2", 0);
    return map(g, [&](std::size_t i) {
      return g[i] + l2 * w[i] + (w[i] > 0 ? l1 : w[i] < 0 ? -l1 : 0);
    });
  }
  if (op == "clip_norm") return clip_norm(o);
  if (op == "scale_by") {
    const Reals x = o.real(0);
    return map(x, [&](std::size_t i) { return x[i] * o.real(1)[0]; });
  }
  if (op == "weight_ema") return weight_ema(o);
  if (op == "linear_activation") {
    const Reals pre = linear(o);
    auto outputs =
        map(pre, [&](std::size_t i) { return plain_activation(activation_of(a), pre[i]); });
    if (a.integer("save_input", 0) != 0) outputs.push_back(expect(pre));
    return outputs;
  }
  if (op == "linear_sample_kl") return sample_kl(o, linear(o), o.dim(1, 0) / 2, 3);
  if (op == "linear_bottleneck") return linear_bottleneck(o);
  if (op == "linear_nll") {
    const Reals l = linear(o), x = o.real(3);
    const std::string& likelihood = a.text("likelihood");
    return {constant_rows(nll_rows(likelihood, a.real("sigma", 1.0), l, x, o.dim(0, 0)), 1),
            expect(nll_grad(likelihood, a.real("sigma", 1.0), o.real(4), l, x))};
  }
  if (op == "layer_pair") {
    const std::size_t batch = o.dim(0, 0), in = o.dim(0, 1), hidden = o.dim(1, 0),
                      out = o.dim(2, 0);
    const Reals x = o.real(0), w1 = o.real(1), w2 = o.real(2), b1 = o.real(3), b2 = o.real(4);
    Attrs last;
    if (a.has("out_kind")) last.set("kind", a.text("out_kind"));
    if (a.has("out_alpha")) last.set("alpha", a.real("out_alpha"));
    Reals y(batch * out);
    double most = 1;
    for (std::size_t b = 0; b < batch; ++b) {
      Reals h(hidden);
      for (std::size_t j = 0; j < hidden; ++j) {
        double sum = b1[j];
        for (std::size_t k = 0; k < in; ++k) sum += x[b * in + k] * w1[j * in + k];
        h[j] = plain_activation(activation_of(a), sum);
      }
      for (std::size_t i = 0; i < out; ++i) {
        double sum = b2[i], squares = 1;
        for (std::size_t j = 0; j < hidden; ++j) {
          sum += h[j] * w2[i * hidden + j];
          squares += std::pow(h[j] * w2[i * hidden + j], 2);
        }
        most = std::max(most, std::sqrt(squares));  // of the sums, however they cancel
        y[b * out + i] = a.has("out_kind") ? plain_activation(activation_of(last), sum) : sum;
      }
    }
    Expected e = expect(std::move(y));
    e.scale = std::max(e.scale, most);
    return {e};
  }
  if (op == "nll_with_grad") {
    const Reals l = o.real(0), x = o.real(1);
    const std::string& likelihood = a.text("likelihood");
    return {constant_rows(nll_rows(likelihood, a.real("sigma", 1.0), l, x, o.dim(0, 0)), 1),
            expect(nll_grad(likelihood, a.real("sigma", 1.0), o.real(2), l, x))};
  }
  if (op == "sample_kl") return sample_kl(o, o.real(0), o.dim(0, 1) / 2, 1);
  if (op == "sample_kl_grad")
    return {
        expect(heads_gradient(o.real(0), o.real(1), o.real(2), o.real(3), o.real(4), o.dim(0, 1)))};
  if (op == "linear_dgrad_activation") {
    const Reals dy = dgrad(o), saved = o.real(2);
    auto outputs = map(dy, [&](std::size_t i) {
      return dy[i] * plain_activation_grad(activation_of(a), saved[i]);
    });
    if (a.integer("bias", 0) == 0) return outputs;
    Reals sums(o.dim(1, 1));
    for (std::size_t i = 0; i < dy.size(); ++i)
      sums[i % sums.size()] += dy[i] * plain_activation_grad(activation_of(a), saved[i]);
    outputs.push_back(expect(sums));
    return outputs;
  }
  const auto heads_of = [&] {
    return heads_gradient(dgrad(o), o.real(2), o.real(3), o.real(4), o.real(5), o.dim(1, 1));
  };
  if (op == "linear_dgrad_sample_kl") return {expect(heads_of())};
  if (op == "linear_dgrad_bottleneck") {
    const Reals heads = heads_of(), w = o.factor(6), saved = o.real(7);
    const Reals dx =
        times_untransposed(rounded(heads, o.rounding), w, o.dim(0, 0), o.dim(6, 0), o.dim(6, 1));
    auto outputs = map(dx, [&](std::size_t i) {
      return dx[i] * plain_activation_grad(activation_of(a), saved[i]);
    });
    outputs[0].slack = slack_of(heads, w, o.rounding);
    outputs.insert(outputs.begin(), expect(heads));
    return outputs;
  }
  if (op.starts_with("linear_gather_")) {
    // The batch on its own, and the operator that reads it as a matrix.
    const Reals x = gather(o)[0].real;
    Tensor batch(DType::f64, Shape{o.shape(1)[0], o.shape(0)[1]});
    for (std::size_t i = 0; i < x.size(); ++i)
      batch.as<double>()[i] = rounding != nullptr ? static_cast<float>(x[i]) : x[i];
    Case plain = c;
    plain.op = "linear_" + op.substr(14);
    if (plain.op == "linear_activation" && !a.has("kind")) plain.op = "linear";
    const std::ptrdiff_t slot = op.ends_with("nll") ? 3 : (op.ends_with("adam") ? 1 : 0);
    plain.inputs.erase(plain.inputs.begin(), plain.inputs.begin() + 2);
    plain.inputs.insert(plain.inputs.begin() + slot, {.shape = batch.shape()});
    std::vector<Tensor> tensors(inputs.begin() + 2, inputs.end());
    tensors.insert(tensors.begin() + slot, batch);
    return reference(plain, tensors, rounding);
  }
  if (op == "linear_wgrad_adam") {
    const auto [dw, db] = wgrad(o);
    auto outputs = adam(o, 2, dw, 8);
    if (o.has(5))
      for (Expected& e : adam(o, 5, db, 8)) outputs.push_back(std::move(e));
    return outputs;
  }
  if (op == "elbo") {
    const Reals nll = o.real(0), kl = o.real(1);
    const double beta =
        a.real("factor", 1.0) * o.real(2)[static_cast<std::size_t>(a.integer("slot"))];
    double means[2] = {0, 0};
    for (std::size_t i = 0; i < nll.size(); ++i) {
      means[0] += nll[i] / static_cast<double>(nll.size());
      means[1] += kl[i] / static_cast<double>(nll.size());
    }
    return {expect({means[0]}), expect({means[1]}), expect({means[0] + beta * means[1]})};
  }
  if (auto images = image_reference(c, inputs, rounding); !images.empty()) return images;
  if (auto expected = likelihood_reference(c, inputs); !expected.empty()) return expected;
  if (auto expected = density_reference(c, inputs); !expected.empty()) return expected;
  throw std::logic_error("no reference for " + op);
}

}  // namespace cuvae::testing
