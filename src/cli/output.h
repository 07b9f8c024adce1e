#pragma once
// Where things are printed: results on standard output, as text or as one JSON object; logs,
// progress and errors on standard error.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "train/metrics_json.h"

namespace cuvae::cli {

using Json = nlohmann::ordered_json;
using cuvae::as_json;  // of Metrics and BestEvaluation

class Output {
 public:
  bool json = false;
  bool quiet = false;

  // A line of a result for people; nothing with --json.
  void text(std::string_view line) const;
  // The result for programs; nothing without --json. Adds "schema": 1 in front.
  void object(const Json& fields) const;
  // A line of the log; nothing with --quiet.
  void log(std::string_view line) const;
  // Flushes standard output; Error(failed) where it could not take everything (a full disk).
  void finish() const;
};

// A failing command's one line, "cuvae: error: ...", red on a terminal unless NO_COLOR is set.
void print_error(std::string_view message);

[[nodiscard]] bool colour_on(int fd);

}  // namespace cuvae::cli
