#pragma once
// Measures of a model by what it says of data: importance-weighted log-likelihood with its
// effective sample size, what latents carry, and how well a score tells two kinds of rows apart.
// Computed on the host in double; the same bits on any number of threads (`threads`: 0 = all cores
// that the process may use).

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

// Importance weights w_k = p(x, z_k) / q(z_k|x) of one row, streamed as logarithms: the largest so
// far, and the sums of w and w^2 relative to it.
class ImportanceSum {
 public:
  // REQUIRES: log_weight is finite.
  void add(double log_weight) noexcept;
  // log(1/K sum_k w_k): the K-sample bound L_K on log p(x) (Burda, Grosse and Salakhutdinov,
  // "Importance Weighted Autoencoders", 2016).
  [[nodiscard]] double log_mean() const noexcept;
  // (sum w)^2 / sum w^2 = 1 / sum_k v_k^2, v = w / sum w, in [1, K] (Kong, Liu and Wong 1994): how
  // many draws of the posterior itself the K are worth. Near 1, one draw decides, and the bound is
  // far below log p(x).
  [[nodiscard]] double effective_samples() const noexcept;

 private:
  double largest_ = -std::numeric_limits<double>::infinity();
  double sum_ = 0;
  double squares_ = 0;
  std::int64_t count_ = 0;
};

// Of each row, by dataset index.
struct ImportanceRows {
  std::int64_t samples = 0;               // K
  std::vector<double> log_likelihood;     // L_K, nats
  std::vector<double> effective_samples;  // [1, K]
};

// Of figures of independent rows: mean and standard error of the mean (0 for one row), and
// quantiles (of n sorted values, number floor(q (n - 1))).
struct RowSummary {
  std::int64_t n = 0;
  double mean = 0;
  double std_error = 0;
  double minimum = 0;
  double tenth = 0;  // of ten rows, one is below it
  double median = 0;
};
[[nodiscard]] RowSummary summarise(std::span<const double> rows);

// What each latent carries, over all rows of `mean` and `logvar` (bounded), [n, latent] each. An
// autoencoder has no logvar (no rows) and no KL.
struct LatentStatistics {
  // A latent is active where its posterior mean moves with x: Var_x(E[z|x]) > 0.01, the variance
  // divided by n (Burda et al. 2016, section 5.2).
  static constexpr double active_threshold = 0.01;

  std::int64_t n = 0;            // rows
  std::vector<double> kl;        // mean over rows of KL(q(z_j|x) || N(0, 1)), nats; their sum is kl
  std::vector<double> variance;  // Var_x(E[z_j|x])
  // The share of all logvars beyond +-10, where the soft bound at +-20 holds them.
  double bounded = 0;

  [[nodiscard]] std::int64_t active() const;
  // How few latents carry that share of the KL: the largest first; 0 where there is none.
  [[nodiscard]] std::int64_t carrying(double share) const;
};
[[nodiscard]] LatentStatistics latent_statistics(const Tensor& mean, const Tensor& logvar);

// Information that z holds on which of n rows it was drawn for: I_q(x; z) of the aggregate
// posterior q(z) = 1/n sum_i q(z|x_i) (Hoffman and Johnson, "ELBO surgery", 2016). It is at most
// log n however much a latent tells, so figures with different n are not to be compared.
struct MutualInformation {
  double value = 0;     // nats, in [0, cap]
  std::int64_t n = 0;   // rows
  double cap = 0;       // log n
  bool at_cap = false;  // within 5 % of it: what all the data would give may be larger
};
struct MutualInformationOptions {
  std::int64_t rows = 2000;  // at most so many; time is rows^2 * latent
  std::uint64_t seed = 0;    // of which rows, and of z
  int threads = 0;
};
// E log q(z|x) - E log 1/n sum_i q(z|x_i), z ~ q(z|x_r) once for each row, where the expectation
// over which row z belongs to is exact: log n - H(row | z), averaged over z. That has the same mean
// as log q(z|x_r) - log q(z) at the row that z was drawn for, varies less, and lies in [0, log n]
// for every z. Rows are chosen by a shuffle of the seed. Throws Error(usage) for rows < 1 or
// matrices that do not fit together.
[[nodiscard]] MutualInformation mutual_information(const Tensor& mean, const Tensor& logvar,
                                                   const MutualInformationOptions& options = {});

// Area under the ROC curve: the probability that a positive row's score is above that of a negative
// one, ties counted half. 0.5 tells nothing; below it, the score ranks them the wrong way round,
// as a likelihood does with outliers that are simpler than the data. Throws Error(usage) where
// sizes differ or one of the kinds is missing.
[[nodiscard]] double auroc(std::span<const double> scores, const std::vector<bool>& positive);

}  // namespace cuvae
