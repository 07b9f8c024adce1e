#pragma once
// Weights of training rows, data.weights and data.weighting.

#include <filesystem>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"

namespace cuvae {

// One for each of `rows`, from a .npy file of f32 or f64 [rows]. Error(input) for another shape or
// type, a weight that is negative or not finite, or zeros alone.
[[nodiscard]] std::vector<double> read_weights(const std::filesystem::path& path,
                                               std::int64_t rows);

// Those of a training split: by its labels (balanced), or as hold_out() has read them; none where
// data.weights is "none". Error(input) where there are no labels, or all that is left of a file is
// zeros; `where` names the data.
[[nodiscard]] std::vector<double> training_weights(const DataConfig& config,
                                                   const DatasetSplit& split,
                                                   const std::string& where);

// Writes what a training graph reads of them (store_name::weights_*); nothing without weights.
void show_weights(Store& store, const DataConfig& config, const std::vector<double>& weights);

// Hexadecimal, of the numbers as they lie in memory.
[[nodiscard]] std::string weights_sha256(const std::vector<double>& weights);

}  // namespace cuvae
