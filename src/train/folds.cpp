#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "train/group.h"
#include "train/out_folder.h"
#include "train/replicas.h"
#include "train/train_run.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const char* state_of(const FoldReport& fold) {
  if (!fold.diverged.empty()) return "diverged";
  if (fold.done) return "done";
  return fold.report.run.empty() ? "waiting" : "running";
}

// To resume, the command has to ask for what is there.
void require_same(const Config& config, std::int64_t folds, const FoldsSummary& before) {
  const auto there = static_cast<std::int64_t>(before.folds.size());
  if (folds != there)
    throw Error(Status::usage, fmt::format("{} folds, the run has {}", folds, there), "--folds",
                fmt::format("go on with --folds {}", there));
  if (config.train.seed != before.seed)
    throw Error(Status::usage,
                fmt::format("`train.seed` is {} now and was {}", config.train.seed, before.seed),
                "--resume", "leave it as it was");
}

// A schedule that ends with the epochs would end elsewhere in folds that have not begun.
void require_same_epochs(const Config& config, const FoldsFolder& folder,
                         const FoldsSummary& before) {
  if (config.train.schedule.type != "cosine" || config.train.schedule.steps > 0 ||
      config.train.epochs == before.told_epochs)
    return;
  std::error_code error;
  for (std::size_t f = 0; f < before.folds.size(); ++f)
    if (before.folds[f].diverged.empty() &&
        !fs::exists(RunFolder{folder.of(static_cast<std::int64_t>(f))}.last(), error))
      throw Error(
          Status::usage,
          fmt::format("`train.epochs` is {} now and was {}, with which the schedule of fold "
                      "{}, not begun yet, is to end",
                      config.train.epochs, before.told_epochs, f),
          "--resume", fmt::format("go on with --epochs {} first", before.told_epochs));
}

void check(const Config& config, std::int64_t folds) {
  if (folds < 2 || folds > most_folds)
    throw Error(Status::usage, fmt::format("{} folds", folds), "--folds",
                fmt::format("give an integer from 2 to {}", most_folds));
  if (config.data.validation.any())
    throw Error(Status::usage, "--folds beside `data.validation`", "--folds",
                "leave one out: each fold in turn is what is kept for validation");
  if (config.data.folds > 0)
    throw Error(Status::usage, "--folds beside `data.folds`", "--folds",
                "leave one out: --folds trains all, data.folds with data.fold one of them");
}

Config config_of_fold(const Config& config, std::int64_t folds, std::int64_t fold) {
  Config own = config;
  own.data.folds = folds;
  own.data.fold = fold;
  return own;
}

// What the folds that have begun took their first weights from; empty: nothing.
fs::path inherited_from(const FoldsFolder& folder, std::int64_t folds) {
  std::error_code error;
  for (std::int64_t f = 0; f < folds; ++f) {
    const fs::path file = RunFolder{folder.of(f)}.environment();
    if (!fs::is_regular_file(file, error)) continue;
    const auto json =
        nlohmann::json::parse(read_file(file, std::uint64_t{1} << 20), nullptr, false);
    if (!json.is_object() || !json.contains("init_from")) return {};
    return json.at("init_from").value("path", "");
  }
  return {};
}

// Callbacks that say which fold it is.
TrainRunOptions options_of_fold(const TrainRunOptions& options, std::int64_t folds,
                                std::int64_t fold, const RunFolder& folder) {
  TrainRunOptions own = options;
  own.out = folder.path;
  std::error_code error;
  own.resume = options.resume && fs::exists(folder.last(), error);
  own.overwrite = !own.resume;  // what a process left that came to no checkpoint
  if (options.on_progress)
    own.on_progress = [=, tell = options.on_progress](TrainProgress progress) {
      progress.fold = fold + 1;
      progress.folds = folds;
      tell(progress);
    };
  if (options.on_evaluation)
    own.on_evaluation = [=, tell = options.on_evaluation](EvaluationEvent event) {
      event.fold = fold + 1;
      event.folds = folds;
      tell(event);
    };
  return own;
}

}  // namespace

std::string folds_json(const FoldsReport& report) {
  return group_json<FoldsReport, FoldReport>(
      report, "folds", report.results, [](Json& entry, const FoldReport& fold) {
        entry["fold"] = fold.fold;
        entry["folder"] = FoldsFolder::name(fold.fold);
        entry["state"] = state_of(fold);
        entry["best_epoch"] = fold.report.best ? Json(fold.report.best->epoch) : Json(nullptr);
      });
}

std::optional<FoldsSummary> read_folds(const fs::path& run) {
  const FoldsFolder folder{run};
  if (!folder.is_there()) return std::nullopt;
  const auto refuse = [&]() -> Error {
    return {Status::input, "this is no summary of folds", folder.summary().string(),
            "restore the file, resume the folds one by one, or remove the folder to start anew"};
  };
  try {
    const auto json = nlohmann::json::parse(read_file(folder.summary(), group_summary_cap));
    if (json.at("schema") != 1) throw refuse();
    FoldsSummary summary;
    json.at("seed").get_to(summary.seed);
    json.at("total_seconds").get_to(summary.total_seconds);
    json.at("told").at("schedule_steps").get_to(summary.schedule_steps);
    json.at("told").at("dataset").get_to(summary.dataset);
    json.at("told").at("epochs").get_to(summary.told_epochs);
    for (const nlohmann::json& entry : json.at("results")) {
      const auto next = static_cast<std::int64_t>(summary.folds.size());
      if (entry.at("fold").get<std::int64_t>() != next) throw refuse();
      FoldsSummary::Fold fold;
      fold.folder = folder.of(next);
      entry.at("epochs").get_to(fold.epochs);
      entry.at("steps").get_to(fold.steps);
      if (!entry.at("diverged").is_null()) entry.at("diverged").get_to(fold.diverged);
      summary.folds.push_back(std::move(fold));
    }
    if (summary.folds.size() < 2) throw refuse();
    return summary;
  } catch (const nlohmann::json::exception&) {
    throw refuse();
  }
}

