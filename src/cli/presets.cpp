#include <fmt/format.h>

#include <algorithm>

#include "cli/command.h"
#include "cuvae/config.h"

namespace cuvae::cli {

Command presets_command() {
  return {"presets", "lists the presets", "cuvae presets\ncuvae train --preset mnist-mlp",
          [](Flags&) -> Run {
            return [](const Output& output) {
              Json list = Json::array();
              std::size_t width = 0;
              for (const Preset& preset : presets()) width = std::max(width, preset.name.size());
              for (const Preset& preset : presets()) {
                output.text(fmt::format("{:<{}}  {}", preset.name, width, preset.summary));
                list.push_back({{"name", preset.name}, {"summary", preset.summary}});
              }
              output.object({{"presets", list}});
              return 0;
            };
          }};
}

}  // namespace cuvae::cli
