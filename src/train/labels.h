#pragma once
// Labels of a split as a conditional model reads them.

#include <memory>
#include <string>

#include "cuvae/dataset.h"
#include "cuvae/model.h"

namespace cuvae {

// What the graphs are told, which semi-supervised ones are in training only.
enum class Told : std::uint8_t { training, otherwise };

// u8 [n] of a model that is told labels; null of any other. Error(input) where the split has none,
// or one that is no class of the model; `where` names the data.
[[nodiscard]] std::shared_ptr<const Tensor> labels_for(const Model& model,
                                                       const DatasetSplit& split,
                                                       const std::string& where,
                                                       Told told = Told::otherwise);

// The table of balanced draws among the rows that have a label, to a semi-supervised training's
// store. Error(usage) where a class has too few.
void write_labelled(Store& store, const Config& config, const DatasetSplit& split);

// f32 [n, decoder_width()]: latents [n, latent] and, of a model whose decoder is told it, the label
// of each row one-hot. `labels`: one for each row, or one for all. Error(usage) where there is none
// or it is no class, naming `flag`.
[[nodiscard]] Tensor told_latents(const Model& model, const Tensor& latents,
                                  const std::vector<std::int64_t>& labels, const std::string& flag);

}  // namespace cuvae
