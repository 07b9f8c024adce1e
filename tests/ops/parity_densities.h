#pragma once
// The parity table's cases of log-densities, logsumexps and kernel means, and what they mean.

#include "ops/parity_table.h"

namespace cuvae::testing {

std::vector<Case> density_cases();

// Empty for an operator of another family.
std::vector<Expected> density_reference(const Case& c, const std::vector<Tensor>& inputs);

}  // namespace cuvae::testing
