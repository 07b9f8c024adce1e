#pragma once

#include "cuvae/config.h"

namespace cuvae {

// Whether hold_out() chooses other rows for another train.seed (or data.fold).
[[nodiscard]] bool holds_out_by_seed(const DataConfig& config);

}  // namespace cuvae
