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

namespace cuvae {
namespace {

constexpr const char* checkpoint_format = "cuvae.checkpoint";
constexpr std::string_view m_prefix = "adam.m.";
constexpr std::string_view v_prefix = "adam.v.";
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

TrainingSpec training_spec(const Config& config, std::int64_t dataset_rows, std::int64_t batch,
                           const BatchSource& source, std::int64_t steps) {
  TrainingSpec spec;
  spec.batch = batch;
  spec.dataset = dataset_rows;
  spec.window = source.window_rows();
  spec.steps = steps;
  spec.shuffle = config.train.shuffle;
  spec.staged = source.staged();
  spec.objective = config.objective;
  spec.optimizer = config.train.optimizer;
  return spec;
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

InputSpec input_spec(const Dataset& dataset, const DataConfig& config) {
  InputSpec spec;
  spec.channels = dataset.image.channels;
  spec.height = dataset.image.height;
  spec.width = dataset.image.width;
  spec.dtype = DType::u8;
  if (config.scale == "none") {
    spec.scale = 1.0;
  } else if (config.scale == "standardise") {
    if (!dataset.train) {
      throw Error(Status::input, "no training split to standardise by", dataset.path.string(),
                  "use a data folder that has one, or data.scale = \"unit\"");
    }
    // Sums of integers up to 255 and 255^2 are exact in 64 bits.
    std::uint64_t sum = 0;
    std::uint64_t squares = 0;
    const auto pixels = dataset.train->images->as<std::uint8_t>();
    for (const std::uint64_t pixel : pixels) {
      sum += pixel;
      squares += pixel * pixel;
    }
    const auto n = static_cast<double>(pixels.size());
    const double mean = static_cast<double>(sum) / n;
    const double variance = static_cast<double>(squares) / n - mean * mean;
    if (!(variance > 0)) {
      throw Error(Status::input, "all pixels of the training split are equal",
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
                "give a folder with train-images-idx3-ubyte[.gz]");
  }
  const DatasetSplit& split = *dataset_->train;
  const std::int64_t rows = split.size();
  if (batch_ > rows) {
    throw Error(Status::usage,
                "a batch of " + format_count(batch_) + " from " + format_count(rows) + " samples",
                "--batch-size, train.batch_size", "choose at most " + format_count(rows));
  }
  last_rows_ = config.train.drop_last ? 0 : rows % batch_;
  steps_per_epoch_ = rows / batch_ + (last_rows_ > 0 ? 1 : 0);

  device_.check(options_.compile);
  if (!options_.compile.tuning) options_.compile.tuning = std::make_shared<Tuning>();
  if (options_.compile.steps == 0) {
    // Worth it where a run costs more to launch than to wait for.
    const bool graphs = device_.info().name.starts_with("cuda") && options_.compile.exec != "eager";
    const ResidentSource whole(split);
    const Graph one = model_.training_graph(training_spec(config_, rows, batch_, whole, 1));
    const std::int64_t full = rows / batch_;
    if (options_.compile.exec == "persistent" && device_.unfit(one, options_.compile).empty())
      options_.compile.steps = static_cast<int>(std::min<std::int64_t>(full, most_in_a_launch));
    else if (graphs)
      options_.compile.steps = unrolled_steps(full, static_cast<std::int64_t>(one.nodes().size()));
    else
      options_.compile.steps = 1;
  }
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
    return device_.compile(
        model_.training_graph(training_spec(config_, rows, batch, *source_, steps)), *store_,
        compile_options);
  };
  const bool resident = options_.stream_rows <= 0;
  if (resident) static_cast<void>(store_->share(store_name::data, split.images));
  const bool tested = dataset_->test && dataset_->test->size() > 0;
  const std::string test_data = tested ? store_name::eval_data(dataset_->test->size()) : "";
  if (tested) static_cast<void>(store_->share(test_data, dataset_->test->images));
  program_ = compile(batch_, options_.compile.steps);
  if (steps > 1) single_ = compile(batch_, 1);
  if (last_rows_ > 0) last_ = compile(last_rows_, 1);
  // Initial weights and checkpoints are copies in the host's memory.
  if (const auto there = device_.free_bytes(); there && device_.info().name == "cpu") {
    const std::int64_t copies = 3 * model_.parameter_count() * std::int64_t{sizeof(float)};
    if (copies > *there)
      throw Error(Status::device,
                  fmt::format("not enough memory: {} for a checkpoint of the weights and moments, "
                              "{} are available",
                              format_bytes(copies), format_bytes(*there)),
                  "cpu", "use a smaller model");
  }

  model_.load(*store_, model_.initial_weights(seed), "initial weights");
  if (const double v0 = config.train.optimizer.v0; v0 != 0.0) {
    for (const ParameterSpec& spec : model_.parameters()) {
      Tensor moment(DType::f32, spec.shape);
      std::ranges::fill(moment.as<float>(), static_cast<float>(v0));
      store_->write(std::string(v_prefix) + spec.name, moment);
    }
  }
  Tensor hyper(DType::f64, Shape{steps, 2});
  for (std::int64_t s = 0; s < steps; ++s) {
    hyper.as<double>()[static_cast<std::size_t>(2 * s)] = config.train.lr;
    hyper.as<double>()[static_cast<std::size_t>(2 * s + 1)] = config.objective.beta;
  }
  store_->write(store_name::hyper, device.info().real == DType::f64 ? hyper : hyper.to(DType::f32));
  set_commit(true);

  if (tested) {
    try {
      test_ = std::make_unique<Evaluator>(device_, *store_, model_, *dataset_->test, seed,
                                          options_.compile);
    } catch (const Error& error) {
      if (error.status() != Status::device) throw;
      throw Error(Status::device,
                  fmt::format("the evaluation beside the training: {}", error.what()));
    }
  }
  const Clock::time_point start = Clock::now();
  if (resident) bind_window(split.images);
  if (tested) store_->bind(test_data, dataset_->test->images);
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

// Shows the device the rows and the counters of the next `steps` steps of `rows` rows in all.
void Trainer::prepare(std::int64_t rows) {
  const std::int64_t epoch = step_ / steps_per_epoch_;
  const std::int64_t position = step_ % steps_per_epoch_ * batch_;
  const Window window = source_->window(epoch, position, rows);
  if (window.rows != bound_) bind_window(window.rows);
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
  throw Error(Status::diverged, what, "training",
              fmt::format("lower train.lr (now {})", config_.train.lr));
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
  std::vector<NamedTensor> tensors = model_.save(*store_);
  require_finite_state(tensors);
  return tensors;
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
  if (test_) bytes += test_->arena_bytes();
  const auto real = static_cast<std::int64_t>(size_of(device_.info().real));
  return bytes + 3 * real * model_.parameter_count();
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
  return metrics;
}

std::optional<Metrics> Trainer::evaluate_test() {
  require_collected();
  if (!test_) return std::nullopt;
  try {
    return test_->metrics(config_.objective.beta);
  } catch (const Error& error) {
    if (error.status() != Status::diverged) throw;
    diverged(fmt::format("the test figures are not finite after step {}", format_count(step_)));
  }
}

TensorFile Trainer::checkpoint() const {
  require_collected();
  TensorFile file;
  for (const std::string_view prefix : {std::string_view(), m_prefix, v_prefix}) {
    for (NamedTensor& named : model_.save(*store_, prefix)) {
      file.tensors.push_back(std::move(named));
    }
  }
  require_finite_state(file.tensors);
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
  if (metadata.integer("steps_per_epoch") != steps_per_epoch_) {
    metadata.refuse("was made with " + metadata.text("steps_per_epoch") +
                    " steps an epoch, now there are " + std::to_string(steps_per_epoch_));
  }
  if (metadata.integer("seed") != config_.train.seed) metadata.refuse("has another train.seed");
  (void)metadata.text("execution");
  if (metadata.text("data.sha256") != dataset_->sha256) {
    metadata.refuse("was made with other data (SHA-256 " + metadata.text("data.sha256") + ")");
  }
  const Sums sums{.n = n,
                  .loss = metadata.real("epoch.loss"),
                  .reconstruction = metadata.real("epoch.reconstruction"),
                  .kl = metadata.real("epoch.kl")};

  std::vector<NamedTensor> weights;
  for (const NamedTensor& named : file.tensors) {
    if (!named.name.starts_with("adam.")) weights.push_back(named);
  }
  model_.load(*store_, weights, where);
  model_.load(*store_, starting_with(file, m_prefix), where, m_prefix);
  model_.load(*store_, starting_with(file, v_prefix), where, v_prefix);
  step_ = step;
  sums_ = sums;
}

}  // namespace cuvae
