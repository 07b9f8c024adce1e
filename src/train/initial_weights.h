#pragma once
// What training begins with.

#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/model.h"
#include "cuvae/safetensors.h"

namespace cuvae {

// The model's own draws by train.seed. With model.decoder.out_bias = "data_mean" the biases of the
// decoder's last layer are the logits of the mean over the training split, clipped to [0.001,
// 0.999], as in the code of Burda, Grosse and Salakhutdinov (2016): of each feature, or of each
// channel where the layer is a convolution. With data.binarise = "threshold" it is the mean of
// what the threshold leaves; drawn binarisations have the grey values' own mean.
// Pseudo-inputs of a VampPrior are rows of the encoder's input: the first model.latent.components
// of the training split in a shuffle (that of the epoch 2^64 - 3, which no training reaches) of
// train.seed, as Prior::raw_pseudo_inputs() has them; under a drawn binarisation their grey values.
// What there are too few rows for stays the model's own draw, since equal ones would never part.
// Error(usage) for a last layer without bias, Error(input) without a training split.
[[nodiscard]] std::vector<NamedTensor> initial_weights(const Model& model, const Config& config,
                                                       const Dataset& dataset);

}  // namespace cuvae
