#include "cuvae/config.h"
#include "config/keys.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "cuvae/error.h"
#include "support/source_path.h"

namespace cuvae {
namespace {

const Config& defaults() {
  static const Config config;
  return config;
}

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

std::string with_section(const std::string& path, const std::string& inner) {
  return path.substr(0, path.find('.') + 1) + inner;
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
  for (std::string* path : {&config.data.path, &config.data.validation.path})
    if (!path->empty()) *path = fs::absolute(*path).lexically_normal().string();
  if (std::string& path = config.data.weights; config.data.weights_are_a_file())
    path = fs::absolute(path).lexically_normal().string();
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
  // What stands beside it, within the section: { "optimizer.type", "\"sgd\"" }; null: nothing.
  const char* beside = nullptr;
  const char* beside_value = nullptr;
};

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
    {"data.binarise", "\"threshold\"", nullptr},
    {"data.binarise", "\"static\"", nullptr},
    {"data.binarise", "\"dynamic\"", nullptr},
    {"data.binarise", "\"treshold\"", "did you mean \"threshold\"?"},
    {"data.dequantise", "false", nullptr},
    {"data.dequantise", "true", "with the bernoulli likelihood, which is no density"},
    {"data.dequantise", "1", "is an integer"},
    {"data.validation", "0.0", nullptr},
    {"data.validation", "0", nullptr},
    {"data.validation", "0.1", nullptr},
    {"data.validation", "400", nullptr},
    {"data.validation", "\"other/mnist\"", nullptr},
    {"data.validation", "1.0", range},
    {"data.validation", "0.95", range},
    {"data.validation", "-0.1", range},
    {"data.validation", "-400", range},
    {"data.validation", "nan", range},
    {"data.validation", "\"\"", "is a string"},
    {"data.validation", "[0.1]", "is an array"},
    {"data.folds", "5", nullptr},
    {"data.folds", "1", "leaves nothing to train on"},
    {"data.folds", "-1", range},
    {"data.folds", "5", "beside `data.validation`", "validation", "0.1"},
    {"data.fold", "0", nullptr},
    {"data.fold", "4", nullptr, "folds", "5"},
    {"data.fold", "5", "folds count from 0", "folds", "5"},
    {"data.fold", "1", "`data.fold` = 1 of 0"},
    {"data.encoder_transform", "[]", nullptr},
    {"data.encoder_transform", "[\"log1p\"]", nullptr},
    {"data.encoder_transform", "[{ noise = 0.3 }, \"log1p\"]", nullptr},
    {"data.encoder_transform", "[\"log2\"]", "`data.encoder_transform[0]` = \"log2\" is not known"},
    {"data.encoder_transform", "[{ noise = 0 }]", range},
    {"data.encoder_transform", "[{ noise = 0.1, more = 1 }]", "is an array"},
    {"data.encoder_transform", "\"log1p\"", "is a string"},
    {"data.augment.flip", "0.5", nullptr},
    {"data.augment.flip", "1.5", range},
    {"data.augment.shift", "2", nullptr},
    {"data.augment.shift", "-1", range},
    {"data.augment.crop", "2", nullptr},
    {"data.augment.crop", "-2", range},
    {"data.augment.crop", "2", "they are the same thing", "augment.shift", "1"},
    {"data.augment.noise", "0.1", nullptr},
    {"data.augment.noise", "-0.1", range},
    {"data.weights", "\"none\"", nullptr},
    {"data.weights", "\"balanced\"", nullptr},
    {"data.weights", "\"weights.npy\"", nullptr},
    {"data.weights", "\"\"", "give \"none\", \"balanced\" or the path of a .npy file"},
    {"data.weights", "1", "is an integer"},
    {"data.weighting", "\"draws\"", nullptr},
    {"data.weighting", "\"loss\"", nullptr, "weights", "\"balanced\""},
    {"data.weighting", "\"loss\"", "without `data.weights`"},
    {"data.weighting", "\"los\"", "did you mean \"loss\"?"},
    {"model.latent.size", "2", nullptr},
    {"model.latent.size", "0", range},
    {"model.latent.size", "-1", range},
    {"model.latent.size", "1000000000000000000", range},
    {"model.latent.size", "99999999999999999999", nullptr /* see below: not TOML */},
    {"model.latent.size", "32.0", "is a number"},
    {"model.latent.scale", "\"logvar\"", nullptr},
    {"model.latent.scale", "\"log_sigma\"", nullptr},
    {"model.latent.scale", "\"sigma\"", "is not known"},
    {"model.latent.prior", "\"normal\"", nullptr},
    {"model.latent.prior", "\"vamp\"", nullptr},
    {"model.latent.prior", "\"none\"", "an autoencoder has the prior"},
    {"model.latent.prior", "\"cauchy\"", "is not known"},
    {"model.latent.components", "10", nullptr},
    {"model.latent.components", "20", "means nothing to model.latent.prior = \"normal\""},
    {"model.latent.components", "1.5", "is a number"},
    {"model.likelihood.type", "\"gaussian\"", nullptr},
    {"model.likelihood.type", "\"bernouli\"", "did you mean \"bernoulli\"?"},
    {"model.likelihood.library", "true", nullptr, "likelihood.type", "\"poisson\""},
    {"model.likelihood.library", "1", "is an integer", "likelihood.type", "\"poisson\""},
    {"model.likelihood.library", "true", "means nothing to model.likelihood.type = \"bernoulli\""},
    {"model.likelihood.sigma", "0.5", nullptr, "likelihood.type", "\"gaussian\""},
    {"model.likelihood.sigma", "\"global\"", nullptr, "likelihood.type", "\"gaussian\""},
    {"model.likelihood.sigma", "\"pixel\"", nullptr, "likelihood.type", "\"gaussian\""},
    {"model.likelihood.sigma", "\"each\"", "is a string", "likelihood.type", "\"gaussian\""},
    {"model.likelihood.sigma", "0.0", range, "likelihood.type", "\"gaussian\""},
    {"model.likelihood.sigma", "-1", range, "likelihood.type", "\"gaussian\""},
    {"model.likelihood.sigma", "nan", range, "likelihood.type", "\"gaussian\""},
    {"model.likelihood.sigma", "inf", range, "likelihood.type", "\"gaussian\""},
    {"model.likelihood.sigma", "0.5", "means nothing to model.likelihood.type = \"bernoulli\""},
    {"model.likelihood.classes", "16", nullptr, "likelihood.type", "\"categorical\""},
    {"model.likelihood.classes", "1", range, "likelihood.type", "\"categorical\""},
    {"model.likelihood.classes", "257", range, "likelihood.type", "\"categorical\""},
    {"model.likelihood.classes", "16", "means nothing to model.likelihood.type = \"bernoulli\""},
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
    {"model.encoder.layers", "[{ type = \"conv2d\", out = 32, kernel = [3, 5], stride = 2 }]",
     nullptr},
    {"model.encoder.layers", "[{ type = \"conv3d\", out = 32 }]", "did you mean \"conv2d\"?"},
    {"model.encoder.layers", "[3]", "`model.encoder.layers[0]` is an integer"},
    {"model.encoder.layers", "\"linear\"", "is a string"},
    {"model.decoder.layers", "[{ out = 64, activation = \"softplus\" }]", nullptr},
    {"model.decoder.layers", "[{ out = 0 }]", range},
    {"model.decoder.out", "{ type = \"linear\", bias = false }", nullptr},
    {"model.decoder.out", "{ type = \"conv2d\", kernel = 3, padding = 1 }", nullptr},
    {"model.decoder.out", "{ type = \"conv_transpose2d\", kernel = 4, stride = 2, padding = 1 }",
     nullptr},
    {"model.decoder.out", "{ type = \"conv2d\" }", "has no `kernel`"},
    {"model.decoder.out", "{ type = \"conv2d\", kernel = 3, out = 1 }",
     "unknown key `model.decoder.out.out`"},
    {"model.decoder.out", "{ type = \"linear\", activation = \"relu\" }",
     "unknown key `model.decoder.out.activation`"},
    {"model.decoder.out", "{ type = \"flatten\" }", "\"flatten\" cannot be the last layer"},
    {"model.decoder.out", "\"linear\"", "is a string"},
    {"model.decoder.out_bias", "\"data_mean\"", nullptr},
    {"model.decoder.out_bias", "\"data-mean\"", "did you mean \"data_mean\"?"},
    {"model.decoder.out_bias", "\"data_mean\"",
     "is a logit, which `model.likelihood.type` = \"gaussian\" has not", "likelihood.type",
     "\"gaussian\""},
    {"model.condition.on", "\"label\"", nullptr},
    {"model.condition.on", "\"colour\"", "is not known"},
    {"model.condition.classes", "7", nullptr},
    {"model.condition.classes", "1", range},
    {"model.condition.encoder", "\"none\"", nullptr},
    {"model.condition.encoder", "\"film\"", "is not known"},
    {"model.condition.decoder", "\"none\"", nullptr},
    {"model.condition.decoder", "\"film\"", "is not known"},
    {"model.classifier.on", "\"none\"", nullptr},
    {"model.classifier.on", "\"label\"", "`objective.type` = \"elbo\" with `model.classifier.on`"},
    {"model.classifier.on", "\"image\"", "is not known"},
    {"model.classifier.layers", "[]", nullptr},
    {"model.classifier.layers", "[{ out = 3 }]", "means nothing to model.classifier.on = \"none\""},
    {"data.labelled", "0", nullptr},
    {"data.labelled", "100", "`data.labelled` = 100 with `objective.type` = \"elbo\""},
    {"data.labelled", "-10", range},
    {"objective.labelled_batch", "100", nullptr},
    {"objective.labelled_batch", "50", "means nothing to objective.type = \"elbo\""},
    {"objective.type", "\"elbo\"", nullptr},
    {"objective.type", "\"iwae\"", nullptr},
    {"objective.type", "\"autoencoder\"", nullptr},
    {"objective.type", "\"beta_vae\"", "is not known"},
    {"objective.samples", "1", nullptr},
    {"objective.samples", "5", nullptr},
    {"objective.samples", "5", "means nothing to objective.type = \"mmd\"", "type", "\"mmd\""},
    {"objective.samples", "0", range},
    {"objective.kl", "\"analytic\"", nullptr},
    {"objective.kl", "\"mc\"", nullptr},
    {"objective.kl", "\"exact\"", "is not known"},
    {"objective.beta", "4", nullptr},
    {"objective.beta", "0.0", nullptr},
    {"objective.beta", "-0.5", range},
    {"objective.free_bits", "0.0", nullptr},
    {"objective.free_bits", "0.5", nullptr},
    {"objective.free_bits", "-1", range},
    {"objective.alpha", "2", nullptr, "type", "\"beta_tc\""},
    {"objective.alpha", "-2", range, "type", "\"beta_tc\""},
    {"objective.alpha", "2", "means nothing to objective.type = \"elbo\""},
    {"objective.gamma", "2", nullptr, "type", "\"capacity\""},
    {"objective.gamma", "-2", range, "type", "\"beta_tc\""},
    {"objective.estimator", "\"mss\"", nullptr, "type", "\"beta_tc\""},
    {"objective.estimator", "\"all\"", "is not known", "type", "\"beta_tc\""},
    {"objective.dataset", "1000", nullptr, "type", "\"beta_tc\""},
    {"objective.dataset", "100", "with batches of 128 rows", "type", "\"beta_tc\""},
    {"objective.dataset", "-1", range, "type", "\"beta_tc\""},
    {"objective.dataset", "100", "means nothing to objective.type = \"elbo\""},
    {"objective.capacity", "30", nullptr, "type", "\"capacity\""},
    {"objective.capacity", "-1", range, "type", "\"capacity\""},
    {"objective.capacity_steps", "100", nullptr, "type", "\"capacity\""},
    {"objective.capacity_steps", "-1", range, "type", "\"capacity\""},
    {"objective.mmd", "10", nullptr, "type", "\"mmd\""},
    {"objective.mmd", "-1", range, "type", "\"mmd\""},
    {"objective.kernel", "\"rbf\"", nullptr, "type", "\"mmd\""},
    {"objective.kernel", "\"linear\"", "is not known", "type", "\"mmd\""},
    {"objective.bandwidth", "2.5", nullptr, "type", "\"mmd\""},
    {"objective.bandwidth", "-1", range, "type", "\"mmd\""},
    {"objective.pixel_reduction", "\"mean\"", nullptr},
    {"objective.pixel_reduction", "\"mse\"", "wants the gaussian likelihood, sigma = 1"},
    {"objective.pixel_reduction", "\"max\"", "is not known"},
    {"objective.latent_reduction", "\"mean\"", nullptr},
    {"objective.latent_reduction", "\"max\"", "is not known"},
    {"objective.warmup.type", "\"none\"", nullptr},
    {"objective.warmup.type", "\"linear\"", nullptr, "warmup.steps", "10"},
    {"objective.warmup.type", "\"cyclical\"", nullptr, "warmup.steps", "10"},
    {"objective.warmup.type", "\"linear\"", "without `objective.warmup.steps`"},
    {"objective.warmup.type", "\"cosine\"", "is not known"},
    {"objective.warmup.steps", "4690", nullptr, "warmup.type", "\"linear\""},
    {"objective.warmup.steps", "-1", range, "warmup.type", "\"linear\""},
    {"objective.warmup.steps", "4690", "means nothing to objective.warmup.type = \"none\""},
    {"objective.warmup.cycles", "5", nullptr, "warmup", "{ type = \"cyclical\", steps = 9 }"},
    {"objective.warmup.cycles", "0", range, "warmup", "{ type = \"cyclical\", steps = 9 }"},
    {"objective.warmup.cycles", "5", "means nothing to", "warmup",
     "{ type = \"linear\", steps = 9 }"},
    {"objective.warmup.rise", "0.25", nullptr, "warmup", "{ type = \"cyclical\", steps = 9 }"},
    {"objective.warmup.rise", "1.5", range, "warmup", "{ type = \"cyclical\", steps = 9 }"},
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
    {"train.optimizer.type", "\"adamw\"", nullptr},
    {"train.optimizer.type", "\"iwae_adam\"", nullptr},
    {"train.optimizer.type", "\"sgd\"", nullptr},
    {"train.optimizer.type", "\"rmsprop\"", nullptr},
    {"train.optimizer.type", "\"adagrad\"", nullptr},
    {"train.optimizer.type", "\"adamax\"", nullptr},
    {"train.optimizer.type", "\"adma\"", "did you mean \"adam\"?"},
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
    {"train.optimizer.weight_decay", "0.0", nullptr, "optimizer.type", "\"adamw\""},
    {"train.optimizer.betas", "[0.8, 0.99]", nullptr, "optimizer.type", "\"iwae_adam\""},
    {"train.optimizer.betas", "[0.8, 0.99]", nullptr, "optimizer.type", "\"adamax\""},
    {"train.optimizer.betas", "[0.8, 0.99]", "means nothing to train.optimizer.type",
     "optimizer.type", "\"sgd\""},
    {"train.optimizer.eps", "1e-3", nullptr, "optimizer.type", "\"rmsprop\""},
    {"train.optimizer.eps", "1e-3", nullptr, "optimizer.type", "\"adagrad\""},
    {"train.optimizer.eps", "1e-3", "means nothing to train.optimizer.type", "optimizer.type",
     "\"sgd\""},
    {"train.optimizer.v0", "0.5", nullptr, "optimizer.type", "\"adamw\""},
    {"train.optimizer.v0", "0.5", nullptr, "optimizer.type", "\"iwae_adam\""},
    {"train.optimizer.v0", "0.5", "means nothing to train.optimizer.type", "optimizer.type",
     "\"adamax\""},
    {"train.optimizer.momentum", "0.9", nullptr, "optimizer.type", "\"sgd\""},
    {"train.optimizer.momentum", "0.9", nullptr, "optimizer.type", "\"rmsprop\""},
    {"train.optimizer.momentum", "1.0", range, "optimizer.type", "\"sgd\""},
    {"train.optimizer.momentum", "-0.1", range, "optimizer.type", "\"sgd\""},
    {"train.optimizer.momentum", "0.9", "means nothing to train.optimizer.type", "optimizer.type",
     "\"adam\""},
    {"train.optimizer.dampening", "0.5", nullptr, "optimizer.type", "\"sgd\""},
    {"train.optimizer.dampening", "1.5", range, "optimizer.type", "\"sgd\""},
    {"train.optimizer.dampening", "0.5", "means nothing to train.optimizer.type", "optimizer.type",
     "\"rmsprop\""},
    {"train.optimizer.nesterov", "true", nullptr, "optimizer",
     "{ type = \"sgd\", momentum = 0.9 }"},
    {"train.optimizer.nesterov", "1", "is an integer", "optimizer.type", "\"sgd\""},
    {"train.optimizer.nesterov", "true", "means nothing to", "optimizer.type", "\"rmsprop\""},
    {"train.optimizer.convention", "\"keras\"", nullptr, "optimizer.type", "\"rmsprop\""},
    {"train.optimizer.convention", "\"tensorflow\"", "is not known", "optimizer.type",
     "\"rmsprop\""},
    {"train.optimizer.convention", "\"keras\"", "means nothing to train.optimizer.type",
     "optimizer.type", "\"sgd\""},
    {"train.optimizer.rho", "0.95", nullptr, "optimizer.type", "\"rmsprop\""},
    {"train.optimizer.rho", "1.0", range, "optimizer.type", "\"rmsprop\""},
    {"train.optimizer.rho", "0.95", "means nothing to train.optimizer.type", "optimizer.type",
     "\"adagrad\""},
    {"train.optimizer.centered", "true", nullptr, "optimizer.type", "\"rmsprop\""},
    {"train.optimizer.centered", "\"yes\"", "is a string", "optimizer.type", "\"rmsprop\""},
    {"train.optimizer.centered", "true", "means nothing to train.optimizer.type", "optimizer.type",
     "\"sgd\""},
    {"train.optimizer.lr_decay", "0.01", nullptr, "optimizer.type", "\"adagrad\""},
    {"train.optimizer.lr_decay", "-1", range, "optimizer.type", "\"adagrad\""},
    {"train.optimizer.lr_decay", "0.01", "means nothing to train.optimizer.type", "optimizer.type",
     "\"sgd\""},
    {"train.optimizer.initial_accumulator", "0.1", nullptr, "optimizer.type", "\"adagrad\""},
    {"train.optimizer.initial_accumulator", "-1", range, "optimizer.type", "\"adagrad\""},
    {"train.optimizer.initial_accumulator", "0.1", "means nothing to train.optimizer.type",
     "optimizer.type", "\"adam\""},
    {"train.schedule.type", "\"constant\"", nullptr},
    {"train.schedule.type", "\"cosine\"", nullptr},
    {"train.schedule.type", "\"iwae\"", nullptr},
    {"train.schedule.type", "\"step\"", nullptr, "schedule.steps", "100"},
    {"train.schedule.type", "\"step\"", "without `train.schedule.steps`"},
    {"train.schedule.type", "\"cosin\"", "did you mean \"cosine\"?"},
    {"train.schedule.warmup", "100", nullptr},
    {"train.schedule.warmup", "-1", range},
    {"train.schedule.steps", "100", nullptr, "schedule.type", "\"step\""},
    {"train.schedule.steps", "100", nullptr, "schedule.type", "\"cosine\""},
    {"train.schedule.steps", "-1", range, "schedule.type", "\"cosine\""},
    {"train.schedule.steps", "100", "means nothing to train.schedule.type = \"constant\""},
    {"train.schedule.factor", "0.5", nullptr, "schedule", "{ type = \"step\", steps = 9 }"},
    {"train.schedule.factor", "1.5", range, "schedule", "{ type = \"step\", steps = 9 }"},
    {"train.schedule.factor", "0.5", "means nothing to", "schedule.type", "\"cosine\""},
    {"train.schedule.floor", "1e-5", nullptr, "schedule.type", "\"cosine\""},
    {"train.schedule.floor", "-1e-5", range, "schedule.type", "\"cosine\""},
    {"train.schedule.type", "\"plateau\"", nullptr},
    {"train.schedule.factor", "0.5", nullptr, "schedule.type", "\"plateau\""},
    {"train.schedule.factor", "1.0", "on a plateau", "schedule.type", "\"plateau\""},
    {"train.schedule.factor", "0.0", "on a plateau", "schedule.type", "\"plateau\""},
    {"train.schedule.floor", "1e-5", nullptr, "schedule.type", "\"plateau\""},
    {"train.schedule.patience", "3", nullptr, "schedule.type", "\"plateau\""},
    {"train.schedule.patience", "-1", range, "schedule.type", "\"plateau\""},
    {"train.schedule.patience", "3", "means nothing to", "schedule.type", "\"cosine\""},
    {"train.schedule.threshold", "1e-3", nullptr, "schedule.type", "\"plateau\""},
    {"train.schedule.threshold", "2.0", range, "schedule.type", "\"plateau\""},
    {"train.schedule.cooldown", "2", nullptr, "schedule.type", "\"plateau\""},
    {"train.schedule.cooldown", "-2", range, "schedule.type", "\"plateau\""},
    {"train.l1", "1e-4", nullptr},
    {"train.l1", "-1e-4", range},
    {"train.l2", "1e-4", nullptr},
    {"train.l2", "nan", range},
    {"train.clip_norm", "0", nullptr},
    {"train.clip_norm", "1.0", nullptr},
    {"train.clip_norm", "-1.0", range},
    {"train.ema", "0", nullptr},
    {"train.ema", "0.999", nullptr},
    {"train.ema", "1.0", range},
    {"train.ema", "-0.1", range},
    {"train.freeze", "[]", nullptr},
    {"train.freeze", "[\"encoder.0\", \"decoder.*\"]", nullptr},
    {"train.freeze", "[3]", "is an array"},
    {"train.freeze", "\"encoder.0\"", "give a list of names"},
    {"train.freeze", "[\"\"]", "holds \"\", which is not valid"},
    {"train.early_stopping.patience", "0", nullptr},
    {"train.early_stopping.patience", "3", nullptr},
    {"train.early_stopping.patience", "-3", range},
    {"train.early_stopping.metric", "\"neg_elbo\"", nullptr},
    {"train.early_stopping.metric", "\"loss\"", nullptr},
    {"train.early_stopping.metric", "\"reconstruction\"", nullptr},
    {"train.early_stopping.metric", "\"kl\"", nullptr},
    {"train.early_stopping.metric", "\"neg_elb\"", "did you mean \"neg_elbo\"?"},
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

// The row with what stands beside it: a table of its own stands before, so that the row completes
// it.
std::string row_text(const Row& row) {
  std::string text = in_section(row.path, row.value);
  if (row.beside == nullptr) return text;
  if (row.beside_value[0] != '{') return text + row.beside + " = " + row.beside_value + "\n";
  // An inline table of TOML is closed: its keys one by one.
  const std::string inner(row.beside_value + 1, std::string(row.beside_value).size() - 2);
  std::stringstream entries(inner);
  for (std::string entry; std::getline(entries, entry, ',');)
    text += row.beside + ("." + entry.substr(entry.find_first_not_of(' '))) + "\n";
  return text;
}

Config row_from_set(const Row& row) {
  ConfigSources sources;
  if (row.beside != nullptr)
    sources.overrides = {{with_section(row.path, row.beside), row.beside_value, "--set beside"}};
  sources.overrides.push_back({row.path, row.value, std::string("--set ") + row.path});
  return load_config(sources);
}

TEST(Config, EveryRowFromAFile) {
  for (const Row& row : rows) {
    if (is_special(row)) continue;
    SCOPED_TRACE(std::string(row.path) + " = " + row.value);
    const std::string text = "schema = 1\n" + row_text(row);
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
    // A table has no variable.
    const bool alone = row.beside == nullptr || row.beside_value[0] != '{';
    std::map<std::string, std::string> variables_of = {{variable, row.value}};
    if (row.beside != nullptr && alone)
      variables_of[variables.at(with_section(row.path, row.beside))] = row.beside_value;
    // A number given to a text key by flag is a word like any other.
    const bool word =
        row.refused != nullptr && std::string(row.refused).starts_with("is an ") &&
        std::string("name data.path data.scale data.weights").find(row.path) != std::string::npos;
    if (row.refused == nullptr) {
      const Config expected = with_absolute_data(parse_config(row_text(row), "config.toml"));
      EXPECT_EQ(row_from_set(row), expected);
      if (alone) {
        EXPECT_EQ(from_environment(variables_of), expected);
      }
    } else if (!word) {
      std::string message = refusal([&] { (void)row_from_set(row); });
      expect_contains(message, row.refused);
      expect_contains(message, std::string("(--set ") + row.path + ")");
      if (!alone) continue;
      message = refusal([&] { (void)from_environment(variables_of); });
      expect_contains(message, row.refused);
      expect_contains(message, "(environment " + variable + ")");
    }
  }
}

TEST(Config, M2WantsADecoderThatIsToldLabels) {
  const auto text = [](const std::string& model, const std::string& more = {}) {
    return "[data]\nlabelled = 100\n[model]\n" + model + "[objective]\ntype = \"m2\"\n" + more;
  };
  const std::string told = "condition = { on = \"label\" }\n";
  const Config config = parse_config(text(told + "classifier.layers = [{ out = 5 }]\n"), "c.toml");
  EXPECT_EQ(config.objective.alpha, 0.1);
  EXPECT_EQ(config.objective.labelled_batch, 100);
  EXPECT_EQ(config.data.labelled, 100);
  EXPECT_EQ(config.model.classifier.on, "label");
  ASSERT_EQ(config.model.classifier.layers.size(), 1U);
  EXPECT_EQ(parse_config(to_toml(config), "again"), config);
  EXPECT_EQ(parse_config(text(told, "alpha = 0.5\n"), "c.toml").objective.alpha, 0.5);

  const std::array<std::pair<std::string, const char*>, 8> refused = {{
      {text(""), "of a decoder that is told no label"},
      {text("condition = { on = \"label\", decoder = \"none\" }\n"),
       "of a decoder that is told no label"},
      {text(told + "classifier.on = \"none\"\n"), "with `model.classifier.on` = \"none\""},
      {text(told + "latent.prior = \"vamp\"\n"), "with `model.latent.prior` = \"vamp\""},
      {text(told + "latent.prior = \"mixture\"\n"), "with `model.latent.prior` = \"mixture\""},
      {text("condition = { on = \"label\", classes = 7 }\n"), "`data.labelled` = 100 of 7 classes"},
      {text(told + "encoder.layers = [{ type = \"residual\", layers = [{ type = \"batch_norm\" }] "
                   "}]\n"),
       "with batch_norm"},
      {text(told, "warmup = { type = \"linear\", steps = 5 }\n"), "which has no beta"},
  }};
  for (const auto& [toml, message] : refused)
    expect_contains(refusal([&] { (void)parse_config(toml, "c.toml"); }), message);
}

TEST(Config, LevelsAreOfBytesInTheUnitInterval) {
  const std::array<std::pair<const char*, const char*>, 9> cases = {{
      {"model.likelihood.type = \"categorical\"\ndata.scale = \"standardise\"", "gives no classes"},
      {"model.likelihood.type = \"categorical\"\ndata.binarise = \"dynamic\"",
       "`data.binarise` with the categorical likelihood"},
      {"model.likelihood.type = \"categorical\"\ndata.augment.noise = 0.1",
       "whose targets are no reals"},
      {"model.likelihood.type = \"categorical\"\ndata.dequantise = true", "which is no density"},
      {"model.likelihood.type = \"discretised_logistic\"\ndata.dequantise = true",
       "which is no density"},
      {"model.likelihood.type = \"poisson\"\ndata.dequantise = true", "which is no density"},
      {"model.likelihood.type = \"gaussian\"\ndata.dequantise = true\ndata.binarise = \"static\"",
       "beside `data.binarise`"},
      {"model.likelihood.type = \"gaussian\"\ndata.dequantise = true\ndata.scale = \"standardise\"",
       "use `data.scale` = \"unit\""},
      {"model.likelihood.type = \"gaussian\"\ndata.dequantise = true\ndata.augment.noise = 0.1",
       "beside `data.augment.noise`"},
  }};
  for (const auto& [text, part] : cases)
    expect_contains(refusal([&] { (void)parse_config(text, "c.toml"); }), part);
  for (const char* type : {"gaussian", "laplace", "continuous_bernoulli"}) {
    const Config config = parse_config(
        std::string("data.dequantise = true\nmodel.likelihood.type = \"") + type + "\"", "c.toml");
    EXPECT_TRUE(config.data.dequantise);
    EXPECT_EQ(parse_config(to_toml(config), "again"), config);
  }
  const Config classes =
      parse_config("model.likelihood = { type = \"categorical\", classes = 16 }", "c.toml");
  EXPECT_EQ(classes.model.likelihood.classes, 16);
  EXPECT_EQ(classes.data.scale, "unit");
  EXPECT_EQ(parse_config(to_toml(classes), "again"), classes);
}

// What each message says to do is not refused by the other: reals under the default model.
TEST(Config, TheAdviceOnScalesEnds) {
  for (const char* scale : {"none", "standardise"}) {
    const std::string message = refusal([&] { (void)from_set("data.scale", scale); });
    expect_contains(message, "use `model.likelihood.type` = \"gaussian\", which takes any reals");
    ConfigSources sources;
    sources.overrides = {{"data.scale", scale, "a"}, {"model.likelihood.type", "gaussian", "b"}};
    EXPECT_EQ(load_config(sources).data.scale, scale);
  }
}

// Sources of data are no paths, and stay as they are.
TEST(Config, NamedSourcesStayAsWritten) {
  const TempDir dir;
  for (const char* source : {"fashion-mnist", "synthetic:shapes?n=5&seed=2"}) {
    const fs::path file =
        dir.write("deep/config.toml", std::string("[data]\npath = \"") + source + "\"\n");
    ConfigSources sources;
    sources.file = file;
    EXPECT_EQ(load_config(sources).data.path, source);
    EXPECT_EQ(from_set("data.path", source).data.path, source);
  }
  EXPECT_EQ(from_set("data.path", "./fashion-mnist").data.path,
            (fs::current_path() / "fashion-mnist").string());
}

// Where nothing says how counts are scaled, they are not.
TEST(Config, CountsAreAsTheyAre) {
  for (const char* type : {"poisson", "negative_binomial", "multinomial"}) {
    const std::string model = std::string("model.likelihood.type = \"") + type + "\"\n";
    EXPECT_EQ(parse_config(model, "config.toml").data.scale, "none");
    const std::string message =
        refusal([&] { (void)parse_config(model + "data.scale = \"unit\"\n", "config.toml"); });
    expect_contains(message, "gives no counts");
  }
  EXPECT_EQ(parse_config("model.likelihood.type = \"laplace\"", "config.toml").data.scale, "unit");
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
augment = { flip = 0.0, shift = 0, crop = 0, noise = 0.0 }
weights = "none"
weighting = "draws"
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
  EXPECT_EQ(config, defaults());
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
  // A section that is none: the nearest of all keys, not the first of that name.
  for (const auto& [key, meant] : {std::pair{"objektive.type", "objective.type"},
                                   {"objectiv.warmup.steps", "objective.warmup.steps"},
                                   {"modell.likelihood.type", "model.likelihood.type"},
                                   {"trian.lr", "train.lr"},
                                   {"train.learning_rate", "train.lr"},
                                   {"learning_rate", "train.lr"}})
    EXPECT_EQ(refusal([&] { (void)from_set(key, "3"); }), std::string("unknown key `") + key +
                                                              "` (--set " + key +
                                                              "): did you mean `" + meant + "`?");
  expect_contains(refusal([&] { (void)parse_config("batch_size = 3", "f"); }),
                  "did you mean `train.batch_size`?");
  expect_contains(refusal([&] { (void)parse_config("zzzzzz = 3", "f"); }), "`cuvae init`");
  expect_contains(refusal([&] { (void)parse_config("model.latent.sise = 3", "f"); }),
                  "did you mean `model.latent.size`?");
  expect_contains(refusal([&] { (void)parse_config("train = 3", "f"); }), "`train` is an integer");
  expect_contains(refusal([&] { (void)parse_config("train.lr.x = 3", "f"); }),
                  "`train.lr` is a table");
}

TEST(Config, ATableOfATypeTakesThatTypesKeysAlone) {
  const std::pair<const char*, const char*> tables[] = {
      {"[objective]\nwarmup = { type = \"linear\", steps = 9, rise = 0.3 }",
       "`objective.warmup.rise` means nothing to objective.warmup.type = \"linear\" (f:2): remove "
       "it, "
       "or use \"cyclical\""},
      {"[train]\nschedule = { type = \"step\", steps = 9, floor = 1e-5 }",
       "`train.schedule.floor` means nothing to train.schedule.type = \"step\" (f:2): remove it, "
       "or "
       "use \"cosine\" or \"plateau\""},
      {"[train]\noptimizer = { type = \"adam\", momentum = 0.9 }",
       "`train.optimizer.momentum` means nothing to train.optimizer.type = \"adam\" (f:2): remove "
       "it, "
       "or use \"sgd\" or \"rmsprop\""},
  };
  for (const auto& [text, message] : tables)
    EXPECT_EQ(refusal([&] { (void)parse_config(text, "f"); }), message);
}

TEST(Config, DefaultsOfOptimisersFollowTheirType) {
  const auto optimizer = [](const std::string& table) {
    return parse_config("[train]\noptimizer = " + table, "f").train.optimizer;
  };
  EXPECT_EQ(optimizer("{ type = \"rmsprop\" }").rho, 0.99);
  EXPECT_EQ(optimizer("{ type = \"rmsprop\" }").eps, 1e-8);
  EXPECT_EQ(optimizer("{ type = \"rmsprop\", convention = \"keras\" }").rho, 0.9);
  EXPECT_EQ(optimizer("{ type = \"rmsprop\", convention = \"keras\" }").eps, 1e-7);
  EXPECT_EQ(optimizer("{ type = \"rmsprop\", convention = \"keras\", rho = 0.8 }").rho, 0.8);
  EXPECT_EQ(optimizer("{ type = \"adagrad\" }").eps, 1e-10);
  EXPECT_EQ(optimizer("{ type = \"adamw\" }").weight_decay, 0.01);
  EXPECT_EQ(optimizer("{ type = \"adamw\", weight_decay = 0.0 }").weight_decay, 0.0);
  EXPECT_EQ(optimizer("{ type = \"iwae_adam\" }").betas, (std::array<double, 2>{0.99, 0.999}));
  EXPECT_EQ(optimizer("{ type = \"iwae_adam\" }").eps, 1e-4);
  EXPECT_EQ(optimizer("{ type = \"iwae_adam\" }").v0, 1.0);
  EXPECT_EQ(optimizer("{ type = \"iwae_adam\", v0 = 0.0 }").v0, 0.0);
}

TEST(Config, ATableOfAnotherTypeStartsAnew) {
  const TempDir dir;
  ConfigSources sources;
  sources.file = dir.write("c.toml",
                           "[train]\noptimizer = { type = \"sgd\", momentum = 0.9 }\n"
                           "schedule = { type = \"step\", steps = 7, factor = 0.5 }\n");
  EXPECT_EQ(load_config(sources).train.optimizer.momentum, 0.9);
  sources.overrides = {{"train.optimizer.type", "adam", "--set"},
                       {"train.schedule.type", "cosine", "--set"}};
  const Config config = load_config(sources);
  EXPECT_EQ(config.train.optimizer, defaults().train.optimizer);
  EXPECT_EQ(config.train.schedule, (ScheduleConfig{.type = "cosine"}));
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
                           "[model]\nlatent = { prior = \"vamp\", size = 3 }\n");
  expect_contains(refusal([&] { (void)load_config(sources); }), "c.toml:");
  sources.overrides = {{"train.lr", "0.1", "--lr"}, {"model.latent.prior", "normal", "--set"}};
  EXPECT_EQ(load_config(sources).model.latent.size, 3);
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
  EXPECT_EQ(load_config(sources), with_absolute_data(defaults()));
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

TEST(Config, ValidationIsAFractionRowsOrAPath) {
  const auto held = [](const std::string& value) {
    return from_set("data.validation", value).data.validation;
  };
  EXPECT_EQ(held("0.25"), (ValidationConfig{.fraction = 0.25}));
  EXPECT_EQ(held("400"), (ValidationConfig{.rows = 400}));
  EXPECT_EQ(held("0"), ValidationConfig{});
  EXPECT_EQ(held("other"), (ValidationConfig{.path = (fs::current_path() / "other").string()}));
  EXPECT_EQ(held("\"0.25\"").path, (fs::current_path() / "0.25").string());
  const TempDir dir;
  ConfigSources sources;
  sources.file = dir.write("a/c.toml", "[data]\nvalidation = \"../other\"\n");
  EXPECT_EQ(load_config(sources).data.validation.path, (dir.path() / "other").string());
  // The last word alone counts.
  sources.overrides = {{"data.validation", "0.5", "--set"}};
  EXPECT_EQ(load_config(sources).data.validation, (ValidationConfig{.fraction = 0.5}));
  EXPECT_EQ(from_set("train.freeze", "[\"encoder.0\", \"decoder.*\"]").train.freeze,
            (std::vector<std::string>{"encoder.0", "decoder.*"}));
}

TEST(Config, ArraysReplaceWhole) {
  const Config config = parse_config(
      "preset = \"mnist-mlp\"\n[model]\nencoder = { layers = [{ out = 3 }, { out = 2 }] }", "f");
  EXPECT_EQ(config.model.encoder.layers, (std::vector<LayerConfig>{{.out = 3}, {.out = 2}}));
  EXPECT_EQ(config.model.decoder.layers, defaults().model.decoder.layers);
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
  EXPECT_EQ(preset_config("mnist-mlp"), defaults());
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
      {.type = "reshape", .shape = {3, 1, 2}},
      {.type = "conv2d", .out = 4, .kernel = {1, 2}, .padding = {2, 0}, .bias = false},
      {.type = "batch_norm", .momentum = 0.25, .eps = 1e-3, .activation = "relu"},
      {.type = "residual", .layers = {{.type = "group_norm", .groups = 2}, {.type = "dropout"}}},
      {.type = "upsample", .factor = {3, 1}},
      {.type = "max_pool2d", .kernel = {2, 2}, .stride = {1, 1}},
      {.out = 1, .activation = "none"},
  };
  config.model.decoder.layers.clear();
  config.model.decoder.out = {
      .type = "conv_transpose2d", .kernel = {3, 3}, .stride = {2, 2}, .output_padding = {1, 0}};
  config.objective.warmup = {.type = "cyclical", .steps = 9, .cycles = 2, .rise = 0.3};
  config.train.schedule = {.type = "cosine", .warmup = 5, .steps = 70, .floor = 1e-6};
  config.train.l1 = 1e-5;
  config.train.clip_norm = 0.5;
  config.train.ema = 0.9995;
  config.train.freeze = {"encoder.*", "a \"name\""};
  config.train.early_stopping = {.patience = 7, .metric = "kl"};
  config.data.validation.path = "b \"quoted\"";
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
  EXPECT_EQ(parse_config(to_toml(defaults()), "t"), defaults());
  for (const ValidationConfig& held : {ValidationConfig{.fraction = 1.0 / 3}, {.rows = 1}, {}}) {
    config.data.validation = held;
    EXPECT_EQ(parse_config(to_toml(config), "t"), config);
  }
  // A word in a number's place.
  config.model.likelihood.learned = "pixel";
  expect_contains(refusal([&] { validate(config); }), "stands beside \"pixel\"");
  config.model.likelihood.sigma = defaults().model.likelihood.sigma;
  expect_contains(to_toml(config), "likelihood.sigma = \"pixel\"\n");
  EXPECT_EQ(parse_config(to_toml(config), "t"), config);
}

// Numbers with their range, those that a word may stand for with the words.
TEST(Config, CommentsTellTheRanges) {
  const std::string text = to_toml(defaults(), true);
  for (const char* part : {"dimensions of the latent space (1 to 1048576)\n",
                           "probability of a mirror image (0 to 1)\n",
                           "(1e-06 to 1000000 | global | pixel)\n", "(at least 0)\n"})
    expect_contains(text, part);
}

TEST(Config, CommentsNameEveryKey) {
  const std::string text = to_toml(defaults(), true);
  for (const ConfigKey& key : config_keys()) {
    expect_contains(text, key.doc);
    expect_contains(text, key.path.substr(key.path.find('.') + 1) + " = " + key.default_value);
  }
}

TEST(Config, CommentsNameEveryLayer) {
  const std::string text = to_toml(defaults(), true);
  for (const LayerDoc& doc : layer_docs()) expect_contains(text, "\n# " + doc.name);
  expect_contains(text, "\n# max_pool2d (kernel, stride, padding): the largest of each window");
}

TEST(Config, ConfigsBuiltInCodeAreChecked) {
  Config config;
  validate(config);
  config.train.batch_size = 0;
  expect_contains(refusal([&] { validate(config); }), "`train.batch_size` = 0 is out of range");
  config = defaults();
  config.train.lr = std::numeric_limits<double>::quiet_NaN();
  expect_contains(refusal([&] { validate(config); }), "`train.lr` = nan is out of range");
  config = defaults();
  config.model.decoder.layers = {{.out = 0}};
  expect_contains(refusal([&] { validate(config); }), "`model.decoder.layers[0].out` = 0");
  config = defaults();
  config.model.encoder.layers.assign(257, {.out = 1});
  expect_contains(refusal([&] { validate(config); }), "257 layers");
  config = defaults();
  config.data.path = "\xff\xfe";
  expect_contains(refusal([&] { validate(config); }), "`data.path`");
  config = defaults();
  for (const char* scale : {"standardise", "none"}) {
    config = defaults();
    config.data.scale = scale;
    expect_contains(refusal([&] { validate(config); }), "bernoulli");
    config.model.likelihood.type = "gaussian";
    validate(config);
  }
}

}  // namespace
}  // namespace cuvae
