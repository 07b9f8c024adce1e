#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "cuvae/run.h"
#include "io/file.h"
#include "train/inference.h"
#include "train/run_folder.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t chunk_rows = 1000;  // of reconstructions
constexpr std::uint64_t config_cap = std::uint64_t{1} << 20;

// Finite weights can still overflow on the way.
void require_finite_values(const Tensor& values, const std::string& part) {
  for (const float value : values.as<float>()) {
    if (!std::isfinite(value)) {
      throw Error(Status::diverged, "the " + part + "'s output is not finite", part,
                  "train again with a lower train.lr");
    }
  }
}

// True where every value is 0 or 1 once scaled: then a Bernoulli likelihood is one.
bool is_binary(const DatasetSplit& split, const InputSpec& input) {
  std::array<bool, 256> seen{};
  for (const std::uint8_t value : split.images->as<std::uint8_t>()) seen[value] = true;
  for (std::size_t value = 0; value < seen.size(); ++value) {
    if (!seen[value]) continue;
    const double x = (static_cast<double>(value) - input.shift) * input.scale;
    if (!(std::abs(x) < 1e-9 || std::abs(x - 1) < 1e-9)) return false;
  }
  return true;
}

std::int64_t active_units(const Tensor& mean) {
  const Tensor values = mean.to(DType::f64);  // [n, latent]
  const auto m = values.as<double>();
  const auto n = static_cast<std::size_t>(mean.shape()[0]);
  const auto d = static_cast<std::size_t>(mean.shape()[1]);
  std::int64_t active = 0;
  for (std::size_t j = 0; j < d; ++j) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += m[i * d + j];
    const double centre = sum / static_cast<double>(n);
    double squares = 0;
    for (std::size_t i = 0; i < n; ++i)
      squares += (m[i * d + j] - centre) * (m[i * d + j] - centre);
    if (squares / static_cast<double>(n) > 0.01) ++active;
  }
  return active;
}

TensorFile read_model(const fs::path& run) {
  std::error_code error;
  if (!fs::exists(run, error)) {
    throw Error(Status::input, "no such run", run.string(),
                "give a run folder or a model.safetensors");
  }
  const RunFolder folder{run};
  const bool is_folder = fs::is_directory(run, error);
  const fs::path path = is_folder ? folder.model() : run;
  if (is_folder && !fs::exists(path, error)) {
    std::string mend = "give the folder of a trained run";
    if (folder.is_run()) {
      mend = fs::exists(folder.last(), error)
                 ? "finish the run with `cuvae train --resume --out " + run.string() + "`"
                 : "it ended before its first checkpoint: train anew with --overwrite --out " +
                       run.string();
    } else if (const auto replicas = read_replicas(run)) {
      mend = "it holds replicas: give one of its folders, such as " +
             replicas->replicas.front().folder.string();
    }
    throw Error(Status::input, "the folder holds no model.safetensors", run.string(), mend);
  }
  if (!is_folder && path.extension() == ".toml") {
    throw Error(Status::input, "this is a configuration, not a run", path.string(),
                "give the folder of a run that `cuvae train " + path.string() + "` has made");
  }
  TensorFile file = read_safetensors(path);
  require_finite(file);
  return file;
}

Config read_config(const fs::path& run, const Model& model) {
  std::error_code error;
  const RunFolder folder{fs::is_directory(run, error) ? run : run.parent_path()};
  Config config;
  if (folder.is_run()) {
    config = parse_config(read_file(folder.config(), config_cap), folder.config().string());
  }
  config.model = model.config();
  return config;
}

}  // namespace

CompileOptions compile_options(const RunConfig& run) {
  CompileOptions options;
  options.exec = run.exec;
  options.precision = run.precision;
  options.autotune = run.autotune;
  return options;
}

LoadedRun::LoadedRun(const fs::path& run, Device& device, const CompileOptions& options)
    : device_(device), options_(options) {
  device.check(options_);
  const TensorFile file = read_model(run);
  model_ = std::make_unique<Model>(model_of(file));
  config_ = read_config(run, *model_);
  store_ = device.make_store();
  model_->load(*store_, file.tensors, file.source);
}

LoadedRun::~LoadedRun() = default;

