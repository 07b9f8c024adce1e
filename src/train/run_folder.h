#pragma once
// The files of a run folder: their names, and what is written into them.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"
#include "cuvae/model.h"
#include "cuvae/safetensors.h"
#include "cuvae/trainer.h"

namespace cuvae {

struct RunFolder {
  std::filesystem::path path;

  [[nodiscard]] std::filesystem::path config() const { return path / "config.toml"; }
  [[nodiscard]] std::filesystem::path environment() const { return path / "env.json"; }
  [[nodiscard]] std::filesystem::path model() const { return path / "model.safetensors"; }
  [[nodiscard]] std::filesystem::path checkpoints() const { return path / "checkpoints"; }
  [[nodiscard]] std::filesystem::path last() const { return checkpoints() / "last.safetensors"; }
  [[nodiscard]] std::filesystem::path best() const { return checkpoints() / "best.safetensors"; }
  [[nodiscard]] std::filesystem::path metrics() const { return path / "metrics.jsonl"; }
  [[nodiscard]] std::filesystem::path samples() const { return path / "samples.png"; }
  [[nodiscard]] std::filesystem::path reconstructions() const {
    return path / "reconstructions.png";
  }

  // A folder that holds nothing, or is not there.
  [[nodiscard]] bool empty() const;
  // Something of ours: it has a config.toml of this schema.
  [[nodiscard]] bool is_run() const;
  // The files named above, and what a killed process left of writing them.
  [[nodiscard]] std::vector<std::filesystem::path> files() const;
  // Removes those files, and checkpoints/ where it is empty then.
  void clear() const;
};

// runs/<name>-<n> with the first free n.
[[nodiscard]] std::filesystem::path default_run_path(const std::string& name);

// config.toml: the effective configuration under a comment with the data's SHA-256.
[[nodiscard]] std::string config_text(const Config& config, const Dataset& dataset);
// env.json: version, device, data, machine; `init_from`, where it is not null.
[[nodiscard]] std::string environment_text(const Config& config, const Dataset& dataset,
                                           const Device& device,
                                           const nlohmann::ordered_json& init_from);

// model.safetensors: the weights as f32, with the model's configuration and input in its metadata
// (no path, time, device or thread count: equal trainings give equal bytes).
// `labels`: of the training rows, what a conditional model knows of; empty: not told.
[[nodiscard]] TensorFile model_file(const Model& model, std::vector<NamedTensor> weights,
                                    std::span<const std::uint8_t> labels = {});
// The classes among those, in order; empty where the file does not tell.
[[nodiscard]] std::vector<std::int64_t> trained_labels(const TensorFile& file);
// That of a run folder, or the file itself, with finite values. Error(input).
[[nodiscard]] TensorFile read_model(const std::filesystem::path& run);
// The model that such a file describes; Error(input).
[[nodiscard]] Model model_of(const TensorFile& file);

// One line of metrics.jsonl as it was written. Error(input) naming `where` for anything else.
struct MetricsLine {
  std::int64_t epoch = 0;
  std::int64_t step = 0;
  std::string split;
  Metrics metrics;
  double seconds = 0;
};
[[nodiscard]] MetricsLine parse_metrics_line(const nlohmann::json& line, std::string_view where);

// One object of metrics.jsonl.
[[nodiscard]] std::string metrics_line(std::int64_t epoch, std::int64_t step,
                                       const std::string& split, const Metrics& metrics,
                                       double beta, double lr, double seconds);

}  // namespace cuvae
