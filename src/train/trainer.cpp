#include "cuvae/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/text.h"
#include "cuvae/error.h"
#include "likelihoods/likelihoods.h"
#include "train/initial_weights.h"
#include "train/labels.h"
#include "train/targets.h"
#include "train/weights.h"

namespace cuvae {
namespace {

constexpr const char* checkpoint_format = "cuvae.checkpoint";
constexpr std::int64_t most_in_a_launch = 4096;  // steps of the persistent path: some 50 ms

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Reals in a checkpoint's metadata are hexadecimal, so that they come back bit for bit.
std::string exact(double value) {
  std::array<char, 64> text{};
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::hex);
  return {text.data(), end.ptr};
}

class Metadata {
 public:
  Metadata(const TensorFile& file, std::string_view where) : file_(file), where_(where) {}

  [[nodiscard]] const std::string& text(const std::string& key) const {
    const auto found = file_.metadata.find(key);
    if (found == file_.metadata.end()) refuse("has no `" + key + "`");
    return found->second;
  }
  [[nodiscard]] std::int64_t integer(const std::string& key) const {
    return parse<std::int64_t>(key, [](const char* a, const char* b, std::int64_t& value) {
      return std::from_chars(a, b, value);
    });
  }
  [[nodiscard]] double real(const std::string& key) const {
    return parse<double>(key, [](const char* a, const char* b, double& value) {
      return std::from_chars(a, b, value, std::chars_format::hex);
    });
  }
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Status::input, "the checkpoint " + what, where_,
                "resume from a checkpoint of this very run, or train anew with --overwrite");
  }

 private:
  template <class T, class Read>
  T parse(const std::string& key, Read read) const {
    const std::string& value = text(key);
    T parsed{};
    const char* end = value.data() + value.size();
    const auto result = read(value.data(), end, parsed);
    if (result.ec != std::errc() || result.ptr != end) {
      refuse("has `" + key + "` = `" + value + "`");
    }
    return parsed;
  }
  const TensorFile& file_;
  std::string where_;
};

std::vector<NamedTensor> starting_with(const TensorFile& file, std::string_view prefix) {
  std::vector<NamedTensor> chosen;
  for (const NamedTensor& named : file.tensors) {
    if (named.name.starts_with(prefix)) chosen.push_back(named);
  }
  return chosen;
}

TrainingSpec spec_of(const Config& config, std::int64_t dataset_rows, std::int64_t batch,
                     const BatchSource& source, std::int64_t steps) {
  TrainingSpec spec = training_spec(config);
  spec.batch = batch;
  spec.dataset = dataset_rows;
  spec.window = source.window_rows();
  spec.steps = steps;
  spec.staged = source.staged();
  return spec;
}

LearningRate learning_rate(const TrainConfig& train, std::int64_t steps_per_epoch) {
  const ScheduleConfig& schedule = train.schedule;
  LearningRate rate = LearningRate::constant(train.lr);
  if (schedule.type == "step") {
    rate = LearningRate::steps(train.lr, schedule.steps, schedule.factor);
  } else if (schedule.type == "cosine") {
    const std::int64_t all = train.epochs * steps_per_epoch;
    rate =
        LearningRate::cosine(train.lr, schedule.steps > 0 ? schedule.steps : all, schedule.floor);
  } else if (schedule.type == "iwae") {
    rate = LearningRate::iwae_stages(train.lr, steps_per_epoch, true);
  }
  const std::int64_t warm = schedule.warmup;
  return warm > 0 ? rate.after_warmup(warm, 1.0 / static_cast<double>(warm)) : rate;
}

struct Moments {
  double mean;
  double variance;
};

Moments moments_of_bytes(const Tensor& images) {
  // Sums of integers up to 255 and 255^2 are exact in 64 bits.
  std::uint64_t sum = 0;
  std::uint64_t squares = 0;
  const auto pixels = images.as<std::uint8_t>();
  for (const std::uint64_t pixel : pixels) {
    sum += pixel;
    squares += pixel * pixel;
  }
  const auto n = static_cast<double>(pixels.size());
  const double mean = static_cast<double>(sum) / n;
  return {mean, static_cast<double>(squares) / n - mean * mean};
}

Moments moments_of_reals(const Tensor& images) {
  const auto values = images.as<float>();
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const float value : values) sum += double{value};
  const double mean = sum / n;
  double squares = 0;
  for (const float value : values) squares += (double{value} - mean) * (double{value} - mean);
  return {mean, squares / n};
}

