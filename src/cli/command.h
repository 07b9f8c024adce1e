#pragma once
// A subcommand: one file each, listed in app.cpp. setup() adds its options to the parser and
// returns what runs once they are parsed.

#include <functional>
#include <string_view>

#include "cli/flags.h"
#include "cli/output.h"

namespace cuvae::cli {

using Run = std::function<int(const Output&)>;  // returns the exit status

struct Command {
  std::string_view name;
  std::string_view summary;
  std::string_view examples;  // lines, without the indent
  std::function<Run(Flags&)> setup;
};

[[nodiscard]] Command train_command();
[[nodiscard]] Command eval_command();
[[nodiscard]] Command sample_command();
[[nodiscard]] Command reconstruct_command();
[[nodiscard]] Command encode_command();
[[nodiscard]] Command decode_command();
[[nodiscard]] Command score_command();
[[nodiscard]] Command probe_command();
[[nodiscard]] Command compare_command();
[[nodiscard]] Command bench_command();
[[nodiscard]] Command info_command();
[[nodiscard]] Command presets_command();
[[nodiscard]] Command init_command();

}  // namespace cuvae::cli
