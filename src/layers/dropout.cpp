// Dropout in training; nothing in evaluation.

#include "cuvae/rng.h"
#include "layers/layer.h"

namespace cuvae::layers {
namespace {

Features infer_dropout(const LayerConfig&, const Features& in) {
  return in;
}

Value build_dropout(const LayerConfig& layer, const Site& site, Value x) {
  if (site.mode == Mode::evaluation || layer.rate == 0) return x;
  return site.graph.apply(
      "dropout", site.node(), {x, site.clock},
      {{"p", layer.rate}, {"purpose", static_cast<std::int64_t>(Purpose::dropout)}});
}

constexpr std::string_view takes[] = {"rate"};

}  // namespace

extern const Type layer_dropout = {.name = "dropout",
                                   .doc = "leaves out a share `rate` of the features in training",
                                   .keys = takes,
                                   .required = {},
                                   .infer = infer_dropout,
                                   .build = build_dropout};

}  // namespace cuvae::layers
