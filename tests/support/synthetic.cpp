#include "support/synthetic.h"

#include <stdlib.h>

#include <cmath>
#include <fstream>
#include <iterator>

#include "cuvae/error.h"
#include "cuvae/rng.h"

namespace cuvae::test {
namespace {

namespace fs = std::filesystem;

void put_u32(std::string& bytes, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes += static_cast<char>(value >> shift & 0xFFU);
  }
}

void write_idx(const fs::path& path, const Tensor& images, std::int64_t size) {
  std::string bytes;
  put_u32(bytes, 0x00000803);
  put_u32(bytes, static_cast<std::uint32_t>(images.shape()[0]));
  put_u32(bytes, static_cast<std::uint32_t>(size));
  put_u32(bytes, static_cast<std::uint32_t>(size));
  const auto pixels = images.bytes();
  bytes.append(reinterpret_cast<const char*>(pixels.data()), pixels.size());
  std::ofstream(path, std::ios::binary) << bytes;
}

void write_labels(const fs::path& path, std::int64_t rows) {
  std::string bytes;
  put_u32(bytes, 0x00000801);
  put_u32(bytes, static_cast<std::uint32_t>(rows));
  for (std::int64_t i = 0; i < rows; ++i) bytes += static_cast<char>(i % 10);
  std::ofstream(path, std::ios::binary) << bytes;
}

DatasetSplit split_of(std::int64_t rows, std::int64_t size, std::uint64_t seed) {
  return {std::make_shared<const Tensor>(blob_images(rows, size, seed)), {}};
}

}  // namespace

Tensor blob_images(std::int64_t rows, std::int64_t size, std::uint64_t seed) {
  Tensor images(DType::u8, Shape{rows, size * size});
  const auto pixels = images.as<std::uint8_t>();
  const RandomKey key{.seed = seed, .purpose = Purpose::augmentation, .stream = 0, .step = 0};
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto draw = [&](std::int64_t k) {
      return static_cast<double>(random_uniform(key, static_cast<std::uint64_t>(3 * row + k)));
    };
    const auto extent = static_cast<double>(size);
    const double x0 = extent * (0.2 + 0.6 * draw(0));
    const double y0 = extent * (0.2 + 0.6 * draw(1));
    const double width = extent * (0.1 + 0.15 * draw(2));
    for (std::int64_t y = 0; y < size; ++y) {
      for (std::int64_t x = 0; x < size; ++x) {
        const double dx = (static_cast<double>(x) + 0.5 - x0) / width;
        const double dy = (static_cast<double>(y) + 0.5 - y0) / width;
        pixels[static_cast<std::size_t>((row * size + y) * size + x)] =
            static_cast<std::uint8_t>(std::lround(255.0 * std::exp(-0.5 * (dx * dx + dy * dy))));
      }
    }
  }
  return images;
}

std::shared_ptr<const Dataset> blob_dataset(std::int64_t train_rows, std::int64_t test_rows,
                                            std::int64_t size) {
  auto dataset = std::make_shared<Dataset>();
  dataset->path = "blobs";
  dataset->image = {.channels = 1, .height = size, .width = size};
  dataset->train = split_of(train_rows, size, 1);
  dataset->test = split_of(test_rows, size, 2);
  dataset->sha256 = "blobs";
  return dataset;
}

void write_blob_folder(const fs::path& folder, std::int64_t train_rows, std::int64_t test_rows,
                       std::int64_t size) {
  fs::create_directories(folder);
  write_idx(folder / "train-images-idx3-ubyte", blob_images(train_rows, size, 1), size);
  write_labels(folder / "train-labels-idx1-ubyte", train_rows);
  write_idx(folder / "t10k-images-idx3-ubyte", blob_images(test_rows, size, 2), size);
  write_labels(folder / "t10k-labels-idx1-ubyte", test_rows);
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (fs::temp_directory_path() / "cuvae-test-XXXXXX").string();
  if (!::mkdtemp(pattern.data())) throw Error(Status::failed, "no temporary folder", pattern);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  fs::remove_all(path_, error);
}

std::string file_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace cuvae::test
