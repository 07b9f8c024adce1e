#pragma once
// Images to measure with.

#include <cstdint>
#include <memory>

#include "cuvae/dataset.h"

namespace cuvae {

// Seeded images of 28 x 28 as sparse as MNIST: four pixels in five are zero. A test split of 10,000
// more.
[[nodiscard]] std::shared_ptr<const Dataset> synthetic_dataset(std::int64_t rows);

// The same images without a test split: what a trainer needs that evaluates nothing.
[[nodiscard]] std::shared_ptr<const Dataset> training_only(const Dataset& dataset);
// The first images of the training split, at most `rows`.
[[nodiscard]] DatasetSplit first_images(const Dataset& dataset, std::int64_t rows);

}  // namespace cuvae
