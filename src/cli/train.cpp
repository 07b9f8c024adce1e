#include <fmt/format.h>

#include <limits>
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cuvae/error.h"
#include "cuvae/run.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string out;
  bool resume = false;
  bool overwrite = false;
  std::string save_every = "1";
  std::string eval_every = "1";
  std::string streams = "1";
  bool no_fuse = false;
  bool autotune = false;
};

constexpr std::int64_t most_epochs = 1'000'000'000;

Json report_as_json(const TrainReport& report) {
  Json fields = {{"run", report.run.string()},
                 {"epochs", report.epochs},
                 {"steps", report.steps},
                 {"device", report.device},
                 {"exec", report.exec},
                 {"seconds", report.seconds},
                 {"samples_per_second", report.samples_per_second},
                 {"interrupted", report.interrupted},
                 {"train", as_json(report.train)},
                 {"test", nullptr}};
  if (report.test) fields["test"] = as_json(*report.test);
  return fields;
}

void print_report(const TrainReport& report, const Output& output) {
  const auto terms = [](const Metrics& m) {
    return fmt::format("neg_elbo {:.3f} = reconstruction {:.3f} + kl {:.3f}", m.neg_elbo,
                       m.reconstruction, m.kl);
  };
  output.text(report.test
                  ? fmt::format("test {}", terms(*report.test))
                  : fmt::format("train {} (the data has no test split)", terms(report.train)));
  output.text(fmt::format("run: {}", report.run.string()));
  for (const char* picture : {"samples.png", "reconstructions.png"}) {
    std::error_code ignored;
    if (std::filesystem::exists(report.run / picture, ignored)) {
      output.text((report.run / picture).string());
    }
  }
}

int train(const Options& options, const Output& output) {
  TrainRunOptions run;
  run.out = options.out;
  run.resume = options.resume;
  run.overwrite = options.overwrite;
  if (options.resume && options.overwrite) {
    throw Error(Status::usage, "--resume and --overwrite exclude each other", "command line",
                "leave one out");
  }
  if (options.resume && options.out.empty()) {
    throw Error(Status::usage, "--resume needs a run to go on with", "command line",
                "give it with --out RUN");
  }
  run.save_every = parse_integer(options.save_every, "--save-every", 1, most_epochs);
  run.eval_every = parse_integer(options.eval_every, "--eval-every", 1, most_epochs);
  run.compile.streams = static_cast<int>(parse_integer(options.streams, "--streams", 1, 64));
  run.compile.fuse = !options.no_fuse;
  if (options.resume && !std::filesystem::exists(run.out / "config.toml")) {
    throw Error(Status::input, "there is no run to resume", run.out.string(),
                "give the folder of an earlier `cuvae train`, or leave --resume out");
  }
  Config config =
      options.config.load(options.resume ? run.out / "config.toml" : std::filesystem::path());
  if (options.autotune) config.run.autotune = true;

  Progress progress(output);
  run.on_progress = [&](const TrainProgress& p) { progress.update(p); };
  run.on_evaluation = [&](const EvaluationEvent& e) { progress.evaluated(e); };
  run.on_message = [&](const std::string& line) { progress.line(line); };
  run.stop = interrupted;
  watch_interrupts();
  const TrainReport report = train_run(config, run);
  progress.clear();
  output.object(report_as_json(report));
  if (report.interrupted) {
    output.finish();
    throw Error(Status::interrupted, "interrupted, a checkpoint is written", report.run.string(),
                fmt::format("go on with `cuvae train --resume --out {}`", report.run.string()));
  }
  print_report(report, output);
  return 0;
}

}  // namespace

Command train_command() {
  return {"train", "trains a model",
          "cuvae train\n"
          "cuvae train my.toml --epochs 50 --out runs/mine\n"
          "cuvae train --preset mnist-mlp --lr 5e-4 --set model.latent.size=16\n"
          "cuvae train --resume --out runs/mine --epochs 100",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            options->config.add(flags);
            flags.value("--out", options->out, "RUN",
                        "the run's folder; runs/<name>-<n> without it");
            flags.flag("--resume", options->resume, "go on from the last checkpoint of RUN");
            flags.flag("--overwrite", options->overwrite, "empty RUN first if it is a run");
            flags.value("--save-every", options->save_every, "N", "epochs between checkpoints");
            flags.value("--eval-every", options->eval_every, "N", "epochs between evaluations");
            flags.value("--streams", options->streams, "N", "streams of a GPU's plan");
            flags.flag("--no-fuse", options->no_fuse, "no fused operators");
            flags.flag("--autotune", options->autotune,
                       "time cuBLASLt's algorithms for wide layers on the GPU first; checkpoints "
                       "keep the choice");
            return [options](const Output& output) { return train(*options, output); };
          }};
}

}  // namespace cuvae::cli
