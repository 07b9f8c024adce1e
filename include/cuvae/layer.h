#pragma once
// The layers of encoders and decoders as a configuration says them. src/layers has one file for
// each type: its keys, its shape rule, its parameters, and how it is built in a graph.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cuvae {

// What a type does not take stays at its default.
struct LayerConfig {
  using Pair = std::array<std::int64_t, 2>;  // height, width

  std::string type = "linear";
  std::int64_t out = 0;  // linear: features; convolutions: channels
  Pair kernel = {0, 0};
  Pair stride = {0, 0};  // 0: the type's own (convolutions 1, pooling the kernel)
  Pair padding = {0, 0};
  Pair output_padding = {0, 0};          // conv_transpose2d
  Pair factor = {2, 2};                  // upsample
  std::vector<std::int64_t> shape = {};  // reshape: channels, height, width
  std::int64_t groups = 0;               // group_norm
  bool bias = true;
  double rate = 0.5;                     // dropout: the share that is left out
  double momentum = 0.1;                 // batch_norm: share of the batch in the running statistics
  double eps = 1e-5;                     // norms: added to the variance
  std::vector<LayerConfig> layers = {};  // residual: y = x + layers(x)
  // none | relu | leaky_relu | elu | gelu | silu | tanh | sigmoid | softplus
  std::string activation = "none";
  double slope = 0.01;  // leaky_relu: factor of the negative side
  double alpha = 1.0;   // elu: alpha * (exp(x) - 1) on the negative side

  bool operator==(const LayerConfig&) const = default;
};

// How a parameter begins.
enum class Start : std::uint8_t {
  weight,  // by the model's `init` and the fans
  bias,    // the same; zeros for glorot
  zeros,
  ones,
  spread,  // evenly over +-sqrt(3), of deviation 1, whatever `init` is
};

// One sample between two layers: an image, or features of no place (height = width = 1). Memory is
// channels first.
struct Features {
  std::int64_t channels = 1;
  std::int64_t height = 1;
  std::int64_t width = 1;
  bool image = false;

  [[nodiscard]] static Features flat(std::int64_t count) { return {.channels = count}; }
  [[nodiscard]] std::int64_t count() const { return channels * height * width; }
  [[nodiscard]] std::string str() const;  // "32 x 14 x 14", "512"
  bool operator==(const Features&) const = default;
};

// The documentation of the types, for `cuvae init` and messages.
struct LayerDoc {
  std::string name;
  std::string doc;                // one line
  std::vector<std::string> keys;  // "out (an integer from 1 to 1048576)"
};
[[nodiscard]] std::vector<LayerDoc> layer_docs();

}  // namespace cuvae
