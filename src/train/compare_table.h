#pragma once
// A comparison as text for people.

#include <string>

#include "cuvae/compare.h"

namespace cuvae {

// One row for each tensor and plan with its worst step, then the verdict; or the rows of drift.
[[nodiscard]] std::string compare_table(const CompareReport& report);

}  // namespace cuvae
