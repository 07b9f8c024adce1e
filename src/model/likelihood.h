#pragma once
// A model's likelihood as the heads of its decoder and the operators that read them.

#include <cstdint>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/graph.h"

namespace cuvae {

struct ModelLikelihood {
  // The decoder's last layers, one for each parameter of each pixel: "decoder.out",
  // "decoder.out_log_sigma".
  std::vector<std::string> heads;
  // One number for all pixels, the last parameter: "likelihood.log_sigma"; empty: none.
  std::string global;
  // Of nll: "bernoulli_nll", "gaussian_nll" (fused forms), "multinomial_nll", "categorical_nll", or
  // "nll".
  std::string op;
  Attrs attrs;
  bool library;  // nll and expectation have the logarithm of the row's total as their offset
  std::int64_t outputs = 1;  // of a head, for each value of the data: a categorical's classes
};

// Throws Error(usage) for a likelihood that is not there.
[[nodiscard]] ModelLikelihood model_likelihood(const LikelihoodConfig& config);

}  // namespace cuvae
