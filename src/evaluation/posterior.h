#pragma once
// Diagonal Gaussian posteriors of n rows.

#include <cstdint>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

struct Posterior {
  std::vector<double> mean;    // [n, d]
  std::vector<double> logvar;  // [n, d]
  std::int64_t n = 0;
  std::int64_t d = 0;

  // Error(usage) where they do not fit together.
  Posterior(const Tensor& mean_of, const Tensor& logvar_of);
};

}  // namespace cuvae
