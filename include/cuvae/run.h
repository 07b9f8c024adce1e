#pragma once
// Runs on disk: a folder with config.toml, env.json, model.safetensors, checkpoints/,
// metrics.jsonl, samples.png and reconstructions.png; and what one does with a finished run.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"
#include "cuvae/evaluation.h"
#include "cuvae/fitted_prior.h"
#include "cuvae/model.h"
#include "cuvae/probe.h"
#include "cuvae/sample_quality.h"
#include "cuvae/trainer.h"

namespace cuvae {

struct TrainProgress {
  std::int64_t epoch = 0;  // 1-based, the one under way
  std::int64_t epochs = 0;
  std::int64_t step = 0;   // done, of the whole training
  std::int64_t steps = 0;  // of the whole training
  Metrics train;           // of this epoch so far
  double samples_per_second = 0;
  double seconds_left = 0;
  std::int64_t fold = 0;   // 1-based, of train_folds()
  std::int64_t folds = 0;  // 0: not one of those
};

struct EvaluationEvent {
  std::int64_t epoch = 0;  // finished epochs
  std::int64_t epochs = 0;
  std::int64_t step = 0;
  Metrics train;
  std::optional<Metrics> validation;
  std::optional<Metrics> test;
  bool best = false;   // of the validation figures so far
  double seconds = 0;  // of training, resumed parts included
  std::int64_t fold = 0;
  std::int64_t folds = 0;
  // Of train_replicas(): the figures are means over so many, with deviations of their neg_elbo.
  std::int64_t replicas = 1;
  double train_sd = 0;
  double validation_sd = 0;
  double test_sd = 0;
};

struct TrainRunOptions {
  std::filesystem::path out;    // empty: runs/<name>-<n>, the first free n
  bool resume = false;          // go on from out's last checkpoint
  bool overwrite = false;       // empty a non-empty run folder first (only one that is a run)
  std::int64_t save_every = 1;  // epochs between checkpoints; the last is always written
  std::int64_t eval_every = 1;  // epochs between evaluations; the last is always evaluated
  // A run folder or a model.safetensors whose weights it begins with, as far as names and shapes
  // fit (Trainer::inherit); env.json tells. Not with `resume`, which goes on without it.
  std::filesystem::path init_from;
  CompileOptions compile;
  std::function<void(const TrainProgress&)> on_progress;  // a few times a second
  std::function<void(const EvaluationEvent&)> on_evaluation;
  std::function<void(const std::string&)> on_message;  // one line for the log
  // Polled after each run of the program (a step, or those of one launch): true ends the training
  // after a checkpoint. A launch of the persistent path ends early for it: there it is called from
  // another thread as well, every few milliseconds.
  std::function<bool()> stop;
};

// The evaluation whose weights model.safetensors holds, where there are rows for validation.
struct BestEvaluation {
  std::int64_t epoch = 0;
  std::int64_t step = 0;
  std::string metric;  // train.early_stopping.metric
  double value = 0;    // of the validation split
};

struct TrainReport {
  std::filesystem::path run;
  std::int64_t epochs = 0;
  std::int64_t steps = 0;
  std::string device;
  std::string exec;
  double seconds = 0;        // training steps alone, of this process
  double total_seconds = 0;  // with those of the processes that it went on from
  double samples_per_second = 0;
  Metrics train;
  // Of the weights in model.safetensors: the best where there are rows for validation.
  std::optional<Metrics> validation;
  std::optional<Metrics> test;
  std::optional<BestEvaluation> best;
  bool stopped_early = false;
  bool interrupted = false;
};

// Trains. With `resume`, `config` may differ from the run's own only in train.epochs and [run];
// anything else is Error(usage) naming the key. A run folder that was made and got no checkpoint
// (an error before the first) is removed again, and a run that it was to replace is put back.
// Error(device) before anything is trained where the training, or its end beside it, does not fit
// in memory.
TrainReport train_run(const Config& config, const TrainRunOptions& options);

// Mean and standard deviation (of a sample: n - 1; 0 for one) of each term over replicas.
struct MetricsSpread {
  std::int64_t replicas = 0;
  Metrics mean;
  Metrics sd;
};
[[nodiscard]] MetricsSpread spread_of(const std::vector<Metrics>& all);

struct ReplicaReport {
  std::int64_t seed = 0;
  TrainReport report;
  bool done = false;     // all epochs are
  std::string diverged;  // why; empty: it did not
};
struct ReplicasReport {
  std::filesystem::path run;
  std::int64_t seed = 0;  // of the first
  std::string device;
  std::string exec;
  double seconds = 0;             // training steps of all, of this process
  double total_seconds = 0;       // with those of the processes that it went on from
  double samples_per_second = 0;  // of all
  bool running = false;           // as it stands in the file while they train
  bool interrupted = false;
  std::vector<ReplicaReport> replicas;
  // Over those that did not diverge; nothing where there are none.
  std::optional<MetricsSpread> train;
  std::optional<MetricsSpread> validation;
  std::optional<MetricsSpread> test;
};

inline constexpr std::int64_t most_replicas = 1024;

// For several models side by side on a GPU: the CUDA driver gives a process eight queues to it, and
// streams that share one wait for each other. For more than four models this asks for 32
// (CUDA_DEVICE_MAX_CONNECTIONS, unless the environment has it). Call it before the first device is
// opened, from the only thread; later it is without effect.
void ask_for_queues(std::int64_t replicas);

// Trains `replicas` models of one configuration side by side on one device, with the seeds
// train.seed, train.seed + 1, ...: each is bit for bit what train_run() makes of its seed by the
// same executor (run.exec = auto: graphs, where there are several on a GPU). They share the data,
// on the device as well. RUN/seed-<s>/ is a complete run folder for each; RUN/replicas.json holds
// replicas_json(), written anew after every evaluation. One that diverges is left behind and the
// others go on; Error(diverged) where none is left before any checkpoint. With `resume`, all go on
// that have not diverged. Error(device) before anything is trained where they do not fit in memory
// together, with what the end of a run takes.
ReplicasReport train_replicas(const Config& config, std::int64_t replicas,
                              const TrainRunOptions& options);

// One JSON object: {schema, state, replicas, seed, device, exec, seconds, total_seconds,
// samples_per_second, interrupted, mean: {train, validation, test}, sd: the same, results: [{seed,
// folder, state, epochs, steps, diverged, train, validation, test}]}; null is what is not known.
// The whole `state` is "running", "interrupted" or "done" (the process has come to its end), a
// replica's is "running" (epochs are left), "done" or "diverged"; a process that was killed leaves
// "running".
[[nodiscard]] std::string replicas_json(const ReplicasReport& report);

// What a folder of replicas holds; nothing where it has no replicas.json. Error(input) where that
// is damaged.
struct ReplicasSummary {
  struct Replica {
    std::int64_t seed = 0;
    std::filesystem::path folder;
    std::int64_t epochs = 0;
    std::int64_t steps = 0;
    std::string diverged;
  };
  std::int64_t seed = 0;
  double total_seconds = 0;
  std::vector<Replica> replicas;  // by seed, without a gap
};
[[nodiscard]] std::optional<ReplicasSummary> read_replicas(const std::filesystem::path& run);

struct FoldReport {
  std::int64_t fold = 0;
  TrainReport report;
  bool done = false;     // all epochs are, or early stopping ended it
  std::string diverged;  // why; empty: it did not
};
struct FoldsReport {
  std::filesystem::path run;
  std::int64_t seed = 0;
  std::string device;
  std::string exec;
  double seconds = 0;        // training steps of all, of this process
  double total_seconds = 0;  // with those of the processes that it went on from
  bool running = false;      // as it stands in the file while they train
  bool interrupted = false;
  // What the configuration said of what each fold, where it says 0, has a value of its own for;
  // and the epochs, which such a schedule ends with.
  std::int64_t schedule_steps = 0;  // train.schedule.steps
  std::int64_t dataset = 0;         // objective.dataset
  std::int64_t told_epochs = 0;
  std::vector<FoldReport> results;
  // Over those that did not diverge; nothing where there are none.
  std::optional<MetricsSpread> train;
  std::optional<MetricsSpread> validation;
  std::optional<MetricsSpread> test;
};

inline constexpr std::int64_t most_folds = 1000;

// Cross-validation: trains `folds` models one after the other, each with data.folds = folds and
// another data.fold kept for validation. RUN/fold-<i>/ is a complete run folder for each;
// RUN/folds.json holds folds_json(), written anew after every evaluation. With `resume`, those that
// have begun go on, the others begin; `folds` must be what it was. One that diverges is left, the
// others are trained all the same; Error(diverged) where none is left.
FoldsReport train_folds(const Config& config, std::int64_t folds, const TrainRunOptions& options);

// One JSON object: {schema, state, folds, seed, device, exec, seconds, total_seconds, interrupted,
// told: {schedule_steps, dataset, epochs}, mean: {train, validation, test}, sd: the same, results:
// [{fold, folder, state, epochs, steps, best_epoch, diverged, train, validation, test}]}; states as
// in replicas_json(), and "waiting" for a fold that has not begun.
[[nodiscard]] std::string folds_json(const FoldsReport& report);

// What a folder of folds holds; nothing where it has no folds.json. Error(input) where that is
// damaged.
struct FoldsSummary {
  struct Fold {
    std::filesystem::path folder;
    std::int64_t epochs = 0;
    std::int64_t steps = 0;
    std::string diverged;
  };
  std::int64_t seed = 0;
  double total_seconds = 0;
  std::int64_t schedule_steps = 0;
  std::int64_t dataset = 0;
  std::int64_t told_epochs = 0;
  std::vector<Fold> folds;
};
[[nodiscard]] std::optional<FoldsSummary> read_folds(const std::filesystem::path& run);

// Writes a trainer's weights as a model.safetensors that `cuvae eval`, `sample` and LoadedRun read.
void write_model(const std::filesystem::path& path, const Trainer& trainer);

struct EvaluationOptions {
  std::int64_t z_samples = 1;   // latent samples of a row, averaged
  std::int64_t iw_samples = 0;  // of the importance-weighted log-likelihood; 0 leaves it out
  std::int64_t mi_rows = 2000;  // of the mutual information, at most; 0 leaves it out
  int threads = 0;              // of what is computed on the host; 0: all cores
};

// What `cuvae eval` tells of a split.
struct Evaluation {
  Metrics metrics;  // averaged over the latent samples
  // "bernoulli (grey)" where the pixels are not all 0 or 1: then it is a cross-entropy, no density.
  std::string likelihood;
  // neg_elbo / (features log 2), where the likelihood is one of what is stored; + 8 of a density of
  // dequantised bytes. Of an autoencoder none.
  std::optional<double> bits_per_dim;
  std::int64_t levels = 0;  // what the bits are of: values that a feature can have; 0: 0 and 1
  std::string no_bits;      // why there are none
  // Of a Gaussian with one sigma for all: of a feature as the model sees it, over rows and latent
  // samples. None where the likelihood's constants leave too few digits of it.
  std::optional<double> mean_squared_error;
  LatentStatistics latents;                             // of all rows
  std::int64_t active_units = 0;                        // latents.active()
  std::optional<MutualInformation> mutual_information;  // with mi_rows
  std::int64_t iw_samples = 0;
  std::optional<double> log_likelihood;  // mean over rows, nats, with iw_samples
  double log_likelihood_error = 0;       // its standard error over rows
  // Of the importance samples, over rows: 1 says that a single one decides a row's figure.
  std::optional<RowSummary> effective_samples;
};

// How far samples of the prior are from a split, by features of DigitClassifier.
struct SampleJudgement {
  std::int64_t n = 0;  // samples, and rows of the split
  Kid kid;
  PrecisionRecall precision_recall;
};
struct SampleJudgementOptions {
  std::int64_t samples = 10'000;  // at most; no more than the split has rows
  std::uint64_t seed = 0;         // of the samples, and of which rows and subsets
  int threads = 0;
};

// What [run] asks of Device::compile(): executor, precision, autotune.
[[nodiscard]] CompileOptions compile_options(const RunConfig& run);

class Decoder;

struct PriorFit {
  std::string kind = "gaussian";  // gaussian | gmm
  int components = 10;            // gmm
  std::uint64_t seed = 0;
};

struct SampleOptions {
  std::optional<std::int64_t> label;   // of a conditional model; nothing: row i gets i mod classes
  const FittedPrior* prior = nullptr;  // in the model's prior's place
};

// A trained model on a device, read from a run folder (or a model.safetensors itself).
class LoadedRun {
 public:
  // `options`: of every program, one step each; not what the run was trained with. (The persistent
  // executor trains only: here it is graphs.) Error(usage) for options that the device has not.
  LoadedRun(const std::filesystem::path& run, Device& device, const CompileOptions& options = {});
  LoadedRun(const LoadedRun&) = delete;
  LoadedRun& operator=(const LoadedRun&) = delete;
  ~LoadedRun();

