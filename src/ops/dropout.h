#pragma once
// Dropout (Srivastava et al. 2014), inverted: each element is kept with probability 1 - p and then
// multiplied by 1 / (1 - p). Element i of the batch is kept where the uniform number i of (seed,
// purpose dropout, stream, step) is above p; `i` counts in the global batch, or with a key [B] from
// key[b] times the elements of a sample. The gradient is the same operator with the same stream on
// dy: the mask is drawn again, never stored. A model that evaluates leaves the node out.

#include "ops/sample.h"

namespace cuvae {

double dropout_rate(const Attrs& attrs);  // p in [0, 1); throws Error(usage)

}  // namespace cuvae
