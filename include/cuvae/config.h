#pragma once
// The configuration of a run: plain structs that mirror the TOML schema (schema = 1) key by key,
// and the functions that read, check and write it. One table in src/config/ knows every key; a
// Config from load_config() or parse_config() has been validated, one built in C++ is checked by
// validate(). The defaults are the preset `mnist-mlp`.
//
// Precedence: flag > environment (CUVAE_*) > config file > preset > default.

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cuvae/layer.h"

namespace cuvae {

// What happens to the encoder's input, and never to the target, in the order of the list.
struct TransformConfig {
  std::string type;   // log1p | noise
  double amount = 0;  // noise: standard deviation of what is added in training

  bool operator==(const TransformConfig&) const = default;
};

// Rows that are kept for validation; at most one of the three is set.
struct ValidationConfig {
  double fraction = 0.0;  // of the training split, by a shuffle of train.seed
  std::int64_t rows = 0;  // so many at the end of the training split
  std::string path = {};  // other data: their training split, else their test split

  [[nodiscard]] bool any() const { return fraction > 0 || rows > 0 || !path.empty(); }
  bool operator==(const ValidationConfig&) const = default;
};

// What a training makes of its images, at random and anew at every read, before binarisation: for
// the encoder and as the target alike. Evaluation has none of it.
struct AugmentConfig {
  double flip = 0.0;       // probability of a horizontal flip
  std::int64_t shift = 0;  // then moved by up to so many pixels each way; zeros come in
  std::int64_t crop = 0;   // padded by so many and cropped back: another name of shift
  double noise = 0.0;      // standard deviation of what is added to every pixel

  [[nodiscard]] bool any() const { return flip > 0 || shift > 0 || crop > 0 || noise > 0; }
  bool operator==(const AugmentConfig&) const = default;
};

struct DataConfig {
  // Absolute, or relative to the current directory; or the name of a source (cuvae/dataset.h).
  std::string path = "data/mnist";
  std::string scale = "unit";  // unit | none | standardise
  // none | threshold | static | dynamic: how grey values become 0 or 1. static: drawn once for each
  // row of the data; dynamic: at every read
  std::string binarise = "none";
  // Bytes become (byte + u) / 256, u uniform in [0, 1) and drawn at every read, for densities on
  // [0, 1]: what makes their nats bits of the bytes.
  bool dequantise = false;
  ValidationConfig validation;  // in a file, validation = 0.1, = 400 or = "other/data"
  // Cross-validation, in place of it: the training split falls into `folds` by a shuffle of
  // train.seed, and the rows of one of them are those for validation. 0: none
  std::int64_t folds = 0;
  std::int64_t fold = 0;
  // m2: training rows that keep their label, as many of each class, drawn by train.seed. 0: all
  std::int64_t labelled = 0;
  std::vector<TransformConfig> encoder_transform = {};
  AugmentConfig augment = {};
  // Of the training rows: none | balanced (every label as often as any other) | the path of a .npy
  // file, f32 or f64 [rows of the training split], none negative.
  std::string weights = "none";
  // draws: rows are drawn with replacement, by their weights; loss: each row's loss is multiplied
  // by its weight, over the mean of all weights.
  std::string weighting = "draws";

  [[nodiscard]] bool weights_are_a_file() const {
    return weights != "none" && weights != "balanced";
  }
  bool operator==(const DataConfig&) const = default;
};

struct EncoderConfig {
  std::vector<LayerConfig> layers{{.out = 512, .activation = "relu"}};  // may be empty

  bool operator==(const EncoderConfig&) const = default;
};

struct DecoderConfig {
  std::vector<LayerConfig> layers{{.out = 512, .activation = "relu"}};  // may be empty
  // From the last layer to the parameters of the likelihood: `out` follows from the data.
  LayerConfig out;
  // init | data_mean: what its biases begin with; data_mean (bernoulli): the logit of the training
  // split's mean
  std::string out_bias = "init";

  bool operator==(const DecoderConfig&) const = default;
};

struct LatentConfig {
  std::int64_t size = 32;
  std::string scale = "logvar";  // what the second encoder head gives: logvar | log_sigma
  std::string prior = "normal";  // normal | mixture | vamp
  std::int64_t components = 10;  // mixture, vamp: of the prior

  bool operator==(const LatentConfig&) const = default;
};

struct LikelihoodConfig {
  std::string type = "bernoulli";  // a row of src/likelihoods/likelihoods.def, or of a softmax
  // gaussian: the standard deviation, fixed, or learned: one for all pixels (global) or one for
  // each, from a head of the decoder (pixel)
  double sigma = 1.0;
  std::string learned = "none";  // none | global | pixel; in a file, sigma = "global"
  // poisson, negative_binomial and its zero-inflated form: log of the row's total count (at least
  // 1) is added to the log mean, so that the decoder gives logarithms of shares. Where there is no
  // row, as in `sample` and `decode`, means are those of a total of 1.
  bool library = false;
  // categorical: a value is one of so many classes. With data.scale = "unit" a byte's is the level
  // floor(byte classes / 256), of 256 the byte itself; with "none" values are class numbers.
  std::int64_t classes = 256;

