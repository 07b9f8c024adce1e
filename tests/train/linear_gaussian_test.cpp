// A known answer: a linear VAE with a learned sigma, trained on linear-Gaussian data, comes to the
// maximum of the likelihood that probabilistic PCA has in closed form (Tipping and Bishop,
// "Probabilistic principal component analysis", 1999).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cpu/cpu_device.h"
#include "cuvae/config.h"
#include "cuvae/run.h"
#include "likelihoods/special.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

using Vector = std::vector<double>;

// Symmetric or square, row-major.
struct Matrix {
  std::size_t n;
  Vector values;
  explicit Matrix(std::size_t size) : n(size), values(size * size) {}
  double& operator()(std::size_t i, std::size_t j) { return values[i * n + j]; }
  double operator()(std::size_t i, std::size_t j) const { return values[i * n + j]; }
};

// Eigenvalues of a symmetric matrix, largest first: cyclic Jacobi rotations.
Vector eigenvalues(Matrix a) {
  for (int sweep = 0; sweep < 50; ++sweep) {
    double off = 0;
    for (std::size_t p = 0; p < a.n; ++p)
      for (std::size_t q = p + 1; q < a.n; ++q) {
        off += a(p, q) * a(p, q);
        if (a(p, q) == 0) continue;
        const double theta = (a(q, q) - a(p, p)) / (2 * a(p, q));
        const double t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1);
        const double s = t * c;
        for (std::size_t k = 0; k < a.n; ++k) {
          const double x = a(k, p);
          const double y = a(k, q);
          a(k, p) = c * x - s * y;
          a(k, q) = s * x + c * y;
        }
        for (std::size_t k = 0; k < a.n; ++k) {
          const double x = a(p, k);
          const double y = a(q, k);
          a(p, k) = c * x - s * y;
          a(q, k) = s * x + c * y;
        }
      }
    if (off < 1e-24) break;
  }
  Vector values(a.n);
  for (std::size_t i = 0; i < a.n; ++i) values[i] = a(i, i);
  std::ranges::sort(values, std::greater<>());
  return values;
}

// Lower triangle L of a positive definite matrix, L L' = a.
Matrix cholesky(const Matrix& a) {
  Matrix l(a.n);
  for (std::size_t j = 0; j < a.n; ++j) {
    for (std::size_t i = j; i < a.n; ++i) {
      double sum = a(i, j);
      for (std::size_t k = 0; k < j; ++k) sum -= l(i, k) * l(j, k);
      l(i, j) = i == j ? std::sqrt(sum) : sum / l(j, j);
    }
  }
  return l;
}

// L y = x
Vector solve_lower(const Matrix& l, Vector x) {
  for (std::size_t i = 0; i < l.n; ++i) {
    for (std::size_t k = 0; k < i; ++k) x[i] -= l(i, k) * x[k];
    x[i] /= l(i, i);
  }
  return x;
}

double log_determinant(const Matrix& l) {  // of L L'
  double sum = 0;
  for (std::size_t i = 0; i < l.n; ++i) sum += 2 * std::log(l(i, i));
  return sum;
}

Vector row_of(const DatasetSplit& split, std::int64_t r) {
  const std::int64_t d = split.images->shape()[1];
  Vector x;
  for (std::int64_t j = 0; j < d; ++j) x.push_back(split.images->item(r * d + j));
  return x;
}

// The largest mean log-likelihood that any x ~ N(b, W W' + s^2 I) with q columns has on the rows:
// s^2 is the mean of the smallest D - q eigenvalues of the sample's covariance, W keeps the others.
double best_log_likelihood(const DatasetSplit& split, std::size_t q) {
  const auto d = static_cast<std::size_t>(split.images->shape()[1]);
  const auto n = static_cast<double>(split.size());
  Vector mean(d);
  for (std::int64_t r = 0; r < split.size(); ++r) {
    const Vector x = row_of(split, r);
    for (std::size_t j = 0; j < d; ++j) mean[j] += x[j] / n;
  }
  Matrix covariance(d);
  for (std::int64_t r = 0; r < split.size(); ++r) {
    const Vector x = row_of(split, r);
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j < d; ++j)
        covariance(i, j) += (x[i] - mean[i]) * (x[j] - mean[j]) / n;
  }
  const Vector lambda = eigenvalues(covariance);
  double noise = 0;
  double logs = 0;
  for (std::size_t i = 0; i < d; ++i) {
    if (i < q)
      logs += std::log(lambda[i]);
    else
      noise += lambda[i] / static_cast<double>(d - q);
  }
  logs += static_cast<double>(d - q) * std::log(noise);
  return -0.5 * (static_cast<double>(d) * (std::log(2 * std::numbers::pi) + 1) + logs);
}

