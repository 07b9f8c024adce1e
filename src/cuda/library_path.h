#pragma once
// Where a library that is opened at run time may lie.

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace cuvae::cuda {

// What to try for `name` ("libcublasLt.so.13"), in this order: CUVAE_CUDA_PATH (the folder itself,
// its lib64 and lib), the loader's own path (the bare name), the toolkit (CUDA_HOME, CUDA_PATH and
// its usual place), and the wheels of the Python environment that is active. `variable` gives an
// environment variable's text or an empty one. Folders that do not hold the file are left out.
[[nodiscard]] std::vector<std::string> library_candidates(
    std::string_view name, const std::function<std::string(const char*)>& variable);

}  // namespace cuvae::cuda
