#pragma once

#include "ops/activation.h"

namespace cuvae::testing {

double plain_activation(Activation f, double x);

}  // namespace cuvae::testing
