#pragma once
// How a label goes into the two sides of a conditional model.

#include "cuvae/config.h"
#include "cuvae/layer.h"

namespace cuvae {

// What a side's first layer is given. Rows of features get the one-hot label appended last, as
// columns; images get a plane of ones or zeros for each class.
struct Conditioned {
  Features features;    // with the label
  bool told = false;    // it is told the label
  bool planes = false;  // as planes
};

// Of the encoder, which sees `image`, and of the decoder, which sees the latents.
[[nodiscard]] Conditioned conditioned_encoder(const ModelConfig& config, const Features& image);
[[nodiscard]] Conditioned conditioned_decoder(const ModelConfig& config);

}  // namespace cuvae
