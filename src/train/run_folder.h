#pragma once
// The files of a run folder: their names, and what is written into them.

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
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
// env.json: version, device, data, machine.
[[nodiscard]] std::string environment_text(const Config& config, const Dataset& dataset,
                                           const Device& device);

// model.safetensors: the weights as f32, with the model's configuration and input in its metadata
// (no path, time, device or thread count: equal trainings give equal bytes).
[[nodiscard]] TensorFile model_file(const Model& model, std::vector<NamedTensor> weights);
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
