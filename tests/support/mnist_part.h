#pragma once
// The first images of MNIST: real digits, few enough for a test.

#include <filesystem>
#include <memory>

#include "cuvae/dataset.h"

namespace cuvae::test {

// Of size 28, or 64: each pixel four times, in a black frame of 4. With labels.
std::shared_ptr<const Dataset> mnist_part(std::int64_t train_rows, std::int64_t test_rows,
                                          std::int64_t size = 28);

// A data set of bytes as plain IDX files under the names of MNIST.
void write_idx_folder(const std::filesystem::path& folder, const Dataset& dataset);

}  // namespace cuvae::test
