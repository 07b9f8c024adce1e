#pragma once
// What the commands that make data write: a grid of pictures, or the values as an array.

#include <string>

#include "cuvae/model.h"
#include "cuvae/tensor.h"

namespace cuvae::cli {

// `features` [n, D] as the model sees them. X.png: a grid; X.npy: [n, H, W] for one channel, else
// [n, C, H, W].
void write_features(const std::string& path, const Tensor& features, const Model& model);

// Pairs. X.png: originals above their reconstructions; X.npy: [2, n, D], originals first.
void write_pairs(const std::string& path, const Tensor& originals, const Tensor& reconstructions,
                 const Model& model);

}  // namespace cuvae::cli
