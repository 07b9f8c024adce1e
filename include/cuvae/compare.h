#pragma once
// Step-by-step comparison of a device with the CPU reference (DESIGN section 4, "Comparison").

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"

namespace cuvae {

struct CompareOptions {
  std::int64_t steps = 50;
  // step: each step starts both sides from the reference's state. run: both run freely; drift is
  // shown, never judged.
  enum class Mode { step, run } mode = Mode::step;
  // Multiplies one gradient of the device's graph (tests only): a comparison must notice it.
  std::string break_gradient;
};

// The worst of one tensor over all steps.
struct TensorError {
  std::string tensor;
  std::string plan;      // "unfused" or "production"
  double aggregate = 0;  // max over steps of ||a - b|| / ||b||
  double aggregate_limit = 0;
  double max_abs = 0;     // worst element's |a - b|
  double share = 0;       // of the element limit used, worst; > 1 fails
  std::string index;      // of the worst element: "[3, 17]"
  std::int64_t step = 0;  // where it was worst
  bool passed = true;
};

struct DriftRow {
  std::int64_t step = 0;
  double loss_device = 0;
  double loss_reference = 0;
  double parameters = 0;  // ||a - b|| / ||b|| over all parameters
};

struct CompareReport {
  std::string device;
  std::string reference;
  std::int64_t steps = 0;
  bool passed = true;
  std::vector<TensorError> tensors;  // mode step
  std::vector<DriftRow> drift;       // mode run
};

CompareReport compare(const Config& config, std::shared_ptr<const Dataset> dataset, Device& device,
                      Device& reference, const CompareOptions& options);

// Writes what another framework needs to repeat the first `steps` steps: initial.safetensors,
// batches.npy [steps, B], noise.npy [steps, B, latent], config.json, and what we computed:
// losses.npy [steps, 3] and gradients.safetensors of the first step (tests/golden/README.md).
void export_parity(const Config& config, std::shared_ptr<const Dataset> dataset, Device& device,
                   std::int64_t steps, const std::string& folder);

}  // namespace cuvae
