#pragma once

namespace cuvae::cli {

// The whole program: parses, runs the subcommand, prints errors; returns the exit status.
int run_cuvae(int argc, const char* const* argv);

}  // namespace cuvae::cli
