#include "layers/layer.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/op.h"

namespace cuvae::layers {
namespace {

Value reshaped(Graph& graph, Value x, const std::string& name, const Shape& to) {
  return graph.apply("reshape", name, {x}, {{"shape", shape_text(to)}});
}

Value activated(const LayerConfig& layer, Graph& graph, const std::string& name, Value x) {
  if (layer.activation == "none") return x;
  Attrs attrs{{"kind", layer.activation}};
  if (layer.activation == "leaky_relu") attrs.set("alpha", layer.slope);
  if (layer.activation == "elu") attrs.set("alpha", layer.alpha);
  return graph.apply("activation", name + "." + layer.activation, {x}, attrs);
}

}  // namespace

bool Site::is_frozen(std::string_view part) const {
  return std::ranges::find(frozen, name + "." + std::string(part)) != frozen.end();
}

Value Site::as_image(Value x) const {
  const Shape& shape = graph[x].shape;
  if (shape.rank() == 4) return x;
  return reshaped(graph, x, node(".in"), Shape{shape[0], in.channels, in.height, in.width});
}

Value Site::as_rows(Value x) const {
  const Shape& shape = graph[x].shape;
  if (shape.rank() == 2) return x;
  return reshaped(graph, x, node(".in"), Shape{shape[0], in.count()});
}

Value build(const LayerConfig& layer, const Site& site, const Features& in, Value x) {
  const Type& type = *find_type(layer.type);
  Site here = site;
  here.in = in;
  here.out = type.infer(layer, in);
  return activated(layer, here.graph, here.node(), type.build(layer, here, x));
}

Value build(std::span<const LayerConfig> layers, const Site& site, const Features& in, Value x) {
  Features now = in;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    Site here = site;
    here.name = fmt::format("{}.{}", site.name, i);
    x = build(layers[i], here, now, x);
    now = find_type(layers[i].type)->infer(layers[i], now);
  }
  return x;
}

}  // namespace cuvae::layers