std::shared_ptr<const Dataset> LoadedRun::load_data(const std::string& path) const {
  auto dataset =
      std::make_shared<const Dataset>(load_dataset(path.empty() ? config_.data.path : path));
  const InputSpec& input = model_->input();
  const ImageSize& image = dataset->image;
  if (image.channels != input.channels || image.height != input.height ||
      image.width != input.width) {
    throw Error(Status::input,
                fmt::format("images of {}x{}x{}, the model wants {}x{}x{}", image.channels,
                            image.height, image.width, input.channels, input.height, input.width),
                dataset->path.string(), "give --data with images of the model's size");
  }
  return dataset;
}

Evaluation LoadedRun::evaluate(const DatasetSplit& split, std::int64_t z_samples,
                               std::int64_t iw_samples) {
  if (z_samples < 1) {
    throw Error(Status::usage, fmt::format("{} latent samples", z_samples), "--z-samples",
                "give a positive number");
  }
  if (iw_samples < 0) {
    throw Error(Status::usage, fmt::format("{} importance samples", iw_samples), "--iw-samples",
                "give a positive number");
  }
  Evaluator evaluator = make_evaluator(split);
  Evaluation result;
  Metrics& total = result.metrics;
  const auto share = 1.0 / static_cast<double>(z_samples);
  for (std::int64_t k = 0; k < z_samples; ++k) {
    const RowScores scores = evaluator.rows(k);
    const Metrics one = evaluator.average(scores, config_.objective.beta);
    total.n = one.n;
    total.reconstruction += one.reconstruction * share;
    total.kl += one.kl * share;
    if (k == 0) result.active_units = active_units(scores.mean);
  }
  total.neg_elbo = total.reconstruction + total.kl;
  total.loss = total.reconstruction + config_.objective.beta * total.kl;

  const std::string& type = config_.model.likelihood.type;
  const bool binary = type == "bernoulli" && is_binary(split, model_->input());
  result.likelihood = type == "bernoulli" && !binary ? "bernoulli (grey)" : type;
  if (binary) {
    result.bits_per_dim =
        total.neg_elbo / (static_cast<double>(model_->input().features()) * std::numbers::ln2);
  }
  if (iw_samples > 0) {
    const std::vector<double> rows = evaluator.log_likelihood(iw_samples);
    const auto n = static_cast<double>(rows.size());
    double mean = 0;
    for (const double row : rows) mean += row / n;
    double squares = 0;
    for (const double row : rows) squares += (row - mean) * (row - mean);
    result.iw_samples = iw_samples;
    result.log_likelihood = mean;
    result.log_likelihood_error = n > 1 ? std::sqrt(squares / (n - 1) / n) : 0.0;
  }
  return result;
}

Evaluator LoadedRun::make_evaluator(const DatasetSplit& split) {
  return {device_, *store_, *model_, split, static_cast<std::uint64_t>(config_.train.seed),
          options_};
}

std::vector<double> LoadedRun::log_likelihood(const DatasetSplit& split, std::int64_t samples) {
  if (samples < 1) {
    throw Error(Status::usage, fmt::format("{} importance samples", samples), "--iw-samples",
                "give a positive number");
  }
  return make_evaluator(split).log_likelihood(samples);
}

RowScores LoadedRun::score(const DatasetSplit& split) {
  return make_evaluator(split).rows();
}

Tensor LoadedRun::sample(std::int64_t count, std::uint64_t seed) {
  const std::int64_t latent = config_.model.latent.size;
  if (count < 1 || count > (std::int64_t{1} << 40) / latent) {
    throw Error(Status::usage, fmt::format("{} samples", count), "--count",
                "give a positive number that fits in memory");
  }
  Tensor latents(DType::f32, Shape{count, latent});
  const RandomKey key{.seed = seed, .purpose = Purpose::generation, .stream = 0, .step = 0};
  const auto z = latents.as<float>();
  for (std::size_t group = 0; group * 4 < z.size(); ++group) {
    const std::array<float, 4> normals = random_normal4(key, group);
    for (std::size_t i = 0; i < 4 && group * 4 + i < z.size(); ++i) z[group * 4 + i] = normals[i];
  }
  return decode(latents);
}

