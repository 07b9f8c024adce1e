#pragma once
// A training with its files, in the parts that one run and several side by side have in common.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cuvae/error.h"
#include "cuvae/run.h"
#include "io/file.h"
#include "train/fresh_folder.h"
#include "train/run_folder.h"

namespace cuvae {

// Error(usage) for options that make no sense, whatever is trained.
void check_options(const TrainRunOptions& options);

// What runs have in common.
struct Workplace {
  std::shared_ptr<Device> device;
  std::shared_ptr<const Dataset> dataset;
  TrainerOptions trainer;
};
[[nodiscard]] Workplace open_workplace(const Config& config, const TrainRunOptions& options,
                                       std::int64_t replicas);

class TrainRun;

// What a training tells before it begins, over the folder `path`; `more` is a line of its own.
void announce(const TrainRun& run, const TrainRunOptions& options,
              const std::filesystem::path& path, const std::string& more = {});

// How far a training has come in this process.
struct Trained {
  double seconds = 0;  // of training steps alone
  bool interrupted = false;
};

// One run: the trainer and its folder. Parts are called in the order in which they stand here.
class TrainRun {
 public:
  // Calls none of the options' callbacks. To resume, reads the checkpoint.
  TrainRun(const Config& config, const TrainRunOptions& options, std::filesystem::path folder);
  void open(const Workplace& workplace);
  // Whether the device has room for the end of the run too: makes ready what finish() will want,
  // and gives it back. Bytes; Error(device) where there is too little.
  [[nodiscard]] std::int64_t rehearse_end() const;
  // Makes or opens the folder's files.
  void start();

  // The program's next run.
  void launch();
  void collect();
  // Asks the steps under way to end early. Any thread may.
  void stop() noexcept { trainer_->stop(); }
  [[nodiscard]] bool can_stop() const { return trainer_->program().exec() == "persistent"; }
  // At the end of an epoch: the evaluation and the checkpoint, as far as they are due.
  [[nodiscard]] std::optional<EvaluationEvent> end_epoch(double seconds);
  // The checkpoint, unless it is written already; the best, with the model, where it is that.
  void save(bool best = false);

  // The test figures of where it stands, unless they are known or the best weights count.
  void evaluate();
  // Where it stands, with the figures that are known.
  [[nodiscard]] TrainReport report(const Trained& trained) const;
  // The final weights and the pictures.
  void finish();

  void diverge(const Error& error) { diverged_ = error; }
  [[nodiscard]] const std::optional<Error>& diverged() const noexcept { return diverged_; }
  [[nodiscard]] std::int64_t samples() const noexcept { return samples_; }
  [[nodiscard]] const Config& config() const noexcept { return config_; }
  [[nodiscard]] const RunFolder& folder() const noexcept { return folder_; }
  [[nodiscard]] const Trainer& trainer() const noexcept { return *trainer_; }
  [[nodiscard]] const Dataset& dataset() const noexcept { return *dataset_; }
  [[nodiscard]] std::int64_t total_steps() const {
    return config_.train.epochs * trainer_->steps_per_epoch();
  }
  [[nodiscard]] bool done() const {
    return trainer_->step() >= total_steps() || trainer_->ends_early();
  }
  // What early stopping has to say about the end; empty where it did not end it.
  [[nodiscard]] std::string early_end() const;
  [[nodiscard]] bool at_epoch_end() const {
    return trainer_->step() % trainer_->steps_per_epoch() == 0;
  }
  // The difference to how the checkpoint was made; empty: none.
  [[nodiscard]] const std::string& note() const noexcept { return note_; }
  // What was taken of options.init_from, lines for the log.
  [[nodiscard]] std::vector<std::string> inheritance() const;
  // Of data that this run does not share with others.
  [[nodiscard]] std::int64_t own_data_bytes() const;
  // The algorithms of a library's products.
  [[nodiscard]] const Tuning& tuning() const noexcept { return *tuning_; }
  // Null before start().
  [[nodiscard]] FreshFolder* made() noexcept { return made_ ? &*made_ : nullptr; }

 private:
  [[nodiscard]] std::string environment() const;
  Config config_;
  TrainRunOptions options_;
  RunFolder folder_;
  TensorFile checkpoint_;
  std::shared_ptr<Device> device_;
  std::shared_ptr<const Dataset> dataset_;
  std::shared_ptr<const Tuning> tuning_;
  std::unique_ptr<Trainer> trainer_;
  std::optional<FreshFolder> made_;
  std::unique_ptr<JsonLines> metrics_;
  std::string note_;
  std::optional<Inherited> inherited_;
  // The best evaluation's figures, as far as they are known.
  struct Best {
    std::optional<Metrics> validation;
    std::optional<Metrics> test;
  } best_;
  std::int64_t samples_ = 0;  // of this process
  std::optional<Metrics> test_;
  std::int64_t test_step_ = -1;
  std::int64_t saved_step_ = -1;
  double seconds_before_ = 0;  // of training, in the processes before a resume
  std::optional<Error> diverged_;
};

// Trains all runs to their end, or until options.stop(), with options' callbacks. Within an epoch
// every run's next steps are launched before another's are waited for; at its end all wait for
// each other, so that evaluations and checkpoints take no time from anybody's steps. One that
// diverges is left where it stands (TrainRun::diverged()), and the others go on. `evaluated` is
// called after every evaluation.
[[nodiscard]] Trained train_side_by_side(std::span<TrainRun* const> runs,
                                         const TrainRunOptions& options,
                                         const std::function<void(const Trained&)>& evaluated = {});

}  // namespace cuvae
