#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "config/keys.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "io/file.h"
#include "train/pictures.h"
#include "train/run_folder.h"

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

// Until it is kept, a fresh run can be undone: what it made is removed again, and a run that it
// replaces stands aside in a folder within.
class FreshFolder {
 public:
  FreshFolder(RunFolder folder, bool replace) : folder_(std::move(folder)) {
    std::error_code error;
    for (fs::path path = fs::absolute(folder_.path); !fs::exists(path, error);
         path = path.parent_path()) {
      made_.push_back(path);
      if (path == path.parent_path()) break;
    }
    try {
      if (replace) set_aside();
      create_folder(folder_.checkpoints());
    } catch (...) {
      discard();
      throw;
    }
  }
  FreshFolder(const FreshFolder&) = delete;
  FreshFolder& operator=(const FreshFolder&) = delete;
  ~FreshFolder() {
    if (!kept_) discard();
  }
  void keep() noexcept {
    kept_ = true;
    std::error_code error;
    if (!aside_.empty()) fs::remove_all(aside_, error);
    aside_.clear();
  }

 private:
  void set_aside() {
    const fs::path aside = folder_.path / ".replaced";
    std::error_code error;
    fs::remove_all(aside, error);
    create_folder(aside);
    aside_ = aside;
    for (const fs::path& file : folder_.files()) {
      if (!fs::exists(file, error)) continue;
      fs::rename(file, aside / file.filename(), error);
      if (error) {
        throw Error(Status::failed, "cannot set the old run aside: " + error.message(),
                    file.string(), "make the folder writable or choose another --out");
      }
      moved_.push_back(file);
    }
  }
  void discard() noexcept {
    std::error_code error;
    try {
      folder_.clear();
      if (!aside_.empty()) {
        fs::create_directories(folder_.checkpoints(), error);
        for (const fs::path& file : moved_) fs::rename(aside_ / file.filename(), file, error);
        fs::remove_all(aside_, error);
      }
    } catch (...) {  // a destructor must not throw; what stays is named by the first error
    }
    for (const fs::path& path : made_) fs::remove(path, error);  // innermost first
  }
  RunFolder folder_;
  fs::path aside_;               // the old run; empty: none
  std::vector<fs::path> moved_;  // its files, where they stood
  std::vector<fs::path> made_;
  bool kept_ = false;
};

// One training run: the loop with its files.
class TrainRun {
 public:
  TrainRun(const Config& config, const TrainRunOptions& options)
      : config_(config), options_(options), folder_{choose_folder()} {}

  TrainReport run() {
    const bool fresh = !options_.resume;
    TensorFile checkpoint;
    if (!fresh) {
      require_same(config_, folder_);
      std::error_code error;
      if (!fs::exists(folder_.last(), error)) {
        throw Error(Status::input, "the run has no checkpoint to go on from",
                    folder_.last().string(), "put it back, or start anew with --overwrite");
      }
      checkpoint = read_safetensors(folder_.last());
      require_finite(checkpoint);
    }
    device_ = open_device(config_.run.device,
                          {.threads = static_cast<int>(config_.run.threads), .real = DType::f32});
    TrainerOptions trainer_options{.compile = options_.compile};
    trainer_options.compile.exec = config_.run.exec;
    trainer_options.compile.precision = config_.run.precision;
    trainer_options.compile.autotune = config_.run.autotune;
    if (!fresh) trainer_options.compile.tuning = recorded_tuning(checkpoint);
    trainer_options.compile.steps = 0;
    device_->check(trainer_options.compile);  // before the data is read
    dataset_ = std::make_shared<const Dataset>(load_dataset(config_.data.path));
    trainer_ = std::make_unique<Trainer>(config_, dataset_, *device_, trainer_options);
    if (!fresh) {
      trainer_->restore(checkpoint, folder_.last().string());
      const std::string before = checkpoint.metadata.at("execution");
      if (before != trainer_->execution() && options_.on_message) {
        options_.on_message(
            fmt::format("note: the checkpoint was made by [{}], this goes on by [{}]: equal "
                        "within rounding, not bit for bit",
                        before, trainer_->execution()));
      }
      if (trainer_->step() > total_steps()) {
        throw Error(Status::usage,
                    fmt::format("train.epochs = {}, but the run has done {}", config_.train.epochs,
                                trainer_->epoch()),
                    "--resume", "ask for more epochs in all");
      }
    }
    announce();

    FreshFolder made(folder_, fresh && options_.overwrite);
    if (!fresh) made.keep();
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

    TrainReport report = loop(made);
    made.keep();
    return report;
  }

 private:
  fs::path choose_folder() const {
    if (options_.out.empty()) {
      if (options_.resume) {
        throw Error(Status::usage, "--resume without a run", "--out",
                    "name the run folder to go on with");
      }
      return default_run_path(config_.name);
    }
    const RunFolder folder{options_.out};
    if (options_.resume) {
      if (!folder.is_run()) {
        throw Error(Status::usage, "not a run folder", options_.out.string(),
                    "--resume wants the folder of an earlier run");
      }
    } else if (!folder.empty()) {
      if (!options_.overwrite) {
        throw Error(Status::usage, "the run folder is not empty", options_.out.string(),
                    "use --resume to go on, --overwrite to start anew, or another --out");
      }
      if (!folder.is_run()) {
        throw Error(Status::usage, "the folder is not empty and holds no run of cuvae",
                    options_.out.string(), "--overwrite replaces runs only; choose another --out");
      }
    }
    return options_.out;
  }

