#include "train/train_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "config/keys.h"
#include "device/registry.h"
#include "likelihoods/likelihoods.h"
#include "train/hold_out.h"
#include "train/out_folder.h"
#include "train/pictures.h"
#include "train/stop_watch.h"
#include "train/targets.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A resumed run may be longer and run elsewhere; everything else must be as it was. A horizon that
// is left open is the one it began with, and so is the number of rows.
void require_same(Config& config, const RunFolder& folder) {
  const Config before =
      parse_config(read_file(folder.config(), std::uint64_t{1} << 20), folder.config().string());
  if (config.train.schedule.steps == 0) config.train.schedule.steps = before.train.schedule.steps;
  if (config.objective.dataset == 0) config.objective.dataset = before.objective.dataset;
  Config allowed = before;
  allowed.name = config.name;
  allowed.data.path = config.data.path;  // the data itself is checked by its SHA-256
  if (!before.data.validation.path.empty() && !config.data.validation.path.empty())
    allowed.data.validation.path = config.data.validation.path;
  allowed.train.epochs = config.train.epochs;
  allowed.run = config.run;
  if (allowed == config) return;
  for (const config::Key& key : config::keys()) {
    const std::string now = config::value_as_toml(key, config);
    const std::string then = config::value_as_toml(key, allowed);
    if (now != then) {
      throw Error(Status::usage, fmt::format("`{}` is {} now and was {}", key.path, now, then),
                  "--resume",
                  "leave it as it was; only train.epochs and run.* may change on resume");
    }
  }
}

void require_validation(const Config& config) {
  if (config.data.validation.any() || config.data.folds > 0) return;
  const auto refuse = [](const std::string& what, const char* key) {
    throw Error(Status::usage, what + " without rows for validation", key,
                "keep some with data.validation = 0.1, or use --folds");
  };
  if (const std::int64_t patience = config.train.early_stopping.patience; patience > 0)
    refuse(fmt::format("`train.early_stopping.patience` = {}", patience), "train.early_stopping");
  if (config.train.schedule.type == "plateau")
    refuse("`train.schedule.type` = \"plateau\"", "train.schedule");
}

std::int64_t bytes_of(const std::optional<DatasetSplit>& split) {
  return split ? static_cast<std::int64_t>(split->images->bytes().size()) : 0;
}

// "a, b, c and 4 more"
std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t shown = 6;
  std::string text;
  for (std::size_t i = 0; i < std::min(shown, names.size()); ++i)
    text += (i > 0 ? ", " : "") + names[i];
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
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

// Where an encoder sees counts of hundreds as they are, its first weights lead to means of
// e^hundreds.
std::string counts_note(const TrainRun& run) {
  const Config& config = run.config();
  const auto& layers = config.model.encoder.layers;
  const bool tamed =
      (!layers.empty() && layers.front().type.ends_with("_norm")) ||
      std::ranges::any_of(config.data.encoder_transform,
                          [](const TransformConfig& t) { return t.type == "log1p"; });
  if (likelihood_target(config.model.likelihood.type) != LikelihoodTarget::counts || tamed)
    return {};
  constexpr double harmless = 30;
  const Tensor& rows = *run.dataset().train->images;
  double largest = 0;
  if (rows.dtype() == DType::u8) {
    for (const std::uint8_t count : rows.as<std::uint8_t>())
      largest = std::max(largest, static_cast<double>(count));
  } else {
    for (const float count : rows.as<float>()) largest = std::max(largest, double{count});
  }
  if (largest <= harmless) return {};
  return fmt::format(
      "note: the encoder sees counts of up to {} as they are; data.encoder_transform = [\"log1p\"] "
      "keeps them small",
      largest);
}

