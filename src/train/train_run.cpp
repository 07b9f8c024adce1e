#include "train/train_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "config/keys.h"
#include "device/registry.h"
#include "train/out_folder.h"
#include "train/pictures.h"
#include "train/stop_watch.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A resumed run may be longer and run elsewhere; everything else must be as it was.
void require_same(const Config& config, const RunFolder& folder) {
  const Config before =
      parse_config(read_file(folder.config(), std::uint64_t{1} << 20), folder.config().string());
  Config allowed = before;
  allowed.name = config.name;
  allowed.data.path = config.data.path;  // the data itself is checked by its SHA-256
  allowed.train.epochs = config.train.epochs;
  allowed.run = config.run;
  if (allowed == config) return;
  for (const config::Key& key : config::keys()) {
    if (key.kind == config::Kind::reserved) continue;
    const std::string now = config::value_as_toml(key, config);
    const std::string then = config::value_as_toml(key, allowed);
    if (now != then) {
      throw Error(Status::usage, fmt::format("`{}` is {} now and was {}", key.path, now, then),
                  "--resume",
                  "leave it as it was; only train.epochs and run.* may change on resume");
    }
  }
}

// Why --autotune does nothing here; empty where it does something.
std::string autotune_note(const TrainRun& run, bool resumed) {
  if (!run.config().run.autotune) return {};
  if (run.trainer().device().info().name.starts_with("cpu")) {
    return "note: a CPU has no algorithms to time, --autotune is without effect";
  }
  if (run.tuning().empty()) {
    return "note: no product of this model goes to cuBLASLt, --autotune is without effect";
  }
  if (resumed) {
    return "note: the checkpoint's algorithms are kept, --autotune times only what it lacks";
  }
  return {};
}

// What an epoch's end gave, over all runs that came to it.
EvaluationEvent combined(const std::vector<EvaluationEvent>& events) {
  EvaluationEvent all = events.front();
  if (events.size() == 1) return all;
  std::vector<Metrics> train;
  std::vector<Metrics> test;
  for (const EvaluationEvent& event : events) {
    train.push_back(event.train);
    if (event.test) test.push_back(*event.test);
    all.seconds = std::max(all.seconds, event.seconds);
  }
  const MetricsSpread trained = spread_of(train);
  all.replicas = static_cast<std::int64_t>(events.size());
  all.train = trained.mean;
  all.train_sd = trained.sd.neg_elbo;
  if (!test.empty()) {
    const MetricsSpread tested = spread_of(test);
    all.test = tested.mean;
    all.test_sd = tested.sd.neg_elbo;
  }
  return all;
}

}  // namespace

void check_options(const TrainRunOptions& options) {
  const auto positive = [](std::int64_t value, const char* flag) {
    if (value < 1) {
      throw Error(Status::usage, fmt::format("{} = {}", flag, value), flag,
                  "give a positive number of epochs");
    }
  };
  positive(options.save_every, "--save-every");
  positive(options.eval_every, "--eval-every");
  if (options.resume && options.overwrite) {
    throw Error(Status::usage, "--resume and --overwrite together", "train", "choose one");
  }
}

Workplace open_workplace(const Config& config, const TrainRunOptions& options,
                         std::int64_t replicas) {
  Workplace workplace;
  workplace.device = open_device(
      config.run.device, {.threads = static_cast<int>(config.run.threads), .real = DType::f32});
  workplace.trainer.compile = options.compile;
  workplace.trainer.compile.exec = config.run.exec;
  workplace.trainer.compile.precision = config.run.precision;
  workplace.trainer.compile.autotune = config.run.autotune;
  workplace.trainer.compile.tuning = std::make_shared<Tuning>();  // one for all that begin
  workplace.trainer.compile.steps = 0;
  // Graphs of several replicas overlap; a kernel that takes the whole GPU leaves no room.
  if (replicas > 1 && config.run.exec == "auto" &&
      workplace.device->info().name.starts_with("cuda")) {
    workplace.trainer.compile.exec = "graph";
  }
  workplace.device->check(workplace.trainer.compile);  // before the data is read
  if (options.compile.streams > 1 && options.on_message &&
      workplace.device->info().name.starts_with("cpu")) {
    options.on_message("note: a CPU has no streams, --streams is without effect");
  }
  workplace.dataset = std::make_shared<const Dataset>(load_dataset(config.data.path));
  return workplace;
}

