#include "train/run_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "base/text.h"

#include "cuvae/error.h"
#include "cuvae/version.h"
#include "io/file.h"
#include "likelihoods/likelihoods.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* model_format = "cuvae.model";

std::string hexadecimal(double value) {
  std::array<char, 64> text{};
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::hex);
  return {text.data(), end.ptr};
}

std::string input_text(const InputSpec& input) {
  return fmt::format("{},{},{},{},{},{}", input.channels, input.height, input.width,
                     name_of(input.dtype), hexadecimal(input.scale), hexadecimal(input.shift));
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ',')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

template <class T, class... Format>
bool parse(const std::string& text, T& value, Format... format) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value, format...);
  return result.ec == std::errc() && result.ptr == end;
}

bool parse_input(const std::string& text, InputSpec& input) {
  const std::vector<std::string> parts = split_commas(text);
  if (parts.size() != 6) return false;
  if (parts[3] == "f32")
    input.dtype = DType::f32;
  else if (parts[3] != "u8")
    return false;
  return parse(parts[0], input.channels) && parse(parts[1], input.height) &&
         parse(parts[2], input.width) && parse(parts[4], input.scale, std::chars_format::hex) &&
         parse(parts[5], input.shift, std::chars_format::hex) && input.scale != 0;
}

}  // namespace

bool RunFolder::empty() const {
  std::error_code error;
  if (!fs::exists(path, error)) return true;
  if (!fs::is_directory(path, error)) {
    throw Error(Status::usage, "not a folder", path.string(), "choose another --out");
  }
  return fs::is_empty(path, error);
}

bool RunFolder::is_run() const {
  std::error_code error;
  return fs::is_regular_file(config(), error);
}

std::vector<fs::path> RunFolder::files() const {
  std::vector<fs::path> files = {
      last(), best(), model(), metrics(), samples(), reconstructions(), environment(), config()};
  std::error_code error;
  for (const fs::path& folder : {path, checkpoints()}) {
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      if (name.starts_with(".cuvae-") && name.ends_with(".tmp")) files.push_back(entry->path());
    }
  }
  return files;
}

void RunFolder::clear() const {
  std::error_code error;  // what is not there, or a folder with foreign files, stays
  for (const fs::path& file : files()) fs::remove(file, error);
  fs::remove(checkpoints(), error);
}

fs::path default_run_path(const std::string& name) {
  for (std::int64_t n = 1;; ++n) {
    fs::path path = fs::path("runs") / (name + "-" + std::to_string(n));
    std::error_code error;
    if (!fs::exists(path, error)) return path;
  }
}

std::string config_text(const Config& config, const Dataset& dataset) {
  std::string text =
      "# the effective configuration of this run\n# data SHA-256: " + dataset.sha256 + "\n";
  if (!dataset.validation_sha256.empty())
    text += "# validation data SHA-256: " + dataset.validation_sha256 + "\n";
  return text + to_toml(config);
}

std::string environment_text(const Config& config, const Dataset& dataset, const Device& device,
                             const nlohmann::ordered_json& init_from) {
  const DeviceInfo info = device.info();
  Json json;
  json["schema"] = 1;
  json["cuvae"] = std::string(version());
  json["commit"] = std::string(git_hash());
  json["compiler"] = std::string(compiler());
  json["device"] = {{"name", info.name}, {"model", info.model}, {"details", info.details}};
  json["threads"] = info.threads;
  json["data"] = {{"path", config.data.path}, {"sha256", dataset.sha256}};
  if (!init_from.is_null()) json["init_from"] = init_from;
  return json.dump(2) + "\n";
}

TensorFile model_file(const Model& model, std::vector<NamedTensor> weights,
                      std::span<const std::uint8_t> labels) {
  TensorFile file;
  for (NamedTensor& named : weights) {
    const bool real = named.tensor.dtype() == DType::f64;  // counters stay integers
    file.tensors.push_back(
        {std::move(named.name), real ? named.tensor.to(DType::f32) : std::move(named.tensor)});
  }
  Config config;
  config.name = "model";
  config.model = model.config();
  // Models that no other objective has.
  if (model.autoencoder()) config.objective.type = "autoencoder";
  if (model.semi_supervised()) config.objective.type = "m2";
  // What its likelihood needs of the data; the numbers themselves stand in `input`.
  const InputSpec& input = model.input();
  const bool as_stored = input.scale == 1.0 && input.shift == 0.0;
  const LikelihoodTarget target = likelihood_target(config.model.likelihood.type);
  // Reals that are as stored may have been checked to lie in [0, 1].
  const bool unit = input.dtype == DType::f32 && as_stored &&
                    (input.binarise != "none" || target == LikelihoodTarget::unit ||
                     target == LikelihoodTarget::levels);
  config.data.scale = unit                               ? "unit"
                      : as_stored                        ? "none"
                      : input.scale == InputSpec{}.scale ? "unit"
                                                         : "standardise";
  config.data.binarise = input.binarise;
  config.data.dequantise = input.dequantise;
  config.data.encoder_transform = input.transforms;
  if (model.autoencoder()) {  // which no other objective has
    config.objective.type = "autoencoder";
    config.train.early_stopping.metric = "loss";
  }
  file.metadata = {
      {model_format, "1"}, {"config", to_toml(config)}, {"input", input_text(model.input())}};
  if (model.conditional() && !labels.empty()) {
    const std::set<int> classes(labels.begin(), labels.end());
    file.metadata["labels"] = fmt::format("{}", fmt::join(classes, ","));
  }
  return file;
}

