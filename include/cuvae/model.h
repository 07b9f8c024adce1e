#pragma once
// Variational autoencoders as graphs: Kingma and Welling, "Auto-Encoding Variational Bayes"
// (2013). The encoder gives q(z|x) = N(mean, exp(logvar)); the decoder gives p(x|z).

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/device.h"
#include "cuvae/graph.h"
#include "cuvae/layer.h"
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
  std::string binarise = "none";  // of the scaled values: none | threshold | static | dynamic
  bool dequantise = false;        // bytes in [0, 1] become (byte + u) / 256
  std::vector<TransformConfig> transforms = {};  // of the encoder's input alone

  [[nodiscard]] std::int64_t features() const { return channels * height * width; }
  // Whether a row can be shown as a picture: grey or in colour, and of more than one line.
  [[nodiscard]] bool is_picture() const { return (channels == 1 || channels == 3) && height > 1; }
  [[nodiscard]] std::string str() const;  // "16 features", "1 x 28 x 28 pixels"
  [[nodiscard]] Features image() const { return {channels, height, width, true}; }
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
  Start start = Start::weight;
  std::uint16_t stream = 0;  // of its initial draw: ordinal of the part in definition order
};

struct ParameterSpec {
  std::string name;  // in the graph and the store: "encoder.heads.weight"
  Shape shape;
  DType dtype = DType::f32;          // i64: a counter among the buffers
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
  double l1 = 0;
  double l2 = 0;
  double clip_norm = 0;       // 0: off
  double ema = 0;             // decay of averaged weights; 0: off
  std::int64_t labelled = 0;  // m2: rows of the split whose label is known; 0: all
  std::vector<std::string> freeze = {};
  AugmentConfig augment = {};      // of images; it is no part of a model
  bool clamp = false;              // augmented values are held to [0, 1]
  std::string weighting = "none";  // none | draws | loss: what weights of rows do
};

// By what the trained loss multiplies the two terms of the ELBO, which are sums over pixels and
// over latents, each of `features` and `latent`.
struct ReductionFactors {
  double reconstruction = 1;
  double kl = 1;
};
[[nodiscard]] ReductionFactors reduction_factors(const ObjectiveConfig& objective,
                                                 std::int64_t features, std::int64_t latent);
// The beta of the same model with both terms summed, whose loss is a multiple of this one: D for
// the mean over D pixels beside a summed KL, w D / 2 for a mean squared error (which is 2 / D of a
// Gaussian's terms at sigma = 1) beside w KL, 1 / d for the mean KL over d latents.
[[nodiscard]] double effective_beta(const ObjectiveConfig& objective, std::int64_t features,
                                    std::int64_t latent);

// What a configuration says of it: the batch, the order, the objective and the optimiser. The
// data's sizes are left to be set.
[[nodiscard]] TrainingSpec training_spec(const Config& config);

// The operator that updates weights (cuvae/graph.h's add_update) and its attributes.
struct UpdateRule {
  std::string op;
  Attrs attrs;
  // "adam.m.": before a parameter's name, the names of what it keeps.
  [[nodiscard]] std::vector<std::string> prefixes() const;
};
[[nodiscard]] UpdateRule update_rule(const OptimizerConfig& optimizer);

