#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>

#include "cuvae/classifier.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "cuvae/run.h"
#include "io/file.h"
#include "likelihoods/likelihoods.h"
#include "train/inference.h"
#include "train/labels.h"
#include "train/run_folder.h"
#include "train/targets.h"

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

std::string no_bits_because(const std::string& likelihood, const InputSpec& input,
                            bool autoencoder) {
  if (autoencoder) return "an autoencoder gives no likelihood";
  const LikelihoodInfo* info = find_likelihood(likelihood);
  if (info != nullptr && info->bits == LikelihoodBits::continuous && input.dtype == DType::u8)
    return "a density has none of bytes unless they are dequantised, data.dequantise = true";
  if (info != nullptr && info->bits == LikelihoodBits::continuous)
    return "a density of reals has none";
  if (likelihood == "multinomial" || (info != nullptr && info->target == LikelihoodTarget::counts))
    return "not told of counts";
  return "the likelihood is no probability of these data";
}

void require_samples(std::int64_t count, std::int64_t least, const std::string& what,
                     const std::string& flag) {
  if (count < least) {
    throw Error(Status::usage, fmt::format("{} {}", count, what), flag, "give a positive number");
  }
}

std::vector<std::int64_t> labels_of(const std::optional<DatasetSplit>& split,
                                    const std::string& name, const Dataset& dataset) {
  if (!split || split->size() == 0) {
    throw Error(Status::usage, fmt::format("the data has no {} split", name), dataset.path.string(),
                "give --data with training and test images");
  }
  if (split->labels.empty()) {
    throw Error(Status::input, fmt::format("no labels of the {} split", name),
                dataset.path.string(), "give --data with files of labels beside the images");
  }
  return {split->labels.begin(), split->labels.end()};
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
    } else if (fs::exists(run / "folds.json", error)) {
      mend = "it holds the runs of a cross-validation: give one of its folders, such as " +
             (run / "fold-0").string();
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
  labels_ = cuvae::trained_labels(file);
  run_ = run;
  store_ = device.make_store();
  model_->load(*store_, file.tensors, file.source);
}

LoadedRun::~LoadedRun() = default;

std::string LoadedRun::trained_on() const {
  try {
    const auto json =
        nlohmann::json::parse(read_file(RunFolder{run_}.environment(), config_cap), nullptr, false);
    const nlohmann::json::json_pointer at("/data/sha256");
    if (json.is_object() && json.contains(at) && json.at(at).is_string())
      return json.at(at).get<std::string>();
  } catch (const Error&) {  // no folder, or none that can be read
  }
  return {};
}

std::shared_ptr<const Dataset> LoadedRun::load_data(const std::string& path) const {
  auto dataset = std::make_shared<const Dataset>(path.empty() ? cuvae::load_data(config_)
                                                              : load_dataset(path));
  const InputSpec& input = model_->input();
  const ImageSize& image = dataset->image;
  if (data_type(*dataset) != input.dtype) {
    throw Error(Status::input,
                fmt::format("{} data, the model reads {}", name_of(data_type(*dataset)),
                            name_of(input.dtype)),
                dataset->path.string(), "give --data with values as the model was trained on");
  }
  if (image.channels != input.channels || image.height != input.height ||
      image.width != input.width) {
    throw Error(Status::input,
                fmt::format("data of {}, the model wants {}", image.str(), input.str()),
                dataset->path.string(), "give --data of the model's size");
  }
  require_targets(*dataset, *model_);
  return dataset;
}

