#pragma once
// Training and evaluation of one model on one device, without files: the loop's state machine.
// run.h puts run folders, checkpoints on disk and metrics around it.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"
#include "cuvae/evaluation.h"
#include "cuvae/model.h"
#include "cuvae/safetensors.h"
#include "cuvae/schedule.h"

namespace cuvae {

// Averages per sample, in nats. neg_elbo = reconstruction + kl whatever beta is.
struct Metrics {
  std::int64_t n = 0;  // samples
  double loss = 0;     // reconstruction + beta * kl
  double neg_elbo = 0;
  double reconstruction = 0;
  double kl = 0;
  // Share of rows whose label q(y|x) guesses: of a semi-supervised model evaluated on rows with
  // labels. Whoever has none has labels from elsewhere, or is no such model.
  std::optional<double> accuracy = {};
  bool autoencoder = false;  // there is no bound: kl is 0, and neg_elbo the reconstruction
};

struct StepResult {
  std::int64_t step = 0;   // 0-based, of the whole training
  std::int64_t epoch = 0;  // 0-based
  std::int64_t n = 0;      // rows of the batch
  double loss = 0;
  double reconstruction = 0;
  double kl = 0;
};

// Scores of single rows, by dataset index.
struct RowScores {
  std::vector<double> reconstruction;
  std::vector<double> kl;
  Tensor mean;    // [n, latent]
  Tensor logvar;  // [n, latent]; of an autoencoder no rows
  // Of beta_tc and mmd: what the loss adds to the reconstruction, a mean over the batches of the
  // evaluation, on each of which it was estimated.
  double regulariser = 0;
  // The most probable class under q(y|x), of a semi-supervised model. [n]
  std::vector<std::int64_t> guesses = {};
};

// InputSpec of a dataset under data.scale. unit: values in [0, 1], which are bytes / 255, or reals
// as they are: Error(input) where one leaves [0, 1]. none: as they are. standardise: less the mean
// of all features of the training split together, over their deviation.
[[nodiscard]] InputSpec input_spec(const Dataset& dataset, const DataConfig& config);

// The data with the rows apart that data.validation or data.folds keeps for validation: of the
// training split by train.seed, or loaded from elsewhere. Error(usage) where nothing would be left
// on either side, Error(input) for other data that do not fit. Weights of training rows come with
// it where data.weights is a file; Error(input) for one that does not fit.
[[nodiscard]] Dataset hold_out(Dataset dataset, const Config& config);
// hold_out() of load_dataset(data.path): what a training of that configuration reads.
[[nodiscard]] Dataset load_data(const Config& config);

// Where a checkpoint stands. Error(input) for a file that is none.
struct TrainingPosition {
  std::int64_t step = 0;
  std::int64_t steps_per_epoch = 0;
};
[[nodiscard]] TrainingPosition training_position(const TensorFile& checkpoint);
// The best evaluation so far by train.early_stopping.metric; nothing where none was.
[[nodiscard]] std::optional<EarlyStopping::State> recorded_selection(const TensorFile& checkpoint);
// The algorithms that it was made with, for CompileOptions::tuning: with them, what goes on from it
// computes the same bits, and nothing is timed again. Error(input) for a record that is none.
[[nodiscard]] std::shared_ptr<Tuning> recorded_tuning(const TensorFile& checkpoint);

// Evaluates rows of a split with latent sample `sample` (purpose evaluation; keyed by dataset
// index, so that it does not depend on the batch size).
class Evaluator {
 public:
  // The store holds the parameters. `split` outlives the evaluator.
  Evaluator(Device& device, Store& store, const Model& model, const DatasetSplit& split,
            std::uint64_t seed, const CompileOptions& options, const ObjectiveConfig& objective);
  Evaluator(Device& device, Store& store, const Model& model, const DatasetSplit& split,
            std::uint64_t seed, const CompileOptions& options = {});  // of the ELBO
  // Throws Error(diverged) where a score is not finite.
  [[nodiscard]] RowScores rows(std::int64_t sample = 0);
  // log p(x) of each row by importance weighting (Burda, Grosse and Salakhutdinov, "Importance
  // Weighted Autoencoders", 2016): log(1/K sum_k p(x, z_k) / q(z_k|x)), z_k the latent samples
  // 0 to K-1. A lower bound in expectation that rises with K; how many of the K count beside it.
  // Streamed: memory does not depend on K. Throws Error(diverged) where a weight is not finite.
  [[nodiscard]] ImportanceRows importance(std::int64_t samples);
  // Averages over the split, summed in double in index order, with loss(): one objective for
  // training and evaluation, at its last weights (no warm-up).
  [[nodiscard]] Metrics metrics(std::int64_t sample = 0);
  // All but the loss, which is left at 0.
  [[nodiscard]] Metrics average(const RowScores& scores) const;
  // The trained objective over the split. iwae and dreg take objective.samples passes for it.
  [[nodiscard]] double loss(const RowScores& scores, const Metrics& average);
  // What its programs take beside the store.
  [[nodiscard]] std::int64_t arena_bytes() const;