Tensor LoadedRun::decode(const Tensor& latents) {
  const std::int64_t latent = config_.model.latent.size;
  if (latents.shape().rank() != 2 || latents.shape()[1] != latent) {
    throw Error(Status::input, "latents of shape " + latents.shape().str(), "--latents",
                fmt::format("the model decodes [n, {}]", latent));
  }
  const Tensor reals = latents.to(DType::f32);
  for (const float value : reals.as<float>()) {
    if (!std::isfinite(value)) {
      throw Error(Status::input, "latents that are not finite", "--latents", "give finite numbers");
    }
  }
  Tensor decoded(DType::f32, Shape{latents.shape()[0], model_->input().features()});
  if (!decoder_) decoder_ = std::make_unique<Decoder>(device_, *store_, *model_, options_);
  decoder_->run(reals, decoded);
  require_finite_values(decoded, "decoder");
  return decoded;
}

LoadedRun::Reconstruction LoadedRun::reconstruct(const DatasetSplit& split,
                                                 const std::vector<std::int64_t>& indices) {
  const auto count = static_cast<std::int64_t>(indices.size());
  const std::int64_t features = model_->input().features();
  auto chosen = std::make_shared<Tensor>(split.images->dtype(), Shape{count, features});
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t index = indices[static_cast<std::size_t>(i)];
    if (index < 0 || index >= split.size()) {
      throw Error(Status::usage, fmt::format("no image {}", index), "--index",
                  fmt::format("choose from 0 to {}", split.size() - 1));
    }
    put_rows(*chosen, take_rows(*split.images, index, 1), i);
  }
  Reconstruction result{Tensor(DType::f32, Shape{count, features}),
                        Tensor(DType::f32, Shape{count, features})};
  if (count == 0) return result;
  store_->bind(store_name::eval_data(count), chosen);
  std::unique_ptr<Program> program;
  std::int64_t batch = 0;
  for (std::int64_t first = 0; first < count; first += batch) {
    const std::int64_t rows = std::min(chunk_rows, count - first);
    if (rows != batch) {
      program = device_.compile(model_->reconstruction_graph(rows, count), *store_, options_);
    }
    batch = rows;
    const std::array<std::int64_t, 5> clock{config_.train.seed, 0, 0, first, 0};
    store_->write(store_name::eval_clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
    program->run();
    put_rows(result.original, program->read("x"), first);
    put_rows(result.reconstruction, program->read("reconstruction"), first);
  }
  require_finite_values(result.reconstruction, "decoder");
  return result;
}

LoadedRun::Encoding LoadedRun::encode(const DatasetSplit& split) {
  const Shape shape{split.size(), config_.model.latent.size};
  Encoding encoding{Tensor(DType::f32, shape), Tensor(DType::f32, shape)};
  if (split.size() == 0) return encoding;
  Encoder encoder(device_, *store_, *model_, split.size(), options_);
  encoder.run(split.images, encoding.mean, encoding.logvar);
  for (const Tensor* values : {&encoding.mean, &encoding.logvar}) {
    require_finite_values(*values, "encoder");
  }
  return encoding;
}

RunSummary summarise_run(const fs::path& run) {
  const TensorFile file = read_model(run);
  const Model model = model_of(file);
  RunSummary summary;
  summary.config = read_config(run, model);
  summary.input = model.input();
  summary.parameters = model.parameter_count();
  std::error_code error;
  const RunFolder folder{fs::is_directory(run, error) ? run : run.parent_path()};
  if (fs::exists(folder.metrics(), error)) {
    const std::string text = read_file(folder.metrics(), std::uint64_t{1} << 30);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const auto json = nlohmann::json::parse(text.substr(begin, end - begin), nullptr, false);
      begin = end + 1;
      const MetricsLine line = parse_metrics_line(json, folder.metrics().string());
      summary.metrics_epoch = line.epoch;
      (line.split == "test" ? summary.test : summary.train) = line.metrics;
    }
  }
  if (fs::exists(folder.last(), error)) {
    const TrainingPosition position = training_position(read_safetensors(folder.last()));
    summary.steps_done = position.step;
    summary.steps_per_epoch = position.steps_per_epoch;
  }
  for (const fs::path& path : folder.files()) {
    if (fs::exists(path, error)) summary.files.push_back(fs::relative(path, folder.path).string());
  }
  return summary;
}

}  // namespace cuvae