void announce(const TrainRun& run, const TrainRunOptions& options, const fs::path& path,
              const std::string& more) {
  if (!options.on_message) return;
  const Trainer& trainer = run.trainer();
  const DeviceInfo info = trainer.device().info();
  if (!run.note().empty()) options.on_message(run.note());
  std::string device = fmt::format("device {}: {}, {}", info.name, info.model, info.details);
  if (run.config().run.device == "auto" && info.name.starts_with("cpu")) {
    if (const std::string why = no_gpu_reason(); !why.empty()) {
      device += fmt::format(" (no GPU: {})", why);
    }
  }
  options.on_message(device);
  options.on_message(fmt::format(
      "model {}: {} parameters; {} training samples, {} step{} an epoch; nats per sample",
      run.config().name, format_count(trainer.model().parameter_count()),
      format_count(run.dataset().train->size()), format_count(trainer.steps_per_epoch()),
      trainer.steps_per_epoch() == 1 ? "" : "s"));
  if (!more.empty()) options.on_message(more);
  for (const std::string& note : {trainer.note(), autotune_note(run, options.resume)}) {
    if (!note.empty()) options.on_message(note);
  }
  options.on_message("run folder " + path.string());
  if (!options.resume) return;
  const std::int64_t step = trainer.step();
  const std::int64_t epochs = run.config().train.epochs;
  options.on_message(
      run.done() ? fmt::format("nothing left to train: {} of {} epochs are done", epochs, epochs)
                 : fmt::format("going on after step {} (epoch {} of {})", format_count(step),
                               step / trainer.steps_per_epoch() + 1, epochs));
}

TrainRun::TrainRun(const Config& config, const TrainRunOptions& options, fs::path folder)
    : config_(config), options_(options), folder_{std::move(folder)} {
  if (!options_.resume) return;
  require_same(config_, folder_);
  std::error_code error;
  if (!fs::exists(folder_.last(), error)) {
    throw Error(Status::input, "the run has no checkpoint to go on from", folder_.last().string(),
                "put it back, or start anew with --overwrite");
  }
  checkpoint_ = read_safetensors(folder_.last());
  require_finite(checkpoint_);
}

void TrainRun::open(const Workplace& workplace) {
  device_ = workplace.device;
  dataset_ = workplace.dataset;
  TrainerOptions how = workplace.trainer;
  if (options_.resume) how.compile.tuning = recorded_tuning(checkpoint_);
  tuning_ = how.compile.tuning;
  trainer_ = std::make_unique<Trainer>(config_, dataset_, *device_, how);
  if (!options_.resume) return;
  trainer_->restore(checkpoint_, folder_.last().string());
  const std::string before = checkpoint_.metadata.at("execution");
  checkpoint_ = {};
  if (before != trainer_->execution()) {
    note_ = fmt::format(
        "note: the checkpoint was made by [{}], this goes on by [{}]: equal within rounding, not "
        "bit for bit",
        before, trainer_->execution());
  }
  if (trainer_->step() > total_steps()) {
    throw Error(Status::usage,
                fmt::format("train.epochs = {}, but the run has done {}", config_.train.epochs,
                            trainer_->epoch()),
                "--resume", "ask for more epochs in all");
  }
}

std::int64_t TrainRun::rehearse_end() const {
  try {
    return rehearse_pictures(*device_, trainer_->model(), *dataset_);
  } catch (const Error& error) {
    if (error.status() != Status::device) throw;
    throw Error(
        Status::device,
        fmt::format("the pictures at the end of the run, beside the training: {}", error.what()));
  }
}

