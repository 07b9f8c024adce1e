#pragma once
// What a type of layer is. A new one is a file here that defines `layer_<name>`, and its row in
// layers.def.

#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cuvae/graph.h"
#include "cuvae/layer.h"

namespace cuvae::layers {

// A key that layers can have: where it is kept, and what is allowed.
using Field = std::variant<std::int64_t*, LayerConfig::Pair*, double*, bool*, std::string*,
                           std::vector<std::int64_t>*, std::vector<LayerConfig>*>;
struct Key {
  std::string_view name;
  Field (*field)(LayerConfig&);
  std::string_view allowed;  // "an integer from 1 to 1048576": completes "give ..."
  // Closed ranges, of each element; a NaN is outside.
  std::int64_t int_low = 0;
  std::int64_t int_high = 0;
  double low = 0;
  double high = 0;
};
[[nodiscard]] std::span<const Key> keys();
[[nodiscard]] const Key* find_key(std::string_view name);

[[nodiscard]] std::span<const std::string_view> activations();

// Takes down the parameters of layers, under their whole names ("encoder.0.weight").
class Definitions {
 public:
  virtual ~Definitions() = default;
  // Fans: terms of an output, and outputs that a term goes to; of a convolution, channels times the
  // kernel's size.
  virtual void parameter(const std::string& name, const Shape& shape, Start start,
                         std::int64_t fan_in, std::int64_t fan_out) = 0;
  // Not trained, but part of the model: running statistics.
  virtual void buffer(const std::string& name, DType dtype, const Shape& shape, Start start) = 0;
};

// What a graph is built for.
enum class Mode : std::uint8_t { training, evaluation };

// Where a layer is built.
struct Site {
  Graph& graph;
  Mode mode = Mode::evaluation;
  Value clock;                               // of the graph, for random layers
  Value commit;                              // training: of the graph, for running statistics
  std::span<const std::string> frozen = {};  // training: parameters that are not trained
  std::string name = {};                     // "encoder.0": of the parameters
  Features in = {};
  Features out = {};
  // Before the names of nodes, where a graph has the same layers twice: "pseudo/". Statistics of
  // such a second pass are its batch's own, and do not count in the running ones.
  std::string scope = {};

  [[nodiscard]] Value parameter(std::string_view part) const {
    return graph.find(name + "." + std::string(part));
  }
  // The name of a node.
  [[nodiscard]] std::string node(std::string_view part = {}) const {
    return scope + name + std::string(part);
  }
  [[nodiscard]] bool is_frozen(std::string_view part) const;
  // `x` as [B, channels, height, width] or [B, features], which no copy makes.
  [[nodiscard]] Value as_image(Value x) const;
  [[nodiscard]] Value as_rows(Value x) const;
};

// A mistake in the layer: `what` follows its path. The message names what the layer is given.
struct Misfit {
  std::string what;
  std::string mend;
};

struct Type {
  std::string_view name;
  std::string_view doc;                        // one line
  std::span<const std::string_view> keys;      // besides `type`, `activation`, `slope`, `alpha`
  std::span<const std::string_view> required;  // of these
  // The features that it makes. Throws Misfit.
  Features (*infer)(const LayerConfig&, const Features&);
  // Null: it has no parameters.
  void (*define)(const LayerConfig&, const std::string& name, const Features& in,
                 const Features& out, Definitions&) = nullptr;
  // Without the activation.
  Value (*build)(const LayerConfig&, const Site&, Value x) = nullptr;
};

[[nodiscard]] std::span<const Type* const> types();
[[nodiscard]] const Type* find_type(std::string_view name);  // null: no such type

// What a layer makes, within what can be built. Throws Misfit.
[[nodiscard]] Features features_after(const LayerConfig& layer, const Features& in);

// The features after each layer; `path` names the list in messages ("model.encoder.layers").
// Throws Error(usage).
[[nodiscard]] std::vector<Features> infer(std::span<const LayerConfig> layers, const Features& in,
                                          const std::string& path);
// Of one layer. Throws Error(usage).
[[nodiscard]] Features infer(const LayerConfig& layer, const Features& in, const std::string& path);

// The parameters of all layers, `<name>.<i>` each.
void define(std::span<const LayerConfig> layers, const std::string& name, const Features& in,
            Definitions& definitions);
void define(const LayerConfig& layer, const std::string& name, const Features& in,
            Definitions& definitions);

// Appends all layers, `<site.name>.<i>` each, to a graph: x as [B, features] or [B, channels,
// height, width]. What comes out has the rank of the last layer.
[[nodiscard]] Value build(std::span<const LayerConfig> layers, const Site& site, const Features& in,
                          Value x);
// One layer with its activation, under the site's name.
[[nodiscard]] Value build(const LayerConfig& layer, const Site& site, const Features& in, Value x);

}  // namespace cuvae::layers
