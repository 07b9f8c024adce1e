#include "layers/layer.h"

#include <fmt/format.h>

#include <algorithm>

#include "cuvae/error.h"

namespace cuvae {

std::string Features::str() const {
  return image ? fmt::format("{} x {} x {}", channels, height, width) : std::to_string(channels);
}

namespace layers {

#define CUVAE_LAYER(name) extern const Type layer_##name;
#include "layers/layers.def"
#undef CUVAE_LAYER

namespace {

// Beyond these a size is a slip of the keyboard; whether the memory suffices is the plan's matter.
constexpr std::int64_t max_width = std::int64_t{1} << 20;
constexpr std::int64_t max_extent = std::int64_t{1} << 15;

#define CUVAE_FIELD(member) [](LayerConfig& c) -> Field { return &c.member; }

constexpr const char* extents = "an integer, or two, [height, width], from 1 to 32768";
constexpr const char* borders = "an integer, or two, [height, width], from 0 to 32768";

const std::vector<Key>& table() {
  static const std::vector<Key> rows = {
      {.name = "out",
       .field = CUVAE_FIELD(out),
       .allowed = "an integer from 1 to 1048576",
       .int_low = 1,
       .int_high = max_width},
      {.name = "kernel",
       .field = CUVAE_FIELD(kernel),
       .allowed = extents,
       .int_low = 1,
       .int_high = max_extent},
      {.name = "stride",
       .field = CUVAE_FIELD(stride),
       .allowed = extents,
       .int_low = 1,
       .int_high = max_extent},
      {.name = "padding",
       .field = CUVAE_FIELD(padding),
       .allowed = borders,
       .int_low = 0,
       .int_high = max_extent},
      {.name = "output_padding",
       .field = CUVAE_FIELD(output_padding),
       .allowed = borders,
       .int_low = 0,
       .int_high = max_extent},
      {.name = "factor",
       .field = CUVAE_FIELD(factor),
       .allowed = extents,
       .int_low = 1,
       .int_high = max_extent},
      {.name = "shape",
       .field = CUVAE_FIELD(shape),
       .allowed = "channels, height and width, [32, 7, 7]",
       .int_low = 1,
       .int_high = max_width},
      {.name = "groups",
       .field = CUVAE_FIELD(groups),
       .allowed = "an integer from 1 to 1048576",
       .int_low = 1,
       .int_high = max_width},
      {.name = "bias", .field = CUVAE_FIELD(bias), .allowed = "true or false"},
      {.name = "rate",
       .field = CUVAE_FIELD(rate),
       .allowed = "a number from 0 to 0.99",
       .low = 0,
       .high = 0.99},
      {.name = "momentum",
       .field = CUVAE_FIELD(momentum),
       .allowed = "a number from 0 to 1",
       .low = 0,
       .high = 1},
      {.name = "eps",
       .field = CUVAE_FIELD(eps),
       .allowed = "a number from 1e-12 to 1",
       .low = 1e-12,
       .high = 1},
      {.name = "layers", .field = CUVAE_FIELD(layers), .allowed = "an array of layers"},
      {.name = "activation", .field = CUVAE_FIELD(activation), .allowed = "an activation"},
      {.name = "slope",
       .field = CUVAE_FIELD(slope),
       .allowed = "a number from 0 to 1e6",
       .low = 0,
       .high = 1e6},
      {.name = "alpha",
       .field = CUVAE_FIELD(alpha),
       .allowed = "a number from 0 to 1e6",
       .low = 0,
       .high = 1e6},
  };
  return rows;
}

#undef CUVAE_FIELD

}  // namespace

std::span<const Key> keys() {
  return table();
}

const Key* find_key(std::string_view name) {
  for (const Key& key : table()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

std::span<const std::string_view> activations() {
  static constexpr std::string_view names[] = {"none", "relu", "leaky_relu", "elu",     "gelu",
                                               "silu", "tanh", "sigmoid",    "softplus"};
  return names;
}

std::span<const Type* const> types() {
  static const Type* const all[] = {
#define CUVAE_LAYER(name) &layer_##name,
#include "layers/layers.def"
#undef CUVAE_LAYER
  };
  return all;
}

const Type* find_type(std::string_view name) {
  for (const Type* type : types()) {
    if (type->name == name) return type;
  }
  return nullptr;
}

Features features_after(const LayerConfig& layer, const Features& in) {
  constexpr std::int64_t most = std::int64_t{1} << 24;
  const Type* type = find_type(layer.type);
  if (type == nullptr) throw Misfit{"no such layer", "`cuvae init` lists the layers"};
  const Features out = type->infer(layer, in);
  if (out.channels < 1 || out.height < 1 || out.width < 1)
    throw Misfit{fmt::format("nothing is left, {}", out.str()),
                 "use a smaller kernel or less padding"};
  if (out.channels > most || out.height > most || out.width > most ||
      out.channels * out.height > most || out.channels * out.height * out.width > most)
    throw Misfit{fmt::format("{} is more than {} features", out.str(), most), "use smaller layers"};
  return out;
}

Features infer(const LayerConfig& layer, const Features& in, const std::string& path) {
  try {
    return features_after(layer, in);
  } catch (const Misfit& misfit) {
    throw Error(Status::usage,
                fmt::format("`{}` ({} of {}): {}", path, layer.type, in.str(), misfit.what),
                "model", misfit.mend);
  }
}

std::vector<Features> infer(std::span<const LayerConfig> layers, const Features& in,
                            const std::string& path) {
  std::vector<Features> features;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    features.push_back(
        infer(layers[i], features.empty() ? in : features.back(), fmt::format("{}[{}]", path, i)));
  }
  return features;
}

void define(const LayerConfig& layer, const std::string& name, const Features& in,
            Definitions& definitions) {
  const Type& type = *find_type(layer.type);
  if (type.define != nullptr) type.define(layer, name, in, type.infer(layer, in), definitions);
}

void define(std::span<const LayerConfig> layers, const std::string& name, const Features& in,
            Definitions& definitions) {
  Features now = in;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    define(layers[i], fmt::format("{}.{}", name, i), now, definitions);
    now = find_type(layers[i].type)->infer(layers[i], now);
  }
}

}  // namespace layers

std::vector<LayerDoc> layer_docs() {
  std::vector<LayerDoc> docs;
  for (const layers::Type* type : layers::types()) {
    LayerDoc doc{.name = std::string(type->name), .doc = std::string(type->doc), .keys = {}};
    for (const std::string_view name : type->keys) {
      doc.keys.push_back(fmt::format("{} ({})", name, layers::find_key(name)->allowed));
    }
    docs.push_back(std::move(doc));
  }
  return docs;
}

}  // namespace cuvae
