#pragma once
// tests/golden/evaluation.json, and matrices of it as tensors.

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cuvae/tensor.h"
#include "support/source_path.h"

namespace cuvae::test {

inline const nlohmann::json& evaluation_golden() {
  static const nlohmann::json json = [] {
    std::ifstream file(source_path("tests/golden/evaluation.json"));
    return nlohmann::json::parse(file);
  }();
  return json;
}

// [rows, columns] of f32, which hold the file's numbers exactly.
inline Tensor matrix_of(const nlohmann::json& rows) {
  const auto n = static_cast<std::int64_t>(rows.size());
  const auto d = static_cast<std::int64_t>(rows.at(0).size());
  Tensor tensor(DType::f32, Shape{n, d});
  std::size_t i = 0;
  for (const auto& row : rows)
    for (const double value : row) tensor.as<float>()[i++] = static_cast<float>(value);
  return tensor;
}

}  // namespace cuvae::test