// Reals must be finite, and within [0, 1] where the model is to see them so.
void require_real(const Dataset& dataset, bool unit) {
  for (const auto* split : {&dataset.train, &dataset.test, &dataset.validation}) {
    if (!*split) continue;
    const auto values = (*split)->images->as<float>();
    const std::int64_t width = std::max<std::int64_t>(dataset.image.features(), 1);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const bool fits = unit ? values[i] >= 0 && values[i] <= 1 : std::isfinite(values[i]);
      if (fits) continue;
      const auto at = static_cast<std::int64_t>(i);
      const bool counts = std::ranges::all_of(
          values, [](float value) { return value >= 0 && value == std::floor(value); });
      throw Error(Status::input,
                  fmt::format("row {}, feature {} of the {} split is {}{}", at / width, at % width,
                              split == &dataset.train  ? "training"
                              : split == &dataset.test ? "test"
                                                       : "validation",
                              values[i],
                              unit ? ", which `data.scale` = \"unit\" takes from 0 to 1 only" : ""),
                  dataset.path.string(),
                  !unit    ? "give finite numbers"
                  : counts ? "of counts use `data.scale` = \"none\", `model.likelihood.type` = "
                             "\"negative_binomial\" and `data.encoder_transform` = [\"log1p\"]; "
                             "pixels are to be bytes, array.astype('uint8')"
                           : "use `data.scale` = \"standardise\" (or \"none\") with "
                             "`model.likelihood.type` = \"gaussian\"");
    }
  }
}

std::optional<PlateauLearningRate> plateau_of(const TrainConfig& train) {
  const ScheduleConfig& schedule = train.schedule;
  if (schedule.type != "plateau") return std::nullopt;
  return PlateauLearningRate(train.lr, {.factor = schedule.factor,
                                        .patience = schedule.patience,
                                        .threshold = schedule.threshold,
                                        .cooldown = schedule.cooldown,
                                        .floor = schedule.floor});
}

double figure(const Metrics& metrics, const std::string& name) {
  if (name == "loss") return metrics.loss;
  if (name == "reconstruction") return metrics.reconstruction;
  return name == "kl" ? metrics.kl : metrics.neg_elbo;
}

EarlyStopping::State selection_in(const Metadata& metadata) {
  const EarlyStopping::State state{.best = metadata.real("selection.best"),
                                   .best_step = metadata.integer("selection.best_step"),
                                   .bad = metadata.integer("selection.bad")};
  if (std::isnan(state.best) || state.best_step < -1 || state.bad < 0)
    metadata.refuse("has an impossible selection");
  return state;
}

PlateauLearningRate::State plateau_in(const Metadata& metadata) {
  const PlateauLearningRate::State state{.lr = metadata.real("plateau.lr"),
                                         .best = metadata.real("plateau.best"),
                                         .bad = metadata.integer("plateau.bad"),
                                         .cooldown = metadata.integer("plateau.cooldown")};
  if (!(state.lr >= 0 && std::isfinite(state.lr)) || std::isnan(state.best) || state.bad < 0 ||
      state.cooldown < 0)
    metadata.refuse("has an impossible plateau");
  return state;
}

// What column 1 of the hyper-parameters is at each step.
KlWeight kl_weight(const ObjectiveConfig& objective) {
  const WarmupConfig& warmup = objective.warmup;
  if (objective.type == "capacity")
    return objective.capacity_steps > 0
               ? KlWeight::linear(objective.capacity, objective.capacity_steps)
               : KlWeight::constant(objective.capacity);
  if (warmup.type == "linear") return KlWeight::linear(objective.beta, warmup.steps);
  if (warmup.type == "cyclical")
    return KlWeight::cyclical(objective.beta, warmup.steps, warmup.cycles, warmup.rise);
  return KlWeight::constant(objective.beta);
}

}  // namespace

std::shared_ptr<Tuning> recorded_tuning(const TensorFile& checkpoint) {
  const auto found = checkpoint.metadata.find("algorithms");
  return std::make_shared<Tuning>(found == checkpoint.metadata.end()
                                      ? Tuning()
                                      : Tuning::parse(found->second, checkpoint.source));
}

TrainingPosition training_position(const TensorFile& checkpoint) {
  const Metadata metadata(checkpoint, checkpoint.source);
  const TrainingPosition position{.step = metadata.integer("step"),
                                  .steps_per_epoch = metadata.integer("steps_per_epoch")};
  if (position.step < 0 || position.steps_per_epoch < 1) metadata.refuse("has impossible counters");
  return position;
}

std::optional<EarlyStopping::State> recorded_selection(const TensorFile& checkpoint) {
  if (!checkpoint.metadata.contains("selection.best_step")) return std::nullopt;
  const EarlyStopping::State state = selection_in(Metadata(checkpoint, checkpoint.source));
  if (state.best_step < 0) return std::nullopt;
  return state;
}