 private:
  // The program for the rows from `position` on, after it has run with that latent sample.
  Program& run_batch(std::int64_t position, std::int64_t sample);
  void bind();
  Store& store_;
  const Model& model_;
  const DatasetSplit& split_;
  std::uint64_t seed_;
  ObjectiveConfig objective_;
  std::shared_ptr<const Tensor> labels_;  // of a conditional model
  std::int64_t batch_ = 0;
  std::unique_ptr<Program> full_;  // null where the split is smaller than one batch
  std::unique_ptr<Program> rest_;  // the last rows
};

struct TrainerOptions {
  // compile.steps = training steps per program run; 0: one on a CPU and node by node, else chosen
  // so that an epoch takes few runs.
  CompileOptions compile;
  std::int64_t stream_rows = 0;  // > 0: a streaming window of at most so many rows
};

// Training steps per run for which an epoch of so many takes the fewest runs, if the rest is done
// one by one: at most 64, and so many that a plan has no more than 4096 tasks.
[[nodiscard]] int unrolled_steps(std::int64_t steps_per_epoch, std::int64_t nodes);

// What Trainer::inherit() did, by the names of tensors.
struct Inherited {
  std::vector<std::string> taken;
  std::vector<std::string> own;     // those that stay as they were, and why: "x [3] (there [4])"
  std::vector<std::string> unused;  // of the file
};

class Trainer {
 public:
  // Builds, plans and compiles; weights are drawn from train.seed. The dataset must have a training
  // split, and one for validation where the configuration asks for it (hold_out()). Trainers of one
  // dataset on one GPU share the device memory of its images. Throws
  // Error(usage) for a configuration that validate() refuses and where the batch is larger than the
  // data, Error(device) out of memory.
  Trainer(const Config& config, std::shared_ptr<const Dataset> dataset, Device& device,
          const TrainerOptions& options = {});
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  [[nodiscard]] std::int64_t steps_per_epoch() const noexcept { return steps_per_epoch_; }
  [[nodiscard]] std::int64_t step() const noexcept { return step_; }
  [[nodiscard]] std::int64_t epoch() const noexcept { return step_ / steps_per_epoch_; }

  // Seconds of what a training waits for before its first step.
  struct WarmUp {
    double upload = 0;   // of the data: in the constructor, and until all of it is on the device
    double capture = 0;  // of a first run of every program
  };
  // Waits for the data and makes every program ready to run (a GPU: captured), without a step: all
  // that the first run() would otherwise do besides training. Before the first step or between two.
  // Each second is told once: another call tells of what that call does. Where it throws, training
  // goes on as if it had not been called.
  WarmUp warm_up();
  // The constructor's part of WarmUp::upload; 0 once warm_up() has told it.
  [[nodiscard]] double upload_seconds() const noexcept { return upload_seconds_; }

  // Runs up to `steps` steps, ending early at the end of an epoch; returns each step's terms.
  // Throws Error(diverged) at the first non-finite loss.
  std::vector<StepResult> run(std::int64_t steps);

  // run() in halves, so that several trainers of one device compute side by side: launch() starts
  // the next run of the program, of at most `steps` steps (nothing for 0), and collect() waits for
  // it and returns its terms. A GPU works on in between; a CPU has done it when launch() returns.
  // Until it is collected, the trainer's state stands between steps: what reads or sets it, and
  // another launch, is Error(usage).
  void launch(std::int64_t steps);
  std::vector<StepResult> collect();

  [[nodiscard]] Model& model() noexcept { return model_; }
  [[nodiscard]] const Model& model() const noexcept { return model_; }
  [[nodiscard]] Store& store() noexcept { return *store_; }
  [[nodiscard]] Device& device() const noexcept { return device_; }
  [[nodiscard]] Program& program() noexcept { return *program_; }
  [[nodiscard]] const Program& program() const noexcept { return *program_; }
  // What another trainer like this takes: weights, moments, activations; not the images, which they
  // share.
  [[nodiscard]] std::int64_t memory_bytes() const;
  [[nodiscard]] const Config& config() const noexcept { return config_; }
  [[nodiscard]] const Dataset& dataset() const noexcept { return *dataset_; }

