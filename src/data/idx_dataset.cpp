#include <array>
#include <string>
#include <utility>

#include "base/text.h"
#include "cuvae/error.h"
#include "data/idx.h"
#include "data/loader.h"

namespace cuvae {
namespace {

using std::filesystem::path;

bool is_file(const path& file) {
  std::error_code failure;
  return std::filesystem::is_regular_file(file, failure);
}

// MNIST's files go by two names, "train-images-idx3-ubyte" and "train-images.idx3-ubyte", each
// plain or gzipped; of several the first is taken. Empty where there is none.
path find_file(const path& folder, const std::string& stem, const std::string& type) {
  for (const char* separator : {"-", "."}) {
    for (const char* packed : {"", ".gz"}) {
      path file = folder / (stem + separator + type + packed);
      if (is_file(file)) return file;
    }
  }
  return {};
}

struct SplitFiles {
  path images;
  path labels;  // empty where there are none
};

DatasetSplit read_split(const SplitFiles& files, ImageSize& image, Sha256& hash) {
  IdxContent images = read_idx(files.images, IdxKind::images, hash);
  image = {1, images.shape[1], images.shape[2]};
  const std::int64_t count = images.shape[0];
  DatasetSplit split;
  if (!files.labels.empty()) {
    const Tensor labels = read_idx(files.labels, IdxKind::labels, hash).values;
    if (labels.elements() != count) {
      throw Error(
          Status::input,
          format_count(labels.elements()) + " labels for " + format_count(count) + " images",
          files.labels.string(),
          "fetch both files again, or take the labels away to go on without them");
    }
    const auto values = labels.as<std::uint8_t>();
    split.labels.assign(values.begin(), values.end());
  }
  split.images = std::make_shared<const Tensor>(std::move(images.values));
  return split;
}

SplitFiles files_of_folder(const path& folder, const std::string& prefix) {
  SplitFiles files{find_file(folder, prefix + "-images", "idx3-ubyte"),
                   find_file(folder, prefix + "-labels", "idx1-ubyte")};
  if (files.images.empty() && !files.labels.empty()) {
    throw Error(Status::input, "labels without images", files.labels.string(),
                "add " + prefix + "-images-idx3-ubyte.gz beside them");
  }
  return files;
}

// The labels that lie beside a file of images under the matching name.
path labels_beside(const path& images) {
  std::string name = images.filename().string();
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  for (const auto& [from, to] :
       {std::pair<std::string_view, std::string_view>{"images-idx3", "labels-idx1"},
        {"images.idx3", "labels.idx1"}}) {
    const auto at = name.rfind(from);
    if (at == std::string::npos) continue;
    std::string matching = name;
    matching.replace(at, from.size(), to);
    for (const char* packed : {"", ".gz"}) {
      path file = images.parent_path() / (matching + packed);
      if (is_file(file)) return file;
    }
  }
  return {};
}

std::string size_text(const ImageSize& image) {
  return std::to_string(image.height) + " x " + std::to_string(image.width);
}

}  // namespace

bool accepts_idx(const path& source) {
  std::error_code failure;
  return std::filesystem::is_directory(source, failure) || is_file(source);
}

bool holds_idx_images(const path& folder) {
  return !find_file(folder, "train-images", "idx3-ubyte").empty() ||
         !find_file(folder, "t10k-images", "idx3-ubyte").empty();
}

Dataset load_idx_dataset(const path& source) {
  Dataset dataset;
  dataset.path = source;
  Sha256 hash;
  std::error_code failure;
  if (!std::filesystem::is_directory(source, failure)) {
    dataset.train = read_split({source, labels_beside(source)}, dataset.image, hash);
    dataset.sha256 = hash.hex();
    return dataset;
  }
  const SplitFiles train = files_of_folder(source, "train");
  const SplitFiles test = files_of_folder(source, "t10k");
  if (train.images.empty() && test.images.empty()) {
    throw Error(Status::input, "a folder without IDX files or .npy files of data", source.string(),
                "expected train-images-idx3-ubyte[.gz] or t10k-images-idx3-ubyte[.gz], with "
                "train-labels-idx1-ubyte[.gz] and t10k-labels-idx1-ubyte[.gz] for labels; or "
                "train.npy or test.npy, with train-labels.npy and test-labels.npy");
  }
  if (!train.images.empty()) dataset.train = read_split(train, dataset.image, hash);
  if (!test.images.empty()) {
    ImageSize image;
    dataset.test = read_split(test, image, hash);
    if (dataset.train && image != dataset.image) {
      throw Error(Status::input,
                  "test images of " + size_text(image) + " pixels beside training images of " +
                      size_text(dataset.image),
                  test.images.string(), "keep data sets in folders of their own");
    }
    dataset.image = image;
  }
  dataset.sha256 = hash.hex();
  return dataset;
}

}  // namespace cuvae
