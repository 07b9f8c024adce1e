#pragma once
// Step-by-step comparison of a device with the CPU reference (DESIGN section 4, "Comparison").

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"

namespace cuvae {

struct CompareOptions {
  std::int64_t steps = 50;
  // step: each step starts both sides from the reference's state (parameters and moments, rounded
  // to the device's storage type), with the same counters and learning rate. run: both run freely;
  // drift is shown, never judged.
  enum class Mode { step, run } mode = Mode::step;
  // Names a parameter whose gradient the device's graph multiplies by 1.001 (tests only): a
  // comparison must notice it.
  std::string break_gradient = {};
  // How the device's production plan is compiled; exec is that of its other plan too. The reference
  // takes no notice of it.
  CompileOptions compile = {};
};

// The worst of one tensor over all steps. Limits are derived from dtype, reduction lengths and the
// reference's own values, element by element: src/train/error_bound.h.
struct TensorError {
  std::string tensor;
  std::string plan;      // "unfused" (every value) or "production" (parameters, moments, losses)
  double aggregate = 0;  // ||a - b|| / ||b|| at its largest share of the limit
  double aggregate_limit = 0;
  double max_abs = 0;     // |a - b| of the element with the largest share of its limit
  double share = 0;       // of the limits, the larger of element's and aggregate's; > 1 fails
  std::string index;      // of that element: "[3, 17]"
  std::int64_t step = 0;  // where it was
  bool passed = true;
};

struct DriftRow {
  std::int64_t step = 0;  // steps done
  double loss_device = 0;
  double loss_reference = 0;
  double parameters = 0;  // ||a - b|| / ||b|| over all parameters
};

struct CompareReport {
  std::string device;
  std::string reference;
  std::string exec;  // of the production plan
  std::string note;  // Program::note() of it
  std::int64_t steps = 0;
  bool passed = true;
  std::vector<TensorError> tensors;  // mode step
  // Pre-activations of relu and leaky_relu within their error bound of 0, over all steps, which
  // took the reference's value; and those of them that had fallen on the other side.
  std::int64_t kink_elements = 0;
  std::int64_t kink_flips = 0;
  std::vector<DriftRow> drift;  // mode run: after steps 1, 2, 5, 10, 20, 50, ... and the last
};

// Steps are full batches (the smaller last one of an epoch is left out). The reference must be at
// least as precise as the device. Errors: Error(usage) for no steps, a batch larger than the data
// or an unknown parameter; Error(input) without a training split; Error(diverged) in mode run. A
// failed comparison is no error: `passed` is false, and the command line makes it status 6.
CompareReport compare(const Config& config, const std::shared_ptr<const Dataset>& dataset,
                      Device& device, Device& reference, const CompareOptions& options);

// Writes what another framework needs to repeat the first `steps` steps: initial.safetensors,
// batches.npy i64 [steps, B] (indices in the training split), rows.npy [steps, B, D] (those rows as
// the data have them, or after a binarisation 0 and 1, u8), labels.npy i64 [steps, B] of a
// conditional model, noise.npy f32 [steps, B * samples, latent] (none of an autoencoder),
// config.json, and what we computed: losses.npy f64 [steps, 3] (loss, reconstruction, kl) of the
// production plan and gradients.safetensors of the first step. Weights and gradients are named as
// in files.
void export_parity(const Config& config, const std::shared_ptr<const Dataset>& dataset,
                   Device& device, std::int64_t steps, const std::string& folder);

}  // namespace cuvae
