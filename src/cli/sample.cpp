#include <fmt/format.h>

#include <limits>
#include <memory>
#include <string>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/pictures.h"
#include "cuvae/run.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string run;
  std::string count = "64";
  std::string seed = "0";
  std::string out;
};

int sample(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  require_given(options.out, "--out", "the file to write, --out X.png or X.npy");
  (void)output_format(options.out, {OutputFormat::png, OutputFormat::npy});
  const std::int64_t count = parse_integer(options.count, "--count", 1, 10'000'000);
  const std::int64_t seed =
      parse_integer(options.seed, "--seed", 0, std::numeric_limits<std::int64_t>::max());
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  write_features(options.out, run.sample(count, static_cast<std::uint64_t>(seed)), run.model());
  output.text(fmt::format("{} samples: {}", format_count(count), options.out));
  output.object({{"run", options.run}, {"count", count}, {"seed", seed}, {"out", options.out}});
  return 0;
}

}  // namespace

Command sample_command() {
  return {"sample", "decodes draws of the prior",
          "cuvae sample runs/mine --count 64 --out samples.png\n"
          "cuvae sample runs/mine --count 10000 --seed 7 --out samples.npy",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--count", options->count, "N", "how many; 64 without it");
            flags.value("--out", options->out, "FILE", "X.png (a grid) or X.npy");
            flags.value("--seed", options->seed, "S", "of the draws; 0 without it");
            options->config.add_device(flags);
            return [options](const Output& output) { return sample(*options, output); };
          }};
}

}  // namespace cuvae::cli
