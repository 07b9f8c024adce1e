#pragma once
// The files of examples/, as CMake embedded them.

#include <string_view>
#include <vector>

namespace cuvae::config {

struct EmbeddedPreset {
  std::string_view name;  // the file's stem
  std::string_view toml;
};

[[nodiscard]] const std::vector<EmbeddedPreset>& embedded_presets();

}  // namespace cuvae::config
