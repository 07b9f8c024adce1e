#include "bench/data.h"

#include <algorithm>
#include <utility>

#include "cuvae/rng.h"

namespace cuvae {
namespace {

constexpr std::int64_t side = 28;

std::shared_ptr<const Tensor> images(std::int64_t rows, std::uint16_t stream) {
  auto tensor = std::make_shared<Tensor>(DType::u8, Shape{rows, side * side});
  const auto pixels = tensor->as<std::uint8_t>();
  const RandomKey key{.seed = 20, .purpose = Purpose::augmentation, .stream = stream};
  for (std::size_t i = 0; i < pixels.size(); i += 8) {
    const PhiloxWords words = random_words(key, i / 8);
    for (std::size_t j = 0; j < 8; ++j) {
      const std::uint32_t half = words[j / 2] >> (16 * (j % 2)) & 0xffff;
      pixels[i + j] = half % 5 == 0 ? static_cast<std::uint8_t>(1 + half / 5 % 255) : 0;
    }
  }
  return tensor;
}

}  // namespace

std::shared_ptr<const Dataset> synthetic_dataset(std::int64_t rows) {
  auto dataset = std::make_shared<Dataset>();
  dataset->path = "synthetic";
  dataset->image = {.channels = 1, .height = side, .width = side};
  const auto labels = [](std::int64_t count) {
    std::vector<std::uint8_t> all(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint8_t>(i % 10);
    return all;
  };
  dataset->train = DatasetSplit{.images = images(rows, 0), .labels = labels(rows)};
  dataset->test = DatasetSplit{.images = images(10000, 1), .labels = labels(10000)};
  return dataset;
}

std::shared_ptr<const Dataset> training_only(const Dataset& dataset) {
  auto only = std::make_shared<Dataset>(dataset);
  only->test.reset();
  return only;
}

DatasetSplit first_images(const Dataset& dataset, std::int64_t rows) {
  const Tensor& all = *dataset.train->images;
  const std::int64_t count = std::min(dataset.train->size(), rows);
  auto some = std::make_shared<Tensor>(all.dtype(), Shape{count, dataset.image.features()});
  std::ranges::copy(all.bytes().first(some->bytes().size()), some->bytes().begin());
  DatasetSplit split{.images = std::move(some), .labels = dataset.train->labels};
  if (!split.labels.empty()) split.labels.resize(static_cast<std::size_t>(count));
  return split;
}

}  // namespace cuvae
