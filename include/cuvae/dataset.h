#pragma once
// Data on disk or drawn (`synthetic:`) as splits in memory, and the windows through which a device
// reads them.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

// Rows without a shape of their own are 1 x 1 x D: features.
struct ImageSize {
  std::int64_t channels = 1;
  std::int64_t height = 0;
  std::int64_t width = 0;

  [[nodiscard]] std::int64_t features() const { return channels * height * width; }
  // "1 x 28 x 28 pixels", "16 features"
  [[nodiscard]] std::string str() const;
  bool operator==(const ImageSize&) const = default;
};

struct DatasetSplit {
  std::shared_ptr<const Tensor> images;  // u8 or f32 [N, features]
  std::vector<std::uint8_t> labels;      // N, or empty where there are none
  // i64 [N, F]: what each row was made from, as places in Dataset::factors; null where not known.
  std::shared_ptr<const Tensor> factors = nullptr;
  std::vector<double> weights = {};  // N, where hold_out() has read data.weights from a file

  [[nodiscard]] std::int64_t size() const { return images ? images->shape()[0] : 0; }
};

// A ground-truth factor of variation.
struct Factor {
  std::string name;
  std::vector<double> values;  // that it takes, ascending
};

struct Dataset {
  std::filesystem::path path;  // or the text of the source: "synthetic:shapes?seed=1"
  ImageSize image;
  std::optional<DatasetSplit> train;  // at least one of the two
  std::optional<DatasetSplit> test;
  // Hexadecimal, of the unpacked files one after another: training images and labels, test images
  // and labels, as far as there are any. Of drawn data the same: rows as they lie in memory (little
  // endian), and labels.
  std::string sha256;
  // What hold_out() (trainer.h) keeps from training; no file has one of its own.
  std::optional<DatasetSplit> validation = std::nullopt;
  std::string validation_sha256 = {};  // where its rows are other data
  std::vector<Factor> factors = {};    // of data whose factors are known
};

// u8 or f32: of all rows.
[[nodiscard]] DType data_type(const Dataset& dataset);

// The labels of a split, one for each row. Error(input) where it has none: `purpose` says, after
// "labels are needed for", what wants them.
[[nodiscard]] const std::vector<std::uint8_t>& require_labels(const Dataset& dataset,
                                                              const DatasetSplit& split,
                                                              std::string_view purpose);
// One more than the largest label of any split. Error(input) where a split has no labels.
[[nodiscard]] std::int64_t label_classes(const Dataset& dataset, std::string_view purpose);

// A folder of IDX files or one IDX image file, plain or gzipped; a folder of .npy files or one of
// them; or a named source (below). Error(input) names the file, Error(usage) what of a source's
// text makes no sense.
//
// .npy folders hold train.npy, test.npy or both, and train-labels.npy, test-labels.npy where there
// are labels; one file X.npy is the training split, X-labels.npy beside it has its labels. Rows are
// [N, D] features, [N, H, W] or [N, C, H, W] images. |u1 stays u8 as IDX's bytes do. <f4, <f8 and
// all other integers become f32: what is not finite, or an integer that f32 does not hold exactly,
// is Error(input) with its row and column. Labels are integers [N] of 0 to 255. C order, little
// endian.
[[nodiscard]] Dataset load_dataset(const std::filesystem::path& path);

// Sources that are no path. "fashion-mnist" stands for the files of Debian's and Ubuntu's package
// dataset-fashion-mnist (CUVAE_FASHION_MNIST names another folder); "synthetic:NAME?KEY=VALUE&..."
// is drawn, with no file: the same bits everywhere. A folder of such a name is "./fashion-mnist".
struct DataSource {
  struct Parameter {
    std::string name;
    std::string standard;  // its value where the text has none
    std::string doc;
  };
  std::string name;  // "synthetic:linear-gaussian"
  std::string doc;   // one line
  std::vector<Parameter> parameters = {};
};
[[nodiscard]] const std::vector<DataSource>& data_sources();
// Whether a data.path means a named source, if perhaps one that is not there.
[[nodiscard]] bool is_data_source(std::string_view path);
// The source that a data.path names; null for a path and for a name that is not there.
[[nodiscard]] const DataSource* find_data_source(std::string_view path);
// Whether there is something to load: a path that exists, a synthetic source, an installed one.
[[nodiscard]] bool data_exists(const std::filesystem::path& path);

// Rows of a split as a device sees them for a while. A *position* is a place in an epoch's order.
struct Window {
  std::shared_ptr<const Tensor> rows;  // u8 or f32 [window_rows, features]
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
