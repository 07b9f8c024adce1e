#include "config/layers.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae::config {
namespace {

constexpr std::size_t max_layers = 256;
constexpr int max_depth = 8;  // of residual layers in one another

bool contains(std::span<const std::string_view> words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string listed(std::span<const std::string_view> words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += toml_string(words[i]);
  }
  return text;
}

// What may be the last layer of the decoder.
constexpr std::string_view out_types[] = {"linear", "conv2d", "conv_transpose2d"};

std::vector<std::string_view> keys_of(std::string_view type, bool is_out) {
  std::vector<std::string_view> names;
  for (const layers::Key& key : layers::keys()) {
    if (takes(type, key.name, is_out)) names.push_back(key.name);
  }
  return names;
}

std::string as_toml(const layers::Field& field) {
  struct Visitor {
    std::string operator()(const std::int64_t* value) const { return std::to_string(*value); }
    std::string operator()(const LayerConfig::Pair* value) const {
      if ((*value)[0] == (*value)[1]) return std::to_string((*value)[0]);
      return fmt::format("[{}, {}]", (*value)[0], (*value)[1]);
    }
    std::string operator()(const double* value) const { return number_as_toml(*value); }
    std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
    std::string operator()(const std::string* value) const { return toml_string(*value); }
    std::string operator()(const std::vector<std::int64_t>* value) const {
      return fmt::format("[{}]", fmt::join(*value, ", "));
    }
    std::string operator()(const std::vector<LayerConfig>* value) const {
      std::string text = "[";
      for (const LayerConfig& layer : *value) {
        text += (text.size() > 1 ? ", " : "") + layer_as_toml(layer);
      }
      return text + "]";
    }
  };
  return std::visit(Visitor{}, field);
}

// Whether two layers have the same value under a key.
bool same(const layers::Key& key, const LayerConfig& a, const LayerConfig& b) {
  // The table hands out mutable fields; nothing is written here.
  return as_toml(key.field(const_cast<LayerConfig&>(a))) ==
         as_toml(key.field(const_cast<LayerConfig&>(b)));
}

void check_range(const layers::Key& key, const LayerConfig& layer, const LayerConfig& standard,
                 const std::string& path, const std::string& where) {
  const layers::Field field = key.field(const_cast<LayerConfig&>(layer));
  const auto refuse = [&]() {
    throw Error(Status::usage,
                fmt::format("`{}.{}` = {} is out of range", path, key.name, as_toml(field)), where,
                fmt::format("give {}", key.allowed));
  };
  const auto in_range = [&](std::int64_t value) {
    return value >= key.int_low && value <= key.int_high;
  };
  if (auto* const* integer = std::get_if<std::int64_t*>(&field)) {
    if (!in_range(**integer)) refuse();
  } else if (auto* const* pair = std::get_if<LayerConfig::Pair*>(&field)) {
    // Left out is the type's own.
    if (!same(key, layer, standard) && !std::ranges::all_of(**pair, in_range)) refuse();
  } else if (auto* const* list = std::get_if<std::vector<std::int64_t>*>(&field)) {
    if (!std::ranges::all_of(**list, in_range)) refuse();
  } else if (auto* const* number = std::get_if<double*>(&field)) {
    if (!(**number >= key.low && **number <= key.high)) refuse();
  }
}

void validate_layer(const LayerConfig& layer, const std::string& path, const std::string& where,
                    bool is_out, int depth);

void validate_list(const std::vector<LayerConfig>& layers, const std::string& path,
                   const std::string& where_list, const Places* places, int depth) {
  if (layers.size() > max_layers) {
    throw Error(Status::usage, fmt::format("`{}` = {} layers is out of range", path, layers.size()),
                where_list, fmt::format("give at most {} layers", max_layers));
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", path, i);
    validate_layer(layers[i], at, places != nullptr ? place_of(*places, at) : where_list, false,
                   depth);
  }
}

void validate_layer(const LayerConfig& layer, const std::string& path, const std::string& where,
                    bool is_out, int depth) {
  const layers::Type* type = layers::find_type(layer.type);
  if (type == nullptr || (is_out && !contains(out_types, layer.type))) {
    std::vector<std::string_view> names;
    for (const layers::Type* known : layers::types()) {
      if (!is_out || contains(out_types, known->name)) names.push_back(known->name);
    }
    const std::string guess = closest(layer.type, std::span<const std::string_view>(names));
    throw Error(
        Status::usage,
        type == nullptr
            ? fmt::format("`{}.type` = {} is not known", path, toml_string(layer.type))
            : fmt::format("`{}.type` = {} cannot be the last layer", path, toml_string(layer.type)),
        where,
        guess.empty() ? fmt::format("use {}", listed(names))
                      : fmt::format("did you mean {}?", toml_string(guess)));
  }
  if (!contains(layers::activations(), layer.activation)) {
    const std::string guess = closest(layer.activation, layers::activations());
    throw Error(
        Status::usage,
        fmt::format("`{}.activation` = {} is not known", path, toml_string(layer.activation)),
        where,
        guess.empty() ? fmt::format("use {}", listed(layers::activations()))
                      : fmt::format("did you mean {}?", toml_string(guess)));
  }
  const LayerConfig standard;
  for (const layers::Key& key : layers::keys()) {
    const bool taken = takes(layer.type, key.name, is_out);
    if (taken) check_range(key, layer, standard, path, where);
    const bool given = !same(key, layer, standard);
    if (!taken && given) {
      throw Error(Status::usage,
                  fmt::format("`{}.{}` means nothing to a {} layer", path, key.name, layer.type),
                  where, "remove it");
    }
    for (const auto& [factor, owner] : {std::pair{"slope", "leaky_relu"}, {"alpha", "elu"}}) {
      if (key.name == factor && given && layer.activation != owner) {
        throw Error(Status::usage,
                    fmt::format("`{}.{}` means nothing to activation {}", path, factor,
                                toml_string(layer.activation)),
                    where, fmt::format("remove it, or use activation {}", toml_string(owner)));
      }
    }
  }
  for (const std::string_view name : type->required) {
    if (is_out && name == "out") continue;
    if (same(*layers::find_key(name), layer, standard)) {
      throw Error(Status::usage, fmt::format("`{}` has no `{}`", path, name), where,
                  fmt::format("give {}", layers::find_key(name)->allowed));
    }
  }
  if (layer.layers.empty()) return;
  if (depth >= max_depth) {
    throw Error(Status::usage, fmt::format("`{}`: layers within layers, {} deep", path, depth),
                where, fmt::format("at most {}", max_depth));
  }
  validate_list(layer.layers, path + ".layers", where, nullptr, depth + 1);
}

}  // namespace

