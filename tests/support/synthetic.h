#pragma once
// Small images with structure to learn: blobs whose place and size are the known factors.

#include <filesystem>

#include "cuvae/dataset.h"

namespace cuvae::test {

// `rows` grey images of size x size; the same arguments give the same bytes.
Tensor blob_images(std::int64_t rows, std::int64_t size, std::uint64_t seed);

// In memory, with a training and a test split.
std::shared_ptr<const Dataset> blob_dataset(std::int64_t train_rows, std::int64_t test_rows,
                                            std::int64_t size = 8);

// The same as plain IDX files under the names of MNIST.
void write_blob_folder(const std::filesystem::path& folder, std::int64_t train_rows,
                       std::int64_t test_rows, std::int64_t size = 8);

// A folder of its own under the system's temporary folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const {
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

// Whole content; empty where there is no such file.
std::string file_bytes(const std::filesystem::path& path);

}  // namespace cuvae::test