InputSpec input_spec(const Dataset& dataset, const DataConfig& config) {
  InputSpec spec;
  spec.channels = dataset.image.channels;
  spec.height = dataset.image.height;
  spec.width = dataset.image.width;
  spec.dtype = data_type(dataset);
  spec.binarise = config.binarise;
  spec.dequantise = config.dequantise;
  spec.transforms = config.encoder_transform;
  const bool bytes = spec.dtype == DType::u8;
  if (config.dequantise && !bytes)
    throw Error(Status::input, "`data.dequantise` of data that are no bytes", dataset.path.string(),
                "leave it out: reals have no levels to fill up");
  if (!bytes) require_real(dataset, config.scale == "unit");
  if (config.scale == "none" || (config.scale == "unit" && !bytes)) {
    spec.scale = 1.0;
  } else if (config.scale == "standardise") {
    if (!dataset.train) {
      throw Error(Status::input, "no training split to standardise by", dataset.path.string(),
                  "use a data folder that has one, or data.scale = \"unit\"");
    }
    const auto [mean, variance] =
        bytes ? moments_of_bytes(*dataset.train->images) : moments_of_reals(*dataset.train->images);
    if (!(variance > 0)) {
      throw Error(Status::input, "all values of the training split are equal",
                  dataset.path.string(), "use data.scale = \"unit\"");
    }
    spec.shift = mean;
    spec.scale = 1.0 / std::sqrt(variance);
  }
  return spec;
}

int unrolled_steps(std::int64_t steps_per_epoch, std::int64_t nodes) {
  constexpr std::int64_t most_steps = 64;
  constexpr std::int64_t most_tasks = 4096;
  const std::int64_t most = std::min(most_steps, most_tasks / std::max<std::int64_t>(nodes, 1));
  std::int64_t best = 1;
  std::int64_t fewest = steps_per_epoch;
  for (std::int64_t steps = 2; steps <= most; ++steps) {
    const std::int64_t runs = steps_per_epoch / steps + steps_per_epoch % steps;
    if (runs < fewest) {
      best = steps;
      fewest = runs;
    }
  }
  return static_cast<int>(best);
}

