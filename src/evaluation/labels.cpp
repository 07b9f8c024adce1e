#include "evaluation/labels.h"

#include <fmt/format.h>

#include <algorithm>

#include "cuvae/error.h"

namespace cuvae {

void require_labels(std::int64_t n, std::span<const std::int64_t> labels, std::string_view where) {
  if (static_cast<std::int64_t>(labels.size()) != n) {
    throw Error(Status::usage, fmt::format("{} labels for {} rows", labels.size(), n), where,
                "give one for each row");
  }
}

void require_same_width(std::int64_t train, std::int64_t test) {
  if (train != test) {
    throw Error(Status::usage, fmt::format("points of {} and of {} coordinates", train, test),
                "points", "give both the same");
  }
}

std::vector<std::int64_t> distinct(std::span<const std::int64_t> labels) {
  std::vector<std::int64_t> classes(labels.begin(), labels.end());
  std::ranges::sort(classes);
  classes.erase(std::unique(classes.begin(), classes.end()), classes.end());
  return classes;
}

std::vector<std::int64_t> numbered(std::span<const std::int64_t> labels,
                                   std::span<const std::int64_t> classes) {
  std::vector<std::int64_t> numbers;
  numbers.reserve(labels.size());
  for (const std::int64_t label : labels) {
    const auto at = std::ranges::lower_bound(classes, label);
    numbers.push_back(at != classes.end() && *at == label ? at - classes.begin() : -1);
  }
  return numbers;
}

}  // namespace cuvae
