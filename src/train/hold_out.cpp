// Which rows of a data set are trained on, and which are kept for validation.

#include <fmt/format.h>

#include <cstring>
#include <span>

#include "base/text.h"
#include "cuvae/error.h"
#include "cuvae/sampling.h"
#include "cuvae/trainer.h"
#include "train/hold_out.h"
#include "train/weights.h"

namespace cuvae {
namespace {

// Rows of a matrix of any type.
std::shared_ptr<const Tensor> pick(const Tensor& all, std::span<const std::int64_t> rows) {
  const std::int64_t columns = all.shape()[1];
  auto picked =
      std::make_shared<Tensor>(all.dtype(), Shape{static_cast<std::int64_t>(rows.size()), columns});
  const std::size_t bytes = static_cast<std::size_t>(columns) * size_of(all.dtype());
  const std::byte* from = all.bytes().data();
  std::byte* to = picked->bytes().data();
  for (const std::int64_t row : rows) {
    std::memcpy(to, from + static_cast<std::size_t>(row) * bytes, bytes);
    to += bytes;
  }
  return picked;
}

DatasetSplit pick(const DatasetSplit& all, std::span<const std::int64_t> rows) {
  DatasetSplit picked = all;
  picked.images = pick(*all.images, rows);
  if (all.factors) picked.factors = pick(*all.factors, rows);
  picked.labels.clear();
  picked.weights.clear();
  if (!all.weights.empty())
    for (const std::int64_t row : rows)
      picked.weights.push_back(all.weights[static_cast<std::size_t>(row)]);
  if (!all.labels.empty())
    for (const std::int64_t row : rows)
      picked.labels.push_back(all.labels[static_cast<std::size_t>(row)]);
  return picked;
}

void take_other(Dataset& dataset, const std::string& path) {
  Dataset other = load_dataset(path);
  if (!(other.image == dataset.image)) {
    throw Error(Status::input,
                fmt::format("rows of {} for validation, training has {}", other.image.str(),
                            dataset.image.str()),
                path, "give data of the same shape as data.validation");
  }
  dataset.validation = other.train ? std::move(*other.train) : std::move(*other.test);
  if (dataset.train && dataset.train->images->dtype() != dataset.validation->images->dtype())
    throw Error(Status::input, "rows for validation of another type than those for training", path,
                "give data of the same kind as data.validation");
  dataset.validation_sha256 = other.sha256;
}

}  // namespace

bool holds_out_by_seed(const DataConfig& config) {
  return config.folds > 0 || config.validation.fraction > 0;
}

Dataset hold_out(Dataset dataset, const Config& config) {
  const ValidationConfig& held = config.data.validation;
  const std::int64_t folds = config.data.folds;
  if (dataset.train && config.data.weights_are_a_file())
    dataset.train->weights = read_weights(config.data.weights, dataset.train->size());
  if (folds == 0 && !held.any()) return dataset;
  if (!held.path.empty()) {
    take_other(dataset, held.path);
    return dataset;
  }
  if (!dataset.train)
    throw Error(Status::input, "the data has no training split to keep rows for validation of",
                dataset.path.string(), "leave data.validation out, or give data that has one");
  const std::int64_t n = dataset.train->size();
  const auto refuse = [&](const std::string& what, const char* key, const std::string& mend) {
    throw Error(Status::usage, fmt::format("{} of {} samples", what, format_count(n)), key, mend);
  };
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  RowSplit split;
  if (folds > 0) {
    if (folds > n)
      refuse(fmt::format("{} folds", format_count(folds)), "data.folds",
             fmt::format("choose at most {}", format_count(n)));
    split = split_fold(seed, n, folds, config.data.fold);
  } else if (held.rows > 0) {
    if (held.rows >= n)
      refuse(fmt::format("the last {} rows for validation", format_count(held.rows)),
             "data.validation", "leave some to be trained on");
    split = split_last(n, held.rows);
  } else {
    const std::int64_t rows = validation_rows(n, held.fraction);
    if (rows == 0)
      refuse(fmt::format("{} for validation", held.fraction), "data.validation",
             "give more data, or the path of other data for validation");
    split = split_shuffled(seed, n, rows);
  }
  const DatasetSplit all = std::move(*dataset.train);
  dataset.train = pick(all, split.train);
  dataset.validation = pick(all, split.validation);
  return dataset;
}

Dataset load_data(const Config& config) {
  return hold_out(load_dataset(config.data.path), config);
}

}  // namespace cuvae
