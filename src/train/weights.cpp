#include "train/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <span>

#include "base/text.h"
#include "cuvae/error.h"
#include "cuvae/model.h"
#include "cuvae/npy.h"
#include "cuvae/sampling.h"
#include "data/sha256.h"

namespace cuvae {
namespace {

constexpr const char* key = "data.weights";

[[noreturn]] void all_zero(const std::string& where) {
  throw Error(Status::input, "all weights of the training rows are 0", where,
              "give some of them a weight above 0");
}

Tensor column(std::span<const std::int64_t> values) {
  return Tensor(Shape{static_cast<std::int64_t>(values.size())}, values);
}

}  // namespace

std::vector<double> read_weights(const std::filesystem::path& path, std::int64_t rows) {
  const Tensor file = read_npy(path);
  if (file.dtype() != DType::f32 && file.dtype() != DType::f64)
    throw Error(Status::input, fmt::format("weights of type {}", name_of(file.dtype())),
                path.string(), "save them with weights.astype(numpy.float64)");
  if (!(file.shape() == Shape{rows}))
    throw Error(Status::input,
                fmt::format("weights of shape {} for {} training rows", file.shape().str(),
                            format_count(rows)),
                path.string(),
                fmt::format("give {}: one for each row of the training split", rows));
  std::vector<double> weights(static_cast<std::size_t>(rows));
  bool any = false;
  for (std::int64_t i = 0; i < rows; ++i) {
    const double weight = file.item(i);
    if (!(weight >= 0 && std::isfinite(weight)))
      throw Error(Status::input, fmt::format("the weight of row {} is {}", i, weight),
                  path.string(), "give finite numbers of at least 0");
    any = any || weight > 0;
    weights[static_cast<std::size_t>(i)] = weight;
  }
  if (!any) all_zero(path.string());
  return weights;
}

std::vector<double> training_weights(const DataConfig& config, const DatasetSplit& split,
                                     const std::string& where) {
  if (config.weights == "none") return {};
  if (config.weights == "balanced") {
    if (split.labels.empty())
      throw Error(Status::input,
                  "the data has no labels, which `data.weights` = \"balanced\" wants", where,
                  "give labels beside the images, or a .npy file of weights");
    const std::vector<std::int64_t> labels(split.labels.begin(), split.labels.end());
    return balanced_weights(labels);
  }
  if (std::ssize(split.weights) != split.size())
    throw Error(Status::usage, "the weights have not been read", key,
                "give the trainer hold_out(dataset, config)");
  if (std::ranges::none_of(split.weights, [](double weight) { return weight > 0; }))
    all_zero(config.weights);
  return split.weights;
}

void show_weights(Store& store, const DataConfig& config, const std::vector<double>& weights) {
  if (weights.empty()) return;
  if (config.weighting == "draws") {
    const WeightedDraws draws(0, weights);  // the table has nothing of the seed
    store.write(store_name::weights_keep, column(draws.keep()));
    store.write(store_name::weights_other, column(draws.other()));
    return;
  }
  const auto n = static_cast<std::int64_t>(weights.size());
  const double mean = std::accumulate(weights.begin(), weights.end(), 0.0) / static_cast<double>(n);
  Tensor normalised(DType::f32, Shape{n, 1});
  std::ranges::transform(weights, normalised.as<float>().begin(),
                         [&](double weight) { return static_cast<float>(weight / mean); });
  store.write(store_name::weights_loss, normalised);
}

std::string weights_sha256(const std::vector<double>& weights) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(weights)));
  return hash.hex();
}

}  // namespace cuvae