// The trained decoder as a Gaussian of x, and its posterior of z.
class Exact {
 public:
  explicit Exact(const TensorFile& file)
      : weight_(file.at("decoder.out.weight").to(DType::f64)),
        bias_(file.at("decoder.out.bias").to(DType::f64)),
        d_(static_cast<std::size_t>(weight_.shape()[0])),
        q_(static_cast<std::size_t>(weight_.shape()[1])),
        factor_(d_),
        precision_(q_) {
    const double raw = file.at("likelihood.log_sigma").item(0);
    sigma2_ = std::exp(2 * likelihoods::soft_floor(raw, -6.0).value);
    Matrix covariance(d_);
    for (std::size_t i = 0; i < d_; ++i)
      for (std::size_t j = 0; j < d_; ++j) {
        covariance(i, j) = i == j ? sigma2_ : 0;
        for (std::size_t k = 0; k < q_; ++k) covariance(i, j) += w(i, k) * w(j, k);
      }
    factor_ = cholesky(covariance);
    for (std::size_t a = 0; a < q_; ++a)
      for (std::size_t b = 0; b < q_; ++b) {
        precision_(a, b) = a == b ? 1 : 0;
        for (std::size_t i = 0; i < d_; ++i) precision_(a, b) += w(i, a) * w(i, b) / sigma2_;
      }
  }

  [[nodiscard]] double log_likelihood(const Vector& x) const {
    Vector off(d_);
    for (std::size_t j = 0; j < d_; ++j) off[j] = x[j] - bias_.as<double>()[j];
    const Vector y = solve_lower(factor_, off);
    double squares = 0;
    for (const double v : y) squares += v * v;
    return -0.5 * (static_cast<double>(d_) * std::log(2 * std::numbers::pi) +
                   log_determinant(factor_) + squares);
  }

  // KL(N(mean, diag(e^logvar)) || p(z|x)), where p(z|x) = N(P^-1 W'(x - b)/s^2, P^-1), P = I +
  // W'W/s^2.
  [[nodiscard]] double gap(const Vector& x, std::span<const float> mean,
                           std::span<const float> logvar) const {
    Vector right(q_);
    for (std::size_t k = 0; k < q_; ++k)
      for (std::size_t j = 0; j < d_; ++j)
        right[k] += w(j, k) * (x[j] - bias_.as<double>()[j]) / sigma2_;
    // With P = L L' and m the posterior's mean, L'(mean - m) = L' mean - L^-1 right.
    const Matrix l = cholesky(precision_);
    const Vector shifted = solve_lower(l, right);
    double sum = -log_determinant(l) - static_cast<double>(q_);
    for (std::size_t k = 0; k < q_; ++k) {
      double along = -shifted[k];
      for (std::size_t i = k; i < q_; ++i) along += l(i, k) * mean[i];
      sum += along * along + precision_(k, k) * std::exp(double{logvar[k]}) - double{logvar[k]};
    }
    return 0.5 * sum;
  }

 private:
  [[nodiscard]] double w(std::size_t j, std::size_t k) const {
    return weight_.as<double>()[j * q_ + k];
  }
  Tensor weight_;
  Tensor bias_;
  std::size_t d_;
  std::size_t q_;
  double sigma2_ = 0;
  Matrix factor_;
  Matrix precision_;
};

struct Mean {
  double value = 0;
  double error = 0;  // standard error
};
Mean mean_of(const Vector& values) {
  const auto n = static_cast<double>(values.size());
  Mean mean;
  for (const double v : values) mean.value += v / n;
  double squares = 0;
  for (const double v : values) squares += (v - mean.value) * (v - mean.value);
  mean.error = std::sqrt(squares / (n - 1) / n);
  return mean;
}

