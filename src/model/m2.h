#pragma once
// M2 of Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative
// models" (2014): p(x, y, z) = p(y) p(z) p(x|y, z), p(y) uniform, with q(y|x) q(z|x, y). Of a row
// with its label and of one without, the negative bounds are (their equations 6 and 7, with the
// signs changed)
//   L(x, y) = E -log p(x|y, z) + KL(q(z|x, y) || p(z)) + log C
//   U(x)    = sum_y q(y|x) (L(x, y) + log q(y|x))

#include "model/objective.h"

namespace cuvae {

// B rows with each of C classes, row b with y at b * C + y, and what that is on average.
struct EveryClass {
  Value y;                 // one-hot, [B * C, C]
  Builder::Posterior q;    // q(z|x, y), [B * C, latent]
  Value logits;            // "class_logits", [B, C]
  Value share, log_share;  // q(y|x) and its logarithm, [B, C]
  // Under q(y|x):
  Value mean, logvar;  // of q, [B, latent]; not where a bound is all that is asked for
  Value nll_rows;      // E -log p(x|y, z), [B]
  Value kl_rows;       // U less that, [B]: never negative
};

// The shares, the posteriors and their means.
[[nodiscard]] EveryClass encode_every_class(Builder& builder, const Builder::Batch& rows);
// With U by one draw of z for each row and class, keyed by both, of an evaluation's `window`.
[[nodiscard]] EveryClass build_every_class(Builder& builder, const Builder::Batch& rows,
                                           Value clock, std::int64_t window);
// sum_y q(y|x) E[x|y, z = mean of q(z|x, y)], "reconstruction" [B, D]
[[nodiscard]] Value expected_reconstruction(Builder& builder, const EveryClass& every,
                                            const Builder::Batch& rows);

// What is trained: of N rows, N_l with a label, 1/N of sum U + sum L + alpha N mean -log q(y|x),
//   (1 - N_l/N) mean U + (N_l/N) mean L + alpha mean -log q(y|x)
// U of the step's batch, which has the rows with a label among its own; L and -log q of
// objective.labelled_batch draws among these. Reported are U's parts; `labelled_bound` and
// `classification` beside them.
[[nodiscard]] Objective build_m2(Builder& builder, const Builder::Batch& batch, Value clock,
                                 const TrainingSpec& spec);

}  // namespace cuvae
