#include "support/source_path.h"

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

namespace cuvae::test {

namespace fs = std::filesystem;

std::string source_path(const std::string& relative) {
  const char* given = std::getenv("CUVAE_TEST_SOURCE");
  const fs::path path = fs::path(given != nullptr ? given : CUVAE_SOURCE_DIR) / relative;
  std::error_code error;
  if (!fs::exists(path, error)) {
    throw std::runtime_error("the tests need " + path.string() +
                             ": set CUVAE_TEST_SOURCE to a copy of the source tree");
  }
  return path.string();
}

std::string cuvae_path(const std::string& built) {
  if (const char* given = std::getenv("CUVAE_TEST_EXECUTABLE"); given != nullptr) return given;
  std::error_code error;
  if (fs::exists(built, error)) return built;
  const fs::path beside = fs::read_symlink("/proc/self/exe", error).parent_path() / "cuvae";
  if (fs::exists(beside, error)) return beside.string();
  throw std::runtime_error("the tests need the program: set CUVAE_TEST_EXECUTABLE to `cuvae`");
}

}  // namespace cuvae::test
