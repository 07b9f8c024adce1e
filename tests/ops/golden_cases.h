#pragma once
// Operators against golden files: the cases of one file (tests/golden/README.md tells what makes
// it), each an operator with its attributes and inputs, the wanted output, and the gradients of the
// sum of the output times a cotangent.

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "ops/parity_check.h"

namespace cuvae::testing {

// A file of tests/golden.
[[nodiscard]] nlohmann::json golden_file(const std::string& name);

// Values as a tensor of `dtype`; "inf" and "-inf" stand for what JSON has not.
[[nodiscard]] Tensor golden_tensor(const Shape& shape, const nlohmann::json& values, DType dtype);

// How far a case's values may be off on a backend.
struct GoldenLimit {
  double limit = 0;
  // Of each wanted value itself, not of the largest of its tensor.
  bool sharp = false;
};

// Within the limit of the largest, of each itself, or of each one's scale where `scales` has them.
void expect_golden(const Tensor& got, const nlohmann::json& values, const GoldenLimit& how,
                   const std::string& what, const nlohmann::json* scales = nullptr);

// Runs every case on every CPU backend. A case may have `scale`, a number for each element of the
// output, of which the limit is then. Fails where there are not `cases` of them.
void check_golden_cases(
    const nlohmann::json& file, int cases,
    const std::function<GoldenLimit(const nlohmann::json& golden, const Backend& backend)>& limit);

}  // namespace cuvae::testing