Evaluation LoadedRun::evaluate(const DatasetSplit& split, const EvaluationOptions& options) {
  require_samples(options.z_samples, 1, "latent samples", "--z-samples");
  require_samples(options.iw_samples, 0, "importance samples", "--iw-samples");
  require_samples(options.mi_rows, 0, "rows of the mutual information", "--mi-rows");
  Evaluator evaluator = make_evaluator(split);
  Evaluation result;
  Metrics& total = result.metrics;
  const auto share = 1.0 / static_cast<double>(options.z_samples);
  const auto seed = static_cast<std::uint64_t>(config_.train.seed);
  for (std::int64_t k = 0; k < options.z_samples; ++k) {
    const RowScores scores = evaluator.rows(k);
    const Metrics one = evaluator.average(scores);
    if (k == 0) total.loss = evaluator.loss(scores, one);
    if (k == 0) total.accuracy = one.accuracy;  // without draws
    total.n = one.n;
    total.autoencoder = one.autoencoder;
    total.reconstruction += one.reconstruction * share;
    total.kl += one.kl * share;
    if (k > 0) continue;
    result.latents = latent_statistics(scores.mean, scores.logvar);
    result.active_units = result.latents.active();
    if (options.mi_rows > 0 && !model_->autoencoder()) {
      result.mutual_information =
          mutual_information(scores.mean, scores.logvar,
                             {.rows = options.mi_rows, .seed = seed, .threads = options.threads});
    }
  }
  total.neg_elbo = total.reconstruction + total.kl;

  const std::string& type = config_.model.likelihood.type;
  const InputSpec& input = model_->input();
  const auto features = static_cast<double>(input.features());
  result.likelihood = type;
  if (type == likelihoods::categorical_info.name) {
    // Of the levels or classes themselves, whatever their number.
    result.levels = config_.model.likelihood.classes;
    result.likelihood =
        fmt::format("{} ({} {})", type, result.levels, input.scale == 1.0 ? "classes" : "levels");
    result.bits_per_dim = total.neg_elbo / (features * std::numbers::ln2);
  } else if (type != "bernoulli") {
    const LikelihoodInfo& info = *find_likelihood(type);
    // Bytes are no continuous numbers: a density of them has bits where they were dequantised.
    const bool discrete = info.bits == LikelihoodBits::discrete && input.dtype == DType::u8;
    if (discrete || (info.bits == LikelihoodBits::continuous && input.dequantise))
      result.bits_per_dim = bits_per_dim(info, total.neg_elbo, features, 256);
    if (result.bits_per_dim) result.levels = 256;
    if (input.dequantise) result.likelihood += " (dequantised)";
  } else if (input.binarise != "none" || is_binary(split, input)) {
    result.bits_per_dim = total.neg_elbo / (features * std::numbers::ln2);
  } else {
    result.likelihood = "bernoulli (grey)";
  }
  if (model_->autoencoder()) result.bits_per_dim.reset();  // what its codes take is not known
  if (!result.bits_per_dim) result.no_bits = no_bits_because(type, input, model_->autoencoder());
  if (type == likelihoods::gaussian::info.name && config_.model.likelihood.learned != "pixel") {
    const double log_sigma =
        config_.model.likelihood.learned == "global"
            ? likelihoods::soft_floor(store_->read("likelihood.log_sigma").to(DType::f64).item(0),
                                      likelihoods::gaussian::log_sigma_floor)
                  .value
            : std::log(config_.model.likelihood.sigma);
    // What the reconstruction holds beside its constants, where a float's digits have room for
    // both.
    const double constants = log_sigma + likelihoods::half_log_2pi<double>;
    const double squares = total.reconstruction / features - constants;
    if (squares > 1e-4 * std::abs(constants))
      result.mean_squared_error = 2 * std::exp(2 * log_sigma) * squares;
  }
  if (options.iw_samples > 0) {
    const ImportanceRows rows = evaluator.importance(options.iw_samples);
    const RowSummary summary = summarise(rows.log_likelihood);
    result.iw_samples = options.iw_samples;
    result.log_likelihood = summary.mean;
    result.log_likelihood_error = summary.std_error;
    result.effective_samples = summarise(rows.effective_samples);
  }
  return result;
}

SampleJudgement LoadedRun::judge_samples(const DatasetSplit& split,
                                         const SampleJudgementOptions& options) {
  require_samples(options.samples, 4, "samples to be judged", "--kid-samples");
  if (model_->autoencoder())
    throw Error(Status::usage, "an autoencoder has no prior whose samples could be judged", "--kid",
                "leave it out");
  const Features wanted = DigitClassifier::image();
  if (!(model_->input().image() == wanted)) {
    throw Error(Status::usage,
                fmt::format("{} judges images of {}, the model's are {}", DigitClassifier::name,
                            wanted.str(), model_->input().image().str()),
                "--kid", "leave it out");
  }
  SampleJudgement result;
  result.n = std::min(options.samples, split.size());
  require_samples(result.n, 4, "rows of the split", "--kid");
  DigitClassifier classifier(device_);
  const Tensor samples = classifier.features(model_->to_pixels(sample(result.n, options.seed)));

  const std::int64_t features = model_->input().features();
  const Shuffle shuffle(options.seed, std::numeric_limits<std::uint64_t>::max(), split.size());
  Tensor chosen(split.images->dtype(), Shape{result.n, features});
  for (std::int64_t i = 0; i < result.n; ++i)
    put_rows(chosen, take_rows(*split.images, shuffle(i), 1), i);
  const Tensor data = classifier.features(chosen);

  result.kid =
      kernel_inception_distance(samples, data, {.seed = options.seed, .threads = options.threads});
  result.precision_recall = precision_recall(data, samples, 3, options.threads);
  return result;
}

ProbeReport LoadedRun::probe(const Dataset& dataset, const ProbeOptions& options) {
  const std::vector<std::int64_t> train = labels_of(dataset.train, "training", dataset);
  const std::vector<std::int64_t> test = labels_of(dataset.test, "test", dataset);
  const Tensor train_points = encode(*dataset.train).mean;
  const Tensor test_points = encode(*dataset.test).mean;
  return cuvae::probe({train_points, train}, {test_points, test}, options);
}

