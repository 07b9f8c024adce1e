#include "cuvae/dataset.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae {

std::string ImageSize::str() const {
  return format_row(channels, height, width);
}

DType data_type(const Dataset& dataset) {
  const auto& split = dataset.train ? dataset.train : dataset.test;
  return split && split->images ? split->images->dtype() : DType::u8;
}

const std::vector<std::uint8_t>& require_labels(const Dataset& dataset, const DatasetSplit& split,
                                                std::string_view purpose) {
  if (split.labels.empty() && split.size() > 0) {
    throw Error(Status::input, fmt::format("the data have no labels, which {} needs", purpose),
                dataset.path.string(),
                "add their file of labels beside the images (train-labels-idx1-ubyte, or "
                "train-labels.npy), or use data that have them");
  }
  return split.labels;
}

std::int64_t label_classes(const Dataset& dataset, std::string_view purpose) {
  std::int64_t classes = 0;
  for (const auto* split : {&dataset.train, &dataset.test}) {
    if (!*split) continue;
    for (const std::uint8_t label : require_labels(dataset, **split, purpose))
      classes = std::max<std::int64_t>(classes, label + 1);
  }
  return classes;
}

}  // namespace cuvae
