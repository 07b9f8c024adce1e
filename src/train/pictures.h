#pragma once
// The two pictures that a training run leaves.

#include <cstdint>

#include "cuvae/run.h"
#include "train/run_folder.h"

namespace cuvae {

// samples.png: 64 draws from the prior (seed of the training). reconstructions.png: the first 40
// images of the test split (else of the training split) over their reconstructions. Features, and
// images of other than 1 or 3 channels, have no pictures.
void write_pictures(LoadedRun& run, const Dataset& dataset, const RunFolder& folder);

// Makes ready on the device what a LoadedRun and write_pictures() of such a model will want there,
// and gives it back: bytes that it took. Error(device) where there is no room.
[[nodiscard]] std::int64_t rehearse_pictures(Device& device, const Model& model,
                                             const Dataset& dataset);

// The shape of one picture of a model, or Error(usage) where it is none (channels).
[[nodiscard]] struct ImageShape image_shape(const InputSpec& input);

}  // namespace cuvae
