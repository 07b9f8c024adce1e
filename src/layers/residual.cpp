// y = x + layers(x): He et al., "Deep Residual Learning for Image Recognition" (2015).

#include <fmt/format.h>

#include "layers/layer.h"

namespace cuvae::layers {
namespace {

Features infer_residual(const LayerConfig& layer, const Features& in) {
  if (layer.layers.empty()) throw Misfit{"it has no layers", "give layers = [...]"};
  Features now = in;
  for (std::size_t i = 0; i < layer.layers.size(); ++i) {
    const LayerConfig& inner = layer.layers[i];
    try {
      now = features_after(inner, now);
    } catch (const Misfit& misfit) {
      throw Misfit{fmt::format("layers[{}] ({} of {}): {}", i, inner.type, now.str(), misfit.what),
                   misfit.mend};
    }
  }
  if (now.count() != in.count() || now.image != in.image || now.height != in.height ||
      now.width != in.width) {
    throw Misfit{fmt::format("its layers make {}", now.str()),
                 "make the last of them as large as what comes in"};
  }
  return now;
}

void define_residual(const LayerConfig& layer, const std::string& name, const Features& in,
                     const Features&, Definitions& definitions) {
  define(layer.layers, name, in, definitions);
}

Value build_residual(const LayerConfig& layer, const Site& site, Value x) {
  const Value start = site.in.image ? site.as_image(x) : site.as_rows(x);
  const Value made = build(layer.layers, site, site.in, start);
  Site rows = site;
  rows.name += ".sum";
  rows.in = site.out;
  const Value y = site.out.image ? rows.as_image(made) : rows.as_rows(made);
  return site.graph.apply("add", site.node(), {start, y});
}

constexpr std::string_view takes[] = {"layers"};

}  // namespace

extern const Type layer_residual = {.name = "residual",
                                    .doc = "y = x + layers(x)",
                                    .keys = takes,
                                    .required = takes,
                                    .infer = infer_residual,
                                    .define = define_residual,
                                    .build = build_residual};

}  // namespace cuvae::layers