Trainer::Trainer(const Config& config, std::shared_ptr<const Dataset> dataset, Device& device,
                 const TrainerOptions& options)
    : config_(config),
      dataset_(std::move(dataset)),
      device_(device),
      options_(options),
      model_(config.model, input_spec(*dataset_, config.data)),
      store_(device.make_store()),
      batch_(config.train.batch_size) {
  validate(config);
  if (!dataset_->train) {
    throw Error(Status::input, "the data has no training split", dataset_->path.string(),
                "give a folder with train-images-idx3-ubyte[.gz] or train.npy");
  }
  require_targets(*dataset_, model_);
  if ((config.data.validation.any() || config.data.folds > 0) && !dataset_->validation) {
    throw Error(Status::usage, "the rows for validation are not apart from those for training",
                "data.validation, data.folds", "give the trainer hold_out(dataset, config)");
  }
  const DatasetSplit& split = *dataset_->train;
  const std::int64_t rows = split.size();
  if (batch_ > rows) {
    throw Error(Status::usage,
                "a batch of " + format_count(batch_) + " from " + format_count(rows) + " samples",
                "--batch-size, train.batch_size", "choose at most " + format_count(rows));
  }
  if (config_.objective.type == "beta_tc" && config_.objective.dataset == 0)
    config_.objective.dataset = rows;
  last_rows_ = config.train.drop_last ? 0 : rows % batch_;
  if (last_rows_ == 1 && config.objective.type == "beta_tc" && config.objective.estimator == "mss")
    throw Error(Status::usage, "the last batch of an epoch has one row, and no strata",
                "train.drop_last", "leave train.drop_last = true, or choose another batch size");
  steps_per_epoch_ = rows / batch_ + (last_rows_ > 0 ? 1 : 0);

  device_.check(options_.compile);
  if (!options_.compile.tuning) options_.compile.tuning = std::make_shared<Tuning>();
  if (options_.compile.steps == 0) {
    // Worth it where a run costs more to launch than to wait for.
    const bool graphs = device_.info().name.starts_with("cuda") && options_.compile.exec != "eager";
    const ResidentSource whole(split);
    const Graph one = model_.training_graph(spec_of(config_, rows, batch_, whole, 1));
    const std::int64_t full = rows / batch_;
    if (options_.compile.exec == "persistent" && device_.unfit(one, options_.compile).empty())
      options_.compile.steps = static_cast<int>(std::min<std::int64_t>(full, most_in_a_launch));
    else if (graphs)
      options_.compile.steps = unrolled_steps(full, static_cast<std::int64_t>(one.nodes().size()));
    else
      options_.compile.steps = 1;
  }
  labels_ = labels_for(model_, split, dataset_->path.string(), Told::training);
  if (labels_ && options_.stream_rows > 0)
    throw Error(Status::usage, "a conditional model with a streamed data set", "stream_rows",
                "keep the data resident");
  weights_ = training_weights(config.data, split, dataset_->path.string());
  if (!weights_.empty() && options_.stream_rows > 0)
    throw Error(Status::usage, "weights of rows with a streamed data set", "stream_rows",
                "keep the data resident");
  const std::int64_t steps = options_.compile.steps;
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  if (options_.stream_rows > 0) {
    const std::int64_t most = std::max(options_.stream_rows, batch_ * steps);
    source_ =
        std::make_unique<StreamingSource>(split, seed, config.train.shuffle, std::min(most, rows));
  } else {
    source_ = std::make_unique<ResidentSource>(split);
  }

  const auto compile = [&](std::int64_t batch, int unrolled) {
    CompileOptions compile_options = options_.compile;
    compile_options.steps = unrolled;
    return device_.compile(model_.training_graph(spec_of(config_, rows, batch, *source_, steps)),
                           *store_, compile_options);
  };
  const bool resident = options_.stream_rows <= 0;
  if (resident) static_cast<void>(store_->share(store_name::data, split.images));
  if (config.train.ema > 0) average_ = device_.make_store();
  Store& shown = average_ ? *average_ : *store_;
  std::vector<const DatasetSplit*> evaluated;
  for (const auto* apart : {&dataset_->test, &dataset_->validation})
    if (*apart && (*apart)->size() > 0) evaluated.push_back(&**apart);
  // Rows of one number have one name, under which they then change places: no memory to share.
  if (evaluated.size() < 2 || evaluated[0]->size() != evaluated[1]->size())
    for (const DatasetSplit* apart : evaluated)
      static_cast<void>(shown.share(store_name::eval_data(apart->size()), apart->images));
  program_ = compile(batch_, options_.compile.steps);
  if (steps > 1) single_ = compile(batch_, 1);
  if (last_rows_ > 0) last_ = compile(last_rows_, 1);
  // Initial weights and checkpoints are copies in the host's memory.
  if (const auto there = device_.free_bytes(); there && device_.info().name == "cpu") {
    const std::int64_t each = config.train.ema > 0 ? 4 : 3;
    const std::int64_t copies = each * model_.parameter_count() * std::int64_t{sizeof(float)};
    if (copies > *there)
      throw Error(Status::device,
                  fmt::format("not enough memory: {} for a checkpoint of the weights and moments, "
                              "{} are available",
                              format_bytes(copies), format_bytes(*there)),
                  "cpu", "use a smaller model");
  }

  start_from(initial_weights(model_, config_, *dataset_), "initial weights");
  ScheduleConfig& schedule = config_.train.schedule;
  if (schedule.type == "cosine" && schedule.steps == 0)
    schedule.steps = config.train.epochs * steps_per_epoch_;  // whatever the epochs become
  prefixes_ = update_rule(config.train.optimizer).prefixes();
  rate_ = learning_rate(config_.train, steps_per_epoch_);
  kl_weight_ = kl_weight(config.objective);
  plateau_ = plateau_of(config_.train);
  selection_ = EarlyStopping(config.train.early_stopping.patience);
  scheduled_ = config.train.schedule.type != "constant" || config.train.schedule.warmup > 0 ||
               config.objective.warmup.type != "none" ||
               (config.objective.type == "capacity" && config.objective.capacity_steps > 0);
  hyper_steps_ = steps;
  write_hyper();
  set_commit(true);

  for (const DatasetSplit* apart : evaluated) {
    const bool tests = dataset_->test && apart == &*dataset_->test;
    try {
      (tests ? test_ : validation_) = std::make_unique<Evaluator>(
          device_, shown, model_, *apart, seed, options_.compile, config_.objective);
    } catch (const Error& error) {
      if (error.status() != Status::device) throw;
      throw Error(Status::device,
                  fmt::format("the evaluation beside the training: {}", error.what()));
    }
  }
  const Clock::time_point start = Clock::now();
  if (resident) bind_window(split.images);
  if (labels_) store_->bind(store_name::labels, labels_);
  write_labelled(*store_, config_, split);
  show_weights(*store_, config.data, weights_);
  for (const DatasetSplit* apart : evaluated)
    shown.bind(store_name::eval_data(apart->size()), apart->images);
  upload_seconds_ = seconds_since(start);
}

