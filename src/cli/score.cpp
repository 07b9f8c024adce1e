#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "base/text.h"
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
  std::string iw_samples;
  std::string out;
};

int score(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  require_given(options.out, "--out", "the file to write, --out S.csv");
  check_out(options.out, {OutputFormat::csv});
  const std::int64_t iw_samples =
      options.iw_samples.empty() ? 0
                                 : parse_integer(options.iw_samples, "--iw-samples", 1, 1'000'000);
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  const auto data = run.load_data(options.data);
  const DatasetSplit& split = select_split(*data, options.split);
  const RowScores scores = run.score(split);
  std::vector<double> iw;  // log-likelihoods; empty unless asked for
  if (iw_samples > 0) iw = run.log_likelihood(split, iw_samples);
  std::string csv = "index,neg_elbo,reconstruction,kl";
  csv += iw.empty() ? "\n" : ",iw\n";
  for (std::size_t i = 0; i < scores.kl.size(); ++i) {
    csv += run.model().autoencoder()  // no bound
               ? fmt::format("{},,{:.9g},", i, scores.reconstruction[i])
               : fmt::format("{},{:.9g},{:.9g},{:.9g}", i, scores.reconstruction[i] + scores.kl[i],
                             scores.reconstruction[i], scores.kl[i]);
    csv += iw.empty() ? "\n" : fmt::format(",{:.9g}\n", iw[i]);
  }
  write_file(options.out, csv);
  output.text(fmt::format("{} scores: {}", format_count(split.size()), options.out));
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
            flags.value("--split", options->split, "NAME", "test (default), train or validation");
            flags.value("--iw-samples", options->iw_samples, "K",
                        "adds iw, the log-likelihood by K importance samples");
            flags.value(
                "--out", options->out, "FILE",
                "S.csv: index, neg_elbo, reconstruction, kl (and iw), in nats; of an autoencoder "
                "neg_elbo and kl are empty");
            options->config.add_device(flags);
            return [options](const Output& output) { return score(*options, output); };
          }};
}

}  // namespace cuvae::cli
