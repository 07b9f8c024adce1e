#pragma once
// How rounding goes through the layers of images: convolutions, pools, norms, dropout.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cuvae/graph.h"

namespace cuvae {

// What a rule reads and writes, all in double: values, standard deviations of errors (the inputs'
// are known, the outputs' are all zero), the rounding of a sum of n terms relative to their
// magnitudes, of one operation, and how far draws of the normal distribution may differ.
struct ErrorContext {
  const Graph& graph;
  std::function<std::span<const double>(Value)> value;
  std::function<std::vector<double>&(Value)> error;
  std::function<double(std::int64_t)> sum;
  double unit = 0;
  double normals = 0;
};

// False for an operator of another family.
bool image_error_bound(const ErrorContext& context, const Node& node);

}  // namespace cuvae
