#include "model/condition.h"

namespace cuvae {

Conditioned conditioned_encoder(const ModelConfig& config, const Features& image) {
  Conditioned side{.features = image};
  const ConditionConfig& condition = config.condition;
  if (condition.on == "none" || condition.encoder == "none") return side;
  side.told = true;
  const auto& layers = config.encoder.layers;
  // What makes rows of an image anyway takes the label as columns.
  side.planes = !layers.empty() && layers[0].type != "linear" && layers[0].type != "flatten";
  if (side.planes)
    side.features.channels += condition.classes;
  else
    side.features = Features::flat(image.count() + condition.classes);
  return side;
}

Conditioned conditioned_decoder(const ModelConfig& config) {
  Conditioned side{.features = Features::flat(config.latent.size)};
  const ConditionConfig& condition = config.condition;
  if (condition.on == "none" || condition.decoder == "none") return side;
  side.told = true;
  side.features.channels += condition.classes;
  return side;
}

}  // namespace cuvae
