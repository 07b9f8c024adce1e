// Convolutions as PyTorch's Conv2d and ConvTranspose2d: weight [out, in, kh, kw] and [in, out, kh,
// kw].

#include "layers/conv.h"

#include <fmt/format.h>

namespace cuvae::layers {

std::string pair_text(const LayerConfig::Pair& pair) {
  return fmt::format("{},{}", pair[0], pair[1]);
}

const Features& image_of(const Features& in) {
  if (!in.image) {
    throw Misfit{"its input is no image",
                 "put { type = \"reshape\", shape = [channels, height, width] } before it"};
  }
  return in;
}

std::int64_t windows(std::int64_t size, std::int64_t padding, std::int64_t extent,
                     std::int64_t stride) {
  const std::int64_t room = size + 2 * padding - extent;
  if (room < 0) {
    throw Misfit{fmt::format("a kernel of {} is larger than {} with a padding of {} on each side",
                             extent, size, padding),
                 "use a smaller kernel or more padding"};
  }
  return room / stride + 1;
}

namespace {

constexpr LayerConfig::Pair one = {1, 1};

Features infer_conv2d(const LayerConfig& layer, const Features& in) {
  const Features& image = image_of(in);
  const auto stride = pair_or(layer.stride, one);
  return {layer.out, windows(image.height, layer.padding[0], layer.kernel[0], stride[0]),
          windows(image.width, layer.padding[1], layer.kernel[1], stride[1]), true};
}

Features infer_conv_transpose2d(const LayerConfig& layer, const Features& in) {
  const Features& image = image_of(in);
  const auto stride = pair_or(layer.stride, one);
  const auto extent = [&](std::int64_t size, std::size_t axis) {
    if (layer.output_padding[axis] >= stride[axis] && layer.output_padding[axis] > 0) {
      throw Misfit{fmt::format("output_padding {} is not below the stride {}",
                               layer.output_padding[axis], stride[axis]),
                   "use a smaller output_padding"};
    }
    return (size - 1) * stride[axis] - 2 * layer.padding[axis] + layer.kernel[axis] +
           layer.output_padding[axis];
  };
  return {layer.out, extent(image.height, 0), extent(image.width, 1), true};
}

void define_weights(const LayerConfig& layer, const std::string& name, const Shape& shape,
                    Definitions& definitions) {
  const std::int64_t taps = layer.kernel[0] * layer.kernel[1];
  // PyTorch takes the fan-in from the weight's second dimension, of either layer.
  const std::int64_t fan_in = shape[1] * taps;
  const std::int64_t fan_out = shape[0] * taps;
  definitions.parameter(name + ".weight", shape, Start::weight, fan_in, fan_out);
  if (layer.bias)
    definitions.parameter(name + ".bias", Shape{layer.out}, Start::bias, fan_in, fan_out);
}

void define_conv2d(const LayerConfig& layer, const std::string& name, const Features& in,
                   const Features&, Definitions& definitions) {
  define_weights(layer, name, Shape{layer.out, in.channels, layer.kernel[0], layer.kernel[1]},
                 definitions);
}

void define_conv_transpose2d(const LayerConfig& layer, const std::string& name, const Features& in,
                             const Features&, Definitions& definitions) {
  define_weights(layer, name, Shape{in.channels, layer.out, layer.kernel[0], layer.kernel[1]},
                 definitions);
}

Attrs geometry(const LayerConfig& layer) {
  return {{"stride", pair_text(pair_or(layer.stride, one))}, {"padding", pair_text(layer.padding)}};
}

Value build_conv(const LayerConfig& layer, const Site& site, Value x) {
  Attrs attrs = geometry(layer);
  if (layer.type == "conv_transpose2d")
    attrs.set("output_padding", pair_text(layer.output_padding));
  return site.graph.apply(
      layer.type, site.node(),
      {site.as_image(x), site.parameter("weight"), layer.bias ? site.parameter("bias") : Value{}},
      attrs);
}

constexpr std::string_view conv_keys[] = {"out", "kernel", "stride", "padding", "bias"};
constexpr std::string_view transpose_keys[] = {"out",     "kernel",         "stride",
                                               "padding", "output_padding", "bias"};
constexpr std::string_view wants[] = {"out", "kernel"};

}  // namespace

extern const Type layer_conv2d = {.name = "conv2d",
                                  .doc = "a convolution, as PyTorch's Conv2d",
                                  .keys = conv_keys,
                                  .required = wants,
                                  .infer = infer_conv2d,
                                  .define = define_conv2d,
                                  .build = build_conv};
extern const Type layer_conv_transpose2d = {
    .name = "conv_transpose2d",
    .doc = "the transpose of a convolution, as PyTorch's ConvTranspose2d",
    .keys = transpose_keys,
    .required = wants,
    .infer = infer_conv_transpose2d,
    .define = define_conv_transpose2d,
    .build = build_conv};

}  // namespace cuvae::layers
