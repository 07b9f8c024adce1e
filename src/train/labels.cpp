#include "train/labels.h"

#include <fmt/format.h>

#include <cstring>

#include "base/text.h"
#include "cuvae/error.h"
#include "cuvae/sampling.h"

namespace cuvae {

std::shared_ptr<const Tensor> labels_for(const Model& model, const DatasetSplit& split,
                                         const std::string& where, Told told) {
  if (told == Told::training ? !model.conditional() : !model.told_labels()) return nullptr;
  if (split.labels.empty())
    throw Error(Status::input, "the data has no labels, which `model.condition.on` wants", where,
                "give labels beside the images, or set model.condition.on = \"none\"");
  Tensor labels(DType::u8, Shape{split.size()});
  const auto to = labels.as<std::uint8_t>();
  for (std::size_t i = 0; i < split.labels.size(); ++i) {
    if (split.labels[i] >= model.classes())
      throw Error(
          Status::input,
          fmt::format("row {} has the label {}, the model has {} classes",
                      format_count(static_cast<std::int64_t>(i)), split.labels[i], model.classes()),
          where, "set model.condition.classes above the largest label");
    to[i] = split.labels[i];
  }
  return std::make_shared<const Tensor>(std::move(labels));
}

void write_labelled(Store& store, const Config& config, const DatasetSplit& split) {
  if (config.objective.type != "m2") return;
  std::vector<std::int64_t> labels(split.labels.begin(), split.labels.end());
  if (config.data.labelled > 0) {
    constexpr std::int64_t unknown = -1;
    std::vector<std::int64_t> kept(labels.size(), unknown);
    for (const std::int64_t row :
         labelled_rows(static_cast<std::uint64_t>(config.train.seed), labels,
                       config.model.condition.classes, config.data.labelled))
      kept[static_cast<std::size_t>(row)] = labels[static_cast<std::size_t>(row)];
    labels = std::move(kept);
  }
  std::vector<double> weights = balanced_weights(labels);
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (labels[i] < 0) weights[i] = 0;
  const WeightedDraws draws(0, weights);
  const auto write = [&](const char* name, std::span<const std::int64_t> column) {
    store.write(name, Tensor(Shape{draws.rows()}, column));
  };
  write(store_name::labelled_keep, draws.keep());
  write(store_name::labelled_other, draws.other());
}

Tensor told_latents(const Model& model, const Tensor& latents,
                    const std::vector<std::int64_t>& labels, const std::string& flag) {
  const std::int64_t latent = latents.shape()[1];
  const std::int64_t width = model.decoder_width();
  if (width == latent) return latents.to(DType::f32);
  const std::int64_t n = latents.shape()[0];
  if (labels.size() != 1 && static_cast<std::int64_t>(labels.size()) != n)
    throw Error(Status::usage,
                labels.empty() ? std::string("a conditional model without a label")
                               : fmt::format("{} labels for {} rows", labels.size(), n),
                flag, fmt::format("give one from 0 to {}", model.classes() - 1));
  Tensor told(DType::f32, Shape{n, width});
  const Tensor reals = latents.to(DType::f32);
  for (std::int64_t row = 0; row < n; ++row) {
    const std::int64_t label = labels[labels.size() == 1 ? 0 : static_cast<std::size_t>(row)];
    if (label < 0 || label >= model.classes())
      throw Error(Status::usage, fmt::format("no label {}", label), flag,
                  fmt::format("choose from 0 to {}", model.classes() - 1));
    float* to = told.as<float>().data() + row * width;
    std::memcpy(to, reals.as<float>().data() + row * latent,
                static_cast<std::size_t>(latent) * sizeof(float));
    to[latent + label] = 1;
  }
  return told;
}

}  // namespace cuvae