// Persistent inputs of the graphs below, by name:
//   data      window of the dataset, InputSpec::dtype [window, features]
//   clock     i64[5]: seed, step, epoch, position, window base
//   hyper     f32[steps, 2]: lr, beta, a row for each unrolled step
//   commit    i64[1]: 0 keeps parameters and moments as they are
// With clip_norm, the state `skipped` i64[1] counts steps whose gradient was not finite.
namespace store_name {
inline constexpr const char* data = "data";
inline constexpr const char* labels = "labels";  // of a conditional model: u8 [window]
// Of m2: the alias table of balanced draws among the labelled rows (cuvae/sampling.h), i64 [rows].
inline constexpr const char* labelled_keep = "labelled.keep";
inline constexpr const char* labelled_other = "labelled.other";
// With weights of rows: draws read the columns of an alias table (cuvae/sampling.h), i64 [dataset],
// a loss the weights over their mean, f32 [window, 1].
inline constexpr const char* weights_keep = "weights.keep";
inline constexpr const char* weights_other = "weights.other";
inline constexpr const char* weights_loss = "weights.loss";
inline constexpr const char* clock = "clock";
inline constexpr const char* hyper = "hyper";
inline constexpr const char* commit = "commit";
inline constexpr const char* skipped = "skipped";
// Before a parameter's name: its average, with TrainingSpec::ema.
inline constexpr const char* ema = "ema.";
// Graphs that do not train have inputs of their own; names carry the size, because programs of
// several sizes share a store:
inline constexpr const char* eval_clock = "eval.clock";  // seed, sample ordinal, 0, position, base
[[nodiscard]] std::string eval_data(std::int64_t window);    // "eval.data[10000]": the window
[[nodiscard]] std::string latents(std::int64_t batch);       // "latents[64]": f32 [batch, width]
[[nodiscard]] std::string eval_labels(std::int64_t window);  // of a conditional model: u8 [window]
}  // namespace store_name

class Model {
 public:
  // Throws Error(usage) where a size is not positive, does not fit, or nothing can be built.
  Model(const ModelConfig& config, const InputSpec& input);

  [[nodiscard]] const ModelConfig& config() const noexcept { return config_; }
  [[nodiscard]] const InputSpec& input() const noexcept { return input_; }
  // In definition order: encoder layers, heads, decoder layers, decoder.out, classifier layers,
  // classifier.out; weight before bias.
  [[nodiscard]] const std::vector<ParameterSpec>& parameters() const noexcept {
    return parameters_;
  }
  [[nodiscard]] std::int64_t parameter_count() const;
  // For each of parameters(), whether one of `names` means it: the name of a layer or of a tensor
  // as files have it, or with a `*` at its end whatever begins so. Error(usage) for a name that
  // means nothing (did you mean ...?), for one of the encoder's heads without the other, which are
  // one matrix, and where nothing is left to be trained.
  [[nodiscard]] std::vector<bool> frozen(const std::vector<std::string>& names) const;
  // What is part of the model and not trained: running statistics of norms.
  [[nodiscard]] const std::vector<ParameterSpec>& buffers() const noexcept { return buffers_; }

  // Columns of what the decoder reads: the latents, and a one-hot label where it is told one.
  [[nodiscard]] std::int64_t decoder_width() const;
  // Whether labels go in anywhere, and the number of them.
  [[nodiscard]] bool conditional() const { return config_.condition.on == "label"; }
  [[nodiscard]] std::int64_t classes() const { return config_.condition.classes; }
  // Whether it guesses labels by q(y|x) (m2): then only its training is told any.
  [[nodiscard]] bool semi_supervised() const { return config_.classifier.on == "label"; }
  // Whether graphs that do not train read labels.
  [[nodiscard]] bool told_labels() const { return conditional() && !semi_supervised(); }
  // Whether it is an autoencoder: no prior, no posterior, a point for each row.
  [[nodiscard]] bool autoencoder() const { return config_.latent.prior == "none"; }

  // The decoder's last layer, with as many outputs as the data want: of the categorical likelihood
  // a logit for each class of each value.
  [[nodiscard]] LayerConfig out_layer() const;
  // The classifier's: a logit for each class.
  [[nodiscard]] LayerConfig class_layer() const;
  // What each layer makes of one sample, for `cuvae info`.
  struct Layer {
    std::string name;  // "encoder.0", "encoder.mean"
    std::string type;  // "conv2d 4 x 4, relu"
    Features out;
    std::int64_t parameters = 0;
  };
  [[nodiscard]] std::vector<Layer> layers() const;

  // One training step: outputs `loss`, `reconstruction`, `kl` (scalars, averages over the batch;
  // loss = reconstruction + beta * kl); gradients are named grad(<parameter>); what the optimiser
  // keeps are the states <prefix><parameter> of update_rule(). With spec.ema the states
  // ema.<parameter> follow the weights (weight_ema, bias-corrected). Of what is frozen there is
  // neither gradient nor state, and a frozen batch norm normalises by its running statistics, which
  // stay: as in evaluation.
  [[nodiscard]] Graph training_graph(const TrainingSpec& spec) const;

