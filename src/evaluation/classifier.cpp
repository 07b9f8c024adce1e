#include "cuvae/classifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "cuvae/error.h"
#include "cuvae/safetensors.h"
#include "data/sha256.h"
#include "evaluation/kid_mnist_v1.h"
#include "layers/layer.h"

namespace cuvae {
namespace {

// Of one run of the program: as many as fill a device, few enough for the activations to stay in a
// CPU's caches. The last ones are filled up with empty images.
constexpr std::int64_t batch = 1000;
const std::string images_name = "kid_mnist_v1.images";

std::vector<LayerConfig> network() {
  const auto conv = [](std::int64_t out) {
    return LayerConfig{.type = "conv2d",
                       .out = out,
                       .kernel = {3, 3},
                       .stride = {2, 2},
                       .padding = {1, 1},
                       .activation = "relu"};
  };
  return {conv(16), conv(32), conv(32),
          LayerConfig{.out = DigitClassifier::feature_count, .activation = "relu"},
          LayerConfig{.out = 10}};
}

TensorFile weights() {
  const std::span<const std::byte> bytes = std::as_bytes(embedded_kid_mnist_v1());
  Sha256 hash;
  hash.update(bytes);
  const std::string sha256 = hash.hex();
  if (sha256 != DigitClassifier::sha256) {
    throw Error(
        Status::failed,
        fmt::format("weights of SHA-256 {} where {} belongs", sha256, DigitClassifier::sha256),
        DigitClassifier::name, "build it anew from the tree as it was released");
  }
  return parse_safetensors(bytes, std::string(DigitClassifier::name));
}

}  // namespace

DigitClassifier::DigitClassifier(Device& device) : store_(device.make_store()) {
  const TensorFile file = weights();
  Graph graph;
  for (const NamedTensor& named : file.tensors) {
    graph.parameter(named.name, named.tensor.shape());
    store_->write(named.name, named.tensor);
  }
  Features features = image();
  Value x = graph.input(images_name, DType::f32, Shape{batch, features.count()});
  const std::vector<LayerConfig> layers = network();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const layers::Site site{.graph = graph,
                            .mode = layers::Mode::evaluation,
                            .clock = {},
                            .commit = {},
                            .name = fmt::format("{}.{}", name, i)};
    x = layers::build(layers[i], site, features, x);
    features = layers::features_after(layers[i], features);
    if (features.count() == feature_count && !features.image) {
      graph.rename(x, "features");
      graph.output(x);
    }
  }
  graph.rename(x, "logits");
  graph.output(x);
  program_ = device.compile(graph, *store_, {});
}

DigitClassifier::~DigitClassifier() = default;

Tensor DigitClassifier::run(const Tensor& images, std::string_view output, std::int64_t width) {
  const std::int64_t pixels = image().count();
  const bool bytes = images.dtype() == DType::u8;
  if (images.shape().rank() != 2 || images.shape()[1] != pixels ||
      !(bytes || images.dtype() == DType::f32)) {
    throw Error(Status::usage,
                fmt::format("images {} of shape {}", name_of(images.dtype()), images.shape().str()),
                name, "give f32 or u8 [n, 784], images of 28 x 28");
  }
  const std::int64_t n = images.shape()[0];
  Tensor result(DType::f32, Shape{n, width});
  Tensor rows(DType::f32, Shape{batch, pixels});
  Tensor made(DType::f32, Shape{batch, width});
  for (std::int64_t first = 0; first < n; first += batch) {
    const std::int64_t count = std::min(batch, n - first);
    const auto to = rows.as<float>();
    const auto begin = static_cast<std::size_t>(first * pixels);
    const auto size = static_cast<std::size_t>(count * pixels);
    if (bytes) {
      const auto from = images.as<std::uint8_t>().subspan(begin, size);
      std::ranges::transform(from, to.begin(),
                             [](std::uint8_t v) { return static_cast<float>(v) / 255.0F; });
    } else {
      std::ranges::copy(images.as<float>().subspan(begin, size), to.begin());
    }
    std::ranges::fill(to.subspan(size), 0.0F);
    program_->run_batches(images_name, rows, output, made);
    std::ranges::copy(made.as<float>().first(static_cast<std::size_t>(count * width)),
                      result.as<float>().begin() + first * width);
  }
  return result;
}

Tensor DigitClassifier::features(const Tensor& images) {
  return run(images, "features", feature_count);
}

Tensor DigitClassifier::logits(const Tensor& images) {
  return run(images, "logits", 10);
}

std::vector<std::int64_t> DigitClassifier::labels(const Tensor& images) {
  const Tensor scores = logits(images);
  const auto values = scores.as<float>();
  std::vector<std::int64_t> labels;
  for (std::size_t row = 0; row < values.size(); row += 10) {
    const auto digits = values.subspan(row, 10);
    labels.push_back(std::ranges::max_element(digits) - digits.begin());
  }
  return labels;
}

}  // namespace cuvae
