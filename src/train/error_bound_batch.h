#pragma once
// How rounding goes through K samples of a row, terms of objectives, classes, noise and
// augmentation.

#include "train/error_bound_images.h"

namespace cuvae {

// False for an operator of another family.
bool batch_error_bound(const ErrorContext& context, const Node& node);

}  // namespace cuvae
