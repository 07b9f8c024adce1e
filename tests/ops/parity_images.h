#pragma once
// Cases and plain meaning of the layers of images: convolutions, pools, norms, dropout. The table
// (parity_table.cpp) and the reference (reference.cpp) take them in.

#include <vector>

#include "ops/parity_table.h"

namespace cuvae::testing {

std::vector<Case> image_cases();
// Nothing for an operator of another family.
std::vector<Expected> image_reference(const Case& c, const std::vector<Tensor>& inputs,
                                      Rounding rounding);

}  // namespace cuvae::testing
