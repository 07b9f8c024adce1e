#include "cuvae/config.h"
#include "config/keys.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <string>

#include "cuvae/error.h"
#include "support/source_path.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;

// The message of the usage error that `action` must throw.
template <class Action>
std::string refusal(Action&& action, Status status = Status::usage) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

std::string in_section(const std::string& path, const std::string& value) {
  const auto dot = path.find('.');
  if (dot == std::string::npos) return path + " = " + value + "\n";
  return "[" + path.substr(0, dot) + "]\n" + path.substr(dot + 1) + " = " + value + "\n";
}

Config from_set(const std::string& path, const std::string& value) {
  ConfigSources sources;
  sources.overrides = {{path, value, "--set " + path}};
  return load_config(sources);
}

Config from_environment(const std::map<std::string, std::string>& variables) {
  ConfigSources sources;
  sources.environment = [&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
  return load_config(sources);
}

// load_config() makes the path absolute, parse_config() keeps it.
Config with_absolute_data(Config config) {
  config.data.path = fs::absolute(config.data.path).lexically_normal().string();
  return config;
}

class TempDir {
 public:
  TempDir() {
    std::string pattern = (fs::temp_directory_path() / "cuvae-config-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] fs::path write(const std::string& name, const std::string& text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
    return path_ / name;
  }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

struct Row {
  const char* path;
  const char* value;    // TOML
  const char* refused;  // part of the message; null: accepted
};

constexpr const char* gone = "is not available in this version";
constexpr const char* range = "is out of range";

const Row rows[] = {
    {"name", "\"my-run_2.b\"", nullptr},
    {"name", "\"\"", "is not valid"},
    {"name", "\"../up\"", "is not valid"},
    {"name", "3", "is an integer"},
    {"data.path", "\"some/where\"", nullptr},
    {"data.path", "\"\"", "is not valid"},
    {"data.path", "[]", "is an array"},
    {"data.scale", "\"unit\"", nullptr},
    {"data.scale", "\"none\"", "leaves [0, 1], which the bernoulli likelihood needs"},
    {"data.scale", "\"standardise\"", "leaves [0, 1], which the bernoulli likelihood needs"},
    {"data.scale", "\"unti\"", "did you mean \"unit\"?"},
    {"data.scale", "1", "is an integer"},
    {"data.binarise", "\"none\"", nullptr},
    {"data.binarise", "\"threshold\"", gone},
    {"data.binarise", "\"dynamic\"", gone},
    {"data.validation", "0.0", nullptr},
    {"data.validation", "0", nullptr},
    {"data.validation", "0.1", gone},
    {"data.validation", "\"other/mnist\"", gone},
    {"data.validation", "1.0", range},
    {"data.encoder_transform", "[]", nullptr},
    {"data.encoder_transform", "[\"log1p\"]", gone},
    {"data.encoder_transform", "[{ noise = 0.3 }]", gone},
    {"model.latent.size", "2", nullptr},
    {"model.latent.size", "0", range},
    {"model.latent.size", "-1", range},
    {"model.latent.size", "1000000000000000000", range},
    {"model.latent.size", "99999999999999999999", nullptr /* see below: not TOML */},
    {"model.latent.size", "32.0", "is a number"},
    {"model.latent.scale", "\"logvar\"", nullptr},
    {"model.latent.scale", "\"log_sigma\"", gone},
    {"model.latent.prior", "\"normal\"", nullptr},
    {"model.latent.prior", "\"vamp\"", gone},
    {"model.latent.prior", "\"cauchy\"", "is not known"},
    {"model.likelihood.type", "\"gaussian\"", nullptr},
    {"model.likelihood.type", "\"bernouli\"", "did you mean \"bernoulli\"?"},
    {"model.likelihood.sigma", "0.5", nullptr},
    {"model.likelihood.sigma", "\"global\"", gone},
    {"model.likelihood.sigma", "\"pixel\"", gone},
    {"model.likelihood.sigma", "\"each\"", "is a string"},
    {"model.likelihood.sigma", "0.0", range},
    {"model.likelihood.sigma", "-1", range},
    {"model.likelihood.sigma", "nan", range},
    {"model.likelihood.sigma", "inf", range},
    {"model.init", "\"glorot\"", nullptr},
    {"model.init", "\"torhc\"", "did you mean \"torch\"?"},
    {"model.encoder.layers", "[]", nullptr},
    {"model.encoder.layers",
     "[{ out = 300, activation = \"elu\", alpha = 0.5 }, { type = \"linear\", out = 7 }, "
     "{ out = 1, activation = \"leaky_relu\", slope = 0.2 }]",
     nullptr},
    {"model.encoder.layers", "[{ out = 0 }]", "`model.encoder.layers[0].out` = 0 is out of range"},
    {"model.encoder.layers", "[{ out = -1 }]", range},
    {"model.encoder.layers", "[{ out = 1000000000000000000 }]", range},
    {"model.encoder.layers", "[{ out = 3 }, { out = 2.5 }]", "`model.encoder.layers[1].out` is"},
    {"model.encoder.layers", "[{ activation = \"relu\" }]", "has no `out`"},
    {"model.encoder.layers", "[{ out = 3, activaton = \"relu\" }]", "did you mean `activation`?"},
    {"model.encoder.layers", "[{ out = 3, activation = \"rleu\" }]", "did you mean \"relu\"?"},
    {"model.encoder.layers", "[{ out = 3, activation = \"relu\", slope = 0.5 }]",
     "means nothing to activation \"relu\""},
    {"model.encoder.layers", "[{ out = 3, activation = \"elu\", alpha = nan }]", range},
    {"model.encoder.layers", "[{ type = \"conv2d\", out = 32, kernel = 3 }]",
     "`model.encoder.layers[0].type` = \"conv2d\" is not available"},
    {"model.encoder.layers", "[3]", "`model.encoder.layers[0]` is an integer"},
    {"model.encoder.layers", "\"linear\"", "is a string"},
    {"model.decoder.layers", "[{ out = 64, activation = \"softplus\" }]", nullptr},
    {"model.decoder.layers", "[{ out = 0 }]", range},
    {"model.decoder.out.type", "\"linear\"", nullptr},
    {"model.decoder.out.type", "\"conv_transpose2d\"", gone},
    {"model.condition", "{ on = \"label\", classes = 10 }", gone},
    {"model.condition", "[]", nullptr},
    {"objective.type", "\"elbo\"", nullptr},
    {"objective.type", "\"iwae\"", gone},
    {"objective.type", "\"beta_vae\"", "is not known"},
    {"objective.samples", "1", nullptr},
    {"objective.samples", "5", gone},
    {"objective.samples", "0", range},
    {"objective.kl", "\"analytic\"", nullptr},
    {"objective.kl", "\"mc\"", gone},
    {"objective.beta", "4", nullptr},
    {"objective.beta", "0.0", nullptr},
    {"objective.beta", "-0.5", range},
    {"objective.free_bits", "0.0", nullptr},
    {"objective.free_bits", "0.5", gone},
    {"objective.warmup.type", "\"none\"", nullptr},
    {"objective.warmup.type", "\"linear\"", gone},
    {"objective.warmup.steps", "4690", gone},
    {"objective.warmup.steps", "[]", nullptr},
    {"objective.warmup.cycles", "4", gone},
    {"objective.warmup.cycles", "[]", nullptr},
    {"objective.batch_reduction", "\"sum\"", nullptr},
    {"objective.batch_reduction", "\"max\"", "is not known"},
    {"train.epochs", "1", nullptr},
    {"train.epochs", "0", range},
    {"train.batch_size", "4096", nullptr},
    {"train.batch_size", "0", range},
    {"train.batch_size", "-1", range},
    {"train.batch_size", "1000000000000000000", range},
    {"train.batch_size", "\"128\"", nullptr /* see below: a string in a file */},
    {"train.batch_size", "true", "is a boolean"},
    {"train.lr", "0.5", nullptr},
    {"train.lr", "1", nullptr},
    {"train.lr", "-1e-3", range},
    {"train.lr", "nan", range},
    {"train.lr", "inf", range},
    {"train.lr", "[1e-3]", "is an array"},
    {"train.seed", "9223372036854775807", nullptr},
    {"train.seed", "-1", range},
    {"train.shuffle", "false", nullptr},
    {"train.shuffle", "0", "is an integer"},
    {"train.drop_last", "false", nullptr},
    {"train.drop_last", "\"no\"", "`train.drop_last` is"},
    {"train.optimizer.type", "\"adam\"", nullptr},
    {"train.optimizer.type", "\"sgd\"", gone},
    {"train.optimizer.betas", "[0.5, 0.9]", nullptr},
    {"train.optimizer.betas", "[0, 0.9]", nullptr},
    {"train.optimizer.betas", "[0.9]", "give two numbers"},
    {"train.optimizer.betas", "[0.9, 1.0]", range},
    {"train.optimizer.betas", "[0.9, true]", "give two numbers"},
    {"train.optimizer.eps", "1e-6", nullptr},
    {"train.optimizer.eps", "0.0", range},
    {"train.optimizer.v0", "0.1", nullptr},
    {"train.optimizer.v0", "-0.1", range},
    {"train.optimizer.weight_decay", "1e-4", nullptr},
    {"train.optimizer.weight_decay", "-1e-4", range},
    {"train.schedule.type", "\"constant\"", nullptr},
    {"train.schedule.type", "\"cosine\"", gone},
    {"train.clip_norm", "0", nullptr},
    {"train.clip_norm", "1.0", gone},
    {"train.early_stopping.patience", "0", nullptr},
    {"train.early_stopping.patience", "3", gone},
    {"train.early_stopping.patience", "-3", range},
    {"train.early_stopping.metric", "\"neg_elbo\"", nullptr},
    {"train.early_stopping.metric", "\"loss\"", gone},
    {"run.device", "\"cuda:1\"", nullptr},
    {"run.device", "\"cpu\"", nullptr},
    {"run.device", "\"gpu\"", "is not valid"},
    {"run.device", "\"cuda:\"", "is not valid"},
    {"run.device", "\"cuda:-1\"", "is not valid"},
    {"run.precision", "\"fp32\"", nullptr},
    {"run.precision", "\"tf32\"", nullptr},
    {"run.precision", "\"bf16\"", nullptr},
    {"run.precision", "\"fp16\"", "use \"fp32\", \"tf32\" or \"bf16\""},
    {"run.exec", "\"eager\"", nullptr},
    {"run.exec", "\"graph\"", nullptr},
    {"run.exec", "\"persistent\"", nullptr},
    {"run.exec", "\"fused\"", "use \"auto\", \"eager\", \"graph\" or \"persistent\""},
    {"run.autotune", "true", nullptr},
    {"run.autotune", "1", "is an integer"},
    {"run.threads", "3", nullptr},
    {"run.threads", "-1", range},
    {"run.threads", "1000000000000000000", range},
};

// Two rows mean something else in a file than on the command line; they have tests of their own.
bool is_special(const Row& row) {
  return std::string(row.value) == "99999999999999999999" || std::string(row.value) == "\"128\"";
}

TEST(Config, EveryKeyHasAnAcceptedAndARefusedValue) {
  std::set<std::string> accepted;
  std::set<std::string> refused;
  for (const Row& row : rows) {
    if (!is_special(row)) (row.refused == nullptr ? accepted : refused).insert(row.path);
  }
  const auto keys = config_keys();
  std::set<std::string> rows_keys = accepted;
  rows_keys.insert(refused.begin(), refused.end());
  EXPECT_EQ(keys.size(), rows_keys.size());
  for (const ConfigKey& key : keys) {
    EXPECT_TRUE(accepted.contains(key.path)) << key.path;
    EXPECT_TRUE(refused.contains(key.path)) << key.path;
    EXPECT_FALSE(key.doc.empty()) << key.path;
    EXPECT_FALSE(key.allowed.empty()) << key.path;
  }
}

TEST(Config, EveryRowFromAFile) {
  for (const Row& row : rows) {
    if (is_special(row)) continue;
    SCOPED_TRACE(std::string(row.path) + " = " + row.value);
    const std::string text = "schema = 1\n" + in_section(row.path, row.value);
    if (row.refused == nullptr) {
      const Config config = parse_config(text, "config.toml");
      EXPECT_EQ(parse_config(to_toml(config), "again"), config);
      continue;
    }
    const std::string message = refusal([&] { (void)parse_config(text, "config.toml"); });
    expect_contains(message, row.refused);
    const bool top = std::string(row.path).find('.') == std::string::npos;
    expect_contains(message, top ? "(config.toml:2)" : "(config.toml:3)");
    expect_contains(message, std::string("`") + row.path);
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_NE(message.find("): "), std::string::npos) << "no mend: " << message;
  }
}

TEST(Config, EveryRowFromSetAndFromTheEnvironment) {
  std::map<std::string, std::string> variables;
  for (const ConfigKey& key : config_keys()) variables[key.path] = key.environment;
  for (const Row& row : rows) {
    if (is_special(row)) continue;
    SCOPED_TRACE(std::string(row.path) + " = " + row.value);
    const std::string variable = variables.at(row.path);
    // A number given to a text key by flag is a word like any other.
    const bool word = row.refused != nullptr && std::string(row.refused).starts_with("is an ") &&
                      std::string("name data.path data.scale").find(row.path) != std::string::npos;
    if (row.refused == nullptr) {
      const Config expected =
          with_absolute_data(parse_config(in_section(row.path, row.value), "config.toml"));
      EXPECT_EQ(from_set(row.path, row.value), expected);
      EXPECT_EQ(from_environment({{variable, row.value}}), expected);
    } else if (!word) {
      std::string message = refusal([&] { (void)from_set(row.path, row.value); });
      expect_contains(message, row.refused);
      expect_contains(message, std::string("(--set ") + row.path + ")");
      message = refusal([&] { (void)from_environment({{variable, row.value}}); });
      expect_contains(message, row.refused);
      expect_contains(message, "(environment " + variable + ")");
    }
  }
}

TEST(Config, AcceptedValuesArrive) {
  const Config config = parse_config(R"(
    name = "n"
    data.scale = "none"
    model.latent.size = 7
    model.likelihood = { type = "gaussian", sigma = 0.25 }
    model.encoder = { layers = [ { out = 9, activation = "elu", alpha = 0.5 }, { out = 8 } ] }
    model.decoder.layers = []
    objective.beta = 2
    objective.batch_reduction = "sum"
    train = { epochs = 3, batch_size = 5, lr = 0.5, seed = 11, shuffle = false, drop_last = false }
    [run]
    device = "cuda:2"
    exec = "eager"
    threads = 4
  )",
                                     "text");
  EXPECT_EQ(config.name, "n");
  EXPECT_EQ(config.data.scale, "none");
  EXPECT_EQ(config.model.latent.size, 7);
  EXPECT_EQ(config.model.likelihood.type, "gaussian");
  EXPECT_EQ(config.model.likelihood.sigma, 0.25);
  ASSERT_EQ(config.model.encoder.layers.size(), 2U);
  EXPECT_EQ(config.model.encoder.layers[0].out, 9);
  EXPECT_EQ(config.model.encoder.layers[0].activation, "elu");
  EXPECT_EQ(config.model.encoder.layers[0].alpha, 0.5);
  EXPECT_EQ(config.model.encoder.layers[1], (LayerConfig{.out = 8}));
  EXPECT_TRUE(config.model.decoder.layers.empty());
  EXPECT_EQ(config.objective.beta, 2.0);
  EXPECT_EQ(config.objective.batch_reduction, "sum");
  EXPECT_EQ(config.train.epochs, 3);
  EXPECT_EQ(config.train.batch_size, 5);
  EXPECT_EQ(config.train.lr, 0.5);
  EXPECT_EQ(config.train.seed, 11);
  EXPECT_FALSE(config.train.shuffle);
  EXPECT_FALSE(config.train.drop_last);
  EXPECT_EQ(config.run.device, "cuda:2");
  EXPECT_EQ(config.run.exec, "eager");
  EXPECT_EQ(config.run.threads, 4);
}

TEST(Config, TheWholeSchemaIsTheDefault) {
  const Config config = parse_config(R"(
schema = 1
[data]
path = "data/mnist"
scale = "unit"
binarise = "none"
validation = 0.0
encoder_transform = []
[model]
latent = { size = 32, scale = "logvar", prior = "normal" }
likelihood = { type = "bernoulli" }
init = "torch"
encoder = { layers = [ { type = "linear", out = 512, activation = "relu" } ] }
decoder = { layers = [ { type = "linear", out = 512, activation = "relu" } ], out = { type = "linear" } }
[objective]
type = "elbo"
samples = 1
kl = "analytic"
beta = 1.0
free_bits = 0.0
warmup = { type = "none" }
batch_reduction = "mean"
[train]
epochs = 20
batch_size = 128
lr = 1e-3
seed = 0
shuffle = true
drop_last = true
optimizer = { type = "adam", betas = [0.9, 0.999], eps = 1e-8, v0 = 0.0, weight_decay = 0.0 }
schedule = { type = "constant" }
clip_norm = 0.0
early_stopping = { patience = 0, metric = "neg_elbo" }
[run]
device = "auto"
precision = "fp32"
exec = "auto"
threads = 0
)",
                                     "schema");
  EXPECT_EQ(config, Config{});
}

TEST(Config, NumbersOfFlagsThatAreNoToml) {
  EXPECT_EQ(from_set("train.lr", ".5").train.lr, 0.5);
  EXPECT_EQ(from_set("train.seed", "007").train.seed, 7);
  for (const char* text : {"99999999999999999999", "1e18", "12x", "", " ", "1 2", "1\nx = 2"}) {
    SCOPED_TRACE(text);
    const std::string message = refusal([&] { (void)from_set("train.batch_size", text); });
    expect_contains(message, "`train.batch_size`");
    expect_contains(message, "give an integer from 1 to");
  }
  expect_contains(refusal([&] { (void)parse_config("[train]\nbatch_size = \"128\"", "f"); }),
                  "`train.batch_size` is a string (f:2): give an integer");
  expect_contains(
      refusal([&] { (void)parse_config("[train]\nbatch_size = 99999999999999999999", "f"); }),
      "not valid TOML");
  expect_contains(refusal([&] { (void)from_set("train.lr", "1e999"); }), "`train.lr`");
}

TEST(Config, UnknownKeysAreAnswered) {
  const std::string text = "schema = 1\n\n[train]\nepochs = 2\nlrr = 0.1\n";
  EXPECT_EQ(refusal([&] { (void)parse_config(text, "config.toml"); }),
            "unknown key `train.lrr` (config.toml:5): did you mean `train.lr`?");
  EXPECT_EQ(refusal([&] { (void)from_set("train.batchsize", "3"); }),
            "unknown key `train.batchsize` (--set train.batchsize): did you mean "
            "`train.batch_size`?");
  expect_contains(refusal([&] { (void)parse_config("[trian]\nlr = 1.0", "f"); }),
                  "unknown key `trian` (f:1): did you mean `train`?");
  expect_contains(refusal([&] { (void)parse_config("batch_size = 3", "f"); }),
                  "did you mean `train.batch_size`?");
  expect_contains(refusal([&] { (void)parse_config("zzzzzz = 3", "f"); }), "`cuvae init`");
  expect_contains(refusal([&] { (void)parse_config("model.latent.sise = 3", "f"); }),
                  "did you mean `model.latent.size`?");
  expect_contains(refusal([&] { (void)parse_config("train = 3", "f"); }), "`train` is an integer");
  expect_contains(refusal([&] { (void)parse_config("train.lr.x = 3", "f"); }),
                  "`train.lr` is a table");
}

TEST(Config, TablesOfTypesThatAreNotAvailableNameTheType) {
  for (const char* text :
       {"[objective]\nwarmup = { type = \"cyclical\", steps = 4690, cycles = 4 }",
        "[train]\nschedule = { type = \"cosine\", floor = 1e-5 }",
        "[train]\noptimizer = { type = \"sgd\", momentum = 0.9 }",
        "[model]\ndecoder = { out = { type = \"conv_transpose2d\", out = 1, kernel = 4 } }"}) {
    SCOPED_TRACE(text);
    const std::string message = refusal([&] { (void)parse_config(text, "f"); });
    expect_contains(message, ".type` = ");
    expect_contains(message, gone);
    expect_contains(message, "(f:2): use \"");
  }
}

TEST(Config, SetTakesTables) {
  const Config config = from_set("train.optimizer", "{ betas = [0.5, 0.6], v0 = 0.1 }");
  EXPECT_EQ(config.train.optimizer.betas, (std::array<double, 2>{0.5, 0.6}));
  EXPECT_EQ(config.train.optimizer.v0, 0.1);
  EXPECT_EQ(config.train.optimizer.eps, 1e-8);
  expect_contains(refusal([&] { (void)from_set("train.optimizer", "adam"); }), "TOML table");
  expect_contains(refusal([&] { (void)from_set("train.optimizer", "3"); }), "is an integer");
}

TEST(Config, PrecedenceFlagEnvironmentFilePresetDefault) {
  const TempDir dir;
  const fs::path file = dir.write("mine.toml",
                                  "preset = \"mnist-mlp-gaussian\"\n[train]\nlr = 0.2\n"
                                  "epochs = 7\nseed = 5\n");
  const std::map<std::string, std::string> variables = {
      {"CUVAE_TRAIN_LR", "0.3"}, {"CUVAE_TRAIN_EPOCHS", "8"}, {"CUVAE_TRAIN_SHUFFLE", ""}};
  ConfigSources sources;
  sources.file = file;
  sources.environment = [&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
  sources.overrides = {{"train.epochs", "9", "--epochs"}};
  Config config = load_config(sources);
  EXPECT_EQ(config.name, "mine");
  EXPECT_EQ(config.train.epochs, 9);                    // flag
  EXPECT_EQ(config.train.lr, 0.3);                      // environment
  EXPECT_EQ(config.train.seed, 5);                      // file
  EXPECT_EQ(config.model.likelihood.type, "gaussian");  // preset
  EXPECT_EQ(config.train.batch_size, 128);              // default
  EXPECT_TRUE(config.train.shuffle);                    // an empty variable is none

  sources.preset = "mnist-mlp";  // takes the place of the file's
  config = load_config(sources);
  EXPECT_EQ(config.model.likelihood.type, "bernoulli");
  EXPECT_EQ(config.train.seed, 5);
}

TEST(Config, AFlagMendsAFile) {
  const TempDir dir;
  ConfigSources sources;
  sources.file = dir.write("c.toml",
                           "[train]\nlr = -1.0\n"
                           "[model]\nlikelihood = { sigma = \"global\" }\n");
  expect_contains(refusal([&] { (void)load_config(sources); }), "c.toml:");
  sources.overrides = {{"train.lr", "0.1", "--lr"}, {"model.likelihood.sigma", "2", "--set"}};
  EXPECT_EQ(load_config(sources).model.likelihood.sigma, 2.0);
}

TEST(Config, DeviceAndThreadsHaveShortVariables) {
  EXPECT_EQ(from_environment({{"CUVAE_DEVICE", "cuda:3"}}).run.device, "cuda:3");
  EXPECT_EQ(from_environment({{"CUVAE_THREADS", "2"}}).run.threads, 2);
  EXPECT_EQ(from_environment({{"CUVAE_THREADS", "2"}, {"CUVAE_RUN_THREADS", "3"}}).run.threads, 3);
  expect_contains(refusal([] {
                    (void)from_environment({{"CUVAE_THREADS", "two"}});
                  }),
                  "(environment CUVAE_THREADS)");
}

TEST(Config, MistypedVariablesAreErrors) {
  std::map<std::string, std::string> variables;
  const auto load = [&] {
    ConfigSources sources;
    sources.environment = [&](const char* name) -> const char* {
      const auto found = variables.find(name);
      return found == variables.end() ? nullptr : found->second.c_str();
    };
    for (const auto& [name, value] : variables) sources.environment_names.push_back(name);
    return load_config(sources);
  };
  // Ours, empty, and those of others.
  variables = {{"CUVAE_TRAIN_LR", "0.5"}, {"CUVAE_TRAIN_LRR", ""},   {"CUVAE_THREADS", "2"},
               {"CUVAE_NAME", "n"},       {"CUVAE_BUILD_TYPE", "x"}, {"CUVAE_TRAINING", "x"},
               {"TRAIN_LRR", "3"},        {"CUVAE_DEVICE", "cpu"}};
  EXPECT_EQ(load().train.lr, 0.5);
  const std::pair<const char*, const char*> mistyped[] = {
      {"CUVAE_TRAIN_LRR", "did you mean `CUVAE_TRAIN_LR`?"},
      {"CUVAE_TRAIN_BATCHSIZE", "did you mean `CUVAE_TRAIN_BATCH_SIZE`?"},
      {"CUVAE_MODEL_LATENT_SISE", "did you mean `CUVAE_MODEL_LATENT_SIZE`?"},
      {"CUVAE_DATA_PAHT", "did you mean `CUVAE_DATA_PATH`?"},
      {"CUVAE_OBJECTIVE_BTEA", "did you mean `CUVAE_OBJECTIVE_BETA`?"},
      {"CUVAE_RUN_DEVCE", "did you mean `CUVAE_RUN_DEVICE`?"},
      {"CUVAE_RUN_ZZZZZZ", "unset it"},
      {"CUVAE_TRAIN_", "unset it"},
      {"CUVAE_TRAIN_lr", "did you mean `CUVAE_TRAIN_LR`?"},
  };
  for (const auto& [name, mend] : mistyped) {
    SCOPED_TRACE(name);
    variables = {{name, "1"}};
    const std::string message = refusal([&] { (void)load(); });
    expect_contains(message, std::string("unknown variable `") + name + "` (environment): ");
    expect_contains(message, mend);
  }
}

TEST(Config, VariablesThatWereProbablyMeant) {
  const std::pair<const char*, const char*> cases[] = {
      {"CUVAE_EPOCHS", "CUVAE_TRAIN_EPOCHS"},
      {"CUVAE_LR", "CUVAE_TRAIN_LR"},
      {"CUVAE_SEED", "CUVAE_TRAIN_SEED"},
      {"CUVAE_BATCHSIZE", "CUVAE_TRAIN_BATCH_SIZE"},
      {"CUVAE_DEVCE", "CUVAE_DEVICE"},
      {"CUVAE_THREAD", "CUVAE_THREADS"},
      {"CUVAE_TRIAN_LR", "CUVAE_TRAIN_LR"},
      {"CUVAE_TRAIN_LRR", ""},  // an error of its own
      {"CUVAE_DEVICE", ""},
      {"CUVAE_THREADS", ""},
      {"CUVAE_TRAIN_LR", ""},
      {"CUVAE_NAME", ""},
      {"CUVAE_SIMT_SEED", ""},
      {"CUVAE_PEERS_PYTHON", ""},
      {"CUVAE_CUDA_PATH", ""},
      {"CUVAE_NO_INSTALL", ""},
      {"CUVAE_XYZZY_QUUX", ""},
      {"EPOCHS", ""},
  };
  for (const auto& [variable, meant] : cases) {
    EXPECT_EQ(config::variable_meant_by(variable), meant) << variable;
  }
}

TEST(Config, EveryKeysVariableIsKnown) {
  std::map<std::string, std::string> variables;
  ConfigSources sources;
  for (const ConfigKey& key : config_keys()) {
    variables[key.environment] = key.default_value.empty() ? "[]" : key.default_value;
    sources.environment_names.push_back(key.environment);
  }
  sources.environment = [&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
  EXPECT_EQ(load_config(sources), with_absolute_data(Config{}));
}

TEST(Config, RelativeDataPathsCountFromTheFile) {
  const TempDir dir;
  ConfigSources sources;
  sources.file = dir.write("a/c.toml", "[data]\npath = \"../pictures\"\n");
  EXPECT_EQ(load_config(sources).data.path, (dir.path() / "pictures").string());
  sources.overrides = {{"data.path", "here", "--data"}};
  EXPECT_EQ(load_config(sources).data.path, (fs::current_path() / "here").string());
  // A file that says nothing about data leaves the preset's, which counts from the current folder.
  sources.overrides.clear();
  sources.file = dir.write("a/d.toml", "preset = \"mnist-mlp\"\n");
  EXPECT_EQ(load_config(sources).data.path, (fs::current_path() / "data/mnist").string());
}

TEST(Config, ArraysReplaceWhole) {
  const Config config = parse_config(
      "preset = \"mnist-mlp\"\n[model]\nencoder = { layers = [{ out = 3 }, { out = 2 }] }", "f");
  EXPECT_EQ(config.model.encoder.layers, (std::vector<LayerConfig>{{.out = 3}, {.out = 2}}));
  EXPECT_EQ(config.model.decoder.layers, Config{}.model.decoder.layers);
}

TEST(Config, FilesThatCannotBeRead) {
  const TempDir dir;
  ConfigSources sources;
  sources.file = dir.path() / "none.toml";
  expect_contains(refusal([&] { (void)load_config(sources); }, Status::input),
                  "no such configuration file");
  sources.file = "mnist-mlp";
  expect_contains(refusal([&] { (void)load_config(sources); }, Status::input),
                  "did you mean --preset mnist-mlp?");
  sources.file = dir.path();
  expect_contains(refusal([&] { (void)load_config(sources); }, Status::input), "is a folder");
  sources.file = "/dev/zero";
  expect_contains(refusal([&] { (void)load_config(sources); }, Status::input), "16 MiB");
  sources.file = dir.write("bad.toml", "schema = 1\n[train\nlr = 1\n");
  expect_contains(refusal([&] { (void)load_config(sources); }), "bad.toml:2)");
  sources.file = dir.write("bytes.toml", std::string("a = \"\xff\xfe\0\"", 9));
  expect_contains(refusal([&] { (void)load_config(sources); }), "not valid TOML");
  sources.file = dir.write("new.toml", "schema = 2\n");
  expect_contains(refusal([&] { (void)load_config(sources); }), "use schema = 1");
  sources.file = dir.write("odd name!.toml", "");
  EXPECT_EQ(load_config(sources).name, "odd_name_");
}

TEST(Config, Presets) {
  ASSERT_GE(presets().size(), 2U);
  for (const Preset& preset : presets()) {
    SCOPED_TRACE(preset.name);
    EXPECT_FALSE(preset.summary.empty());
    const Config config = preset_config(preset.name);
    EXPECT_EQ(config.name, preset.name);
    EXPECT_EQ(parse_config(to_toml(config), "t"), config);
    // What is embedded is the file a reader finds.
    std::ifstream stream(test::source_path("examples/" + preset.name + ".toml"));
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(stream), {}), preset.toml);
  }
  EXPECT_EQ(preset_config("mnist-mlp"), Config{});
  EXPECT_EQ(refusal([] { (void)preset_config("mnist-mpl"); }),
            "unknown preset \"mnist-mpl\": did you mean \"mnist-mlp\"?");
  expect_contains(refusal([] { (void)parse_config("\npreset = \"nothing\"", "f"); }),
                  "unknown preset \"nothing\" (f:2): `cuvae presets` lists them");
  expect_contains(refusal([] { (void)parse_config("preset = 3", "f"); }), "`preset` is an integer");
  ConfigSources sources;
  sources.preset = "nothing";
  expect_contains(refusal([&] { (void)load_config(sources); }), "(--preset)");
}

TEST(Config, TomlRoundTripIsExact) {
  Config config;
  config.name = "odd";
  config.data.path = "a \"quoted\"\\path\n\tand \x7f more \xc3\xa9";
  config.data.scale = "none";
  config.model.likelihood.type = "gaussian";
  config.model.latent.size = 1;
  config.model.likelihood.sigma = 0.1 + 0.2;
  config.model.encoder.layers = {
      {.out = 5, .activation = "leaky_relu", .slope = 1.0 / 3.0},
      {.out = 6, .activation = "elu", .alpha = 2.0},
      {.out = 1, .activation = "none"},
  };
  config.model.decoder.layers.clear();
  config.objective.beta = 1e-7;
  config.train.lr = 5e-324;
  config.train.seed = std::numeric_limits<std::int64_t>::max();
  config.train.shuffle = false;
  config.train.optimizer.betas = {0.0, 0.999999};
  config.train.optimizer.eps = 1e-30;
  config.train.optimizer.v0 = 1e30;
  config.run.device = "cuda:7";
  validate(config);
  EXPECT_EQ(parse_config(to_toml(config), "t"), config) << to_toml(config);
  EXPECT_EQ(parse_config(to_toml(config, true), "t"), config) << to_toml(config, true);
  EXPECT_EQ(parse_config(to_toml(Config{}), "t"), Config{});
}

TEST(Config, CommentsNameEveryKey) {
  const std::string text = to_toml(Config{}, true);
  for (const ConfigKey& key : config_keys()) {
    if (key.type == "reserved") continue;
    expect_contains(text, key.doc);
    expect_contains(text, key.path.substr(key.path.find('.') + 1) + " = " + key.default_value);
  }
}

TEST(Config, ConfigsBuiltInCodeAreChecked) {
  Config config;
  validate(config);
  config.train.batch_size = 0;
  expect_contains(refusal([&] { validate(config); }), "`train.batch_size` = 0 is out of range");
  config = {};
  config.train.lr = std::numeric_limits<double>::quiet_NaN();
  expect_contains(refusal([&] { validate(config); }), "`train.lr` = nan is out of range");
  config = {};
  config.model.decoder.layers = {{.out = 0}};
  expect_contains(refusal([&] { validate(config); }), "`model.decoder.layers[0].out` = 0");
  config = {};
  config.model.encoder.layers.assign(257, {.out = 1});
  expect_contains(refusal([&] { validate(config); }), "257 layers");
  config = {};
  config.data.path = "\xff\xfe";
  expect_contains(refusal([&] { validate(config); }), "`data.path`");
  config = {};
  for (const char* scale : {"standardise", "none"}) {
    config = {};
    config.data.scale = scale;
    expect_contains(refusal([&] { validate(config); }), "bernoulli");
    config.model.likelihood.type = "gaussian";
    validate(config);
  }
}

}  // namespace
}  // namespace cuvae
