#include "support/mnist_part.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "support/source_path.h"

namespace cuvae::test {
namespace {

constexpr std::int64_t side = 28;

DatasetSplit first(const DatasetSplit& split, std::int64_t rows, std::int64_t size) {
  Tensor images(DType::u8, Shape{rows, size * size});
  const std::int64_t factor = size / side;
  const std::int64_t frame = (size - factor * side) / 2;
  const auto from = split.images->as<std::uint8_t>();
  const auto to = images.as<std::uint8_t>();
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t y = 0; y < factor * side; ++y)
      for (std::int64_t x = 0; x < factor * side; ++x)
        to[static_cast<std::size_t>((row * size + frame + y) * size + frame + x)] =
            from[static_cast<std::size_t>((row * side + y / factor) * side + x / factor)];
  return {.images = std::make_shared<const Tensor>(std::move(images)),
          .labels = {split.labels.begin(), split.labels.begin() + rows}};
}

void write(const std::filesystem::path& path, std::uint32_t magic,
           std::initializer_list<std::int64_t> sizes, const void* values, std::size_t bytes) {
  std::string text;
  const auto put = [&](std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift & 0xFFU);
  };
  put(magic);
  for (const std::int64_t size : sizes) put(static_cast<std::uint32_t>(size));
  text.append(static_cast<const char*>(values), bytes);
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace

std::shared_ptr<const Dataset> mnist_part(std::int64_t train_rows, std::int64_t test_rows,
                                          std::int64_t size) {
  const Dataset whole = load_dataset(source_path("data/mnist"));
  auto part = std::make_shared<Dataset>();
  part->path = "mnist";
  part->image = {.channels = 1, .height = size, .width = size};
  part->train = first(*whole.train, train_rows, size);
  part->test = first(*whole.test, test_rows, size);
  part->sha256 = "mnist";
  return part;
}

void write_idx_folder(const std::filesystem::path& folder, const Dataset& dataset) {
  std::filesystem::create_directories(folder);
  for (const auto& [name, split] : {std::pair{"train", &dataset.train}, {"t10k", &dataset.test}}) {
    const auto pixels = (*split)->images->bytes();
    write(folder / (std::string(name) + "-images-idx3-ubyte"), 0x803,
          {(*split)->size(), dataset.image.height, dataset.image.width}, pixels.data(),
          pixels.size());
    write(folder / (std::string(name) + "-labels-idx1-ubyte"), 0x801, {(*split)->size()},
          (*split)->labels.data(), (*split)->labels.size());
  }
}

}  // namespace cuvae::test
