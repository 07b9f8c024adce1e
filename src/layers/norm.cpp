// Normalisation as PyTorch's BatchNorm, LayerNorm (over all features of a sample) and GroupNorm,
// with weight and bias: `<layer>.norm.weight`, ... Statistics are float whatever the precision.

#include <fmt/format.h>

#include "layers/layer.h"

namespace cuvae::layers {
namespace {

std::string kind_of(const LayerConfig& layer) {
  return layer.type.substr(0, layer.type.find('_'));
}

std::int64_t weights_of(const LayerConfig& layer, const Features& in) {
  return layer.type == "layer_norm" ? in.count() : in.channels;
}

Features infer_norm(const LayerConfig& layer, const Features& in) {
  if (layer.type == "group_norm" && in.channels % layer.groups != 0)
    throw Misfit{fmt::format("{} channels do not fall into {} groups", in.channels, layer.groups),
                 "make the number of groups a divisor of that of channels"};
  return in;
}

void define_norm(const LayerConfig& layer, const std::string& name, const Features& in,
                 const Features&, Definitions& definitions) {
  const Shape shape{weights_of(layer, in)};
  definitions.parameter(name + ".norm.weight", shape, Start::ones, 0, 0);
  definitions.parameter(name + ".norm.bias", shape, Start::zeros, 0, 0);
  if (layer.type != "batch_norm") return;
  definitions.buffer(name + ".norm.running_mean", DType::f32, shape, Start::zeros);
  definitions.buffer(name + ".norm.running_var", DType::f32, shape, Start::ones);
  definitions.buffer(name + ".norm.num_batches_tracked", DType::i64, Shape{}, Start::zeros);
}

Value build_norm(const LayerConfig& layer, const Site& site, Value x) {
  Graph& graph = site.graph;
  x = site.in.image ? site.as_image(x) : site.as_rows(x);
  const Value weight = site.parameter("norm.weight");
  const Value bias = site.parameter("norm.bias");
  const bool batch = layer.type == "batch_norm";
  // A frozen layer is the same function in training as in evaluation.
  if (batch && (site.mode == Mode::evaluation || site.is_frozen("norm.weight")))
    return graph.apply(
        "batch_norm_eval", site.node(),
        {x, site.parameter("norm.running_mean"), site.parameter("norm.running_var"), weight, bias},
        {{"eps", layer.eps}});
  Attrs attrs{{"kind", kind_of(layer)}, {"eps", layer.eps}};
  if (layer.type == "group_norm") attrs.set("groups", layer.groups);
  const auto outputs = graph.add("norm", site.node(), {x, weight, bias}, attrs);
  if (batch && site.scope.empty())
    graph.add(
        "running_stats", site.node(".running"),
        {site.parameter("norm.running_mean"), site.parameter("norm.running_var"),
         site.parameter("norm.num_batches_tracked"), outputs[1], outputs[2], site.commit},
        {{"count", graph[x].shape.elements() / site.in.channels}, {"momentum", layer.momentum}});
  return outputs[0];
}

constexpr std::string_view batch_keys[] = {"momentum", "eps"};
constexpr std::string_view layer_keys[] = {"eps"};
constexpr std::string_view group_keys[] = {"groups", "eps"};
constexpr std::string_view group_wants[] = {"groups"};

}  // namespace

extern const Type layer_batch_norm = {
    .name = "batch_norm",
    .doc = "each channel by its mean and variance over the batch; running ones in evaluation",
    .keys = batch_keys,
    .required = {},
    .infer = infer_norm,
    .define = define_norm,
    .build = build_norm};
extern const Type layer_layer_norm = {.name = "layer_norm",
                                      .doc = "each sample by its mean and variance",
                                      .keys = layer_keys,
                                      .required = {},
                                      .infer = infer_norm,
                                      .define = define_norm,
                                      .build = build_norm};
extern const Type layer_group_norm = {.name = "group_norm",
                                      .doc = "groups of channels of a sample by their own",
                                      .keys = group_keys,
                                      .required = group_wants,
                                      .infer = infer_norm,
                                      .define = define_norm,
                                      .build = build_norm};

}  // namespace cuvae::layers
