// The largest or the average of each window.

#include "layers/conv.h"

namespace cuvae::layers {
namespace {

Features infer_pool(const LayerConfig& layer, const Features& in) {
  const Features& image = image_of(in);
  const auto stride = pair_or(layer.stride, layer.kernel);
  for (std::size_t axis = 0; axis < 2; ++axis) {
    if (2 * layer.padding[axis] > layer.kernel[axis])
      throw Misfit{"the padding is more than half of the kernel", "use less padding"};
  }
  return {image.channels, windows(image.height, layer.padding[0], layer.kernel[0], stride[0]),
          windows(image.width, layer.padding[1], layer.kernel[1], stride[1]), true};
}

Value build_pool(const LayerConfig& layer, const Site& site, Value x) {
  return site.graph.apply(layer.type, site.node(), {site.as_image(x)},
                          {{"kernel", pair_text(layer.kernel)},
                           {"stride", pair_text(pair_or(layer.stride, layer.kernel))},
                           {"padding", pair_text(layer.padding)}});
}

constexpr std::string_view takes[] = {"kernel", "stride", "padding"};
constexpr std::string_view wants[] = {"kernel"};

}  // namespace

extern const Type layer_max_pool2d = {.name = "max_pool2d",
                                      .doc = "the largest of each window; the stride is the kernel",
                                      .keys = takes,
                                      .required = wants,
                                      .infer = infer_pool,
                                      .build = build_pool};
extern const Type layer_avg_pool2d = {.name = "avg_pool2d",
                                      .doc = "the average of each window; the stride is the kernel",
                                      .keys = takes,
                                      .required = wants,
                                      .infer = infer_pool,
                                      .build = build_pool};

}  // namespace cuvae::layers