void TrainRun::start() {
  made_.emplace(folder_, !options_.resume && options_.overwrite && folder_.is_run());
  if (options_.resume) made_->keep();
  write_file(folder_.config(), config_text(config_, *dataset_));
  write_file(folder_.environment(), environment_text(config_, *dataset_, *device_));
  metrics_ = std::make_unique<JsonLines>(folder_.metrics());
  const std::int64_t seen = trainer_->step();
  const std::string where = folder_.metrics().string();
  metrics_->truncate_after([&](const nlohmann::json& json) {
    const MetricsLine line = parse_metrics_line(json, where);
    if (line.step <= seen) seconds_before_ = line.seconds;
    return line.step > seen;
  });
}

void TrainRun::launch() {
  trainer_->launch(trainer_->program().steps());
}

void TrainRun::collect() {
  for (const StepResult& result : trainer_->collect()) samples_ += result.n;
}

std::optional<EvaluationEvent> TrainRun::end_epoch(double seconds) {
  const std::int64_t epoch = trainer_->epoch();
  std::optional<EvaluationEvent> event;
  if (done() || epoch % options_.eval_every == 0) {
    event.emplace();
    event->epoch = epoch;
    event->epochs = config_.train.epochs;
    event->step = trainer_->step();
    event->train = trainer_->epoch_metrics();
    event->test = trainer_->evaluate_test();
    event->seconds = seconds_before_ + seconds;
    test_ = event->test;
    test_step_ = event->step;
    const auto write = [&](const std::string& split, const Metrics& metrics) {
      metrics_->append(metrics_line(epoch, event->step, split, metrics, config_.objective.beta,
                                    config_.train.lr, event->seconds));
    };
    write("train", event->train);
    if (event->test) write("test", *event->test);
  }
  if (done() || epoch % options_.save_every == 0) save();
  return event;
}

void TrainRun::save() {
  if (saved_step_ == trainer_->step()) return;
  write_safetensors(folder_.last(), trainer_->checkpoint());
  made_->keep();
  write_model(folder_.model(), *trainer_);
  saved_step_ = trainer_->step();
}

void TrainRun::evaluate() {
  if (test_step_ == trainer_->step()) return;
  test_ = trainer_->evaluate_test();
  test_step_ = trainer_->step();
}

TrainReport TrainRun::report(const Trained& trained) const {
  TrainReport report;
  report.run = folder_.path;
  report.device = device_->info().name;
  report.exec = trainer_->program().exec();
  report.epochs = trainer_->epoch();
  report.steps = trainer_->step();
  report.seconds = trained.seconds;
  report.total_seconds = seconds_before_ + trained.seconds;
  report.samples_per_second =
      trained.seconds > 0 ? static_cast<double>(samples_) / trained.seconds : 0.0;
  report.interrupted = trained.interrupted && !done();
  report.train = trainer_->epoch_metrics();
  if (!diverged_ && test_step_ == trainer_->step()) report.test = test_;
  return report;
}

void TrainRun::finish() {
  write_model(folder_.model(), *trainer_);
  LoadedRun finished(folder_.path, *device_);
  write_pictures(finished, *dataset_, folder_);
  made_->keep();
}

