#pragma once
// Variational autoencoders as graphs: Kingma and Welling, "Auto-Encoding Variational Bayes"
// (2013). The encoder gives q(z|x) = N(mean, exp(logvar)); the decoder gives p(x|z).

#include <cstdint>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/device.h"
#include "cuvae/graph.h"
#include "cuvae/rng.h"
#include "cuvae/safetensors.h"
#include "cuvae/tensor.h"

namespace cuvae {

// What the model reads: rows of `channels * height * width` features, stored as u8 or f32, and the
// affine map (x - shift) * scale that turns them into the model's input and target.
struct InputSpec {
  std::int64_t channels = 1;
  std::int64_t height = 28;
  std::int64_t width = 28;
  DType dtype = DType::u8;
  double scale = 1.0 / 255.0;
  double shift = 0.0;

  [[nodiscard]] std::int64_t features() const { return channels * height * width; }
  bool operator==(const InputSpec&) const = default;
};

// A part of a parameter that has a name of its own in files: rows of the two encoder heads, which
// are one matrix in memory so that one product computes both.
struct ParameterPart {
  std::string name;  // "encoder.mean.weight"
  Shape shape;
  std::int64_t first_row = 0;
  std::int64_t fan_in = 0;
  std::int64_t fan_out = 0;
  std::uint16_t stream = 0;  // of its initial draw: ordinal of the part in definition order
};

struct ParameterSpec {
  std::string name;  // in the graph and the store: "encoder.heads.weight"
  Shape shape;
  std::vector<ParameterPart> parts;  // one of the same name, or several that fill the rows
};

struct TrainingSpec {
  std::int64_t batch = 128;  // rows of the plan's batch (the last one of an epoch may be smaller)
  std::int64_t dataset = 0;  // rows of the split: the epoch's length before drop_last
  std::int64_t window = 0;   // rows of the window the device reads
  std::int64_t steps = 1;    // rows of `hyper`: the most steps a program of the store unrolls
  bool shuffle = true;
  bool staged = false;  // the window holds rows in epoch order (a streaming source)
  ObjectiveConfig objective;
  OptimizerConfig optimizer;
};

// Persistent inputs of the graphs below, by name:
//   data      window of the dataset, InputSpec::dtype [window, features]
//   clock     i64[5]: seed, step, epoch, position, window base
//   hyper     f32[steps, 2]: lr, beta, a row for each unrolled step
//   commit    i64[1]: 0 keeps parameters and moments as they are
namespace store_name {
inline constexpr const char* data = "data";
inline constexpr const char* clock = "clock";
inline constexpr const char* hyper = "hyper";
inline constexpr const char* commit = "commit";
// Graphs that do not train have inputs of their own; names carry the size, because programs of
// several sizes share a store:
inline constexpr const char* eval_clock = "eval.clock";  // seed, sample ordinal, 0, position, base
[[nodiscard]] std::string eval_data(std::int64_t window);  // "eval.data[10000]": the window
[[nodiscard]] std::string latents(std::int64_t batch);     // "latents[64]": f32 [batch, latent]
}  // namespace store_name

class Model {
 public:
  // Throws Error(usage) where a size is not positive, does not fit, or nothing can be built.
  Model(const ModelConfig& config, const InputSpec& input);

  [[nodiscard]] const ModelConfig& config() const noexcept { return config_; }
  [[nodiscard]] const InputSpec& input() const noexcept { return input_; }
  // In definition order: encoder layers, heads, decoder layers, decoder.out; weight before bias.
  [[nodiscard]] const std::vector<ParameterSpec>& parameters() const noexcept {
    return parameters_;
  }
  [[nodiscard]] std::int64_t parameter_count() const;

  // One training step: outputs `loss`, `reconstruction`, `kl` (scalars, averages over the batch;
  // loss = reconstruction + beta * kl); gradients are named grad(<parameter>); Adam's moments are
  // the states adam.m.<parameter> and adam.v.<parameter>.
  [[nodiscard]] Graph training_graph(const TrainingSpec& spec) const;

  // Rows [position, position + batch) of the evaluation window, each with one latent sample keyed
  // by its dataset index: outputs `nll_rows`, `kl_rows` [batch], and `mean`, `logvar` [batch,
  // latent].
  [[nodiscard]] Graph evaluation_graph(std::int64_t batch, std::int64_t window) const;
  // The same rows to outputs `mean`, `logvar`, `x` and `reconstruction` = E[x|z = mean].
  [[nodiscard]] Graph reconstruction_graph(std::int64_t batch, std::int64_t window) const;
  // The same rows to outputs `mean` and `logvar` alone.
  [[nodiscard]] Graph encoder_graph(std::int64_t batch, std::int64_t window) const;
  // The latents to the output `decoded` = E[x|z] [batch, features].
  [[nodiscard]] Graph decoder_graph(std::int64_t batch) const;

  // Draws the initial weights: `torch` U(+-1/sqrt(fan_in)) for weights and biases, `glorot`
  // U(+-sqrt(6/(fan_in+fan_out))) with zero biases; element i of a part's own stream.
  [[nodiscard]] std::vector<NamedTensor> initial_weights(std::uint64_t seed) const;

  // Between a store and tensors named as in files (parts). `prefix` goes before the graph's names
  // ("adam.m." for moments) and before the file's. load() ignores tensors without the prefix and
  // checks names and shapes of the rest: Error(input, ..., where) names the first that is missing,
  // unknown or misshapen.
  void load(Store& store, const std::vector<NamedTensor>& tensors, std::string_view where,
            std::string_view prefix = "") const;
  [[nodiscard]] std::vector<NamedTensor> save(const Store& store,
                                              std::string_view prefix = "") const;

  // What features become for a picture: undoes the input's affine map; [0, 1].
  [[nodiscard]] Tensor to_pixels(const Tensor& features) const;

 private:
  void define_linear(const std::string& name, const std::vector<std::string>& parts,
                     std::int64_t in, std::int64_t out);
  ModelConfig config_;
  InputSpec input_;
  std::vector<ParameterSpec> parameters_;
};

}  // namespace cuvae
