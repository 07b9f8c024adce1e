#include "train/replicas.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "train/train_run.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json metrics_json(const Metrics& metrics) {
  return {{"loss", metrics.loss},
          {"neg_elbo", metrics.neg_elbo},
          {"reconstruction", metrics.reconstruction},
          {"kl", metrics.kl},
          {"n", metrics.n}};
}

// The statistics' own: without a number of samples.
Json terms_json(const Metrics& metrics) {
  Json json = metrics_json(metrics);
  json.erase("n");
  return json;
}

fs::path choose_folder(const Config& config, std::int64_t replicas,
                       const TrainRunOptions& options) {
  if (options.out.empty()) {
    if (options.resume) {
      throw Error(Status::usage, "--resume without a run", "--out",
                  "name the folder of replicas to go on with");
    }
    return default_run_path(config.name);
  }
  const ReplicasFolder folder{options.out};
  if (options.resume) {
    const auto before = read_replicas(options.out);
    if (!before) {
      throw Error(Status::usage, "no folder of replicas", options.out.string(),
                  "--resume --replicas wants the folder of an earlier train --replicas");
    }
    const auto there = static_cast<std::int64_t>(before->replicas.size());
    if (replicas != there) {
      throw Error(Status::usage, fmt::format("{} replicas, the run has {}", replicas, there),
                  "--replicas", fmt::format("go on with --replicas {}", there));
    }
    if (config.train.seed != before->seed) {
      throw Error(Status::usage,
                  fmt::format("`train.seed` is {} now and was {}", config.train.seed, before->seed),
                  "--resume", "leave it as it was");
    }
    return options.out;
  }
  if (!RunFolder{options.out}.empty()) {
    if (!options.overwrite) {
      throw Error(Status::usage, "the run folder is not empty", options.out.string(),
                  "use --resume to go on, --overwrite to start anew, or another --out");
    }
    if (!folder.is_there()) {
      throw Error(Status::usage, "the folder is not empty and holds no replicas of cuvae",
                  options.out.string(),
                  "--overwrite replaces replicas by replicas only; choose another --out");
    }
  }
  return options.out;
}

// Until it is kept: the folder with its summary can be undone. The runs in it undo themselves.
class FreshReplicas {
 public:
  FreshReplicas(ReplicasFolder folder, std::vector<fs::path> stale)
      : folder_(std::move(folder)), stale_(std::move(stale)), made_(missing_folders(folder_.path)) {
    if (folder_.is_there()) before_ = read_file(folder_.summary(), summary_cap);
    try {
      create_folder(folder_.path);
    } catch (...) {
      discard();
      throw;
    }
  }
  FreshReplicas(const FreshReplicas&) = delete;
  FreshReplicas& operator=(const FreshReplicas&) = delete;
  ~FreshReplicas() {
    if (!kept_) discard();
  }
  // Takes away the replicas of the run that it replaces which have no successor.
  void keep() noexcept {
    kept_ = true;
    try {
      std::error_code error;
      for (const fs::path& path : stale_) {
        RunFolder{path}.clear();
        fs::remove(path, error);
      }
    } catch (...) {  // what stays does no harm
    }
    stale_.clear();
  }
  [[nodiscard]] bool kept() const noexcept { return kept_; }

  static constexpr std::uint64_t summary_cap = std::uint64_t{16} << 20;

 private:
  void discard() noexcept {
    std::error_code error;
    try {
      fs::remove(folder_.summary(), error);
      if (!before_.empty()) write_file(folder_.summary(), before_);
    } catch (...) {  // a destructor must not throw; what stays is named by the first error
    }
    for (const fs::path& path : made_) fs::remove(path, error);  // innermost first
  }
  ReplicasFolder folder_;
  std::vector<fs::path> stale_;
  std::vector<fs::path> made_;
  std::string before_;
  bool kept_ = false;
};

// Before the memory is taken: a machine that runs out of it slows down or ends processes.
void require_memory(const TrainRun& first, const Workplace& workplace, std::int64_t replicas) {
  const auto there = workplace.device->free_bytes();
  const std::int64_t one = std::max<std::int64_t>(first.trainer().memory_bytes(), 1);
  if (!there || (replicas - 1) <= *there / one) return;
  throw Error(
      Status::device,
      fmt::format("too little memory for {} replicas: each takes {}, and {} are free beside "
                  "the first",
                  replicas, format_bytes(one), format_bytes(*there)),
      "--replicas", fmt::format("train at most {} side by side", *there / one + 1));
}

void summarise(ReplicasReport& report) {
  std::vector<Metrics> train;
  std::vector<Metrics> test;
  for (const ReplicaReport& replica : report.replicas) {
    if (!replica.diverged.empty()) continue;
    if (replica.report.train.n > 0) train.push_back(replica.report.train);
    if (replica.report.test) test.push_back(*replica.report.test);
  }
  if (!train.empty()) report.train = spread_of(train);
  if (!test.empty()) report.test = spread_of(test);
}

}  // namespace