  bool operator==(const LikelihoodConfig&) const = default;
};

// What both sides are told beside the data and the latents.
struct ConditionConfig {
  std::string on = "none";         // none | label
  std::int64_t classes = 10;       // labels are 0 .. classes - 1
  std::string encoder = "concat";  // concat | none: the one-hot label beside the input
  std::string decoder = "concat";  // concat | none: beside the latents

  bool operator==(const ConditionConfig&) const = default;
};

// q(y|x), which guesses the labels that both sides are told: of m2, and from the same data.
struct ClassifierConfig {
  std::string on = "none";               // none | label
  std::vector<LayerConfig> layers = {};  // before its last layer, `classifier.out`

  bool operator==(const ClassifierConfig&) const = default;
};

struct ModelConfig {
  LatentConfig latent;
  LikelihoodConfig likelihood;
  ConditionConfig condition;
  ClassifierConfig classifier;
  std::string init = "torch";  // torch | glorot
  EncoderConfig encoder;
  DecoderConfig decoder;

  bool operator==(const ModelConfig&) const = default;
};

// How the weight of the KL term rises to beta.
struct WarmupConfig {
  std::string type = "none";  // none | linear | cyclical
  std::int64_t steps = 0;     // linear: of the rise; cyclical: of all cycles
  std::int64_t cycles = 4;    // cyclical
  double rise = 0.5;          // cyclical: the share of a cycle in which beta rises

  bool operator==(const WarmupConfig&) const = default;
};

struct ObjectiveConfig {
  // elbo | iwae | dreg | capacity | beta_tc | mmd | autoencoder | m2
  std::string type = "elbo";
  std::int64_t samples = 1;  // latent samples per row: elbo, iwae, dreg
  std::string kl = "analytic";
  double beta = 1.0;   // elbo, beta_tc (of the total correlation), mmd
  double alpha = 1.0;  // beta_tc: of the mutual information; m2 (0.1): of the classification
  double gamma = 1.0;  // beta_tc: of the dimensions' KL; capacity: of the gap (1000)
  std::string estimator = "mws";      // beta_tc: mws | mss, how q(z) is estimated on a batch
  std::int64_t dataset = 0;           // beta_tc: N of its estimates; 0: the rows of training
  double capacity = 25.0;             // capacity: nats at the end
  std::int64_t capacity_steps = 0;    // capacity: steps of its rise from 0; 0: there at once
  double mmd = 1000.0;                // mmd: its factor
  std::string kernel = "imq";         // mmd: imq | rbf
  double bandwidth = 0.0;             // mmd: C of imq, h of rbf; 0: by the number of latents
  std::int64_t labelled_batch = 100;  // m2: labelled rows per step, beside train.batch_size
  // How the trained loss reduces what is a sum in every report.
  std::string pixel_reduction = "sum";   // sum | mean | mse (2 / D of a Gaussian's terms)
  std::string latent_reduction = "sum";  // sum | mean
  double free_bits = 0.0;                // nats per latent
  WarmupConfig warmup;
  std::string batch_reduction = "mean";  // mean | sum, of the gradient; reports are per sample

  bool operator==(const ObjectiveConfig&) const = default;
};

// A field that its type does not have stays at its default.
struct OptimizerConfig {
  std::string type = "adam";  // adam | adamw | iwae_adam | sgd | rmsprop | adagrad | adamax
  std::array<double, 2> betas = {0.9, 0.999};  // adam, adamw, iwae_adam, adamax
  double eps = 1e-8;
  double v0 = 0.0;  // adam, adamw, iwae_adam: second moment before the first step
  double weight_decay = 0.0;
  double momentum = 0.0;             // sgd, rmsprop
  double dampening = 0.0;            // sgd
  bool nesterov = false;             // sgd
  std::string convention = "torch";  // rmsprop: torch | keras
  double rho = 0.99;                 // rmsprop: PyTorch's alpha
  bool centered = false;             // rmsprop
  double lr_decay = 0.0;             // adagrad
  double initial_accumulator = 0.0;  // adagrad

  bool operator==(const OptimizerConfig&) const = default;
};

// The learning rate over the training (cuvae/schedule.h). Horizons are steps.
struct ScheduleConfig {
  std::string type = "constant";  // constant | step | cosine | iwae | plateau
  std::int64_t warmup = 0;        // steps of a linear rise before it
  std::int64_t steps = 0;         // step: between two drops; cosine: until the floor, 0: all steps
  double factor = 0.1;            // step, plateau: of a drop
  double floor = 0.0;             // cosine: the last rate; plateau: the least
  std::int64_t patience = 10;     // plateau: evaluations without improvement that are borne
  double threshold = 1e-4;        // plateau: what an improvement is, relative
  std::int64_t cooldown = 0;      // plateau: evaluations after a drop that do not count