FoldsReport train_folds(const Config& config, std::int64_t folds, const TrainRunOptions& options) {
  validate(config);
  check_options(options);
  check(config, folds);
  const FoldsFolder folder{choose_folder(OutKind::folds, config.name, options)};
  const std::optional<FoldsSummary> before = read_folds(folder.path);
  if (options.resume) {
    require_same(config, folds, *before);
    require_same_epochs(config, folder, *before);
  }

  FoldsReport report;
  report.run = folder.path;
  report.seed = config.train.seed;
  report.schedule_steps = config.train.schedule.steps;
  report.dataset = config.objective.dataset;
  report.told_epochs = options.resume ? before->told_epochs : config.train.epochs;
  for (std::int64_t f = 0; f < folds; ++f) {
    FoldReport fold;
    fold.fold = f;
    if (options.resume) {
      const FoldsSummary::Fold& there = before->folds[static_cast<std::size_t>(f)];
      fold.diverged = there.diverged;
      fold.report.epochs = there.epochs;
      fold.report.steps = there.steps;
    }
    report.results.push_back(std::move(fold));
  }
  std::vector<fs::path> stale;
  if (before && !options.resume)
    for (std::size_t f = report.results.size(); f < before->folds.size(); ++f)
      stale.push_back(before->folds[f].folder);

  const double seconds_before = options.resume ? before->total_seconds : 0;
  const auto write_summary = [&] {
    report.total_seconds = seconds_before + report.seconds;
    summarise(report, report.results);
    write_file(folder.summary(), folds_json(report) + "\n");
  };
  const fs::path inherited = options.resume ? inherited_from(folder, folds) : options.init_from;
  std::optional<Workplace> workplace;
  std::optional<FreshGroup> made;
  std::optional<Error> diverged;
  std::size_t trained = 0;
  for (FoldReport& fold : report.results) {
    if (!fold.diverged.empty()) continue;
    const RunFolder own{folder.of(fold.fold)};
    TrainRunOptions how = options_of_fold(options, folds, fold.fold, own);
    if (!how.resume) how.init_from = inherited;
    const Config of = config_of_fold(config, folds, fold.fold);
    TrainRun run(of, how, own.path);
    if (!workplace) workplace = open_workplace(of, options, 1);
    run.open(*workplace);
    static_cast<void>(run.rehearse_end());
    if (!made) {
      announce(run, how, folder.path, fmt::format("{} folds one after the other", folds));
      made.emplace(folder.path, folder.summary(), std::move(stale));
      if (options.resume) made->keep();
      report.device = workplace->device->info().name;
      report.exec = run.trainer().program().exec();
      report.running = true;
    }
    if (options.on_message)
      options.on_message(fmt::format("fold-{} ({}/{}): {} training samples, {} for validation",
                                     fold.fold, fold.fold + 1, folds,
                                     format_count(run.dataset().train->size()),
                                     format_count(run.dataset().validation->size())));
    run.start();
    const double seconds = report.seconds;
    const auto refresh = [&](const Trained& now) {
      fold.report = run.report(now);
      fold.done = run.done();
      if (run.diverged()) fold.diverged = run.diverged()->what();
      report.seconds = seconds + now.seconds;
      write_summary();
    };
    refresh({});  // so that what a killed process leaves can be resumed
    Trained now;
    try {
      const std::array<TrainRun*, 1> one{&run};
      now = train_side_by_side(one, how, refresh);
      if (!run.diverged() && !now.interrupted) {
        run.evaluate();
        run.finish();
      }
    } catch (const Error& error) {
      if (run.made()->kept()) made->keep();  // checkpoints that were written stay
      if (error.status() != Status::diverged) throw;
      run.diverge(error);
    }
    if (run.made()->kept()) made->keep();
    if (run.diverged()) {
      if (!diverged) diverged.emplace(*run.diverged());
      if (!run.made()->kept()) run.made()->remove();
      if (options.on_message)
        options.on_message(fmt::format("fold-{} ({}/{}) diverged: {}", fold.fold, fold.fold + 1,
                                       folds, run.diverged()->what()));
    } else {
      ++trained;
    }
    report.interrupted = now.interrupted && !run.done();
    report.running = !report.interrupted;
    refresh(now);
    if (now.interrupted) break;
  }
  if (trained == 0) {
    if (diverged && !made->kept())
      throw Error(Status::diverged,
                  fmt::format("all {} folds diverged, the first: {}", folds, diverged->what()));
    if (!made)
      throw Error(Status::diverged, "all folds diverged before", folder.path.string(),
                  "start anew with --overwrite and a lower train.lr");
  }
  report.running = false;
  write_summary();
  return report;
}

}  // namespace cuvae