Trained train_side_by_side(std::span<TrainRun* const> runs, const TrainRunOptions& options,
                           const std::function<void(const Trained&)>& evaluated) {
  Trained trained;
  const StopWatch watch(options.stop, runs);
  Clock::time_point shown = Clock::now();
  std::int64_t steps_before = 0;
  for (const TrainRun* run : runs) steps_before += run->trainer().step();

  // What one run does; where it diverges, the others go on.
  const auto attempt = [&](TrainRun& run, auto&& part) {
    try {
      part();
    } catch (const Error& error) {
      if (error.status() != Status::diverged) throw;
      run.diverge(error);
      if (runs.size() > 1 && options.on_message) {
        options.on_message(fmt::format("seed {} diverged, the others go on: {}",
                                       run.config().train.seed, error.what()));
      }
    }
  };
  const auto progress = [&](std::span<TrainRun* const> group, double seconds) {
    if (!options.on_progress || seconds_since(shown) <= 0.1) return;
    shown = Clock::now();
    TrainProgress now;
    std::vector<Metrics> train;
    std::int64_t done = -steps_before;
    std::int64_t left = 0;
    std::int64_t samples = 0;
    for (const TrainRun* run : runs) {
      done += run->trainer().step();
      samples += run->samples();
      if (!run->diverged()) left += run->total_steps() - run->trainer().step();
    }
    for (const TrainRun* run : group) {
      if (run->diverged() || run->trainer().epoch_metrics().n == 0) continue;
      train.push_back(run->trainer().epoch_metrics());
      if (train.size() > 1) continue;
      now.step = run->trainer().step();
      now.steps = run->total_steps();
      now.epochs = run->config().train.epochs;
      now.epoch = (now.step - 1) / run->trainer().steps_per_epoch() + 1;
    }
    if (train.empty()) return;
    now.train = spread_of(train).mean;
    now.samples_per_second = static_cast<double>(samples) / std::max(seconds, 1e-9);
    now.seconds_left =
        seconds / static_cast<double>(std::max<std::int64_t>(done, 1)) * static_cast<double>(left);
    options.on_progress(now);
  };

  while (!trained.interrupted) {
    // Those that are behind catch up first, so that all meet at the ends of epochs.
    std::vector<TrainRun*> group;
    for (TrainRun* run : runs) {
      if (run->diverged() || run->done()) continue;
      if (!group.empty() && run->trainer().epoch() > group.front()->trainer().epoch()) continue;
      if (!group.empty() && run->trainer().epoch() < group.front()->trainer().epoch()) {
        group.clear();
      }
      group.push_back(run);
    }
    if (group.empty()) break;

    const Clock::time_point start = Clock::now();
    for (TrainRun* run : group) attempt(*run, [&] { run->launch(); });
    std::vector<TrainRun*> in_flight = group;
    while (!in_flight.empty()) {
      std::vector<TrainRun*> next;
      for (TrainRun* run : in_flight) {
        if (run->diverged()) continue;
        attempt(*run, [&] { run->collect(); });
        if (run->diverged()) continue;
        progress(group, trained.seconds + seconds_since(start));
        if (options.stop && !trained.interrupted && !run->done()) {
          trained.interrupted = watch.asked() || options.stop();
        }
        if (run->at_epoch_end() || trained.interrupted) continue;
        attempt(*run, [&] { run->launch(); });
        next.push_back(run);
      }
      in_flight = std::move(next);
    }
    trained.seconds += seconds_since(start);

    std::vector<EvaluationEvent> events;
    for (TrainRun* run : group) {
      if (run->diverged()) continue;
      attempt(*run, [&] {
        if (run->at_epoch_end()) {
          if (const auto event = run->end_epoch(trained.seconds)) events.push_back(*event);
        }
        if (trained.interrupted) run->save();
      });
    }
    if (events.empty()) continue;
    if (evaluated) evaluated(trained);
    if (options.on_evaluation) options.on_evaluation(combined(events));
  }
  return trained;
}

void write_model(const fs::path& path, const Trainer& trainer) {
  write_safetensors(path, model_file(trainer.model(), trainer.weights()));
}

TrainReport train_run(const Config& config, const TrainRunOptions& options) {
  validate(config);
  check_options(options);
  TrainRun run(config, options, choose_folder(OutKind::run, config.name, options));
  run.open(open_workplace(config, options, 1));
  static_cast<void>(run.rehearse_end());
  announce(run, options, run.folder().path);
  run.start();
  const std::array<TrainRun*, 1> all{&run};
  const Trained trained = train_side_by_side(all, options);
  if (run.diverged()) throw Error(*run.diverged());
  // At once where it is interrupted: evaluation and pictures can take long.
  if (!trained.interrupted) {
    run.evaluate();
    run.finish();
  }
  return run.report(trained);
}

}  // namespace cuvae