bool takes(std::string_view type, std::string_view key, bool is_out) {
  const bool is_activation = key == "activation" || key == "slope" || key == "alpha";
  if (is_out && (is_activation || key == "out")) return false;
  const layers::Type* found = layers::find_type(type);
  return is_activation || (found != nullptr && contains(found->keys, key));
}

std::string mend_layer_key(std::string_view type, std::string_view key, bool is_out) {
  std::vector<std::string_view> names = keys_of(type, is_out);
  const std::string guess = closest(key, std::span<const std::string_view>(names));
  if (!guess.empty()) return fmt::format("did you mean `{}`?", guess);
  std::string text;
  for (const std::string_view name : names)
    text += fmt::format("{}`{}`", text.empty() ? "" : ", ", name);
  return fmt::format("a {} layer has {}", type, text.empty() ? "no keys" : text);
}

std::string layer_as_toml(const LayerConfig& layer) {
  std::string text = fmt::format("{{ type = {}", toml_string(layer.type));
  const LayerConfig standard;
  for (const layers::Key& key : layers::keys()) {
    const bool always = key.name == "activation" && takes(layer.type, "out");
    if (!always && same(key, layer, standard)) continue;
    if (key.name == "activation" && layer.out == 0 && layer.activation == "none") continue;
    text += fmt::format(", {} = {}", key.name, as_toml(key.field(const_cast<LayerConfig&>(layer))));
  }
  return text + " }";
}

void validate_layers(std::string_view path, const std::vector<LayerConfig>& layers,
                     const Places& places) {
  validate_list(layers, std::string(path), place_of(places, path), &places, 1);
}

void validate_out_layer(std::string_view path, const LayerConfig& layer, const Places& places) {
  validate_layer(layer, std::string(path), place_of(places, path), true, 1);
}

}  // namespace cuvae::config