// What an epoch's end gave, over all runs that came to it.
EvaluationEvent combined(const std::vector<EvaluationEvent>& events) {
  EvaluationEvent all = events.front();
  if (events.size() == 1) return all;
  std::vector<Metrics> train;
  std::vector<Metrics> validation;
  std::vector<Metrics> test;
  for (const EvaluationEvent& event : events) {
    train.push_back(event.train);
    if (event.validation) validation.push_back(*event.validation);
    if (event.test) test.push_back(*event.test);
    all.seconds = std::max(all.seconds, event.seconds);
  }
  const MetricsSpread trained = spread_of(train);
  all.replicas = static_cast<std::int64_t>(events.size());
  all.train = trained.mean;
  all.train_sd = trained.sd.neg_elbo;
  all.best = false;  // of each by itself
  if (!validation.empty()) {
    const MetricsSpread validated = spread_of(validation);
    all.validation = validated.mean;
    all.validation_sd = validated.sd.neg_elbo;
  }
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
  if (options.resume && !options.init_from.empty()) {
    throw Error(Status::usage, "--resume and --init-from together", "train",
                "leave --init-from out: a run goes on from its own checkpoint");
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
  // What does not depend on the seed is chosen once for all.
  workplace.dataset = std::make_shared<const Dataset>(
      holds_out_by_seed(config.data) ? load_dataset(config.data.path) : load_data(config));
  return workplace;
}

// Grey levels are no outcomes of a Bernoulli.
std::string grey_note(const TrainRun& run) {
  const Config& config = run.config();
  if (config.model.likelihood.type != "bernoulli" || config.data.binarise != "none" ||
      is_binary(*run.dataset().train, run.trainer().model().input()))
    return {};
  return "note: of grey pixels a Bernoulli gives a cross-entropy, no likelihood; data.binarise "
         "makes it one";
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
  const Model& model = trainer.model();
  std::int64_t fixed = 0;
  const std::vector<bool> frozen = model.frozen(run.config().train.freeze);
  for (std::size_t i = 0; i < frozen.size(); ++i)
    if (frozen[i]) fixed += model.parameters()[i].shape.elements();
  const auto& held = run.dataset().validation;
  options.on_message(fmt::format(
      "model {}: {} parameters{}; {} training samples, {}{} step{} an epoch; nats per sample",
      run.config().name, format_count(model.parameter_count()),
      fixed > 0 ? fmt::format(", {} of them frozen", format_count(fixed)) : "",
      format_count(run.dataset().train->size()),
      held ? fmt::format("{} for validation, ", format_count(held->size())) : "",
      format_count(trainer.steps_per_epoch()), trainer.steps_per_epoch() == 1 ? "" : "s"));
  for (const std::string& line : run.inheritance()) options.on_message(line);
  if (!model.input().is_picture())
    options.on_message(fmt::format("no pictures: the data are {}", model.input().str()));
  if (!more.empty()) options.on_message(more);
  for (const std::string& note :
       {trainer.note(), autotune_note(run, options.resume), counts_note(run), grey_note(run)}) {
    if (!note.empty()) options.on_message(note);
  }
  options.on_message("run folder " + path.string());
  if (!options.resume) return;
  const std::int64_t step = trainer.step();
  const std::int64_t epochs = run.config().train.epochs;
  options.on_message(
      trainer.ends_early() ? "nothing left to train: " + run.early_end()
      : run.done() ? fmt::format("nothing left to train: {} of {} epochs are done", epochs, epochs)
                   : fmt::format("going on after step {} (epoch {} of {})", format_count(step),
                                 step / trainer.steps_per_epoch() + 1, epochs));
}

TrainRun::TrainRun(const Config& config, const TrainRunOptions& options, fs::path folder)
    : config_(config), options_(options), folder_{std::move(folder)} {
  require_validation(config_);
  if (!options_.resume) return;
  require_same(config_, folder_);
  std::error_code error;
  if (!fs::exists(folder_.last(), error)) {
    throw Error(
        Status::input, "the run has no checkpoint to go on from", folder_.last().string(),
        "where it is being trained, wait for the first one; else put it back, or start anew "
        "with --overwrite");
  }
  checkpoint_ = read_safetensors(folder_.last());
  require_finite(checkpoint_);
}

void TrainRun::open(const Workplace& workplace) {
  device_ = workplace.device;
  dataset_ = holds_out_by_seed(config_.data)
                 ? std::make_shared<const Dataset>(hold_out(*workplace.dataset, config_))
                 : workplace.dataset;
  TrainerOptions how = workplace.trainer;
  if (options_.resume) how.compile.tuning = recorded_tuning(checkpoint_);
  tuning_ = how.compile.tuning;
  trainer_ = std::make_unique<Trainer>(config_, dataset_, *device_, how);
  config_.train.schedule = trainer_->config().train.schedule;  // its horizon is kept
  config_.objective = trainer_->config().objective;            // with beta_tc's number of rows
  if (!options_.init_from.empty()) inherited_ = trainer_->inherit(read_model(options_.init_from));
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
  write_file(folder_.environment(), environment());
  metrics_ = std::make_unique<JsonLines>(folder_.metrics());
  const std::int64_t seen = trainer_->step();
  const std::string where = folder_.metrics().string();
  metrics_->truncate_after([&](const nlohmann::json& json) {
    MetricsLine line = parse_metrics_line(json, where);
    line.metrics.autoencoder = trainer_->model().autoencoder();
    if (line.step <= seen) seconds_before_ = line.seconds;
    if (line.step == trainer_->selection().best_step) {
      if (line.split == "validation") best_.validation = line.metrics;
      if (line.split == "test") best_.test = line.metrics;
    }
    return line.step > seen;
  });
  std::error_code error;
  if (trainer_->selection().best_step < 0 || fs::exists(folder_.model(), error)) return;
  // The model is the best checkpoint's.
  const TensorFile now = trainer_->checkpoint();
  trainer_->restore(read_safetensors(folder_.best()), folder_.best().string());
  write_model(folder_.model(), *trainer_);
  trainer_->restore(now, folder_.last().string());
}

// env.json: a resumed run still tells where its first weights were from.
std::string TrainRun::environment() const {
  nlohmann::ordered_json from;
  if (inherited_) {
    from = {{"path", fs::absolute(options_.init_from).lexically_normal().string()},
            {"taken", inherited_->taken},
            {"own", inherited_->own},
            {"unused", inherited_->unused}};
  } else if (std::error_code error;
             options_.resume && fs::is_regular_file(folder_.environment(), error)) {
    const auto before = nlohmann::ordered_json::parse(
        read_file(folder_.environment(), std::uint64_t{1} << 20), nullptr, false);
    if (before.is_object() && before.contains("init_from")) from = before.at("init_from");
  }
  return environment_text(config_, *dataset_, *device_, from);
}

std::string TrainRun::early_end() const {
  if (!trainer_->ends_early()) return {};
  const std::int64_t patience = config_.train.early_stopping.patience;
  return fmt::format(
      "early stopping after epoch {}: no better {} of the validation split in {} evaluation{}, the "
      "best was after epoch {}",
      trainer_->epoch(), config_.train.early_stopping.metric, patience, patience == 1 ? "" : "s",
      trainer_->selection().best_step / trainer_->steps_per_epoch());
}

std::vector<std::string> TrainRun::inheritance() const {
  if (!inherited_) return {};
  const std::size_t all = inherited_->taken.size() + inherited_->own.size();
  std::vector<std::string> lines = {fmt::format("weights of {}: {} of {} tensors taken",
                                                options_.init_from.string(),
                                                inherited_->taken.size(), all)};
  if (!inherited_->own.empty()) lines.push_back("  not taken: " + some_of(inherited_->own));
  if (!inherited_->unused.empty())
    lines.push_back("  there, not used here: " + some_of(inherited_->unused));
  return lines;
}

std::int64_t TrainRun::own_data_bytes() const {
  if (!holds_out_by_seed(config_.data)) return 0;
  return bytes_of(dataset_->train) + bytes_of(dataset_->validation);
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
    event->validation = trainer_->evaluate_validation();
    event->test = trainer_->evaluate_test();
    event->seconds = seconds_before_ + seconds;
    test_ = event->test;
    test_step_ = event->step;
    const auto write = [&](const std::string& split, const Metrics& metrics) {
      const Trainer::Rates rates = trainer_->rates();
      metrics_->append(
          metrics_line(epoch, event->step, split, metrics, rates.beta, rates.lr, event->seconds));
    };
    write("train", event->train);
    if (event->validation) write("validation", *event->validation);
    if (event->test) write("test", *event->test);
    if (event->validation && trainer_->observe(*event->validation)) {
      event->best = true;
      best_ = {event->validation, event->test};
    }
  }
  const bool best = event && event->best;
  if (best || done() || epoch % options_.save_every == 0) save(best);
  return event;
}

