// Multinomial logistic regression by L-BFGS: Liu and Nocedal, "On the limited memory BFGS method
// for large scale optimization", 1989.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "cuvae/error.h"
#include "cuvae/probe.h"
#include "evaluation/labels.h"
#include "evaluation/parallel.h"
#include "evaluation/points.h"

namespace cuvae {
namespace {

using Reals = std::vector<double>;

constexpr std::int64_t block = 2048;
constexpr std::size_t memory = 10;

double dot(const Reals& a, const Reals& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The objective over standardised rows with a 1 behind them, [n, d + 1]; parameters [C, d + 1].
class Objective {
 public:
  Objective(const Points& points, const LinearClassifier& scaling,
            const std::vector<std::int64_t>& classes, double l2, int threads)
      : n_(points.n),
        width_(points.d + 1),
        classes_(static_cast<std::int64_t>(scaling.classes.size())),
        truth_(classes),
        l2_(l2),
        threads_(threads),
        rows_(static_cast<std::size_t>(points.n * width_)) {
    for (std::int64_t i = 0; i < n_; ++i) {
      for (std::int64_t j = 0; j < points.d; ++j) {
        const auto at = static_cast<std::size_t>(j);
        rows_[static_cast<std::size_t>(i * width_ + j)] =
            (points.row(i)[j] - scaling.mean[at]) * scaling.scale[at];
      }
      rows_[static_cast<std::size_t>(i * width_ + points.d)] = 1;
    }
  }

  [[nodiscard]] std::size_t parameters() const {
    return static_cast<std::size_t>(classes_ * width_);
  }

  double operator()(const Reals& weights, Reals& gradient) const {
    const std::int64_t blocks = blocks_of(n_, block);
    Reals losses(static_cast<std::size_t>(blocks), 0.0);
    std::vector<Reals> gradients(static_cast<std::size_t>(blocks));
    for_blocks(blocks, threads_, [&](std::int64_t which) {
      const Rows range = block_rows(n_, block, which);
      const double* x = rows_.data() + range.first * width_;
      Reals p(static_cast<std::size_t>(range.count() * classes_));  // logits, then p - truth
      multiply_doubles(false, true, range.count(), classes_, width_, x, weights.data(), false,
                       p.data());
      double loss = 0;
      for (std::int64_t i = 0; i < range.count(); ++i) {
        double* row = p.data() + i * classes_;
        const auto truth = truth_[static_cast<std::size_t>(range.first + i)];
        const double largest = *std::max_element(row, row + classes_);
        const double right = row[truth] - largest;
        double sum = 0;
        for (std::int64_t c = 0; c < classes_; ++c) sum += row[c] = std::exp(row[c] - largest);
        loss += std::log(sum) - right;
        for (std::int64_t c = 0; c < classes_; ++c) row[c] /= sum;
        row[truth] -= 1;
      }
      losses[static_cast<std::size_t>(which)] = loss;
      Reals& part = gradients[static_cast<std::size_t>(which)];
      part.resize(parameters());
      multiply_doubles(true, false, classes_, width_, range.count(), p.data(), x, false,
                       part.data());
    });
    double loss = 0;
    gradient.assign(parameters(), 0.0);
    for (std::size_t b = 0; b < losses.size(); ++b) {
      loss += losses[b];
      for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += gradients[b][i];
    }
    const auto n = static_cast<double>(n_);
    loss /= n;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      gradient[i] /= n;
      if (static_cast<std::int64_t>(i) % width_ == width_ - 1) continue;  // a bias
      loss += 0.5 * l2_ * weights[i] * weights[i];
      gradient[i] += l2_ * weights[i];
    }
    return loss;
  }

 private:
  std::int64_t n_;
  std::int64_t width_;
  std::int64_t classes_;
  const std::vector<std::int64_t>& truth_;
  double l2_;
  int threads_;
  Reals rows_;
};

double largest_of(const Reals& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// The last steps and the changes of the gradient along them.
struct Pair {
  Reals s;
  Reals y;
  double rho = 0;
};

// -H g by the two loops.
Reals direction(const Reals& gradient, const std::deque<Pair>& pairs) {
  Reals d = gradient;
  std::vector<double> alpha(pairs.size());
  const auto add = [&](double factor, const Reals& v) {
    for (std::size_t i = 0; i < d.size(); ++i) d[i] += factor * v[i];
  };
  for (std::size_t p = pairs.size(); p-- > 0;) {
    alpha[p] = pairs[p].rho * dot(pairs[p].s, d);
    add(-alpha[p], pairs[p].y);
  }
  if (!pairs.empty()) {
    const double scale = 1 / (pairs.back().rho * dot(pairs.back().y, pairs.back().y));
    for (double& value : d) value *= scale;
  }
  for (std::size_t p = 0; p < pairs.size(); ++p)
    add(alpha[p] - pairs[p].rho * dot(pairs[p].y, d), pairs[p].s);
  for (double& value : d) value = -value;
  return d;
}

void minimise(const Objective& objective, const LinearOptions& options, Reals& x,
              LinearClassifier& result) {
  Reals gradient;
  double loss = objective(x, gradient);
  std::deque<Pair> pairs;
  for (result.iterations = 0;; ++result.iterations) {
    result.loss = loss;
    result.gradient = largest_of(gradient);
    result.converged = result.gradient <= options.tolerance;
    if (result.converged || result.iterations == options.iterations) return;
    const Reals step = direction(gradient, pairs);
    const double slope = dot(step, gradient);
    // Armijo's condition by halving; the objective is convex, so that curvature is never negative.
    double length = pairs.empty() ? std::min(1.0, 1 / std::sqrt(dot(gradient, gradient))) : 1.0;
    Reals next(x.size());
    Reals next_gradient;
    double next_loss = 0;
    for (int halvings = 0;; ++halvings, length *= 0.5) {
      if (halvings == 40) return;  // rounding is all that is left
      for (std::size_t i = 0; i < x.size(); ++i) next[i] = x[i] + length * step[i];
      next_loss = objective(next, next_gradient);
      if (next_loss <= loss + 1e-4 * length * slope) break;
    }
    Pair pair;
    for (std::size_t i = 0; i < x.size(); ++i) {
      pair.s.push_back(next[i] - x[i]);
      pair.y.push_back(next_gradient[i] - gradient[i]);
    }
    const double curvature = dot(pair.s, pair.y);
    if (curvature > 1e-12 * dot(pair.y, pair.y)) {
      pair.rho = 1 / curvature;
      pairs.push_back(std::move(pair));
      if (pairs.size() > memory) pairs.pop_front();
    }
    x = std::move(next);
    gradient = std::move(next_gradient);
    loss = next_loss;
  }
}

void standardise(const Points& points, LinearClassifier& result) {
  const auto d = static_cast<std::size_t>(points.d);
  result.mean = points.mean();
  Reals variance(d, 0.0);
  for (std::int64_t i = 0; i < points.n; ++i) {
    for (std::size_t j = 0; j < d; ++j) {
      const double off = points.row(i)[j] - result.mean[j];
      variance[j] += off * off / static_cast<double>(points.n);
    }
  }
  result.scale.assign(d, 0.0);
  for (std::size_t j = 0; j < d; ++j) {
    // What rounding makes of a constant is none.
    const double size = 1e-14 * std::abs(result.mean[j]);
    const double deviation = std::sqrt(variance[j]);
    if (deviation > size) result.scale[j] = 1 / deviation;
  }
}

}  // namespace

LinearClassifier fit_linear(const LabelledPoints& train, const LinearOptions& options) {
  const Points points(train.points, "training points");
  require_labels(points.n, train.labels, "training points");
  if (points.n == 0) {
    throw Error(Status::usage, "no points", "linear classifier", "give some");
  }
  LinearClassifier result;
  result.classes = distinct(train.labels);
  result.l2 = options.l2 < 0 ? 1 / static_cast<double>(points.n) : options.l2;
  standardise(points, result);
  const std::vector<std::int64_t> truth = numbered(train.labels, result.classes);
  const Objective objective(points, result, truth, result.l2, options.threads);
  Reals x(objective.parameters(), 0.0);
  minimise(objective, options, x, result);

  const auto d = static_cast<std::size_t>(points.d);
  for (std::size_t c = 0; c < result.classes.size(); ++c) {
    double bias = x[c * (d + 1) + d];
    for (std::size_t j = 0; j < d; ++j) {
      const double weight = x[c * (d + 1) + j] * result.scale[j];
      result.weight.push_back(weight);
      bias -= weight * result.mean[j];
    }
    result.bias.push_back(bias);
  }
  return result;
}

std::vector<std::int64_t> LinearClassifier::labels(const Tensor& tensor) const {
  const Points points(tensor, "points");
  require_same_width(static_cast<std::int64_t>(mean.size()), points.d);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < points.n; ++i) {
    std::size_t best = 0;
    double highest = 0;
    for (std::size_t c = 0; c < classes.size(); ++c) {
      double logit = bias[c];
      for (std::size_t j = 0; j < mean.size(); ++j)
        logit += weight[c * mean.size() + j] * points.row(i)[j];
      if (c == 0 || logit > highest) {
        best = c;
        highest = logit;
      }
    }
    labels.push_back(classes[best]);
  }
  return labels;
}

}  // namespace cuvae
