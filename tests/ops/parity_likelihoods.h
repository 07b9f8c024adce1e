#pragma once
// The parity table's cases of likelihoods and random pixels, and what those operators mean.

#include "ops/parity_table.h"

namespace cuvae::testing {

std::vector<Case> likelihood_cases();

// Empty for an operator of another family.
std::vector<Expected> likelihood_reference(const Case& c, const std::vector<Tensor>& inputs);

}  // namespace cuvae::testing