  [[nodiscard]] std::int64_t total_steps() const {
    return config_.train.epochs * trainer_->steps_per_epoch();
  }

  void announce() const {
    if (!options_.on_message) return;
    const DeviceInfo info = device_->info();
    options_.on_message(fmt::format("device {}: {}, {}", info.name, info.model, info.details));
    options_.on_message(fmt::format(
        "model {}: {} parameters; {} training samples, {} step{} an epoch; nats per sample",
        config_.name, format_count(trainer_->model().parameter_count()),
        format_count(dataset_->train->size()), format_count(trainer_->steps_per_epoch()),
        trainer_->steps_per_epoch() == 1 ? "" : "s"));
    options_.on_message("run folder " + folder_.path.string());
    if (!options_.resume) return;
    const std::int64_t step = trainer_->step();
    const std::int64_t epochs = config_.train.epochs;
    options_.on_message(
        step == total_steps()
            ? fmt::format("nothing left to train: {} of {} epochs are done", epochs, epochs)
            : fmt::format("going on after step {} (epoch {} of {})", format_count(step),
                          step / trainer_->steps_per_epoch() + 1, epochs));
  }

  TrainReport loop(FreshFolder& made) {
    TrainReport report;
    report.run = folder_.path;
    report.device = device_->info().name;
    report.exec = trainer_->program().exec();
    const std::int64_t first = trainer_->step();
    std::int64_t samples = 0;
    double seconds = 0;
    Clock::time_point shown = Clock::now();

    while (trainer_->step() < total_steps() && !report.interrupted) {
      const Clock::time_point start = Clock::now();
      const std::int64_t steps = trainer_->program().steps();
      for (const StepResult& result : trainer_->run(steps)) samples += result.n;
      seconds += seconds_since(start);
      const double rate = static_cast<double>(samples) / std::max(seconds, 1e-9);

      if (options_.on_progress && seconds_since(shown) > 0.1) {
        shown = Clock::now();
        progress(first, seconds, rate);
      }
      const bool epoch_done = trainer_->step() % trainer_->steps_per_epoch() == 0;
      const bool finished = trainer_->step() >= total_steps();
      if (options_.stop && !finished && options_.stop()) report.interrupted = true;
      if (epoch_done) {
        const std::int64_t epoch = trainer_->epoch();
        if (finished || epoch % options_.eval_every == 0) evaluate(epoch, seconds);
        if (finished || epoch % options_.save_every == 0) save(made);
      }
      if (report.interrupted && !(epoch_done && trainer_->epoch() % options_.save_every == 0)) {
        save(made);
      }
    }

    report.train = trainer_->epoch_metrics();
    if (test_ && test_step_ == trainer_->step())
      report.test = test_;
    else if (!report.interrupted)  // a run resumed at its end still reports where it stands
      report.test = trainer_->evaluate_test();
    report.epochs = trainer_->epoch();
    report.steps = trainer_->step();
    report.seconds = seconds;
    report.samples_per_second = seconds > 0 ? static_cast<double>(samples) / seconds : 0.0;
    if (report.interrupted) return report;  // at once: evaluation and pictures can take long
    write_model(folder_.model(), *trainer_);
    LoadedRun finished(folder_.path, *device_);
    write_pictures(finished, *dataset_, folder_);
    return report;
  }

  void progress(std::int64_t first, double seconds, double rate) const {
    TrainProgress now;
    now.step = trainer_->step();
    now.steps = total_steps();
    now.epochs = config_.train.epochs;
    now.epoch = (now.step - 1) / trainer_->steps_per_epoch() + 1;
    now.train = trainer_->epoch_metrics();
    now.samples_per_second = rate;
    const auto done = static_cast<double>(now.step - first);
    now.seconds_left = seconds / done * static_cast<double>(now.steps - now.step);
    options_.on_progress(now);
  }

  void evaluate(std::int64_t epoch, double seconds) {
    EvaluationEvent event;
    event.epoch = epoch;
    event.epochs = config_.train.epochs;
    event.step = trainer_->step();
    event.train = trainer_->epoch_metrics();
    event.test = trainer_->evaluate_test();
    event.seconds = seconds_before_ + seconds;
    test_ = event.test;
    test_step_ = event.step;
    const auto write = [&](const std::string& split, const Metrics& metrics) {
      metrics_->append(metrics_line(epoch, event.step, split, metrics, config_.objective.beta,
                                    config_.train.lr, event.seconds));
    };
    write("train", event.train);
    if (event.test) write("test", *event.test);
    if (options_.on_evaluation) options_.on_evaluation(event);
  }

  void save(FreshFolder& made) {
    write_safetensors(folder_.last(), trainer_->checkpoint());
    made.keep();
    write_model(folder_.model(), *trainer_);
  }

  Config config_;
  TrainRunOptions options_;
  RunFolder folder_;
  std::unique_ptr<Device> device_;
  std::shared_ptr<const Dataset> dataset_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<JsonLines> metrics_;
  std::optional<Metrics> test_;
  std::int64_t test_step_ = -1;
  double seconds_before_ = 0;  // of training, in the processes before a resume
};

}  // namespace

void write_model(const fs::path& path, const Trainer& trainer) {
  write_safetensors(path, model_file(trainer.model(), trainer.weights()));
}

TrainReport train_run(const Config& config, const TrainRunOptions& options) {
  validate(config);
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
  return TrainRun(config, options).run();
}

}  // namespace cuvae