// Whether an update counts is the device's to read: programs run, and change nothing.
void Trainer::set_commit(bool commit) {
  commits_ = false;  // unknown, where the write fails
  const std::array<std::int64_t, 1> flag{commit ? 1 : 0};
  store_->write(store_name::commit, Tensor(Shape{1}, std::span<const std::int64_t>(flag)));
  commits_ = commit;
}

void Trainer::bind_window(std::shared_ptr<const Tensor> rows) {
  bound_.reset();  // a bind that fails leaves neither window
  store_->bind(store_name::data, rows);
  bound_ = std::move(rows);
}

// The learning rate and beta of the steps from here on, a row for each that a program unrolls.
void Trainer::write_hyper() {
  Tensor hyper(DType::f64, Shape{hyper_steps_, 2});
  for (std::int64_t s = 0; s < hyper_steps_; ++s) {
    hyper.as<double>()[static_cast<std::size_t>(2 * s)] = rate_.value(step_ + s);
    hyper.as<double>()[static_cast<std::size_t>(2 * s + 1)] = kl_weight_.value(step_ + s);
  }
  store_->write(store_name::hyper,
                device_.info().real == DType::f64 ? hyper : hyper.to(DType::f32));
}

// Shows the device the rows and the counters of the next `steps` steps of `rows` rows in all.
void Trainer::prepare(std::int64_t rows) {
  const std::int64_t epoch = step_ / steps_per_epoch_;
  const std::int64_t position = step_ % steps_per_epoch_ * batch_;
  const Window window = source_->window(epoch, position, rows);
  if (window.rows != bound_) bind_window(window.rows);
  if (scheduled_) write_hyper();
  const std::array<std::int64_t, 5> clock{config_.train.seed, step_, epoch, position, window.base};
  store_->write(store_name::clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
}

Trainer::WarmUp Trainer::warm_up() {
  require_collected();
  // However it ends, training goes on from where it stands, and counts.
  struct Restore {
    Trainer& trainer;
    std::int64_t step;
    ~Restore() {
      trainer.step_ = step;
      if (trainer.commits_) return;
      try {
        trainer.set_commit(true);
      } catch (...) {  // launch() insists
      }
    }
  };
  const Restore restore{*this, step_};
  step_ -= step_ % steps_per_epoch_;  // the epoch's start: every program has its rows there
  WarmUp times;
  auto start = Clock::now();
  set_commit(false);
  prepare(batch_ * program_->steps());
  static_cast<void>(store_->read(store_name::clock));  // waits for the uploads
  times.upload = std::exchange(upload_seconds_, 0.0) + seconds_since(start);
  start = Clock::now();
  for (Program* program : {program_.get(), single_.get(), last_.get()}) {
    if (program == nullptr) continue;
    prepare(program == last_.get() ? last_rows_ : batch_ * program->steps());
    program->run();
    static_cast<void>(program->read_steps("loss"));
  }
  set_commit(true);
  times.capture = seconds_since(start);
  return times;
}

[[noreturn]] void Trainer::diverged(const std::string& what) const {
  std::string mend = fmt::format("lower train.lr (now {})", config_.train.lr);
  // Counts reach where no network's weights of the usual size lead.
  const auto is_log1p = [](const TransformConfig& t) { return t.type == "log1p"; };
  if (likelihood_target(config_.model.likelihood.type) == LikelihoodTarget::counts &&
      std::ranges::none_of(config_.data.encoder_transform, is_log1p))
    mend += ", or set data.encoder_transform = [\"log1p\"]: the encoder sees counts as they are";
  throw Error(Status::diverged, what, "training", mend);
}

std::vector<StepResult> Trainer::run(std::int64_t steps) {
  const std::int64_t epoch_end = (epoch() + 1) * steps_per_epoch_;
  const std::int64_t end = step_ + std::clamp<std::int64_t>(steps, 0, epoch_end - step_);
  std::vector<StepResult> results;
  while (step_ < end) {
    launch(end - step_);
    const auto launched = static_cast<std::size_t>(launched_->steps());
    const std::vector<StepResult> done = collect();
    results.insert(results.end(), done.begin(), done.end());
    if (done.size() < launched) break;  // it was stopped
  }
  return results;
}

void Trainer::require_collected() const {
  if (launched_ == nullptr) return;
  throw Error(Status::usage, "a run was launched and not collected", "trainer",
              "call collect() first");
}

void Trainer::launch(std::int64_t steps) {
  require_collected();
  const std::int64_t epoch_end = (epoch() + 1) * steps_per_epoch_;
  const std::int64_t full_end = epoch_end - (last_rows_ > 0 ? 1 : 0);
  const std::int64_t end = step_ + std::clamp<std::int64_t>(steps, 0, epoch_end - step_);
  if (step_ >= end) return;
  const std::int64_t left = std::min(end, full_end) - step_;
  Program& program = left <= 0                               ? *last_
                     : left >= program_->steps() || !single_ ? *program_
                                                             : *single_;
  launched_rows_ = left <= 0 ? last_rows_ : batch_;
  if (!commits_) set_commit(true);
  prepare(launched_rows_ * program.steps());
  program.run();
  launched_ = &program;
}

std::vector<StepResult> Trainer::collect() {
  std::vector<StepResult> results;
  if (launched_ == nullptr) return results;
  const Program& program = *std::exchange(launched_, nullptr);
  const std::int64_t batch = launched_rows_;
  const std::int64_t epoch = step_ / steps_per_epoch_;
  const Tensor loss = program.read_steps("loss");                      // [steps]
  const Tensor reconstruction = program.read_steps("reconstruction");  // [steps]
  const Tensor kl = program.read_steps("kl");                          // [steps]
  const int done = program.steps_done();
  for (int s = 0; s < done; ++s) {
    const StepResult result{.step = step_,
                            .epoch = epoch,
                            .n = batch,
                            .loss = loss.item(s),
                            .reconstruction = reconstruction.item(s),
                            .kl = kl.item(s)};
    if (!std::isfinite(result.loss)) {
      diverged(fmt::format("the loss is not finite at step {} (epoch {})", format_count(step_ + 1),
                           epoch + 1));
    }
    if (step_ % steps_per_epoch_ == 0) sums_ = {};
    const auto n = static_cast<double>(batch);
    sums_.n += batch;
    sums_.loss += n * result.loss;
    sums_.reconstruction += n * result.reconstruction;
    sums_.kl += n * result.kl;
    results.push_back(result);
    ++step_;
  }
  return results;
}

// The loss of a step is that of the weights before it, so the last update has to be looked at.
void Trainer::require_finite_state(const std::vector<NamedTensor>& tensors) const {
  for (const NamedTensor& named : tensors) {
    for (std::int64_t i = 0; i < named.tensor.elements(); ++i) {
      if (!std::isfinite(named.tensor.item(i))) {
        diverged(fmt::format("`{}` is not finite after step {}", named.name, format_count(step_)));
      }
    }
  }
}

std::vector<NamedTensor> Trainer::weights() const {
  require_collected();
  std::vector<NamedTensor> tensors = evaluated_weights();
  require_finite_state(tensors);
  return tensors;
}

// Averages begin as the weights do.
void Trainer::start_from(const std::vector<NamedTensor>& weights, std::string_view where) {
  model_.load(*store_, weights, where);
  if (!average_) return;
  std::vector<NamedTensor> averages = model_.save(*store_, store_name::ema);
  for (NamedTensor& average : averages) {
    const auto of = std::ranges::find_if(weights, [&](const NamedTensor& weight) {
      return average.name == store_name::ema + weight.name;
    });
    average.tensor = of->tensor;
  }
  model_.load(*store_, averages, where, store_name::ema);
}

// What is frozen, and running statistics, have no average: they are as they are.
std::vector<NamedTensor> Trainer::evaluated_weights() const {
  std::vector<NamedTensor> tensors = model_.save(*store_);
  if (!average_) return tensors;
  for (NamedTensor& average : model_.save(*store_, store_name::ema)) {
    const auto weight = std::ranges::find_if(tensors, [&](const NamedTensor& tensor) {
      return average.name == store_name::ema + tensor.name;
    });
    weight->tensor = std::move(average.tensor);
  }
  return tensors;
}

Inherited Trainer::inherit(const TensorFile& file) {
  require_collected();
  if (step_ > 0)
    throw Error(Status::usage, "weights of another run after the first step", file.source,
                "take them before training");
  Inherited inherited;
  std::vector<NamedTensor> weights = model_.save(*store_);
  for (NamedTensor& own : weights) {
    const auto found = std::ranges::find_if(
        file.tensors, [&](const NamedTensor& named) { return named.name == own.name; });
    const bool counts = own.tensor.dtype() == DType::i64;
    if (found == file.tensors.end()) {
      inherited.own.push_back(own.name + " (not there)");
    } else if (!(found->tensor.shape() == own.tensor.shape())) {
      inherited.own.push_back(fmt::format("{} {} (there {})", own.name, own.tensor.shape().str(),
                                          found->tensor.shape().str()));
    } else if (counts != (found->tensor.dtype() == DType::i64)) {
      inherited.own.push_back(
          fmt::format("{} (there {})", own.name, name_of(found->tensor.dtype())));
    } else {
      own.tensor = counts ? found->tensor : found->tensor.to(DType::f32);
      inherited.taken.push_back(own.name);
    }
  }
  for (const NamedTensor& named : file.tensors)
    if (std::ranges::find(inherited.taken, named.name) == inherited.taken.end())
      inherited.unused.push_back(named.name);
  if (inherited.taken.empty())
    throw Error(Status::input, "no tensor fits this model by its name and shape", file.source,
                "give the run of a model that has layers in common with this one, or train its own "
                "configuration: cuvae train RUN/config.toml --init-from RUN");
  start_from(weights, file.source);
  return inherited;
}

void Trainer::stop() noexcept {
  for (Program* program : {program_.get(), single_.get(), last_.get()})
    if (program != nullptr) program->stop();
}

std::string Trainer::execution() const {
  const CompileOptions& how = options_.compile;
  std::string text = fmt::format("{}, {}", device_.info().numerics, program_->exec());
  if (how.precision != "fp32") text += ", " + how.precision;
  if (!how.fuse) text += ", unfused";
  if (const std::string tuning = program_->tuning(); !tuning.empty()) {
    // FNV-1a: the record itself stands beside it in the checkpoint.
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const unsigned char c : tuning) hash = (hash ^ c) * 0x100000001b3;
    text += fmt::format(", algorithms {:016x}", hash);
  }
  return text;
}

