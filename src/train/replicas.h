#pragma once
// The folders of replicas and of folds.

#include <filesystem>
#include <string>

namespace cuvae {

struct ReplicasFolder {
  std::filesystem::path path;

  [[nodiscard]] std::filesystem::path summary() const { return path / "replicas.json"; }
  [[nodiscard]] static std::string name(std::int64_t seed) {
    return "seed-" + std::to_string(seed);
  }
  [[nodiscard]] std::filesystem::path of(std::int64_t seed) const { return path / name(seed); }
  [[nodiscard]] bool is_there() const {
    std::error_code error;
    return std::filesystem::is_regular_file(summary(), error);
  }
};

struct FoldsFolder {
  std::filesystem::path path;

  [[nodiscard]] std::filesystem::path summary() const { return path / "folds.json"; }
  [[nodiscard]] static std::string name(std::int64_t fold) {
    return "fold-" + std::to_string(fold);
  }
  [[nodiscard]] std::filesystem::path of(std::int64_t fold) const { return path / name(fold); }
  [[nodiscard]] bool is_there() const {
    std::error_code error;
    return std::filesystem::is_regular_file(summary(), error);
  }
};

}  // namespace cuvae
