#pragma once
// Log-densities of latents, sums of their exponentials, and kernel means: what objectives beyond
// the plain ELBO and priors beyond N(0, I) are made of.
//
//   normal_log_density(z [N, d], mean [N, d] or none, logvar [N, d] or none) -> [N]
//     sum_j log N(z_j; mean_j, exp(logvar_j)); a mean or logvar left out is 0.
//   pair_log_density(z [N, d], mean [M, d], logvar [M, d]) -> [N, M]
//     sum_j log N(z_nj; mean_mj, exp(logvar_mj)).
//   marginal_log_density(z [N, d], mean [M, d], logvar [M, d]) -> [N], and for its gradient [N, d]
//     sum_j logsumexp_m (log N(z_nj; mean_mj, exp(logvar_mj)) + w(n, m)), and those logsumexps.
//   logsumexp(x [N, M], bias [M] or none) -> [N]
//     logsumexp_m (x_nm + bias_m + w(n, m)); with `normalise` = 1 the bias goes through log_softmax
//     first. A row that is -inf throughout gives -inf, and gets the gradient 0.
//   kernel_mean(z [N, d], y [M, d]) -> [N]
//     mean_m k(z_n, y_m). Attributes: `kernel`, "rbf": exp(-|z - y|^2 / (2 h^2)), or "imq":
//     C / (C + |z - y|^2); `bandwidth`, h or C; `skip_diagonal` = 1: without m = n, divided by
//     M - 1, where N = M >= 2.
// All are differentiable in all inputs. All logarithms are natural.
//
// The weights w(n, m) of marginal_log_density and logsumexp: attributes `importance` and `dataset`
// (N_data, the number of training rows; at least M), after Chen, Li, Grosse and Duvenaud,
// "Isolating sources of disentanglement in variational autoencoders" (beta-TCVAE, 2018):
//   "none"  w = 0.
//   "mws"   minibatch weighted sampling: w = -log(N_data M).
//   "mss"   minibatch stratified sampling, of N = M >= 2 samples and their own posteriors. With
//           B = M - 1, as the authors' code has it (which writes the special values at the flat
//           places 0, M, 2 M, .. and 1, M + 1, .., not on diagonals; read in their repository):
//             m = 0   log(1 / N_data), but in row n = B - 1 log((N_data - B) / (N_data B))
//             m = 1   log((N_data - B) / (N_data B))
//             m > 1   log(1 / B)
//
// How a model uses them. Beta-TC: log q(z) = logsumexp(pair_log_density(z, mean, logvar)) and
// sum_j log q(z_j) = marginal_log_density(z, mean, logvar), both with the same importance;
// log q(z|x) = normal_log_density(z, mean, logvar); log p(z) = normal_log_density(z). A mixture:
// logsumexp(pair_log_density(z, means, logvars), logits, normalise = 1). MMD between z and draws y:
// means of kernel_mean(z, z, skip_diagonal), of kernel_mean(y, y, skip_diagonal), less twice that
// of kernel_mean(z, y).
//
// Extremes: a deviation is exp(logvar / 2), so that logvars to +-170 work in float, and
// (z - mean) / deviation is squared; what float cannot hold is -inf. An exponential that vanishes
// contributes nothing to a gradient, however large the derivative that it multiplies.

#include <cmath>

#include "base/host_device.h"
#include "ops/rules.h"

namespace cuvae {

// Attributes. All functions throw Error(usage).

enum class Importance : std::uint8_t { none, mws, mss };
struct ImportanceAttrs {
  Importance kind = Importance::none;
  std::int64_t dataset = 0;
};
ImportanceAttrs importance_of(const Attrs& attrs);

enum class PairKernel : std::uint8_t { rbf, imq };
struct KernelMeanAttrs {
  PairKernel kind = PairKernel::rbf;
  double bandwidth = 1;
  bool skip_diagonal = false;

  // What the sum over M values is multiplied with.
  [[nodiscard]] double share(std::int64_t m) const {
    return 1.0 / static_cast<double>(skip_diagonal ? m - 1 : m);
  }
};
KernelMeanAttrs kernel_mean_of(const Attrs& attrs);

// Arithmetic that the backends share.

// w(n, m) without a matrix.
template <class T>
struct ImportanceWeights {
  T usual = 0;
  T first = 0;                // m = 0
  T second = 0;               // m = 1, and m = 0 of row `odd_row`
  std::int64_t odd_row = -1;  // -1: none

  ImportanceWeights() = default;
  ImportanceWeights(const ImportanceAttrs& attrs, std::int64_t m) {
    const double data = static_cast<double>(attrs.dataset), columns = static_cast<double>(m);
    if (attrs.kind == Importance::mws)
      usual = first = second = static_cast<T>(-std::log(data * columns));
    if (attrs.kind != Importance::mss) return;
    const double b = columns - 1;
    usual = static_cast<T>(-std::log(b));
    first = static_cast<T>(-std::log(data));
    second = static_cast<T>(std::log((data - b) / (data * b)));
    odd_row = m - 2;
  }
  CUVAE_HOST_DEVICE T operator()(std::int64_t n, std::int64_t m) const {
    if (m > 1) return usual;
    return m == 1 || n == odd_row ? second : first;
  }
};

// (z - mean) / deviation, given 1 / deviation = exp(-logvar / 2).
template <class T>
CUVAE_HOST_DEVICE inline T standardised(T z, T mean, T inverse) {
  return (z - mean) * inverse;
}
// What of log N(z; mean, exp(logvar)) does not depend on z.
template <class T>
CUVAE_HOST_DEVICE inline T log_normal_constant(T logvar) {
  return T(-0.5) * (T(1.837877066409345483560659472811) + logvar);
}
template <class T>
CUVAE_HOST_DEVICE inline T log_normal(T constant, T t) {
  return constant - T(0.5) * (t * t);
}

// What is taken off before exponentials are added: the largest term, unless that is infinite.
template <class T>
CUVAE_HOST_DEVICE inline T finite_or_zero(T x) {
  return x - x == T(0) ? x : T(0);
}
// A share e^x of a sum, which is at most 1 whatever rounding says. NaN stays.
template <class T>
CUVAE_HOST_DEVICE inline T at_most_zero(T x) {
  return x > 0 ? T(0) : x;
}

// k of the squared distance, and -2 dk/d(squared distance): dk/dz = -slope (z - y).
template <class T>
struct KernelFunction {
  PairKernel kind = PairKernel::rbf;
  T width = 1;    // imq: C
  T inverse = 1;  // rbf: 1 / h

  KernelFunction() = default;
  explicit KernelFunction(const KernelMeanAttrs& attrs)
      : kind(attrs.kind),
        width(static_cast<T>(attrs.bandwidth)),
        inverse(static_cast<T>(1 / attrs.bandwidth)) {}
  CUVAE_HOST_DEVICE T value(T squared) const {
    if (kind == PairKernel::imq) return width / (width + squared);
    return std::exp(T(-0.5) * (squared * inverse * inverse));
  }
  CUVAE_HOST_DEVICE T slope(T squared) const {
    if (kind == PairKernel::imq) {
      const T k = width / (width + squared);
      return 2 * k / (width + squared);
    }
    return std::exp(T(-0.5) * (squared * inverse * inverse)) * inverse * inverse;
  }
};

}  // namespace cuvae