std::vector<std::int64_t> trained_labels(const TensorFile& file) {
  std::vector<std::int64_t> labels;
  const auto found = file.metadata.find("labels");
  if (found == file.metadata.end()) return labels;
  const std::string& text = found->second;
  for (const char* at = text.data(); at < text.data() + text.size();) {
    std::int64_t label = 0;
    const auto [end, error] = std::from_chars(at, text.data() + text.size(), label);
    if (error != std::errc{}) return {};
    labels.push_back(label);
    at = end + 1;
  }
  return labels;
}

Model model_of(const TensorFile& file) {
  const auto text = [&](const std::string& key) -> const std::string& {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end()) {
      throw Error(Status::input, "no `" + key + "` in the metadata: not a model of cuvae",
                  file.source, "give a run folder or the model.safetensors of one");
    }
    return found->second;
  };
  if (text(model_format) != "1") {
    throw Error(Status::input, "an unknown model format `" + printable(text(model_format)) + "`",
                file.source, "use the version of cuvae that wrote it");
  }
  InputSpec input;
  if (!parse_input(text("input"), input)) {
    throw Error(Status::input, "a damaged `input` in the metadata", file.source,
                "restore the file or train again");
  }
  try {
    const Config config = parse_config(text("config"), "metadata");
    input.binarise = config.data.binarise;
    input.dequantise = config.data.dequantise;
    input.transforms = config.data.encoder_transform;
    return Model(config.model, input);
  } catch (const Error& error) {
    throw Error(Status::input, std::string("a damaged `config` in the metadata: ") + error.what(),
                file.source, "restore the file or train again");
  }
}

MetricsLine parse_metrics_line(const nlohmann::json& line, std::string_view where) {
  try {
    MetricsLine parsed;
    line.at("epoch").get_to(parsed.epoch);
    line.at("step").get_to(parsed.step);
    line.at("split").get_to(parsed.split);
    line.at("n").get_to(parsed.metrics.n);
    line.at("loss").get_to(parsed.metrics.loss);
    line.at("reconstruction").get_to(parsed.metrics.reconstruction);
    parsed.metrics.autoencoder = line.at("neg_elbo").is_null();
    if (parsed.metrics.autoencoder) {
      parsed.metrics.neg_elbo = parsed.metrics.reconstruction;
    } else {
      line.at("neg_elbo").get_to(parsed.metrics.neg_elbo);
      line.at("kl").get_to(parsed.metrics.kl);
    }
    if (line.contains("accuracy")) parsed.metrics.accuracy = line.at("accuracy").get<double>();
    line.at("seconds").get_to(parsed.seconds);
    return parsed;
  } catch (const nlohmann::json::exception&) {
    throw Error(Status::input, "a line that is no metrics of cuvae", where,
                "remove that line or restore the file");
  }
}

std::string metrics_line(std::int64_t epoch, std::int64_t step, const std::string& split,
                         const Metrics& metrics, double beta, double lr, double seconds) {
  Json json;
  json["epoch"] = epoch;
  json["step"] = step;
  json["split"] = split;
  json["n"] = metrics.n;
  json["loss"] = metrics.loss;
  json["neg_elbo"] = metrics.neg_elbo;
  json["reconstruction"] = metrics.reconstruction;
  json["kl"] = metrics.kl;
  if (metrics.autoencoder) json["neg_elbo"] = json["kl"] = nullptr;  // it has none
  if (metrics.accuracy) json["accuracy"] = *metrics.accuracy;
  json["beta"] = beta;
  json["lr"] = lr;
  json["seconds"] = seconds;
  return json.dump();
}

}  // namespace cuvae
