#include <fmt/format.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/pictures.h"
#include "cuvae/error.h"
#include "cuvae/run.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string run;
  std::string count = "64";
  std::string seed = "0";
  std::string label;
  std::string fit_prior;
  std::string components;
  std::string data;
  std::string out;
};

int sample(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  require_given(options.out, "--out", "the file to write, --out X.png or X.npy");
  check_out(options.out, {OutputFormat::png, OutputFormat::npy});
  const std::int64_t count = parse_integer(options.count, "--count", 1, 10'000'000);
  const std::int64_t seed =
      parse_integer(options.seed, "--seed", 0, std::numeric_limits<std::int64_t>::max());
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  check_picture(options.out, run.model());
  SampleOptions from;
  if (!options.label.empty()) from.label = parse_integer(options.label, "--label", 0, 255);
  std::optional<FittedPrior> prior;
  Json fitted;
  for (const auto& [flag, value] :
       {std::pair{"--components", options.components}, {"--data", options.data}}) {
    const bool means = options.fit_prior == "gmm" ||
                       (!options.fit_prior.empty() && std::string_view(flag) == "--data");
    if (!value.empty() && !means)
      throw Error(Status::usage, fmt::format("{} without what it is for", flag), flag,
                  fmt::format("add --fit-prior gmm{}, or leave it out",
                              std::string_view(flag) == "--data" ? " or gaussian" : ""));
  }
  if (!options.fit_prior.empty()) {
    const PriorFit fit{
        .kind = options.fit_prior,
        .components = static_cast<int>(parse_integer(
            options.components.empty() ? "10" : options.components, "--components", 1, 1000)),
        .seed = static_cast<std::uint64_t>(seed)};
    const auto dataset = run.load_data(options.data);
    const bool train = dataset->train.has_value();
    prior = run.fit_prior(train ? *dataset->train : *dataset->test, fit);
    from.prior = &*prior;
    fitted = {{"kind", fit.kind}, {"components", prior->components().size()}};
    output.text(fmt::format("prior: {} of {} component{}, fitted to the latents of the {} split",
                            fit.kind, prior->components().size(),
                            prior->components().size() == 1 ? "" : "s", train ? "train" : "test"));
  }
  if (from.label) note_untrained_label(run, *from.label, output);
  write_features(options.out, run.sample(count, static_cast<std::uint64_t>(seed), from),
                 run.model());
  output.text(fmt::format("{} samples: {}", format_count(count), options.out));
  output.object({{"run", options.run},
                 {"count", count},
                 {"seed", seed},
                 {"label", from.label ? Json(*from.label) : Json()},
                 {"fitted_prior", fitted},
                 {"out", options.out}});
  return 0;
}

}  // namespace

Command sample_command() {
  return {"sample", "decodes draws of the prior",
          "cuvae sample runs/mine --count 64 --out samples.png\n"
          "cuvae sample runs/mine --count 10000 --seed 7 --out samples.npy\n"
          "cuvae sample runs/conditional --label 3 --out threes.png\n"
          "cuvae sample runs/autoencoder --fit-prior gmm --out samples.png",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--count", options->count, "N", "how many; 64 without it");
            flags.value("--out", options->out, "FILE", "X.png (a grid) or X.npy");
            flags.value("--seed", options->seed, "S", "of the draws; 0 without it");
            flags.value("--label", options->label, "L",
                        "of a conditional model; without it the labels in turn");
            flags.value("--fit-prior", options->fit_prior, "KIND",
                        "draw from a gaussian or gmm fitted to the latents of the run's data");
            flags.value("--components", options->components, "N", "of a gmm; 10 without it");
            flags.value("--data", options->data, "PATH",
                        "what --fit-prior encodes; the run's own data without it");
            options->config.add_device(flags);
            return [options](const Output& output) { return sample(*options, output); };
          }};
}

}  // namespace cuvae::cli