  bool operator==(const ScheduleConfig&) const = default;
};

struct EarlyStoppingConfig {
  std::int64_t patience = 0;  // evaluations without improvement; 0 = off
  // neg_elbo | loss | reconstruction | kl of the validation split: also what chooses the best
  // weights and what a plateau is one of. neg_elbo is at beta = 1 throughout, loss at the full
  // beta.
  std::string metric = "neg_elbo";

  bool operator==(const EarlyStoppingConfig&) const = default;
};

struct TrainConfig {
  std::int64_t epochs = 20;  // in total, also on resume
  std::int64_t batch_size = 128;
  double lr = 1e-3;
  std::int64_t seed = 0;  // not negative
  bool shuffle = true;
  bool drop_last = true;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  double l1 = 0.0;         // times sign(w) in the gradient of w: not in the loss that is shown
  double l2 = 0.0;         // times w, the same
  double clip_norm = 0.0;  // 0 = off
  double ema = 0.0;        // decay of an average of the weights, which is evaluated; 0 = off
  // Layers that stay as they are, "encoder.0", or what begins so, "encoder.*".
  std::vector<std::string> freeze = {};
  EarlyStoppingConfig early_stopping;

  bool operator==(const TrainConfig&) const = default;
};

struct RunConfig {
  std::string device = "auto";  // auto | cpu | cuda | cuda:N
  std::string precision = "fp32";
  std::string exec = "auto";  // auto | eager | graph | persistent
  bool autotune = false;      // time the algorithms of wide products
  std::int64_t threads = 0;   // 0 = all cores

  bool operator==(const RunConfig&) const = default;
};

struct Config {
  std::string name =
      "mnist-mlp";  // of the runs: the key `name`, else the file's stem or the preset
  DataConfig data;
  ModelConfig model;
  ObjectiveConfig objective;
  TrainConfig train;
  RunConfig run;

  bool operator==(const Config&) const = default;
};

// A key set from outside the file: by a flag of its own or by --set.
struct ConfigOverride {
  std::string key;    // "train.lr"
  std::string value;  // TOML; where a string is wanted, a bare word as well
  std::string where;  // "--lr", for messages
};

struct ConfigSources {
  std::filesystem::path file;  // empty: none
  std::string preset;          // --preset; takes the place of the file's own `preset`; empty: none
  std::vector<ConfigOverride> overrides;
  // Looks up an environment variable; null where it is not set. Without a function the
  // environment is not asked.
  std::function<const char*(const char*)> environment;
  // The names of all variables. One that begins as a section's keys do (CUVAE_TRAIN_), is not empty
  // and is no key is an error, as an unknown key is.
  std::vector<std::string> environment_names{};
};

// Merges all sources and validates. data.path, where it is no name
// of a source, becomes absolute: a file's counts from the file, any
// other from the current directory. Throws Error(usage) for unknown keys, wrong types, values out
// of range, and TOML that does not parse; Error(input) for a file
// that cannot be read. `where` is file:line, the flag or the variable.
[[nodiscard]] Config load_config(const ConfigSources& sources);

// The process's environment, for ConfigSources::environment.
[[nodiscard]] const char* process_environment(const char* name);
[[nodiscard]] std::vector<std::string> process_environment_names();

// One TOML text over the defaults (or its own `preset`), as load_config() reads a file; `source`
// names it in messages. data.path stays as written.
[[nodiscard]] Config parse_config(std::string_view toml, std::string_view source);

// Throws Error(usage) where a key is out of range or contradicts another.
void validate(const Config& config);

// Every key, in the order of the schema. parse_config(to_toml(c)) == c, exactly. With `comments`,
// each key carries its documentation (what `cuvae init` prints).
[[nodiscard]] std::string to_toml(const Config& config, bool comments = false);

// Presets are the files of examples/, embedded in the library.
struct Preset {
  std::string name;
  std::string summary;  // first comment line of the file
  std::string toml;
};
[[nodiscard]] const std::vector<Preset>& presets();
// Validated, data.path as written. Throws Error(usage) for an unknown name.
[[nodiscard]] Config preset_config(std::string_view name);

// The documentation of one key, from the table that drives all of the above.
struct ConfigKey {
  std::string path;           // "train.lr"
  std::string type;           // "integer", "number", "boolean", "string", "layers", ...
  std::string default_value;  // as TOML
  std::string allowed;        // "unit | none | standardise", "1 to 16777216"
  std::string doc;            // one line
  std::string environment;    // "CUVAE_TRAIN_LR"
};
[[nodiscard]] std::vector<ConfigKey> config_keys();

}  // namespace cuvae
