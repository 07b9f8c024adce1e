#pragma once
// Which rows of a dataset are trained on: splits, folds and weighted draws, as functions of the
// seed, so that every run and every rank has the same ones and a checkpoint holds none of it.

#include <cstdint>
#include <span>
#include <vector>

namespace cuvae {

// Rows of a dataset, each in increasing order.
struct RowSplit {
  std::vector<std::int64_t> train;
  std::vector<std::int64_t> validation;
};

// The rows that a fraction in [0, 1) of n is: the nearest whole number, but at least one, and one
// is left, where both are possible. Throws Error(usage).
[[nodiscard]] std::int64_t validation_rows(std::int64_t n, double fraction);

// `held` of n rows for validation, by a shuffle (the last epoch's, 2^64 - 1, which no training
// reaches) of the seed. Throws Error(usage) where 0 <= held <= n is not so.
[[nodiscard]] RowSplit split_shuffled(std::uint64_t seed, std::int64_t n, std::int64_t held);
// The last `held` rows, as the IWAE code keeps the last 400 of MNIST's 60,000.
[[nodiscard]] RowSplit split_last(std::int64_t n, std::int64_t held);
// Fold `fold` of `folds`: its rows are those for validation. Each row is in one fold; of the same
// shuffle, and the first n % folds of them have a row more. Throws Error(usage) for folds < 2 or
// > n, or a fold that is not there.
[[nodiscard]] RowSplit split_fold(std::uint64_t seed, std::int64_t n, std::int64_t folds,
                                  std::int64_t fold);

// `count` / `classes` rows of each class, the first of them in a shuffle (that of the epoch 2^64 -
// 2, which no training reaches) of the seed, in increasing order: what keeps its label in a
// semi-supervised training. Throws Error(usage) where `count` is no multiple of `classes`, or a
// class, from 0 to classes - 1, has too few rows.
[[nodiscard]] std::vector<std::int64_t> labelled_rows(std::uint64_t seed,
                                                      std::span<const std::int64_t> labels,
                                                      std::int64_t classes, std::int64_t count);

// Draws with replacement, row i with probability weight_i / sum of weights: an alias table (Walker
// 1977, made as Vose 1991 does) read by counters, so that position p of an epoch is the same draw
// in every run. Probabilities are those of the weights within 2^-32 of 1 / n each.
class WeightedDraws {
 public:
  // Throws Error(usage) where a weight is negative or not finite, or all are zero.
  WeightedDraws(std::uint64_t seed, std::span<const double> weights);
  // The row at `position` of an epoch: column and threshold from random_words({seed,
  // Purpose::resampling, stream 0, step = epoch}, position). REQUIRES: 0 <= position < 2^40.
  [[nodiscard]] std::int64_t operator()(std::uint64_t epoch, std::int64_t position) const;
  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(other_.size()); }
  // The table, as the operator batch_index takes it to make the same draws on a device: for each
  // column the probability of its own row, in units of 2^-53, and the row it gives else. [rows]
  [[nodiscard]] std::span<const std::int64_t> keep() const { return keep_; }
  [[nodiscard]] std::span<const std::int64_t> other() const { return other_; }

 private:
  std::uint64_t seed_;
  std::vector<std::int64_t> keep_;
  std::vector<std::int64_t> other_;
};

// Weights under which every label that occurs is drawn as often as any other: 1 / (rows of it).
[[nodiscard]] std::vector<double> balanced_weights(std::span<const std::int64_t> labels);

}  // namespace cuvae
