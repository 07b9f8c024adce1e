#pragma once
// Images on disk as splits in memory, and the windows through which a device reads them.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

struct ImageSize {
  std::int64_t channels = 1;
  std::int64_t height = 0;
  std::int64_t width = 0;

  [[nodiscard]] std::int64_t features() const { return channels * height * width; }
  bool operator==(const ImageSize&) const = default;
};

struct DatasetSplit {
  std::shared_ptr<const Tensor> images;  // u8 [N, features]
  std::vector<std::uint8_t> labels;      // N, or empty where there are none

  [[nodiscard]] std::int64_t size() const { return images ? images->shape()[0] : 0; }
};

struct Dataset {
  std::filesystem::path path;
  ImageSize image;
  std::optional<DatasetSplit> train;  // at least one of the two
  std::optional<DatasetSplit> test;
  // Hexadecimal, of the unpacked files one after another: training images and labels, test images
  // and labels, as far as there are any.
  std::string sha256;
};

// A folder of IDX files or one IDX image file, plain or gzipped. Error(input) names the file.
[[nodiscard]] Dataset load_dataset(const std::filesystem::path& path);

// Rows of a split as a device sees them for a while. A *position* is a place in an epoch's order.
struct Window {
  std::shared_ptr<const Tensor> rows;  // u8 [window_rows, features]
  std::int64_t base = 0;               // what the device subtracts to find a row
};

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Of every window: fixed, so that a compiled plan can read them all.
  [[nodiscard]] virtual std::int64_t window_rows() const noexcept = 0;
  // False: the window holds dataset order and the device computes row = shuffle(position) - base.
  // True: the window holds the epoch's order and row = position - base.
  [[nodiscard]] virtual bool staged() const noexcept = 0;
  // A window that covers positions [position, position + rows) of an epoch. The same pointer as
  // before means the same content. REQUIRES: rows <= window_rows(), position + rows <= the split.
  virtual Window window(std::int64_t epoch, std::int64_t position, std::int64_t rows) = 0;
};

// The whole split in one window.
class ResidentSource final : public BatchSource {
 public:
  explicit ResidentSource(const DatasetSplit& split);
  [[nodiscard]] std::int64_t window_rows() const noexcept override;
  [[nodiscard]] bool staged() const noexcept override { return false; }
  Window window(std::int64_t epoch, std::int64_t position, std::int64_t rows) override;

 private:
  std::shared_ptr<const Tensor> images_;
};

// At most `window_rows` rows at a time, gathered on the host in the epoch's order.
class StreamingSource final : public BatchSource {
 public:
  StreamingSource(const DatasetSplit& split, std::uint64_t seed, bool shuffle,
                  std::int64_t window_rows);
  [[nodiscard]] std::int64_t window_rows() const noexcept override { return window_rows_; }
  [[nodiscard]] bool staged() const noexcept override { return true; }
  Window window(std::int64_t epoch, std::int64_t position, std::int64_t rows) override;

 private:
  std::shared_ptr<const Tensor> images_;
  std::uint64_t seed_;
  bool shuffle_;
  std::int64_t window_rows_;
  Window staged_;
  std::int64_t staged_epoch_ = -1;
  std::int64_t staged_rows_ = 0;
};

}  // namespace cuvae
