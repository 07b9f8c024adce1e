#pragma once
// Whether the values of a data set are what a model's likelihood is a distribution of.

#include "cuvae/dataset.h"
#include "cuvae/model.h"

namespace cuvae {

// Counts and class numbers, in every split. Bytes are counts as they are, and scaled to [0, 1]
// levels of a categorical likelihood. Error(input) names a value that is none.
void require_targets(const Dataset& dataset, const Model& model);
// Whether all that the model reads of the split is 0 or 1.
[[nodiscard]] bool is_binary(const DatasetSplit& split, const InputSpec& input);

}  // namespace cuvae