TEST(LinearGaussianVae, TrainsToTheMaximumOfTheLikelihood) {
  Config config = preset_config("linear-gaussian");
  ASSERT_TRUE(config.model.encoder.layers.empty() && config.model.decoder.layers.empty());
  ASSERT_EQ(config.train.epochs, 160);
  config.run.device = "cpu";
  config.run.threads = 1;
  const test::TemporaryFolder folder;
  TrainRunOptions options;
  options.out = folder / "run";
  options.eval_every = 160;
  options.save_every = 160;
  train_run(config, options);

  const auto data = std::make_shared<const Dataset>(load_dataset(config.data.path));
  const DatasetSplit& split = *data->train;
  const double best = best_log_likelihood(split, 4);
  TensorFile file = read_safetensors(folder / "run" / "model.safetensors");
  const Exact exact(file);
  Vector likelihoods;
  for (std::int64_t r = 0; r < split.size(); ++r)
    likelihoods.push_back(exact.log_likelihood(row_of(split, r)));
  const double reached = mean_of(likelihoods).value;
  EXPECT_LE(reached, best + 1e-6);  // nothing is better than the maximum
  EXPECT_GE(reached, best - 0.01);
  RecordProperty("best", std::to_string(best));
  RecordProperty("reached", std::to_string(reached));

  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder / "run", *device);
  // Of 64 latent samples: one alone has a standard error of 0.02.
  const double neg_elbo = run.evaluate(split, {.z_samples = 64}).metrics.neg_elbo;
  EXPECT_NEAR(-neg_elbo, reached, 0.01);
  EXPECT_NEAR(-neg_elbo, best, 0.01);
  RecordProperty("neg_elbo", std::to_string(neg_elbo));

  // q with e times the variance: the same p(x), and a looser bound, which importance weighting
  // tightens again (Burda et al. 2016, theorem 1).
  for (NamedTensor& named : file.tensors)
    if (named.name == "encoder.logvar.bias")
      for (float& bias : named.tensor.as<float>()) bias += 1;
  std::filesystem::create_directory(folder / "wide");
  write_safetensors(folder / "wide" / "model.safetensors", file);
  LoadedRun wide(folder / "wide" / "model.safetensors", *device);
  std::vector<Vector> bounds;
  for (const std::int64_t k : {1, 10, 100}) bounds.push_back(wide.log_likelihood(split, k));
  const Mean one = mean_of(bounds[0]);
  const Mean ten = mean_of(bounds[1]);
  const Mean hundred = mean_of(bounds[2]);
  Vector more;
  Vector over;
  Vector gaps;
  Vector error;
  const auto encoding = wide.encode(split);
  const std::size_t latent = 4;
  for (std::size_t r = 0; r < likelihoods.size(); ++r) {
    more.push_back(bounds[2][r] - bounds[1][r]);
    over.push_back(bounds[2][r] - likelihoods[r]);
    gaps.push_back(exact.gap(row_of(split, static_cast<std::int64_t>(r)),
                             encoding.mean.as<float>().subspan(r * latent, latent),
                             encoding.logvar.as<float>().subspan(r * latent, latent)));
    error.push_back(likelihoods[r] - bounds[0][r] - gaps.back());
  }
  EXPECT_LT(one.value, ten.value);
  EXPECT_LT(ten.value, hundred.value);
  EXPECT_GT(mean_of(more).value, 3 * mean_of(more).error);
  EXPECT_LE(mean_of(over).value, 3 * mean_of(over).error);
  EXPECT_NEAR(mean_of(error).value, 0, 3 * mean_of(error).error);
  // (e - 1 - 1) / 2 for each latent, where the trained q is the posterior itself.
  EXPECT_NEAR(mean_of(gaps).value, 2 * (std::numbers::e - 2), 0.02);
  RecordProperty("L1", std::to_string(one.value));
  RecordProperty("L10", std::to_string(ten.value));
  RecordProperty("L100", std::to_string(hundred.value));
  RecordProperty("gap", std::to_string(mean_of(gaps).value));
}

}  // namespace
}  // namespace cuvae
