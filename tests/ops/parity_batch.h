#pragma once
// The parity table's cases of K samples, objectives of latents, classes, noise and augmentation,
// and what those operators mean.

#include "ops/parity_table.h"

namespace cuvae::testing {

std::vector<Case> batch_cases();

// Empty for an operator of another family.
std::vector<Expected> batch_reference(const Case& c, const std::vector<Tensor>& inputs);

}  // namespace cuvae::testing
