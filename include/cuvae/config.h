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

namespace cuvae {

struct DataConfig {
  std::string path = "data/mnist";  // absolute, or relative to the current directory
  std::string scale = "unit";       // unit | none | standardise
  std::string binarise = "none";
  double validation = 0.0;  // fraction of the training split

  bool operator==(const DataConfig&) const = default;
};

struct LayerConfig {
  std::string type = "linear";
  std::int64_t out = 0;  // output features
  // none | relu | leaky_relu | elu | gelu | silu | tanh | sigmoid | softplus
  std::string activation = "none";
  double slope = 0.01;  // leaky_relu: factor of the negative side
  double alpha = 1.0;   // elu: alpha * (exp(x) - 1) on the negative side

  bool operator==(const LayerConfig&) const = default;
};

struct EncoderConfig {
  std::vector<LayerConfig> layers{{.out = 512, .activation = "relu"}};  // may be empty

  bool operator==(const EncoderConfig&) const = default;
};

struct OutLayerConfig {
  std::string type = "linear";

  bool operator==(const OutLayerConfig&) const = default;
};

struct DecoderConfig {
  std::vector<LayerConfig> layers{{.out = 512, .activation = "relu"}};  // may be empty
  OutLayerConfig out;  // from the last layer to the parameters of the likelihood

  bool operator==(const DecoderConfig&) const = default;
};

struct LatentConfig {
  std::int64_t size = 32;
  std::string scale = "logvar";  // what the second encoder head gives
  std::string prior = "normal";

  bool operator==(const LatentConfig&) const = default;
};

struct LikelihoodConfig {
  std::string type = "bernoulli";  // bernoulli | gaussian
  double sigma = 1.0;              // gaussian: the fixed standard deviation

  bool operator==(const LikelihoodConfig&) const = default;
};

struct ModelConfig {
  LatentConfig latent;
  LikelihoodConfig likelihood;
  std::string init = "torch";  // torch | glorot
  EncoderConfig encoder;
  DecoderConfig decoder;

  bool operator==(const ModelConfig&) const = default;
};

struct WarmupConfig {
  std::string type = "none";

  bool operator==(const WarmupConfig&) const = default;
};

struct ObjectiveConfig {
  std::string type = "elbo";
  std::int64_t samples = 1;  // latent samples per row
  std::string kl = "analytic";
  double beta = 1.0;
  double free_bits = 0.0;  // nats per latent
  WarmupConfig warmup;
  std::string batch_reduction = "mean";  // mean | sum, of the gradient; reports are per sample

  bool operator==(const ObjectiveConfig&) const = default;
};

struct OptimizerConfig {
  std::string type = "adam";
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  double v0 = 0.0;  // initial second moment
  double weight_decay = 0.0;

  bool operator==(const OptimizerConfig&) const = default;
};

struct ScheduleConfig {
  std::string type = "constant";

  bool operator==(const ScheduleConfig&) const = default;
};

struct EarlyStoppingConfig {
  std::int64_t patience = 0;  // evaluations without improvement; 0 = off
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
  double clip_norm = 0.0;  // 0 = off
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

// Merges all sources and validates. data.path becomes absolute: a file's counts from the file, any
// other from the current directory. Throws Error(usage) for unknown keys, wrong types, values out
// of range or not available in this version, and TOML that does not parse; Error(input) for a file
// that cannot be read. `where` is file:line, the flag or the variable.
[[nodiscard]] Config load_config(const ConfigSources& sources);

// The process's environment, for ConfigSources::environment.
[[nodiscard]] const char* process_environment(const char* name);
[[nodiscard]] std::vector<std::string> process_environment_names();

// One TOML text over the defaults (or its own `preset`), as load_config() reads a file; `source`
// names it in messages. data.path stays as written.
[[nodiscard]] Config parse_config(std::string_view toml, std::string_view source);

// Throws Error(usage) where a key is out of range or not available in this version.
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
  std::string default_value;  // as TOML; empty for a reserved key
  std::string allowed;        // "unit | none | standardise", "1 to 16777216"
  std::string doc;            // one line
  std::string environment;    // "CUVAE_TRAIN_LR"
  std::string not_available;  // what of `allowed` this version does not do; mostly empty
};
[[nodiscard]] std::vector<ConfigKey> config_keys();

}  // namespace cuvae
