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
#include "cuvae/model.h"
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
};

struct EvaluationEvent {
  std::int64_t epoch = 0;  // finished epochs
  std::int64_t epochs = 0;
  std::int64_t step = 0;
  Metrics train;
  std::optional<Metrics> test;
  double seconds = 0;  // of training, resumed parts included
  // Of train_replicas(): the figures are means over so many, with deviations of their neg_elbo.
  std::int64_t replicas = 1;
  double train_sd = 0;
  double test_sd = 0;
};

struct TrainRunOptions {
  std::filesystem::path out;    // empty: runs/<name>-<n>, the first free n
  bool resume = false;          // go on from out's last checkpoint
  bool overwrite = false;       // empty a non-empty run folder first (only one that is a run)
  std::int64_t save_every = 1;  // epochs between checkpoints; the last is always written
  std::int64_t eval_every = 1;  // epochs between evaluations; the last is always evaluated
  CompileOptions compile;
  std::function<void(const TrainProgress&)> on_progress;  // a few times a second
  std::function<void(const EvaluationEvent&)> on_evaluation;
  std::function<void(const std::string&)> on_message;  // one line for the log
  // Polled after each run of the program (a step, or those of one launch): true ends the training
  // after a checkpoint. A launch of the persistent path ends early for it: there it is called from
  // another thread as well, every few milliseconds.
  std::function<bool()> stop;
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
  std::optional<Metrics> test;
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
// samples_per_second, interrupted, mean: {train, test}, sd: {train, test}, results: [{seed, folder,
// state, epochs, steps, diverged, train, test}]}; null is what is not known. The whole `state` is
// "running", "interrupted" or "done" (the process has come to its end), a replica's is "running"
// (epochs are left), "done" or "diverged"; a process that was killed leaves "running".
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

// Writes a trainer's weights as a model.safetensors that `cuvae eval`, `sample` and LoadedRun read.
void write_model(const std::filesystem::path& path, const Trainer& trainer);

// What `cuvae eval` tells of a split.
struct Evaluation {
  Metrics metrics;  // averaged over the latent samples
  // "bernoulli (grey)" where the pixels are not all 0 or 1: then it is a cross-entropy, no density.
  std::string likelihood;
  std::optional<double> bits_per_dim;  // neg_elbo / (features log 2), where the likelihood is one
  // Latents whose posterior mean varies: Var_x(E[z|x]) > 0.01 (Burda et al. 2016, section 5.2).
  std::int64_t active_units = 0;
  std::int64_t iw_samples = 0;
  std::optional<double> log_likelihood;  // mean over rows, nats, with iw_samples
  double log_likelihood_error = 0;       // its standard error over rows
};

// What [run] asks of Device::compile(): executor, precision, autotune.
[[nodiscard]] CompileOptions compile_options(const RunConfig& run);

class Decoder;

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
  [[nodiscard]] Device& device() noexcept { return device_; }
  [[nodiscard]] Store& store() noexcept { return *store_; }

  // The run's own data where `path` is empty. Throws where the images have another shape.
  [[nodiscard]] std::shared_ptr<const Dataset> load_data(const std::string& path) const;

  // Error(usage) for z_samples < 1 or iw_samples < 0; 0 leaves the log-likelihood out.
  [[nodiscard]] Evaluation evaluate(const DatasetSplit& split, std::int64_t z_samples = 1,
                                    std::int64_t iw_samples = 0);
  [[nodiscard]] RowScores score(const DatasetSplit& split);
  // Evaluator::log_likelihood() of each row.
  [[nodiscard]] std::vector<double> log_likelihood(const DatasetSplit& split, std::int64_t samples);
  // E[x|z] of draws from the prior (purpose generation): features [count, D].
  [[nodiscard]] Tensor sample(std::int64_t count, std::uint64_t seed);
  // [n, latent] -> [n, D]. Programs of 1000 rows on a CPU and of 4096 on a GPU, and of the rest.
  [[nodiscard]] Tensor decode(const Tensor& latents);
  struct Reconstruction {
    Tensor original;        // [n, D], as the model sees it
    Tensor reconstruction;  // [n, D], E[x|z = mean]
  };
  [[nodiscard]] Reconstruction reconstruct(const DatasetSplit& split,
                                           const std::vector<std::int64_t>& indices);
  struct Encoding {
    Tensor mean;    // [n, latent]
    Tensor logvar;  // [n, latent], bounded
  };
  // The encoder alone, as many rows at a time as decode(): the figures of score() within rounding.
  // Error(diverged) where one is not finite.
  [[nodiscard]] Encoding encode(const DatasetSplit& split);

 private:
  [[nodiscard]] Evaluator make_evaluator(const DatasetSplit& split);
  Config config_;
  Device& device_;
  CompileOptions options_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Decoder> decoder_;
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
  std::optional<Metrics> test;
  std::vector<std::string> files;
};
[[nodiscard]] RunSummary summarise_run(const std::filesystem::path& run);

}  // namespace cuvae
