#pragma once
// Operators against golden files: the cases of one file (tests/golden/README.md tells what makes
// it). A case is
//   name, op, attrs
//   inputs     each {shape, values}, or null: left out. `dtype`: i64 or u8, else it has the
//              backend's reals. `constant`: nothing is derived by it; `state`: it changes in place
//   output     {shape, values}; or `outputs`, several of them, null where one is not looked at
//   cotangent  of the first output, and `gradients`, those of sum(output * cotangent) by every
//              real input that is neither constant nor state; neither: nothing is derived
//   scale      for each element of the first output, what a limit is of

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
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
  double floor = 1;  // what the largest counts as at least
  // Fails also where 0 would pass for a wanted value that is another.
  bool told = false;
};

// Within the limit of the largest, of each itself, or of each one's scale where `scales` has them.
void expect_golden(const Tensor& got, const nlohmann::json& values, const GoldenLimit& how,
                   const std::string& what, const nlohmann::json* scales = nullptr);

// Runs every case on every CPU backend. Fails where there are not `cases` of them, `derived` of
// them with gradients.
void check_golden_cases(
    const nlohmann::json& file, int cases, int derived,
    const std::function<GoldenLimit(const nlohmann::json& golden, const Backend& backend)>& limit);

// The operators that the cases of a file compute, those of their gradients among them.
[[nodiscard]] std::set<std::string> golden_operators(const nlohmann::json& file);

}  // namespace cuvae::testing
