#include "cuda/library_path.h"

#include <algorithm>

namespace cuvae::cuda {
namespace {

namespace fs = std::filesystem;

// Folders in `parent` whose names begin so, sorted.
std::vector<fs::path> folders(const fs::path& parent, std::string_view beginning) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator each(parent, error), end; !error && each != end;
       each.increment(error))
    if (each->path().filename().string().starts_with(beginning)) found.push_back(each->path());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::vector<std::string> library_candidates(
    std::string_view name, const std::function<std::string(const char*)>& variable) {
  std::vector<std::string> found;
  const auto add = [&](const fs::path& folder) {
    std::error_code error;
    if (fs::is_regular_file(folder / name, error)) found.push_back((folder / name).string());
  };
  const auto toolkit = [&](const fs::path& root) {
    for (const char* folder : {"", "lib64", "lib", "targets/x86_64-linux/lib"}) add(root / folder);
  };
  if (const std::string root = variable("CUVAE_CUDA_PATH"); !root.empty()) toolkit(root);
  found.emplace_back(name);
  for (const char* each : {"CUDA_HOME", "CUDA_PATH"})
    if (const std::string root = variable(each); !root.empty()) toolkit(root);
  toolkit("/usr/local/cuda");
  for (const char* each : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const std::string root = variable(each);
    if (root.empty()) continue;
    for (const fs::path& python : folders(fs::path(root) / "lib", "python"))
      for (const fs::path& wheel : folders(python / "site-packages" / "nvidia", ""))
        add(wheel / "lib");
  }
  return found;
}

}  // namespace cuvae::cuda
