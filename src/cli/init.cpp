#include <memory>
#include <string>

#include "cli/command.h"
#include "cuvae/config.h"

namespace cuvae::cli {

Command init_command() {
  return {"init", "prints a preset as a TOML file to edit",
          "cuvae init --preset mnist-mlp > my.toml\ncuvae train my.toml\n"
          "cuvae train my.toml --data fashion-mnist",
          [](Flags& flags) -> Run {
            auto preset = std::make_shared<std::string>("mnist-mlp");
            flags.value("--preset", *preset, "NAME", "its name; mnist-mlp where none is given");
            return [preset](const Output& output) {
              const Config config = preset_config(*preset);
              std::string toml = to_toml(config, true);
              if (!toml.empty()) toml.pop_back();  // text() ends the line
              output.text(toml);
              output.object({{"preset", *preset}, {"toml", toml + "\n"}});
              return 0;
            };
          }};
}

}  // namespace cuvae::cli
