#pragma once
// Labels of points: checks, and classes numbered from 0.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace cuvae {

// Error(usage) unless there is one label for each of n rows.
void require_labels(std::int64_t n, std::span<const std::int64_t> labels, std::string_view where);
// Error(usage) unless the points have as many coordinates.
void require_same_width(std::int64_t train, std::int64_t test);

// The labels that occur, sorted.
[[nodiscard]] std::vector<std::int64_t> distinct(std::span<const std::int64_t> labels);
// The number of each label among `classes`; -1 where it is none of them.
[[nodiscard]] std::vector<std::int64_t> numbered(std::span<const std::int64_t> labels,
                                                 std::span<const std::int64_t> classes);

}  // namespace cuvae
