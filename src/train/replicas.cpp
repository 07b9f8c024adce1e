#include "train/replicas.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/text.h"
#include "train/group.h"
#include "train/out_folder.h"
#include "train/train_run.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// To resume, the command has to ask for what is there.
void require_same(const Config& config, std::int64_t replicas, const ReplicasSummary& before) {
  const auto there = static_cast<std::int64_t>(before.replicas.size());
  if (replicas != there) {
    throw Error(
        Status::usage,
        fmt::format("{} replica{}, the run has {}", replicas, replicas == 1 ? "" : "s", there),
        "--replicas", fmt::format("go on with --replicas {}", there));
  }
  if (config.train.seed != before.seed) {
    throw Error(Status::usage,
                fmt::format("`train.seed` is {} now and was {}", config.train.seed, before.seed),
                "--resume", "leave it as it was");
  }
}

// Before the memory is taken: a machine that runs out of it slows down or ends processes. At the
// end one run after the other makes its pictures, which takes `end` bytes.
void require_memory(const TrainRun& first, const Workplace& workplace, std::int64_t replicas,
                    std::int64_t end) {
  const auto there = workplace.device->free_bytes();
  const std::int64_t one =
      std::max<std::int64_t>(first.trainer().memory_bytes() + first.own_data_bytes(), 1);
  if (!there) return;
  const std::int64_t others = std::max<std::int64_t>(*there - end, 0) / one;
  if (replicas - 1 <= others) return;
  throw Error(Status::device,
              fmt::format("too little memory for {} replicas: each takes {}, the end of a run {}, "
                          "and {} are free beside the first",
                          replicas, format_bytes(one), format_bytes(end), format_bytes(*there)),
              "--replicas", fmt::format("train at most {} side by side", others + 1));
}

// Trainers of all runs, each in its place on the device, and room for their end.
void open_all(std::span<TrainRun* const> runs, const Workplace& workplace) {
  const auto count = static_cast<std::int64_t>(runs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    try {
      runs[i]->open(workplace);
      if (i == 0) require_memory(*runs[0], workplace, count, runs[0]->rehearse_end());
      if (i > 0 && i + 1 == runs.size()) static_cast<void>(runs[i]->rehearse_end());
    } catch (const Error& error) {
      if (error.status() != Status::device || i == 0) throw;
      throw Error(Status::device,
                  fmt::format("no room for replica {} of {}: {}", i + 1, count, error.what()),
                  "--replicas", "train fewer side by side");
    }
  }
}

// One that this process trains, and its place in the report.
struct Member {
  TrainRun* run;
  ReplicaReport* report;
};

// What is known by now.
void refresh(ReplicasReport& report, std::span<const Member> members, const Trained& trained,
             double seconds_before) {
  report.seconds = trained.seconds;
  report.total_seconds = seconds_before + trained.seconds;
  report.samples_per_second = 0;
  for (const Member& member : members) {
    member.report->report = member.run->report(trained);
    member.report->done = member.run->done();
    if (member.run->diverged()) member.report->diverged = member.run->diverged()->what();
    report.samples_per_second += member.report->report.samples_per_second;
  }
  summarise(report, report.replicas);
}

// The last figures and the pictures of one that has come to its end.
void finish(TrainRun& run) {
  if (run.diverged() || !run.done()) return;
  try {
    run.evaluate();
    run.finish();
  } catch (const Error& error) {
    if (error.status() != Status::diverged) throw;
    run.diverge(error);
  }
}

const char* state_of(const ReplicaReport& replica) {
  if (!replica.diverged.empty()) return "diverged";
  return replica.done ? "done" : "running";
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
  spread.mean.autoencoder = spread.sd.autoencoder = all.front().autoencoder;
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
  if (std::ranges::all_of(all, [](const Metrics& each) { return each.accuracy.has_value(); })) {
    double mean = 0;
    for (const Metrics& each : all) mean += *each.accuracy / n;
    double squares = 0;
    for (const Metrics& each : all) squares += (*each.accuracy - mean) * (*each.accuracy - mean);
    spread.mean.accuracy = mean;
    spread.sd.accuracy = all.size() > 1 ? std::sqrt(squares / (n - 1)) : 0.0;
  }
  return spread;
}

std::string replicas_json(const ReplicasReport& report) {
  return group_json<ReplicasReport, ReplicaReport>(
      report, "replicas", report.replicas, [](Json& entry, const ReplicaReport& replica) {
        entry["seed"] = replica.seed;
        entry["folder"] = ReplicasFolder::name(replica.seed);
        entry["state"] = state_of(replica);
      });
}

std::optional<ReplicasSummary> read_replicas(const fs::path& run) {
  const ReplicasFolder folder{run};
  if (!folder.is_there()) return std::nullopt;
  const std::string text = read_file(folder.summary(), group_summary_cap);
  const auto refuse = [&]() -> Error {
    return {Status::input, "this is no summary of replicas", folder.summary().string(),
            "restore the file, resume the replicas one by one, or remove the folder to start anew"};
  };
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    if (json.at("schema") != 1) throw refuse();
    ReplicasSummary summary;
    json.at("seed").get_to(summary.seed);
    json.at(json.contains("total_seconds") ? "total_seconds" : "seconds")
        .get_to(summary.total_seconds);
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
  const ReplicasFolder folder{choose_folder(OutKind::replicas, config.name, options)};
  const std::optional<ReplicasSummary> before = read_replicas(folder.path);
  if (options.resume) require_same(config, replicas, *before);

  ReplicasReport report;
  report.run = folder.path;
  report.seed = config.train.seed;
  report.replicas.resize(static_cast<std::size_t>(replicas));

  std::optional<FreshGroup> made;  // outlives the runs, which stand in its folder
  std::vector<std::unique_ptr<TrainRun>> runs;
  std::vector<TrainRun*> all;
  std::vector<Member> members;
  for (std::size_t r = 0; r < report.replicas.size(); ++r) {
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
    if (options.resume && !RunFolder{replica.report.run}.is_run()) {
      throw Error(Status::input, "the folder of a replica is missing or no run",
                  replica.report.run.string(), "put it back, or start anew with --overwrite");
    }
    runs.push_back(std::make_unique<TrainRun>(own, options, replica.report.run));
    all.push_back(runs.back().get());
    members.push_back({all.back(), &replica});
  }
  if (all.empty()) {
    throw Error(Status::diverged, "all replicas diverged before", folder.path.string(),
                "start anew with --overwrite and a lower train.lr");
  }
  const Workplace workplace = open_workplace(config, options, replicas);
  open_all(all, workplace);
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
  made.emplace(folder.path, folder.summary(), std::move(stale));
  if (options.resume) made->keep();
  for (TrainRun* run : all) run->start();

  const double seconds_before = options.resume ? before->total_seconds : 0;
  const auto write_summary = [&](const Trained& trained) {
    refresh(report, members, trained, seconds_before);
    write_file(folder.summary(), replicas_json(report) + "\n");
  };
  report.running = true;
  write_summary({});  // so that what a killed process leaves can be resumed

  const auto keep_saved = [&] {
    for (TrainRun* run : all) {
      if (run->made()->kept() && !made->kept()) made->keep();
    }
  };
  Trained trained;
  try {
    trained = train_side_by_side(all, options, write_summary);
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
  for (TrainRun* run : all) finish(*run);
  report.running = false;
  report.interrupted = trained.interrupted;
  write_summary(trained);
  return report;
}

}  // namespace cuvae