std::int64_t Trainer::memory_bytes() const {
  std::int64_t bytes = program_->arena_bytes() + program_->shadow_bytes();
  if (single_) bytes += single_->arena_bytes();
  if (last_) bytes += last_->arena_bytes();
  for (const Evaluator* evaluator : {test_.get(), validation_.get()})
    if (evaluator != nullptr) bytes += evaluator->arena_bytes();
  const auto real = static_cast<std::int64_t>(size_of(device_.info().real));
  // An average, and what evaluation reads.
  const auto states = static_cast<std::int64_t>(prefixes_.size()) + (average_ ? 2 : 0);
  return bytes + (1 + states) * real * model_.parameter_count();
}

Metrics Trainer::epoch_metrics() const {
  Metrics metrics;
  metrics.n = sums_.n;
  if (sums_.n == 0) return metrics;
  const auto n = static_cast<double>(sums_.n);
  metrics.loss = sums_.loss / n;
  metrics.reconstruction = sums_.reconstruction / n;
  metrics.kl = sums_.kl / n;
  metrics.neg_elbo = metrics.reconstruction + metrics.kl;
  metrics.autoencoder = model_.autoencoder();
  return metrics;
}

std::optional<Metrics> Trainer::evaluate_test() {
  return evaluate(test_.get(), "test");
}

