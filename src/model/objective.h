#pragma once
// What is trained: a loss over a batch, and the gradients of it.

#include <span>
#include <vector>

#include "model/builder.h"

namespace cuvae {

// All averages over the batch, scalars.
struct Objective {
  Value loss;               // what is trained
  Value reconstruction;     // -E log p(x|z)
  Value kl;                 // of q(z|x) from the prior; 0 of an autoencoder
  std::vector<Value> more;  // further figures of it: outputs of the graph under their names

  // DReG only: the latents as the loss reads them, [B * K, latent], as the encoder gave them, and
  // the normalised weights of their K, [B * K].
  Value leaf = {};
  Value latents = {};
  Value weights = {};
};

// The batch's objective. `hyper` carries what changes with the step in column 1: the weight of the
// KL term, or the capacity. `dataset`: rows of the split.
[[nodiscard]] Objective build_objective(Builder& builder, const Builder::Batch& batch, Value clock,
                                        Value hyper, const TrainingSpec& spec);

// Of beta_tc and mmd: what the loss adds to the reconstruction, at the last weight; no value of any
// other objective. `key`: the rows' dataset indices. `dataset`: rows that beta_tc takes for those
// of the training set where objective.dataset is 0 (of an evaluation, the rows of its window).
[[nodiscard]] Value evaluated_regulariser(Builder& builder, const Builder::Posterior& q, Value z,
                                          Value clock, Value key, std::int64_t dataset,
                                          const ObjectiveConfig& objective);

// d(factor * loss)/d(weight) for each of these parameters, in order.
[[nodiscard]] std::vector<Value> objective_gradients(Builder& builder, const Objective& objective,
                                                     double factor, std::span<const Value> weights);

}  // namespace cuvae
