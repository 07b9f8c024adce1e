#pragma once

#include "ops/rules.h"

namespace cuvae {

struct AdamAttrs {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

// Throws Error(usage) for what makes no sense; the defaults are PyTorch's.
AdamAttrs adam_of(const Attrs& attrs);

}  // namespace cuvae
