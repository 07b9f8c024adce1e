// y = x W^T + b. An image is taken as its features, channels first.

#include "layers/layer.h"

namespace cuvae::layers {
namespace {

Features infer_linear(const LayerConfig& layer, const Features&) {
  return Features::flat(layer.out);
}

void define_linear(const LayerConfig& layer, const std::string& name, const Features& in,
                   const Features& out, Definitions& definitions) {
  const std::int64_t fan_in = in.count();
  const std::int64_t fan_out = out.count();
  definitions.parameter(name + ".weight", Shape{fan_out, fan_in}, Start::weight, fan_in, fan_out);
  if (layer.bias)
    definitions.parameter(name + ".bias", Shape{fan_out}, Start::bias, fan_in, fan_out);
}

Value build_linear(const LayerConfig& layer, const Site& site, Value x) {
  return site.graph.apply(
      "linear", site.node(),
      {site.as_rows(x), site.parameter("weight"), layer.bias ? site.parameter("bias") : Value{}});
}

constexpr std::string_view takes[] = {"out", "bias"};
constexpr std::string_view wants[] = {"out"};

}  // namespace

extern const Type layer_linear = {.name = "linear",
                                  .doc = "y = x W^T + b",
                                  .keys = takes,
                                  .required = wants,
                                  .infer = infer_linear,
                                  .define = define_linear,
                                  .build = build_linear};

}  // namespace cuvae::layers
