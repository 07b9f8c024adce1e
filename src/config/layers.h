#pragma once
// Layers in a configuration: the table of src/layers read, judged and written.

#include <string>
#include <string_view>
#include <vector>

#include "config/keys.h"
#include "layers/layer.h"

namespace cuvae::config {

// Whether a layer of that type has that key. `is_out`: the decoder's last layer, which has neither
// `out` nor an activation.
[[nodiscard]] bool takes(std::string_view type, std::string_view key, bool is_out = false);
// "did you mean `out`?", or what the type takes.
[[nodiscard]] std::string mend_layer_key(std::string_view type, std::string_view key,
                                         bool is_out = false);

// "{ type = "linear", out = 512, activation = "relu" }": what is not at its default.
[[nodiscard]] std::string layer_as_toml(const LayerConfig& layer);

// Types, ranges and what means nothing to a type; throw Error(usage). Shapes are Model's matter.
void validate_layers(std::string_view path, const std::vector<LayerConfig>& layers,
                     const Places& places);
void validate_out_layer(std::string_view path, const LayerConfig& layer, const Places& places);

}  // namespace cuvae::config