Evaluator LoadedRun::make_evaluator(const DatasetSplit& split) {
  return {
      device_,  *store_,          *model_, split, static_cast<std::uint64_t>(config_.train.seed),
      options_, config_.objective};
}

std::vector<double> LoadedRun::log_likelihood(const DatasetSplit& split, std::int64_t samples) {
  require_samples(samples, 1, "importance samples", "--iw-samples");
  return make_evaluator(split).importance(samples).log_likelihood;
}

RowScores LoadedRun::score(const DatasetSplit& split) {
  return make_evaluator(split).rows();
}

FittedPrior LoadedRun::fit_prior(const DatasetSplit& split, const PriorFit& how) {
  const Encoding q = encode(split);
  Tensor latents = q.mean;
  if (!model_->autoencoder()) {
    // The aggregate posterior: a draw for each row.
    const RandomKey key{.seed = how.seed, .purpose = Purpose::evaluation, .stream = 0, .step = 0};
    const auto z = latents.as<float>();
    const auto logvar = q.logvar.as<float>();
    for (std::size_t i = 0; i < z.size(); ++i)
      z[i] += std::exp(0.5F * logvar[i]) * random_normal(key, i);
  }
  if (how.kind == "gaussian") return FittedPrior::gaussian(latents);
  if (how.kind == "gmm") return FittedPrior::gmm(latents, how.components, how.seed);
  throw Error(Status::usage, "no prior `" + how.kind + "` to fit", "--fit-prior",
              "use gaussian or gmm");
}

Tensor LoadedRun::sample(std::int64_t count, std::uint64_t seed, const SampleOptions& options) {
  const std::int64_t latent = config_.model.latent.size;
  if (count < 1 || count > (std::int64_t{1} << 40) / latent) {
    throw Error(Status::usage, fmt::format("{} samples", count), "--count",
                "give a positive number that fits in memory");
  }
  if (options.label && model_->decoder_width() == latent)
    throw Error(Status::usage, "the decoder is told no labels", "--label",
                "leave it out, or train with model.condition.on = \"label\"");
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < count && model_->decoder_width() > latent; ++i)
    labels.push_back(options.label.value_or(i % model_->classes()));
  return decode(options.prior ? options.prior->draw(count, seed) : draw_prior(count, seed), labels);
}

Tensor LoadedRun::draw_prior(std::int64_t count, std::uint64_t seed) {
  std::unique_ptr<Program> parts;
  return model_->sample_prior(count, seed, [&](const std::string& name) {
    if (!parts) {
      parts = device_.compile(model_->prior_graph(), *store_, options_);
      parts->run();
    }
    return parts->read(name).to(DType::f32);
  });
}

Tensor LoadedRun::decode(const Tensor& latents, const std::vector<std::int64_t>& labels) {
  const std::int64_t latent = config_.model.latent.size;
  if (latents.shape().rank() != 2 || latents.shape()[1] != latent) {
    throw Error(Status::input, "latents of shape " + latents.shape().str(), "--latents",
                fmt::format("the model decodes [n, {}]", latent));
  }
  const Tensor reals = told_latents(*model_, latents, labels, "--label");
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
  if (const auto labels = labels_for(*model_, split, "--data")) {
    auto those = std::make_shared<Tensor>(DType::u8, Shape{count});
    for (std::size_t i = 0; i < indices.size(); ++i)
      those->as<std::uint8_t>()[i] =
          labels->as<std::uint8_t>()[static_cast<std::size_t>(indices[i])];
    store_->bind(store_name::eval_labels(count), those);
  }
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
  const bool points = model_->autoencoder();
  Encoding encoding{Tensor(DType::f32, shape),
                    Tensor(DType::f32, points ? Shape{0, shape[1]} : shape)};
  if (split.size() == 0) return encoding;
  Encoder encoder(device_, *store_, *model_, split.size(), config_.train.seed, options_);
  encoder.run(split.images, labels_for(*model_, split, "--data"), encoding.mean, encoding.logvar);
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
      MetricsLine line = parse_metrics_line(json, folder.metrics().string());
      line.metrics.autoencoder = model.autoencoder();
      summary.metrics_epoch = line.epoch;
      (line.split == "test"         ? summary.test
       : line.split == "validation" ? summary.validation
                                    : summary.train) = line.metrics;
    }
  }
  if (fs::exists(folder.last(), error)) {
    const TensorFile last = read_safetensors(folder.last());
    const TrainingPosition position = training_position(last);
    summary.steps_done = position.step;
    summary.steps_per_epoch = position.steps_per_epoch;
    if (const auto best = recorded_selection(last))
      summary.best = {.epoch = best->best_step / position.steps_per_epoch,
                      .step = best->best_step,
                      .metric = summary.config.train.early_stopping.metric,
                      .value = best->best};
  }
  for (const fs::path& path : folder.files()) {
    if (fs::exists(path, error)) summary.files.push_back(fs::relative(path, folder.path).string());
  }
  return summary;
}

}  // namespace cuvae
