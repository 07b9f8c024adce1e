#pragma once
// How rounding goes through log-densities, logsumexps and kernel means (ops/densities.h).

#include "train/error_bound_images.h"

namespace cuvae {

// False for an operator of another family.
bool density_error_bound(const ErrorContext& context, const Node& node);

}  // namespace cuvae
