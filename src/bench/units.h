#pragma once
// `cuvae-units`, the program that measures a GPU's unit costs, where it stands beside this one.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace cuvae {

// Beside the executable; empty where it is not there.
[[nodiscard]] std::filesystem::path find_units();

// Runs a program, handing on each line of its standard output as it comes. Error(device) where it
// ends with status 4 (no GPU), Error(failed) for another one, both with its last words.
void run_units(const std::vector<std::string>& command,
               const std::function<void(const std::string&)>& on_line);

}  // namespace cuvae
