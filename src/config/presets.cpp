#include "config/presets.h"

#include "cuvae/config.h"

namespace cuvae {

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = [] {
    std::vector<Preset> made;
    for (const config::EmbeddedPreset& embedded : config::embedded_presets()) {
      std::string_view first = embedded.toml.substr(0, embedded.toml.find('\n'));
      first.remove_prefix(first.starts_with("# ") ? 2 : first.size());
      made.push_back({std::string(embedded.name), std::string(first), std::string(embedded.toml)});
    }
    return made;
  }();
  return all;
}

}  // namespace cuvae
