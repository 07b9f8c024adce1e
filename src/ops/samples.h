#pragma once
// K samples of each row of a batch: repeat_rows, segment_sum and row_scale.
//
// How a model uses them: x [B, D], times = K. Rows of a batch of samples stand beside one another:
// row b K + k is sample k of row b, so that random operators draw latent j of it as number
// (b K + k) d + j of the step.
//   heads = repeat_rows(mean; K), repeat_rows(logvar; K)      [B K, d]; or the target to [B K, D]
//   z = sample(heads)                                         [B K, d]
//   elbo of each sample [B K] -> segment_sum(..; K, factor = 1/K)   its mean over the samples [B]
//   row_scale(x [B, d], w [B])                                each row by its own weight
// A weight for each element of x [B] is mul(x, w).

#include "ops/rules.h"

namespace cuvae {

std::int64_t times_of(const Attrs& attrs);  // >= 1; throws Error(usage)
double factor_of(const Attrs& attrs);       // finite, 1 where not given; throws Error(usage)

}  // namespace cuvae
