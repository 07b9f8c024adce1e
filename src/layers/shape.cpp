// What only changes the place of features: flatten, reshape, upsample.

#include <fmt/format.h>

#include "graph/op.h"
#include "layers/conv.h"

namespace cuvae::layers {
namespace {

Features infer_flatten(const LayerConfig&, const Features& in) {
  return Features::flat(in.count());
}

Value build_flatten(const LayerConfig&, const Site& site, Value x) {
  return site.as_rows(x);
}

Features infer_reshape(const LayerConfig& layer, const Features& in) {
  if (layer.shape.size() != 3) {
    throw Misfit{fmt::format("a shape of {} numbers", layer.shape.size()),
                 "give channels, height and width, shape = [32, 7, 7]"};
  }
  const Features out{layer.shape[0], layer.shape[1], layer.shape[2], true};
  if (out.count() != in.count()) {
    throw Misfit{
        fmt::format("{} has {} features, its input {}", out.str(), out.count(), in.count()),
        "make the shape's product the number of features before it"};
  }
  return out;
}

Value build_reshape(const LayerConfig&, const Site& site, Value x) {
  const Features& to = site.out;
  const Shape shape{site.graph[x].shape[0], to.channels, to.height, to.width};
  return site.graph.apply("reshape", site.node(), {x}, {{"shape", shape_text(shape)}});
}

Features infer_upsample(const LayerConfig& layer, const Features& in) {
  const Features& image = image_of(in);
  return {image.channels, image.height * layer.factor[0], image.width * layer.factor[1], true};
}

Value build_upsample(const LayerConfig& layer, const Site& site, Value x) {
  return site.graph.apply("upsample2d", site.node(), {site.as_image(x)},
                          {{"factor", pair_text(layer.factor)}});
}

constexpr std::string_view reshape_keys[] = {"shape"};
constexpr std::string_view upsample_keys[] = {"factor"};

}  // namespace

extern const Type layer_flatten = {.name = "flatten",
                                   .doc = "an image as its features, channels first",
                                   .keys = {},
                                   .required = {},
                                   .infer = infer_flatten,
                                   .build = build_flatten};
extern const Type layer_reshape = {.name = "reshape",
                                   .doc = "features as an image, channels first",
                                   .keys = reshape_keys,
                                   .required = reshape_keys,
                                   .infer = infer_reshape,
                                   .build = build_reshape};
extern const Type layer_upsample = {.name = "upsample",
                                    .doc = "each pixel `factor` times, the nearest neighbour's",
                                    .keys = upsample_keys,
                                    .required = {},
                                    .infer = infer_upsample,
                                    .build = build_upsample};

}  // namespace cuvae::layers