  // Of the last step that was done (before it: of the first). A plateau that the last evaluation
  // has ended counts already.
  struct Rates {
    double lr = 0;
    double beta = 0;
  };
  [[nodiscard]] Rates rates() const {
    const std::int64_t step = step_ > 0 ? step_ - 1 : 0;
    return {rate_.value(step), kl_weight_.value(step)};
  }

  // Averages over the steps of the current epoch (weighted by their rows); after its last step they
  // stand until the next epoch's first.
  [[nodiscard]] Metrics epoch_metrics() const;
  // On the test split, and on the one for validation; nothing where there is none. With train.ema,
  // by the averaged weights. Throws Error(diverged) for figures that are not finite.
  [[nodiscard]] std::optional<Metrics> evaluate_test();
  [[nodiscard]] std::optional<Metrics> evaluate_validation();

  // What the validation figures of now mean to a plateau's learning rate and to early stopping,
  // both by train.early_stopping.metric. True where they are the best so far.
  bool observe(const Metrics& validation);
  [[nodiscard]] const EarlyStopping::State& selection() const { return selection_.state(); }
  // Early stopping has ended the training: run() would go on all the same.
  [[nodiscard]] bool ends_early() const { return selection_.ends(); }

  // Takes every tensor of the file whose name and shape is one of the model's, before the first
  // step: transfer learning. Error(input) where none fits.
  Inherited inherit(const TensorFile& file);

  // The weights, named as in files: with train.ema the averaged ones. Throws Error(diverged) where
  // one is not finite.
  [[nodiscard]] std::vector<NamedTensor> weights() const;
  // Everything that training goes on from: parameters, moments, averages, counters, sums of the
  // epoch, what observe() has seen.
  // Throws Error(diverged) where a parameter or moment is not finite.
  [[nodiscard]] TensorFile checkpoint() const;
  // How this trainer computes: what a checkpoint's bitwise continuation depends on.
  [[nodiscard]] std::string execution() const;
  // What a user should know of it (Program::note).
  [[nodiscard]] std::string note() const { return program_->note(); }
  // Asks the steps under way to end early, where the executor can (Program::stop): run() and
  // collect() return those that were done. Between two launches it asks nothing. Any thread may
  // call it.
  void stop() noexcept;
  // Throws Error(input) naming `where` if it does not fit this model and dataset.
  void restore(const TensorFile& file, std::string_view where);

 private:
  void bind_window(std::shared_ptr<const Tensor> rows);
  void prepare(std::int64_t rows);
  void write_hyper();
  void set_commit(bool commit);
  void require_collected() const;
  [[noreturn]] void diverged(const std::string& what) const;
  void require_finite_state(const std::vector<NamedTensor>& tensors) const;
  void start_from(const std::vector<NamedTensor>& weights, std::string_view where);
  [[nodiscard]] std::vector<NamedTensor> evaluated_weights() const;
  [[nodiscard]] std::optional<Metrics> evaluate(Evaluator* evaluator, std::string_view split);
  void follow_plateau();
  Config config_;
  std::shared_ptr<const Dataset> dataset_;
  Device& device_;
  TrainerOptions options_;
  Model model_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<BatchSource> source_;
  std::unique_ptr<Program> program_;  // options_.compile.steps steps of a full batch
  std::unique_ptr<Program> single_;   // one step of a full batch; null if program_ is that
  std::unique_ptr<Program> last_;     // the smaller last batch; null if dropped or none
  std::unique_ptr<Store> average_;    // what evaluation reads with train.ema; null: store_
  std::unique_ptr<Evaluator> test_;
  std::unique_ptr<Evaluator> validation_;
  std::shared_ptr<const Tensor> bound_;   // the window the store shows now
  std::shared_ptr<const Tensor> labels_;  // of a conditional model
  std::vector<double> weights_;           // of the training rows; none without data.weights
  std::int64_t batch_ = 0;
  std::int64_t last_rows_ = 0;
  std::int64_t steps_per_epoch_ = 0;
  std::int64_t step_ = 0;
  std::vector<std::string> prefixes_;  // of what the optimiser keeps
  LearningRate rate_ = LearningRate::constant(0);
  KlWeight kl_weight_ = KlWeight::constant(1);
  std::optional<PlateauLearningRate> plateau_;
  EarlyStopping selection_{0};
  bool scheduled_ = false;          // one of them changes
  std::int64_t hyper_steps_ = 1;    // rows of `hyper`
  bool commits_ = false;            // whether the device keeps what a step computes
  double upload_seconds_ = 0;       // of binding the data in the constructor
  Program* launched_ = nullptr;     // and not collected
  std::int64_t launched_rows_ = 0;  // of each of its steps
  struct Sums {
    std::int64_t n = 0;
    double loss = 0, reconstruction = 0, kl = 0;
  } sums_;
};

}  // namespace cuvae