  // Rows [position, position + batch) of the evaluation window, each with one latent sample keyed
  // by its dataset index: outputs `nll_rows`, `kl_rows` [batch], `mean`, `logvar`, `latent.z` and
  // `latent.eps` [batch, latent]; of a prior that is not N(0, I) `log_p_rows` [batch], log p(z); of
  // beta_tc and mmd `regulariser`, what their loss adds to the reconstruction, estimated on these
  // rows (beta_tc: of a data set of objective.dataset rows, or where that is 0 of `window`). An
  // autoencoder has `nll_rows`, `kl_rows` = 0 and `mean` alone. A semi-supervised model has U(x) of
  // a row without a label: `nll_rows` = E -log p(x|y, z) under q(y|x), `kl_rows` = U - nll_rows;
  // `mean` and `logvar` are expectations under q(y|x) of those of q(z|x, y), whose mixture is no
  // Gaussian; no latents, but `class_logits` [batch, classes] of q(y|x).
  [[nodiscard]] Graph evaluation_graph(std::int64_t batch, std::int64_t window,
                                       const ObjectiveConfig& objective) const;
  [[nodiscard]] Graph evaluation_graph(std::int64_t batch, std::int64_t window) const;  // ELBO
  // The same rows to outputs `mean`, `logvar`, `x` and `reconstruction` = E[x|z = mean]; of a
  // semi-supervised model all of them expectations under q(y|x), E[x] at the mean of each y.
  [[nodiscard]] Graph reconstruction_graph(std::int64_t batch, std::int64_t window) const;
  // The same rows to outputs `mean` and `logvar` alone, likewise.
  [[nodiscard]] Graph encoder_graph(std::int64_t batch, std::int64_t window) const;
  // The latents [batch, decoder_width()] to the output `decoded` = E[x|z] [batch, features].
  [[nodiscard]] Graph decoder_graph(std::int64_t batch) const;

  // Of a prior that is not N(0, I): its parts as the outputs that sample_prior() wants.
  [[nodiscard]] Graph prior_graph() const;
  // Draws of p(z) by the seed (purpose generation), f32 [count, latent]. `read` gives an output of
  // prior_graph() by its name; N(0, I) asks for none. Error(usage) for an autoencoder.
  [[nodiscard]] Tensor sample_prior(std::int64_t count, std::uint64_t seed,
                                    const std::function<Tensor(const std::string&)>& read) const;

  // Draws the initial weights: `torch` U(+-1/sqrt(fan_in)) for weights and biases, `glorot`
  // U(+-sqrt(6/(fan_in+fan_out))) with zero biases; element i of a part's own stream.
  [[nodiscard]] std::vector<NamedTensor> initial_weights(std::uint64_t seed) const;

  // Between a store and tensors named as in files (parts). `prefix` goes before the graph's names
  // ("adam.m." for moments) and before the file's; with one, it is about those parameters of which
  // the store keeps something under that name. load() ignores tensors without the prefix and
  // checks names and shapes of the rest: Error(input, ..., where) names the first that is missing,
  // unknown or misshapen.
  void load(Store& store, const std::vector<NamedTensor>& tensors, std::string_view where,
            std::string_view prefix = "") const;
  [[nodiscard]] std::vector<NamedTensor> save(const Store& store,
                                              std::string_view prefix = "") const;

  // What features become for a picture: undoes the input's affine map; [0, 1].
  [[nodiscard]] Tensor to_pixels(const Tensor& features) const;

 private:
  [[nodiscard]] std::vector<ParameterSpec> kept(const Store& store, std::string_view prefix) const;
  ModelConfig config_;
  InputSpec input_;
  std::vector<ParameterSpec> parameters_;
  std::vector<ParameterSpec> buffers_;
};

}  // namespace cuvae