  [[nodiscard]] const Config& config() const noexcept { return config_; }
  [[nodiscard]] const Model& model() const noexcept { return *model_; }
  // Labels that its training rows had, of a conditional model; empty where its file does not tell.
  [[nodiscard]] const std::vector<std::int64_t>& trained_labels() const noexcept { return labels_; }
  // SHA-256 of the data that the run was trained on; empty where its folder does not tell.
  [[nodiscard]] std::string trained_on() const;
  [[nodiscard]] Device& device() noexcept { return device_; }
  [[nodiscard]] Store& store() noexcept { return *store_; }

  // The run's own data where `path` is empty, its rows for validation apart. Throws where the
  // images have another shape.
  [[nodiscard]] std::shared_ptr<const Dataset> load_data(const std::string& path) const;

  // Error(usage) for numbers that make no sense.
  [[nodiscard]] Evaluation evaluate(const DatasetSplit& split,
                                    const EvaluationOptions& options = {});
  // Samples E[x|z] as pixels against rows of the split as they are stored (not binarised). Error
  // (usage) where the images are not those of DigitClassifier, or there are fewer than four rows.
  [[nodiscard]] SampleJudgement judge_samples(const DatasetSplit& split,
                                              const SampleJudgementOptions& options = {});
  // probe() of the posterior means. Error(input) where a split has no labels, Error(usage) where
  // there is no training or test split.
  [[nodiscard]] ProbeReport probe(const Dataset& dataset, const ProbeOptions& options = {});
  [[nodiscard]] RowScores score(const DatasetSplit& split);
  // Evaluator::importance() of each row.
  [[nodiscard]] std::vector<double> log_likelihood(const DatasetSplit& split, std::int64_t samples);
  // A prior for sample(), fitted to the latents of a split: an autoencoder's points, else a draw of
  // q(z|x) for each row.
  [[nodiscard]] FittedPrior fit_prior(const DatasetSplit& split, const PriorFit& how);
  // E[x|z] of draws from the prior (purpose generation): features [count, D]. Error(usage) for an
  // autoencoder without a fitted prior, and for a label that the model does not know.
  [[nodiscard]] Tensor sample(std::int64_t count, std::uint64_t seed,
                              const SampleOptions& options = {});
  // [n, latent] -> [n, D]. Programs of 1000 rows on a CPU and of 4096 on a GPU, and of the rest.
  // Labels where the decoder is told them: one for each row, or one for all.
  [[nodiscard]] Tensor decode(const Tensor& latents, const std::vector<std::int64_t>& labels = {});
  struct Reconstruction {
    Tensor original;        // [n, D], as the model sees it
    Tensor reconstruction;  // [n, D], E[x|z = mean]
  };
  [[nodiscard]] Reconstruction reconstruct(const DatasetSplit& split,
                                           const std::vector<std::int64_t>& indices);
  struct Encoding {
    Tensor mean;    // [n, latent]
    Tensor logvar;  // [n, latent], bounded; of an autoencoder no rows
  };
  // The encoder alone, as many rows at a time as decode(): the figures of score() within rounding.
  // Error(diverged) where one is not finite.
  [[nodiscard]] Encoding encode(const DatasetSplit& split);

 private:
  [[nodiscard]] Evaluator make_evaluator(const DatasetSplit& split);
  [[nodiscard]] Tensor draw_prior(std::int64_t count, std::uint64_t seed);
  Config config_;
  Device& device_;
  CompileOptions options_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<std::int64_t> labels_;
  std::filesystem::path run_;
};

// What a run folder holds, for `cuvae info RUN`; reads no data.
struct RunSummary {
  Config config;
  InputSpec input;
  std::int64_t parameters = 0;
  // Of the last checkpoint, which may stand within an epoch.
  std::int64_t steps_done = 0;
  std::int64_t steps_per_epoch = 0;  // 0 where there is no checkpoint
  std::int64_t metrics_epoch = 0;    // the evaluation that the figures below are from
  std::optional<Metrics> train;
  std::optional<Metrics> validation;
  std::optional<Metrics> test;
  std::optional<BestEvaluation> best;
  std::vector<std::string> files;
};
[[nodiscard]] RunSummary summarise_run(const std::filesystem::path& run);

}  // namespace cuvae
