#include <fmt/format.h>

#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/options.h"
#include "cuvae/run.h"
#include "io/file.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string run;
  std::string data;
  std::string split = "test";
  std::string out;
};

int score(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  require_given(options.out, "--out", "the file to write, --out S.csv");
  (void)output_format(options.out, {OutputFormat::csv});
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device);
  announce_device(how, *device, output);
  const auto data = run.load_data(options.data);
  const RowScores scores = run.score(select_split(*data, options.split));
  std::string csv = "index,neg_elbo,reconstruction,kl\n";
  for (std::size_t i = 0; i < scores.kl.size(); ++i) {
    csv += fmt::format("{},{:.9g},{:.9g},{:.9g}\n", i, scores.reconstruction[i] + scores.kl[i],
                       scores.reconstruction[i], scores.kl[i]);
  }
  write_file(options.out, csv);
  output.text(fmt::format("{} scores: {}", scores.kl.size(), options.out));
  output.object({{"run", options.run},
                 {"split", options.split},
                 {"samples", scores.kl.size()},
                 {"out", options.out}});
  return 0;
}

}  // namespace

Command score_command() {
  return {"score", "scores every sample, for anomaly detection",
          "cuvae score runs/mine --out scores.csv\n"
          "cuvae score runs/mine --data suspects --split test --out scores.csv",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--data", options->data, "PATH", "other data of the same size");
            flags.value("--split", options->split, "NAME", "test (default) or train");
            flags.value("--out", options->out, "FILE",
                        "S.csv: index, neg_elbo, reconstruction, kl");
            options->config.add_device(flags);
            return [options](const Output& output) { return score(*options, output); };
          }};
}

}  // namespace cuvae::cli
