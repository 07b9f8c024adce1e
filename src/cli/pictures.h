#pragma once
// What the commands that make data write: a grid of pictures, or the values as an array.

#include <string>

#include "cli/output.h"
#include "cuvae/model.h"
#include "cuvae/run.h"
#include "cuvae/tensor.h"

namespace cuvae::cli {

// Error(usage) where `path` is a picture and the model's data make none. For before the work.
void check_picture(const std::string& path, const Model& model);

// `features` [n, D] as the model sees them. X.png: a grid; X.npy: [n, D] for features, [n, H, W]
// for images of one channel, else [n, C, H, W].
void write_features(const std::string& path, const Tensor& features, const Model& model);

// One line where --label is a class that no training row had.
void note_untrained_label(const LoadedRun& run, std::int64_t label, const Output& output);

// Pairs. X.png: originals above their reconstructions; X.npy: [2, n, D], originals first.
void write_pairs(const std::string& path, const Tensor& originals, const Tensor& reconstructions,
                 const Model& model);

}  // namespace cuvae::cli