std::optional<Metrics> Trainer::evaluate_validation() {
  return evaluate(validation_.get(), "validation");
}

std::optional<Metrics> Trainer::evaluate(Evaluator* evaluator, std::string_view split) {
  require_collected();
  if (evaluator == nullptr) return std::nullopt;
  if (average_) model_.load(*average_, evaluated_weights(), "averaged weights");
  try {
    return evaluator->metrics();
  } catch (const Error& error) {
    if (error.status() != Status::diverged) throw;
    diverged(
        fmt::format("the {} figures are not finite after step {}", split, format_count(step_)));
  }
}

bool Trainer::observe(const Metrics& validation) {
  require_collected();
  const double value = figure(validation, config_.train.early_stopping.metric);
  if (plateau_) {
    plateau_->observe(value);
    follow_plateau();
  }
  return selection_.observe(step_, value);
}

void Trainer::follow_plateau() {
  TrainConfig now = config_.train;
  now.lr = plateau_->value();
  rate_ = learning_rate(now, steps_per_epoch_);
}

TensorFile Trainer::checkpoint() const {
  require_collected();
  TensorFile file;
  std::vector<std::string> prefixes = {""};
  prefixes.insert(prefixes.end(), prefixes_.begin(), prefixes_.end());
  if (average_) prefixes.emplace_back(store_name::ema);
  for (const std::string& prefix : prefixes) {
    for (NamedTensor& named : model_.save(*store_, prefix)) {
      file.tensors.push_back(std::move(named));
    }
  }
  require_finite_state(file.tensors);
  if (config_.train.clip_norm > 0)
    file.tensors.push_back({store_name::skipped, store_->read(store_name::skipped)});
  file.metadata = {{checkpoint_format, "1"},
                   {"execution", execution()},
                   {"step", std::to_string(step_)},
                   {"steps_per_epoch", std::to_string(steps_per_epoch_)},
                   {"seed", std::to_string(config_.train.seed)},
                   {"data.sha256", dataset_->sha256},
                   {"epoch.n", std::to_string(sums_.n)},
                   {"epoch.loss", exact(sums_.loss)},
                   {"epoch.reconstruction", exact(sums_.reconstruction)},
                   {"epoch.kl", exact(sums_.kl)}};
  if (dataset_->validation) {
    const EarlyStopping::State& state = selection_.state();
    file.metadata["selection.best"] = exact(state.best);
    file.metadata["selection.best_step"] = std::to_string(state.best_step);
    file.metadata["selection.bad"] = std::to_string(state.bad);
    if (!dataset_->validation_sha256.empty())
      file.metadata["validation.sha256"] = dataset_->validation_sha256;
  }
  if (!weights_.empty()) file.metadata["weights.sha256"] = weights_sha256(weights_);
  if (plateau_) {
    const PlateauLearningRate::State& state = plateau_->state();
    file.metadata["plateau.lr"] = exact(state.lr);
    file.metadata["plateau.best"] = exact(state.best);
    file.metadata["plateau.bad"] = std::to_string(state.bad);
    file.metadata["plateau.cooldown"] = std::to_string(state.cooldown);
  }
  if (std::string tuning = program_->tuning(); !tuning.empty()) {
    file.metadata["tuning"] = std::move(tuning);
  }
  if (const Tuning& record = *options_.compile.tuning; !record.empty()) {
    file.metadata["algorithms"] = record.str();
  }
  return file;
}

