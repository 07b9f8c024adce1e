#pragma once
// What a device has to do with labels, weighted draws, noise and augmentation beside the parity
// table: asked of the CPU and of the GPU's kernels alike.

#include "cuvae/device.h"

namespace cuvae::testing {

// Bit for bit what WeightedDraws gives, in several epochs and unrolled steps.
void check_weighted_draws(Device& device);
// NaN for a label that is no class; rows outside the window are told.
void check_labels(Device& device);
// Whole pixels of the input, and the same ones as on a CPU in double; how often and how far.
void check_augmentation(Device& device);
// Unrolled steps: a capacity of each, noise of each but where it is keyed.
void check_steps(Device& device);
// Logits of +-10,000, and what is not a number.
void check_extremes(Device& device);

}  // namespace cuvae::testing
