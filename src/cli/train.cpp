#include <fmt/format.h>

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

constexpr const char* no_replicas = "none given";  // an empty value is a mistake

struct Options {
  ConfigFlags config;
  std::string out;
  bool resume = false;
  bool overwrite = false;
  std::string save_every = "1";
  std::string eval_every = "1";
  std::string streams = "0";
  std::string replicas = no_replicas;
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
                 {"total_seconds", report.total_seconds},
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

std::string with_sd(const MetricsSpread& spread, double Metrics::*term) {
  std::string text = fmt::format("{:.3f}", spread.mean.*term);
  if (spread.replicas > 1) text += fmt::format(" +- {:.3f}", spread.sd.*term);
  return text;
}

void print_replicas(const ReplicasReport& report, const Output& output) {
  const char* split = report.test ? "test" : "train";
  output.text(fmt::format("{:>8}  {:>10}  {:>14}  {:>8}  {}", "seed", "neg_elbo", "reconstruction",
                          "kl", "run"));
  for (const ReplicaReport& replica : report.replicas) {
    if (!replica.diverged.empty()) {
      output.text(fmt::format("{:>8}  diverged: {}", replica.seed, replica.diverged));
      continue;
    }
    const Metrics& m = replica.report.test ? *replica.report.test : replica.report.train;
    output.text(fmt::format("{:>8}  {:>10.3f}  {:>14.3f}  {:>8.3f}  {}", replica.seed, m.neg_elbo,
                            m.reconstruction, m.kl, replica.report.run.string()));
  }
  const auto& spread = report.test ? report.test : report.train;
  if (spread) {
    output.text(
        fmt::format("{} neg_elbo {} = reconstruction {} + kl {} ({})", split,
                    with_sd(*spread, &Metrics::neg_elbo),
                    with_sd(*spread, &Metrics::reconstruction), with_sd(*spread, &Metrics::kl),
                    spread->replicas > 1
                        ? fmt::format("mean +- standard deviation of {} seeds", spread->replicas)
                        : "one seed"));
  }
  output.text(fmt::format("run: {}", report.run.string()));
}

int train_several(const Config& config, std::int64_t replicas, const TrainRunOptions& run,
                  Progress& progress, const Output& output) {
  ask_for_queues(replicas);
  watch_interrupts();
  const ReplicasReport report = train_replicas(config, replicas, run);
  progress.clear();
  Json fields = {{"run", report.run.string()}};
  fields.update(Json::parse(replicas_json(report)));
  output.object(fields);
  if (report.interrupted) {
    output.finish();
    throw Error(Status::interrupted, "interrupted, checkpoints are written", report.run.string(),
                fmt::format("go on with `cuvae train --resume --replicas {} --out {}`", replicas,
                            report.run.string()));
  }
  print_replicas(report, output);
  std::string diverged;
  std::int64_t count = 0;
  for (const ReplicaReport& replica : report.replicas) {
    if (replica.diverged.empty()) continue;
    diverged += fmt::format("{}{}", count++ == 0 ? "" : ", ", replica.seed);
  }
  if (count > 0) {
    output.finish();
    throw Error(Status::diverged,
                fmt::format("{} of {} replicas diverged: seed {}", count, replicas, diverged),
                report.run.string(), fmt::format("lower train.lr (now {})", config.train.lr));
  }
  return 0;
}

Config config_of(const Options& options, const std::filesystem::path& file = {}) {
  Config config = options.config.load(file);
  if (options.autotune) config.run.autotune = true;
  return config;
}

// To resume, the run's own configuration stands in for one that the user does not name.
Config replicas_config(const Options& options, const ReplicasSummary& before) {
  for (const ReplicasSummary::Replica& replica : before.replicas) {
    const std::filesystem::path file = replica.folder / "config.toml";
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored)) continue;
    Config config = config_of(options, file);
    if (!options.config.has_source() && config.train.seed == replica.seed) {
      config.train.seed = before.seed;
    }
    return config;
  }
  throw Error(Status::input, "the folder has lost its replicas", options.out,
              "put their folders back, or start anew with --overwrite");
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
  run.compile.streams = static_cast<int>(parse_integer(options.streams, "--streams", 0, 64));
  run.compile.fuse = !options.no_fuse;
  std::int64_t replicas = 0;  // 0: one run, in a folder of its own
  if (options.replicas != no_replicas) {
    replicas = parse_integer(options.replicas, "--replicas", 1, most_replicas);
  }
  Progress progress(output);
  run.on_progress = [&](const TrainProgress& p) { progress.update(p); };
  run.on_evaluation = [&](const EvaluationEvent& e) { progress.evaluated(e); };
  run.on_message = [&](const std::string& line) { progress.line(line); };
  run.stop = interrupted;
  if (options.resume) {
    if (const auto before = read_replicas(run.out)) {
      if (replicas == 0) replicas = static_cast<std::int64_t>(before->replicas.size());
      return train_several(replicas_config(options, *before), replicas, run, progress, output);
    }
  }
  if (replicas > 0 && !options.resume) {
    return train_several(config_of(options), replicas, run, progress, output);
  }
  if (replicas > 0) {
    throw Error(Status::usage, "no folder of replicas", run.out.string(),
                "leave --replicas out to resume a run by itself");
  }
  if (options.resume && !std::filesystem::exists(run.out / "config.toml")) {
    throw Error(Status::input, "there is no run to resume", run.out.string(),
                "give the folder of an earlier `cuvae train`, or leave --resume out");
  }
  const Config config =
      config_of(options, options.resume ? run.out / "config.toml" : std::filesystem::path());

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
          "cuvae train --resume --out runs/mine --epochs 100\n"
          "cuvae train --replicas 8 --out runs/eight",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            options->config.add(flags);
            flags.value("--out", options->out, "RUN",
                        "the run's folder; runs/<name>-<n> without it");
            flags.flag("--resume", options->resume, "go on from the last checkpoint of RUN");
            flags.flag("--overwrite", options->overwrite,
                       "replace what RUN holds if it is a run (with --replicas: replicas)");
            flags.value("--save-every", options->save_every, "N", "epochs between checkpoints");
            flags.value("--eval-every", options->eval_every, "N", "epochs between evaluations");
            flags.value("--replicas", options->replicas, "K",
                        "train K seeds side by side, from --seed on, into RUN/seed-<s>/; "
                        "RUN/replicas.json has the figures of all, after every evaluation");
            flags.value("--streams", options->streams, "N",
                        "streams of a GPU's plan; 0 = 2 where that pays");
            flags.flag("--no-fuse", options->no_fuse, "no fused operators");
            flags.flag("--autotune", options->autotune,
                       "time cuBLASLt's algorithms for wide layers on the GPU first; checkpoints "
                       "keep the choice");
            return [options](const Output& output) { return train(*options, output); };
          }};
}

}  // namespace cuvae::cli
