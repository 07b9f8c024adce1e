#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cuvae/error.h"
#include "cuvae/run.h"

namespace cuvae::cli {
namespace {

constexpr const char* none_given = "none given";  // an empty value is a mistake

struct Options {
  ConfigFlags config;
  std::string out;
  bool resume = false;
  bool overwrite = false;
  std::string save_every = "1";
  std::string eval_every = "1";
  std::string streams = "0";
  std::string replicas = none_given;
  std::string folds = none_given;
  std::string init_from = none_given;
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
                 {"stopped_early", report.stopped_early},
                 {"train", as_json(report.train)},
                 {"validation", nullptr},
                 {"test", nullptr},
                 {"best", nullptr}};
  if (report.validation) fields["validation"] = as_json(*report.validation);
  if (report.test) fields["test"] = as_json(*report.test);
  if (report.best) fields["best"] = as_json(*report.best);
  return fields;
}

// Of a model that guesses labels.
std::string guessed(const Metrics& m) {
  return m.accuracy ? fmt::format("; {:.2f} % of the labels right", 100 * *m.accuracy) : "";
}

void print_report(const TrainReport& report, const Output& output) {
  const auto terms = [](const Metrics& m) {
    std::string text = fmt::format("reconstruction {:.3f}", m.reconstruction);
    if (!m.autoencoder)
      text = fmt::format("neg_elbo {:.3f} = {} + kl {:.3f}", m.neg_elbo, text, m.kl);
    if (std::abs(m.loss - m.neg_elbo) >= 0.0005) text += fmt::format("; loss {:.3f}", m.loss);
    return text + guessed(m);
  };
  if (report.best) {
    const BestEvaluation& best = *report.best;
    output.text(fmt::format("best after epoch {} of {}: {} {:.3f} of the validation split",
                            best.epoch, report.epochs, best.metric, best.value));
  }
  if (report.validation) output.text(fmt::format("validation {}", terms(*report.validation)));
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

// One of several runs: its seed or its fold. Without figures it is no row.
struct Member {
  std::int64_t number;
  const TrainReport& report;
  const std::string& diverged;
  const std::optional<Metrics>& figures;
};

// A row for each, under `kind` ("seed").
void print_members(std::string_view kind, const std::vector<Member>& members,
                   const Output& output) {
  const auto any = [&](auto&& holds) { return std::ranges::any_of(members, holds); };
  const bool best = any([](const Member& m) { return m.report.best.has_value(); });
  const bool points = any([](const Member& m) { return m.figures && m.figures->autoencoder; });
  const auto line = [&](const auto& number, const std::string& bound, const std::string& rec,
                        const std::string& kl, const std::string& epoch, const std::string& run) {
    std::string text = fmt::format("{:>8}", number);
    if (!points) text += fmt::format("  {:>10}", bound);
    text += fmt::format("  {:>14}", rec);
    if (!points) text += fmt::format("  {:>8}", kl);
    if (best) text += fmt::format("  {:>10}", epoch);
    output.text(text + "  " + run);
  };
  line(kind, "neg_elbo", "reconstruction", "kl", "best epoch", "run");
  for (const Member& member : members) {
    if (!member.diverged.empty()) {
      output.text(fmt::format("{:>8}  diverged: {}", member.number, member.diverged));
      continue;
    }
    if (!member.figures) continue;
    const Metrics& m = *member.figures;
    const auto three = [](double value) { return fmt::format("{:.3f}", value); };
    line(member.number, three(m.neg_elbo), three(m.reconstruction), three(m.kl),
         member.report.best ? std::to_string(member.report.best->epoch) : "-",
         member.report.run.string());
  }
}

// Means and deviations of a split over several runs, `kind`s; `draws`: what a classifier's error is
// over.
void print_spread(std::string_view split, const std::optional<MetricsSpread>& spread,
                  std::string_view kind, std::string_view draws, const Output& output) {
  if (!spread) return;
  std::string terms = "reconstruction " + with_sd(*spread, &Metrics::reconstruction);
  if (!spread->mean.autoencoder)
    terms = fmt::format("neg_elbo {} = {} + kl {}", with_sd(*spread, &Metrics::neg_elbo), terms,
                        with_sd(*spread, &Metrics::kl));
  output.text(fmt::format("{} {} ({})", split, terms,
                          spread->replicas > 1 ? fmt::format("mean +- standard deviation of {} {}s",
                                                             spread->replicas, kind)
                                               : fmt::format("one {}", kind)));
  if (spread->mean.accuracy)
    output.text(fmt::format("{} error of the classifier {:.2f} % +- {:.2f} over {} {}", split,
                            100 * (1 - *spread->mean.accuracy), 100 * *spread->sd.accuracy,
                            spread->replicas, draws));
}

// Error(diverged) where some of them did.
void require_none_diverged(std::string_view kind, std::string_view kinds,
                           const std::vector<Member>& members, const std::filesystem::path& run,
                           const Config& config, const Output& output) {
  std::string diverged;
  std::int64_t count = 0;
  for (const Member& member : members) {
    if (member.diverged.empty()) continue;
    diverged += fmt::format("{}{}", count++ == 0 ? "" : ", ", member.number);
  }
  if (count == 0) return;
  output.finish();
  throw Error(
      Status::diverged,
      fmt::format("{} of {} {} diverged: {} {}", count, members.size(), kinds, kind, diverged),
      run.string(), fmt::format("lower train.lr (now {})", config.train.lr));
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
  std::vector<std::optional<Metrics>> figures;  // outlive the members
  figures.reserve(report.replicas.size());
  std::vector<Member> members;
  for (const ReplicaReport& replica : report.replicas) {
    const TrainReport& one = replica.report;
    figures.push_back(one.test ? one.test : std::optional(one.train));
    members.push_back({replica.seed, one, replica.diverged, figures.back()});
  }
  print_members("seed", members, output);
  print_spread(report.test ? "test" : "train", report.test ? report.test : report.train, "seed",
               "label draws", output);
  output.text(fmt::format("run: {}", report.run.string()));
  require_none_diverged("seed", "replicas", members, report.run, config, output);
  return 0;
}

int train_all_folds(const Config& config, std::int64_t folds, const TrainRunOptions& run,
                    Progress& progress, const Output& output) {
  watch_interrupts();
  const FoldsReport report = train_folds(config, folds, run);
  progress.clear();
  Json fields = {{"run", report.run.string()}};
  fields.update(Json::parse(folds_json(report)));
  output.object(fields);
  if (report.interrupted) {
    output.finish();
    throw Error(Status::interrupted, "interrupted, a checkpoint is written", report.run.string(),
                fmt::format("go on with `cuvae train --resume --folds {} --out {}`", folds,
                            report.run.string()));
  }
  std::vector<Member> members;
  for (const FoldReport& fold : report.results)
    members.push_back({fold.fold, fold.report, fold.diverged, fold.report.validation});
  print_members("fold", members, output);
  print_spread("validation", report.validation, "fold", "folds", output);
  print_spread("test", report.test, "fold", "folds", output);
  output.text(fmt::format("run: {}", report.run.string()));
  require_none_diverged("fold", "folds", members, report.run, config, output);
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

// The same of folds.
Config folds_config(const Options& options, const FoldsSummary& before) {
  for (const FoldsSummary::Fold& fold : before.folds) {
    const std::filesystem::path file = fold.folder / "config.toml";
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored)) continue;
    Config config = config_of(options, file);
    if (options.config.has_source()) return config;
    // What this fold has filled in is its own: the others have theirs, or get it.
    config.data.folds = config.data.fold = 0;
    if (!options.config.says("objective.dataset")) config.objective.dataset = before.dataset;
    if (!options.config.says("train.schedule.steps")) {
      config.train.schedule.steps = before.schedule_steps;
    }
    return config;
  }
  throw Error(Status::input, "the folder has lost its folds", options.out,
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
  if (options.replicas != none_given) {
    replicas = parse_integer(options.replicas, "--replicas", 1, most_replicas);
  }
  std::int64_t folds = 0;
  if (options.folds != none_given) {
    folds = parse_integer(options.folds, "--folds", 2, most_folds);
    if (replicas > 0) {
      throw Error(Status::usage, "--folds and --replicas exclude each other", "command line",
                  "leave one out; --seed chooses the seed of the folds");
    }
  }
  if (options.init_from != none_given) {
    require_given(options.init_from, "--init-from", "a run or a model.safetensors");
    run.init_from = options.init_from;
    if (options.resume) {
      throw Error(Status::usage, "--resume and --init-from exclude each other", "command line",
                  "leave --init-from out: a run goes on from its own checkpoint");
    }
  }
  Progress progress(output);
  run.on_progress = [&](const TrainProgress& p) { progress.update(p); };
  run.on_evaluation = [&](const EvaluationEvent& e) { progress.evaluated(e); };
  run.on_message = [&](const std::string& line) { progress.line(line); };
  run.stop = interrupted;
  if (options.resume) {
    if (const auto before = read_folds(run.out)) {
      if (replicas > 0) {
        throw Error(Status::usage, "no folder of replicas", run.out.string(),
                    "it holds folds: use --folds");
      }
      if (folds == 0) folds = static_cast<std::int64_t>(before->folds.size());
      return train_all_folds(folds_config(options, *before), folds, run, progress, output);
    }
    if (folds > 0) {
      throw Error(Status::usage, "no folder of folds", run.out.string(),
                  "leave --folds out to resume a run by itself");
    }
    if (const auto before = read_replicas(run.out)) {
      if (replicas == 0) replicas = static_cast<std::int64_t>(before->replicas.size());
      return train_several(replicas_config(options, *before), replicas, run, progress, output);
    }
  }
  if (folds > 0) return train_all_folds(config_of(options), folds, run, progress, output);
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
          "cuvae train --replicas 8 --out runs/eight\n"
          "cuvae train --set data.validation=0.1 --set train.early_stopping.patience=5\n"
          "cuvae train --folds 5 --out runs/cross\n"
          "cuvae train --init-from runs/mine --set 'train.freeze=[\"encoder.*\"]' --data other",
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
            flags.value("--folds", options->folds, "K",
                        "cross-validation: train K models one after the other, each with another "
                        "K-th of the training data for validation, into RUN/fold-<i>/; "
                        "RUN/folds.json has the figures of all");
            flags.value("--init-from", options->init_from, "RUN",
                        "begin with the weights of another run (or a model.safetensors), as far as "
                        "names and shapes fit");
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