void ask_for_queues(std::int64_t replicas) {
  if (replicas > 4) setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
}

MetricsSpread spread_of(const std::vector<Metrics>& all) {
  MetricsSpread spread;
  spread.replicas = static_cast<std::int64_t>(all.size());
  if (all.empty()) return spread;
  spread.mean.n = spread.sd.n = all.front().n;
  const auto n = static_cast<double>(all.size());
  for (double Metrics::*term :
       {&Metrics::loss, &Metrics::neg_elbo, &Metrics::reconstruction, &Metrics::kl}) {
    double sum = 0;
    for (const Metrics& each : all) sum += each.*term;
    const double mean = sum / n;
    double squares = 0;
    for (const Metrics& each : all) squares += (each.*term - mean) * (each.*term - mean);
    spread.mean.*term = mean;
    spread.sd.*term = all.size() > 1 ? std::sqrt(squares / (n - 1)) : 0.0;
  }
  return spread;
}

std::string replicas_json(const ReplicasReport& report) {
  Json json;
  json["schema"] = 1;
  json["replicas"] = report.replicas.size();
  json["seed"] = report.seed;
  json["device"] = report.device;
  json["exec"] = report.exec;
  json["seconds"] = report.seconds;
  json["samples_per_second"] = report.samples_per_second;
  json["interrupted"] = report.interrupted;
  for (const bool mean : {true, false}) {
    Json& part = json[mean ? "mean" : "sd"];
    for (const bool test : {false, true}) {
      const auto& spread = test ? report.test : report.train;
      Json& split = part[test ? "test" : "train"];
      split = nullptr;
      if (spread && (mean || spread->replicas > 1)) {
        split = terms_json(mean ? spread->mean : spread->sd);
      }
    }
  }
  json["results"] = Json::array();
  for (const ReplicaReport& replica : report.replicas) {
    Json entry;
    entry["seed"] = replica.seed;
    entry["folder"] = ReplicasFolder::name(replica.seed);
    entry["epochs"] = replica.report.epochs;
    entry["steps"] = replica.report.steps;
    entry["diverged"] = replica.diverged.empty() ? Json(nullptr) : Json(replica.diverged);
    const bool figures = replica.diverged.empty() && replica.report.train.n > 0;
    entry["train"] = figures ? metrics_json(replica.report.train) : Json(nullptr);
    entry["test"] =
        figures && replica.report.test ? metrics_json(*replica.report.test) : Json(nullptr);
    json["results"].push_back(std::move(entry));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::optional<ReplicasSummary> read_replicas(const fs::path& run) {
  const ReplicasFolder folder{run};
  if (!folder.is_there()) return std::nullopt;
  const std::string text = read_file(folder.summary(), FreshReplicas::summary_cap);
  const auto refuse = [&]() -> Error {
    return {Status::input, "this is no summary of replicas", folder.summary().string(),
            "restore the file, or resume the replicas one by one"};
  };
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    if (json.at("schema") != 1) throw refuse();
    ReplicasSummary summary;
    json.at("seed").get_to(summary.seed);
    for (const nlohmann::json& entry : json.at("results")) {
      ReplicasSummary::Replica replica;
      entry.at("seed").get_to(replica.seed);
      entry.at("epochs").get_to(replica.epochs);
      entry.at("steps").get_to(replica.steps);
      if (!entry.at("diverged").is_null()) entry.at("diverged").get_to(replica.diverged);
      if (replica.seed < 0 ||
          replica.seed - static_cast<std::int64_t>(summary.replicas.size()) != summary.seed) {
        throw refuse();
      }
      replica.folder = folder.of(replica.seed);
      summary.replicas.push_back(std::move(replica));
    }
    if (summary.replicas.empty()) throw refuse();
    return summary;
  } catch (const nlohmann::json::exception&) {
    throw refuse();
  }
}

ReplicasReport train_replicas(const Config& config, std::int64_t replicas,
                              const TrainRunOptions& options) {
  validate(config);
  check_options(options);
  if (replicas < 1 || replicas > most_replicas) {
    throw Error(Status::usage, fmt::format("{} replicas", replicas), "--replicas",
                fmt::format("give an integer from 1 to {}", most_replicas));
  }
  if (config.train.seed > std::numeric_limits<std::int64_t>::max() - (replicas - 1)) {
    throw Error(Status::usage,
                fmt::format("no seeds for {} replicas from {} on", replicas, config.train.seed),
                "--seed, train.seed", "choose a smaller seed");
  }
  const ReplicasFolder folder{choose_folder(config, replicas, options)};
  const std::optional<ReplicasSummary> before = read_replicas(folder.path);

  ReplicasReport report;
  report.run = folder.path;
  report.seed = config.train.seed;
  report.replicas.resize(static_cast<std::size_t>(replicas));

  std::optional<FreshReplicas> made;  // outlives the runs, which stand in its folder
  std::vector<std::unique_ptr<TrainRun>> runs(static_cast<std::size_t>(replicas));
  for (std::size_t r = 0; r < runs.size(); ++r) {
    ReplicaReport& replica = report.replicas[r];
    Config own = config;
    own.train.seed = replica.seed = config.train.seed + static_cast<std::int64_t>(r);
    replica.report.run = folder.of(replica.seed);
    if (options.resume && !before->replicas[r].diverged.empty()) {
      replica.diverged = before->replicas[r].diverged;
      replica.report.epochs = before->replicas[r].epochs;
      replica.report.steps = before->replicas[r].steps;
      continue;
    }
    TrainRunOptions how;
    how.resume = options.resume;
    how.overwrite = options.overwrite;
    how.save_every = options.save_every;
    how.eval_every = options.eval_every;
    how.compile = options.compile;
    if (options.resume && !RunFolder{replica.report.run}.is_run()) {
      throw Error(Status::input, "the folder of a replica is missing or no run",
                  replica.report.run.string(), "put it back, or start anew with --overwrite");
    }
    runs[r] = std::make_unique<TrainRun>(own, how, replica.report.run);
  }

  std::vector<TrainRun*> all;
  std::vector<ReplicaReport*> reports;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (!runs[r]) continue;
    all.push_back(runs[r].get());
    reports.push_back(&report.replicas[r]);
  }
  if (all.empty()) {
    throw Error(Status::diverged, "all replicas diverged before", folder.path.string(),
                "start anew with --overwrite and a lower train.lr");
  }
  const Workplace workplace = open_workplace(config, options, replicas);
  for (std::size_t i = 0; i < all.size(); ++i) {
    try {
      all[i]->open(workplace);
      if (i == 0) require_memory(*all[0], workplace, static_cast<std::int64_t>(all.size()));
    } catch (const Error& error) {
      if (error.status() != Status::device || i == 0) throw;
      throw Error(Status::device,
                  fmt::format("no room for replica {} of {}: {}", i + 1, all.size(), error.what()),
                  "--replicas", "train fewer side by side");
    }
  }
  report.device = workplace.device->info().name;
  report.exec = all.front()->trainer().program().exec();
  announce(*all.front(), options, folder.path,
           fmt::format("{} replica{} side by side, seeds {} to {}", replicas,
                       replicas == 1 ? "" : "s", report.seed, report.seed + replicas - 1));

  std::vector<fs::path> stale;
  if (before && !options.resume) {
    for (const ReplicasSummary::Replica& replica : before->replicas) {
      if (replica.seed - report.seed < 0 || replica.seed - report.seed >= replicas) {
        stale.push_back(replica.folder);
      }
    }
  }
  made.emplace(folder, std::move(stale));
  if (options.resume) made->keep();
  for (TrainRun* run : all) run->start();
  const auto update = [&](const Trained& trained) {
    report.seconds = trained.seconds;
    report.interrupted = trained.interrupted;
    for (std::size_t i = 0; i < all.size(); ++i) {
      TrainRun& run = *all[i];
      try {
        const bool stopped = trained.interrupted && !run.done();
        reports[i]->report = run.report(trained.seconds, stopped);
        report.samples_per_second += reports[i]->report.samples_per_second;
        if (!stopped && run.done() && !run.diverged()) run.finish();
      } catch (const Error& error) {
        if (error.status() != Status::diverged) throw;
        run.diverge(error);
      }
      if (run.diverged()) reports[i]->diverged = run.diverged()->what();
    }
    summarise(report);
    write_file(folder.summary(), replicas_json(report) + "\n");
  };
  // So that what a killed process leaves can be resumed.
  for (std::size_t i = 0; i < all.size(); ++i) {
    reports[i]->report.epochs = all[i]->trainer().epoch();
    reports[i]->report.steps = all[i]->trainer().step();
  }
  write_file(folder.summary(), replicas_json(report) + "\n");

  const auto keep_saved = [&] {
    for (TrainRun* run : all) {
      if (run->made()->kept() && !made->kept()) made->keep();
    }
  };
  Trained trained;
  try {
    trained = train_side_by_side(all, options);
  } catch (...) {
    keep_saved();  // checkpoints that were written stay
    throw;
  }
  keep_saved();
  if (!made->kept()) {
    const Error& first = *all.front()->diverged();
    if (replicas == 1) throw Error(first);
    throw Error(Status::diverged,
                fmt::format("all {} replicas diverged, the first: {}", replicas, first.what()));
  }
  // In place of one that left nothing, the run that it replaced would be in the way.
  for (TrainRun* run : all) {
    if (run->diverged() && !run->made()->kept()) run->made()->remove();
  }
  update(trained);
  return report;
}

}  // namespace cuvae