void Trainer::restore(const TensorFile& file, std::string_view where) {
  require_collected();
  const Metadata metadata(file, where);
  if (metadata.text(checkpoint_format) != "1") metadata.refuse("has an unknown format");
  const std::int64_t step = metadata.integer("step");
  const std::int64_t n = metadata.integer("epoch.n");
  if (step < 0 || n < 0) metadata.refuse("has negative counters");
  if (metadata.text("data.sha256") != dataset_->sha256) {
    metadata.refuse("was made with other data (SHA-256 " + metadata.text("data.sha256") + ")");
  }
  if (metadata.integer("steps_per_epoch") != steps_per_epoch_) {
    metadata.refuse("was made with " + metadata.text("steps_per_epoch") +
                    " steps an epoch, now there are " + std::to_string(steps_per_epoch_));
  }
  if (metadata.integer("seed") != config_.train.seed) metadata.refuse("has another train.seed");
  (void)metadata.text("execution");
  if (const std::string& other = dataset_->validation_sha256;
      !other.empty() && metadata.text("validation.sha256") != other) {
    metadata.refuse("was made with other validation data (SHA-256 " +
                    metadata.text("validation.sha256") + ")");
  }
  if (!weights_.empty() && metadata.text("weights.sha256") != weights_sha256(weights_))
    metadata.refuse("was made with other data.weights");
  std::optional<EarlyStopping::State> selection;
  if (dataset_->validation) selection = selection_in(metadata);
  std::optional<PlateauLearningRate::State> plateau;
  if (plateau_) plateau = plateau_in(metadata);
  const Sums sums{.n = n,
                  .loss = metadata.real("epoch.loss"),
                  .reconstruction = metadata.real("epoch.reconstruction"),
                  .kl = metadata.real("epoch.kl")};

  // What belongs to an optimiser begins with its name, whichever it is.
  const std::string own = prefixes_.empty() ? "" : prefixes_[0].substr(0, prefixes_[0].find('.'));
  std::vector<NamedTensor> weights;
  const Tensor* skipped = nullptr;
  for (const NamedTensor& named : file.tensors) {
    if (named.name == store_name::skipped) {
      skipped = &named.tensor;
    } else if (named.name.starts_with("encoder.") || named.name.starts_with("decoder.") ||
               named.name.starts_with("likelihood.") || named.name.starts_with("prior.") ||
               named.name.starts_with("classifier.")) {
      weights.push_back(named);
    } else if (average_ && named.name.starts_with(store_name::ema)) {
      continue;
    } else if (own.empty() || !named.name.starts_with(own + ".")) {
      metadata.refuse("holds `" + named.name + "`, which train.optimizer = " +
                      config_.train.optimizer.type + " has no use for");
    }
  }
  if (config_.train.clip_norm > 0) {
    if (skipped == nullptr || !(skipped->shape() == Shape{1}) || skipped->dtype() != DType::i64)
      metadata.refuse("has no count of skipped steps, which train.clip_norm wants");
    store_->write(store_name::skipped, *skipped);
  }
  model_.load(*store_, weights, where);
  for (const std::string& prefix : prefixes_)
    model_.load(*store_, starting_with(file, prefix), where, prefix);
  if (average_) model_.load(*store_, starting_with(file, store_name::ema), where, store_name::ema);
  if (selection) selection_.restore(*selection);
  if (plateau) {
    plateau_->restore(*plateau);
    follow_plateau();
  }
  step_ = step;
  sums_ = sums;
}

}  // namespace cuvae