// Of the best, the last checkpoint is written last: one that knows of it has it beside it.
void TrainRun::save(bool best) {
  if (saved_step_ == trainer_->step()) return;
  const TensorFile checkpoint = trainer_->checkpoint();
  if (best) {
    write_safetensors(folder_.best(), checkpoint);
    write_model(folder_.model(), *trainer_);
  }
  write_safetensors(folder_.last(), checkpoint);
  made_->keep();
  if (trainer_->selection().best_step < 0) write_model(folder_.model(), *trainer_);
  saved_step_ = trainer_->step();
}

void TrainRun::evaluate() {
  if (test_step_ == trainer_->step() || trainer_->selection().best_step >= 0) return;
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
  report.stopped_early = trainer_->ends_early();
  if (const EarlyStopping::State& best = trainer_->selection(); best.best_step >= 0) {
    report.best = {.epoch = best.best_step / trainer_->steps_per_epoch(),
                   .step = best.best_step,
                   .metric = config_.train.early_stopping.metric,
                   .value = best.best};
    report.validation = best_.validation;
    report.test = best_.test;
  } else if (!diverged_ && test_step_ == trainer_->step()) {
    report.test = test_;
  }
  return report;
}

void TrainRun::finish() {
  const bool selected = trainer_->selection().best_step >= 0;
  if (!selected) write_model(folder_.model(), *trainer_);
  LoadedRun finished(folder_.path, *device_);
  if (selected) {  // what metrics.jsonl no longer tells
    const auto of = [&](const std::optional<DatasetSplit>& split, std::optional<Metrics>& figures) {
      if (!figures && split && split->size() > 0) figures = finished.evaluate(*split).metrics;
    };
    of(dataset_->validation, best_.validation);
    of(dataset_->test, best_.test);
  }
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
    if (!events.empty()) {
      if (evaluated) evaluated(trained);
      if (options.on_evaluation) options.on_evaluation(combined(events));
    }
    for (const TrainRun* run : group) {
      const std::string why = run->diverged() ? std::string() : run->early_end();
      if (why.empty() || !options.on_message) continue;
      options.on_message(runs.size() > 1 ? fmt::format("seed {}: {}", run->config().train.seed, why)
                                         : why);
    }
  }
  return trained;
}

void write_model(const fs::path& path, const Trainer& trainer) {
  write_safetensors(
      path, model_file(trainer.model(), trainer.weights(), trainer.dataset().train->labels));
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
