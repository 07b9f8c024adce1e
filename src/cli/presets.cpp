#include <fmt/format.h>

#include <algorithm>

#include "cli/command.h"
#include "cuvae/config.h"
#include "cuvae/dataset.h"

namespace cuvae::cli {

Command presets_command() {
  return {
      "presets", "lists the presets, and the data sources that --data can name",
      "cuvae presets\n"
      "cuvae train --preset mnist-mlp\n"
      "cuvae train --preset mnist-mlp --data fashion-mnist",
      [](Flags&) -> Run {
        return [](const Output& output) {
          Json list = Json::array();
          std::size_t width = 0;
          for (const Preset& preset : presets()) width = std::max(width, preset.name.size());
          for (const Preset& preset : presets()) {
            output.text(fmt::format("{:<{}}  {}", preset.name, width, preset.summary));
            list.push_back({{"name", preset.name}, {"summary", preset.summary}});
          }
          output.text("\ndata that need no file, and well-known ones, for --data and data.path:");
          Json sources = Json::array();
          for (const DataSource& source : data_sources()) {
            output.text(fmt::format("{}  {}", source.name, source.doc));
            Json parameters = Json::array();
            for (const DataSource::Parameter& parameter : source.parameters) {
              output.text(
                  fmt::format("  {}={}  {}", parameter.name, parameter.standard, parameter.doc));
              parameters.push_back({{"name", parameter.name},
                                    {"default", parameter.standard},
                                    {"doc", parameter.doc}});
            }
            sources.push_back(
                {{"name", source.name}, {"doc", source.doc}, {"parameters", parameters}});
          }
          output.text("as in --data \"synthetic:linear-gaussian?n=1000&seed=7\"");
          output.object({{"presets", list}, {"sources", sources}});
          return 0;
        };
      }};
}

}  // namespace cuvae::cli
