#include "config/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "config/layers.h"
#include "cuvae/error.h"
#include "likelihoods/likelihoods.h"

namespace cuvae::config {
namespace {

// Beyond these a size is a slip of the keyboard; whether the memory suffices is the plan's matter.
constexpr std::int64_t max_width = std::int64_t{1} << 20;
constexpr std::int64_t max_batch = std::int64_t{1} << 24;
constexpr std::int64_t max_epochs = 1'000'000'000;
#define CUVAE_FIELD(member) [](Config& c) -> Field { return &c.member; }

Key boolean(std::string_view path, Field (*field)(Config&), std::string_view doc) {
  return {.path = path, .kind = Kind::boolean, .field = field, .doc = doc};
}

Key integer(std::string_view path, Field (*field)(Config&), std::int64_t low, std::int64_t high,
            std::string_view doc) {
  return {.path = path,
          .kind = Kind::integer,
          .field = field,
          .doc = doc,
          .int_low = low,
          .int_high = high};
}

Key number(std::string_view path, Field (*field)(Config&), double low, double high,
           std::string_view doc) {
  return {.path = path, .kind = Kind::number, .field = field, .doc = doc, .low = low, .high = high};
}

Key pair(std::string_view path, Field (*field)(Config&), double low, double high,
         std::string_view doc) {
  return {.path = path, .kind = Kind::pair, .field = field, .doc = doc, .low = low, .high = high};
}

Key choice(std::string_view path, Field (*field)(Config&), std::vector<std::string_view> choices,
           std::string_view doc) {
  return {.path = path,
          .kind = Kind::choice,
          .field = field,
          .doc = doc,
          .choices = std::move(choices)};
}

Key validation(std::string_view path, Field (*field)(Config&), double high, std::string_view doc) {
  return {.path = path,
          .kind = Kind::validation,
          .field = field,
          .doc = doc,
          .int_high = std::int64_t{1} << 40,
          .high = high};
}

Key simple(Kind kind, std::string_view path, Field (*field)(Config&), std::string_view doc) {
  return {.path = path, .kind = kind, .field = field, .doc = doc};
}

Key of(std::vector<std::string_view> types, Key key) {
  key.types = std::move(types);
  return key;
}

Key of(std::string_view choice, std::vector<std::string_view> types, Key key) {
  key.types = std::move(types);
  key.types_of = choice;
  return key;
}

Key worded(Key key, std::vector<std::string_view> words, std::string* (*word)(Config&)) {
  key.choices = std::move(words);
  key.word = word;
  return key;
}

// Those that a model takes: of one element each, of its classes, or of all counts of a row.
std::vector<std::string_view> likelihoods() {
  std::vector<std::string_view> names = {"bernoulli"};
  for (const LikelihoodInfo* info : all_likelihoods()) names.push_back(info->name);
  return names;
}

std::vector<Key> make_keys() {
  constexpr auto any_seed = std::numeric_limits<std::int64_t>::max();
  return {
      simple(Kind::text, "name", CUVAE_FIELD(name), "names the runs: runs/<name>-<n>"),

      simple(Kind::text, "data.path", CUVAE_FIELD(data.path),
             "folder or file, IDX or .npy; a relative path counts from this file. fashion-mnist "
             "and synthetic:NAME are sources (`cuvae presets`)"),
      choice("data.scale", CUVAE_FIELD(data.scale), {"unit", "none", "standardise"},
             "unit: values in [0, 1], bytes times 1/255; standardise: mean 0, deviation 1; of "
             "counts none is the default"),
      choice("data.binarise", CUVAE_FIELD(data.binarise),
             {"none", "threshold", "static", "dynamic"}, "how grey values become 0 or 1"),
      boolean("data.dequantise", CUVAE_FIELD(data.dequantise),
              "for densities of pixels: bytes become (byte + u) / 256, u uniform in [0, 1), drawn "
              "at every read; then bits/dim are told"),
      validation("data.validation", CUVAE_FIELD(data.validation), 0.9,
                 "a fraction of the training split, by a shuffle of the seed; a whole number: the "
                 "last rows of it; or the path of other data"),
      integer("data.folds", CUVAE_FIELD(data.folds), 0, 1'000'000,
              "cross-validation in so many parts, in place of `validation` (`train --folds` does "
              "all); two at least, or 0 = none"),
      integer("data.fold", CUVAE_FIELD(data.fold), 0, 1'000'000,
              "which of them is kept for validation"),
      integer("data.labelled", CUVAE_FIELD(data.labelled), 0, std::int64_t{1} << 40,
              "m2: training rows that keep their label, as many of each class, drawn by "
              "train.seed; 0 = all"),
      simple(Kind::transforms, "data.encoder_transform", CUVAE_FIELD(data.encoder_transform),
             "changes of the encoder's input, never of the target: \"log1p\", { noise = 0.3 } "
             "(in training)"),
      number("data.augment.flip", CUVAE_FIELD(data.augment.flip), 0, 1,
             "of training images, encoder's input and target alike: probability of a mirror image"),
      integer("data.augment.shift", CUVAE_FIELD(data.augment.shift), 0, max_width,
              "moved by up to so many pixels each way; zeros come in"),
      integer("data.augment.crop", CUVAE_FIELD(data.augment.crop), 0, max_width,
              "padded by so many pixels and cropped back: another name of shift"),
      number("data.augment.noise", CUVAE_FIELD(data.augment.noise), 0, 1e6,
             "standard deviation of noise; with `scale` = \"unit\" then held to [0, 1]"),
      simple(Kind::text, "data.weights", CUVAE_FIELD(data.weights),
             "of training rows: none, balanced (by labels), or a .npy file with one for each row"),
      choice(
          "data.weighting", CUVAE_FIELD(data.weighting), {"draws", "loss"},
          "draws: rows are drawn with replacement by their weights; loss: times each row's loss"),

      integer("model.latent.size", CUVAE_FIELD(model.latent.size), 1, max_width,
              "dimensions of the latent space"),
      choice("model.latent.scale", CUVAE_FIELD(model.latent.scale), {"logvar", "log_sigma"},
             "what the encoder's second head gives"),
      choice("model.latent.prior", CUVAE_FIELD(model.latent.prior),
             {"normal", "mixture", "vamp", "none"}, "p(z); none: of an autoencoder"),
      of("model.latent.prior", {"mixture", "vamp"},
         integer("model.latent.components", CUVAE_FIELD(model.latent.components), 1, max_width,
                 "of p(z): Gaussians, or pseudo-inputs, which begin as rows of the data")),
      choice("model.likelihood.type", CUVAE_FIELD(model.likelihood.type), likelihoods(),
             "p(x|z); its parameters are heads of the decoder"),
      of({"gaussian", "laplace", "discretised_logistic"},
         worded(number("model.likelihood.sigma", CUVAE_FIELD(model.likelihood.sigma), 1e-6, 1e6,
                       "the scale: fixed, or learned, global or of each pixel"),
                {"global", "pixel"}, [](Config& c) { return &c.model.likelihood.learned; })),
      of({"poisson", "negative_binomial", "zero_inflated_negative_binomial"},
         boolean("model.likelihood.library", CUVAE_FIELD(model.likelihood.library),
                 "the mean is a row's total count (its library size) times e^decoder")),
      of({"categorical"},
         integer("model.likelihood.classes", CUVAE_FIELD(model.likelihood.classes), 2, 256,
                 "of each value: a byte's is floor(byte * classes / 256), of 256 the byte itself; "
                 "with `data.scale` = \"none\" values are class numbers from 0 on")),
      choice("model.init", CUVAE_FIELD(model.init), {"torch", "glorot"},
             "torch: U(+-1/sqrt(fan_in)); glorot: U(+-sqrt(6/(fan_in + fan_out)))"),
      simple(Kind::layers, "model.encoder.layers", CUVAE_FIELD(model.encoder.layers),
             "from the data to the heads `mean` and `logvar`; activation: none, relu, leaky_relu "
             "(slope), elu (alpha), gelu, silu, tanh, sigmoid, softplus"),
      simple(Kind::layers, "model.decoder.layers", CUVAE_FIELD(model.decoder.layers),
             "from the latents to the last layer `out`"),
      simple(Kind::out_layer, "model.decoder.out", CUVAE_FIELD(model.decoder.out),
             "the layer that gives the likelihood's parameters: linear, conv2d, conv_transpose2d"),
      choice("model.decoder.out_bias", CUVAE_FIELD(model.decoder.out_bias), {"init", "data_mean"},
             "its first biases: by `init`, or (bernoulli) the logit of the training split's mean"),
      choice("model.condition.on", CUVAE_FIELD(model.condition.on), {"none", "label"},
             "what both sides are told: the row's label, one-hot"),
      integer("model.condition.classes", CUVAE_FIELD(model.condition.classes), 2, 256,
              "labels are 0 to classes - 1"),
      choice("model.condition.encoder", CUVAE_FIELD(model.condition.encoder), {"concat", "none"},
             "concat: beside the input, as columns or, before convolutions, as planes"),
      choice("model.condition.decoder", CUVAE_FIELD(model.condition.decoder), {"concat", "none"},
             "concat: beside the latents"),
      choice("model.classifier.on", CUVAE_FIELD(model.classifier.on), {"none", "label"},
             "q(y|x), which guesses the label: of m2"),
      of("model.classifier.on", {"label"},
         simple(Kind::layers, "model.classifier.layers", CUVAE_FIELD(model.classifier.layers),
                "from the data to its last layer, which gives a logit for each class")),

      choice("objective.type", CUVAE_FIELD(objective.type),
             {"elbo", "iwae", "dreg", "beta_tc", "capacity", "mmd", "autoencoder", "m2"},
             "what is trained"),
      of({"elbo", "iwae", "dreg"}, integer("objective.samples", CUVAE_FIELD(objective.samples), 1,
                                           65536, "latent samples per row")),
      of({"elbo"}, choice("objective.kl", CUVAE_FIELD(objective.kl), {"analytic", "mc"},
                          "how the KL term is computed: in closed form, or from the samples")),
      of({"elbo", "beta_tc", "mmd"},
         number("objective.beta", CUVAE_FIELD(objective.beta), 0, 1e6,
                "factor of the KL term; beta_tc: of the total correlation")),
      of({"elbo"}, number("objective.free_bits", CUVAE_FIELD(objective.free_bits), 0, 1e6,
                          "nats per latent that cost nothing")),
      of({"beta_tc", "m2"},
         number("objective.alpha", CUVAE_FIELD(objective.alpha), 0, 1e6,
                "beta_tc: factor of the mutual information; m2: of the classification")),
      of({"m2"}, integer("objective.labelled_batch", CUVAE_FIELD(objective.labelled_batch), 1,
                         max_batch, "labelled rows per step, beside train.batch_size")),
      of({"beta_tc", "capacity"},
         number("objective.gamma", CUVAE_FIELD(objective.gamma), 0, 1e9,
                "beta_tc: factor of the dimensions' KL; capacity: of |KL - capacity|")),
      of({"beta_tc"},
         choice("objective.estimator", CUVAE_FIELD(objective.estimator), {"mws", "mss"},
                "q(z) on a batch: minibatch weighted or stratified sampling")),
      of({"beta_tc"},
         integer("objective.dataset", CUVAE_FIELD(objective.dataset), 0, std::int64_t{1} << 40,
                 "N of its estimates, in training and evaluation alike; 0: the rows of training")),
      of({"capacity"}, number("objective.capacity", CUVAE_FIELD(objective.capacity), 0, 1e6,
                              "nats of the KL term, at the end of its rise from 0")),
      of({"capacity"}, integer("objective.capacity_steps", CUVAE_FIELD(objective.capacity_steps), 0,
                               max_epochs, "steps of that rise; 0: none")),
      of({"mmd"}, number("objective.mmd", CUVAE_FIELD(objective.mmd), 0, 1e9,
                         "factor of the maximum mean discrepancy between q(z) and p(z)")),
      of({"mmd"}, choice("objective.kernel", CUVAE_FIELD(objective.kernel), {"imq", "rbf"},
                         "imq: C / (C + r^2); rbf: exp(-r^2 / 2 h^2)")),
      of({"mmd"}, number("objective.bandwidth", CUVAE_FIELD(objective.bandwidth), 0, 1e6,
                         "C or h; 0: C = 2 latents, h^2 = latents / 2")),
      of({"elbo", "capacity", "beta_tc", "mmd", "autoencoder"},
         choice("objective.pixel_reduction", CUVAE_FIELD(objective.pixel_reduction),
                {"sum", "mean", "mse"},
                "of the trained reconstruction; mean and mse change the effective beta (`cuvae "
                "info` shows it), reports stay sums")),
      of({"elbo", "mmd"},
         choice("objective.latent_reduction", CUVAE_FIELD(objective.latent_reduction),
                {"sum", "mean"}, "of the trained KL term, likewise")),
      choice("objective.warmup.type", CUVAE_FIELD(objective.warmup.type),
             {"none", "linear", "cyclical"}, "how beta rises from 0"),
      of({"linear", "cyclical"},
         integer("objective.warmup.steps", CUVAE_FIELD(objective.warmup.steps), 0, max_epochs,
                 "linear: of the rise; cyclical: of all cycles together")),
      of({"cyclical"}, integer("objective.warmup.cycles", CUVAE_FIELD(objective.warmup.cycles), 1,
                               1'000'000, "number of rises")),
      of({"cyclical"}, number("objective.warmup.rise", CUVAE_FIELD(objective.warmup.rise), 0, 1,
                              "the share of a cycle in which beta rises")),
      choice("objective.batch_reduction", CUVAE_FIELD(objective.batch_reduction), {"mean", "sum"},
             "of the gradient over the batch; reports are per sample"),

      integer("train.epochs", CUVAE_FIELD(train.epochs), 1, max_epochs,
              "in total, also after --resume"),
      integer("train.batch_size", CUVAE_FIELD(train.batch_size), 1, max_batch, "rows per step"),
      number("train.lr", CUVAE_FIELD(train.lr), 0, 1e30, "learning rate"),
      integer("train.seed", CUVAE_FIELD(train.seed), 0, any_seed,
              "of every random number of the run"),
      boolean("train.shuffle", CUVAE_FIELD(train.shuffle), "a new order every epoch"),
      boolean("train.drop_last", CUVAE_FIELD(train.drop_last),
              "leave out the last batch of an epoch where it is not full"),
      choice("train.optimizer.type", CUVAE_FIELD(train.optimizer.type),
             {"adam", "adamw", "iwae_adam", "sgd", "rmsprop", "adagrad", "adamax"},
             "as in PyTorch; iwae_adam: as in the IWAE paper's code"),
      of({"adam", "adamw", "iwae_adam", "adamax"},
         pair("train.optimizer.betas", CUVAE_FIELD(train.optimizer.betas), 0, 0.999999,
              "decay of the first and the second moment")),
      of({"adam", "adamw", "iwae_adam", "adamax", "rmsprop", "adagrad"},
         number("train.optimizer.eps", CUVAE_FIELD(train.optimizer.eps), 1e-30, 1,
                "added to the root of the second moment")),
      of({"adam", "adamw", "iwae_adam"},
         number("train.optimizer.v0", CUVAE_FIELD(train.optimizer.v0), 0, 1e30,
                "second moment before the first step")),
      number("train.optimizer.weight_decay", CUVAE_FIELD(train.optimizer.weight_decay), 0, 1e6,
             "times the weight, added to the gradient; adamw: the weight shrinks by lr times it"),
      of({"sgd", "rmsprop"},
         number("train.optimizer.momentum", CUVAE_FIELD(train.optimizer.momentum), 0, 0.999999,
                "share of the last step in the next")),
      of({"sgd"}, number("train.optimizer.dampening", CUVAE_FIELD(train.optimizer.dampening), 0, 1,
                         "what the gradient lacks in the momentum")),
      of({"sgd"}, boolean("train.optimizer.nesterov", CUVAE_FIELD(train.optimizer.nesterov),
                          "look ahead by the momentum")),
      of({"rmsprop"}, choice("train.optimizer.convention", CUVAE_FIELD(train.optimizer.convention),
                             {"torch", "keras"},
                             "torch: rho 0.99, eps 1e-8 added to the root; keras: 0.9, 1e-7 under "
                             "it")),
      of({"rmsprop"}, number("train.optimizer.rho", CUVAE_FIELD(train.optimizer.rho), 0, 0.999999,
                             "decay of the mean square (PyTorch's alpha)")),
      of({"rmsprop"}, boolean("train.optimizer.centered", CUVAE_FIELD(train.optimizer.centered),
                              "by the variance instead of the mean square")),
      of({"adagrad"}, number("train.optimizer.lr_decay", CUVAE_FIELD(train.optimizer.lr_decay), 0,
                             1e6, "lr / (1 + steps lr_decay)")),
      of({"adagrad"}, number("train.optimizer.initial_accumulator",
                             CUVAE_FIELD(train.optimizer.initial_accumulator), 0, 1e30,
                             "sum of squares before the first step")),
      choice("train.schedule.type", CUVAE_FIELD(train.schedule.type),
             {"constant", "step", "cosine", "iwae", "plateau"},
             "of the learning rate; iwae: 3^i epochs at 10^(-i/7) of it, i = 0 to 7; plateau: "
             "falls where validation does not improve"),
      integer("train.schedule.warmup", CUVAE_FIELD(train.schedule.warmup), 0, max_epochs,
              "steps of a linear rise before it"),
      of({"step", "cosine"},
         integer("train.schedule.steps", CUVAE_FIELD(train.schedule.steps), 0, max_epochs,
                 "step: between two drops; cosine: until the floor, 0: the whole training")),
      of({"step", "plateau"}, number("train.schedule.factor", CUVAE_FIELD(train.schedule.factor), 0,
                                     1, "what a drop leaves of the learning rate")),
      of({"cosine", "plateau"}, number("train.schedule.floor", CUVAE_FIELD(train.schedule.floor), 0,
                                       1e30, "the last learning rate; plateau: the least")),
      of({"plateau"}, integer("train.schedule.patience", CUVAE_FIELD(train.schedule.patience), 0,
                              max_epochs, "evaluations without improvement before a drop")),
      of({"plateau"}, number("train.schedule.threshold", CUVAE_FIELD(train.schedule.threshold), 0,
                             1, "an improvement is below best * (1 - threshold)")),
      of({"plateau"}, integer("train.schedule.cooldown", CUVAE_FIELD(train.schedule.cooldown), 0,
                              max_epochs, "evaluations after a drop that do not count")),
      number("train.l1", CUVAE_FIELD(train.l1), 0, 1e6,
             "l1 * sign(w) is added to the gradients; the loss that is shown is without it"),
      number("train.l2", CUVAE_FIELD(train.l2), 0, 1e6,
             "l2 * w is added to the gradients; the loss that is shown is without it"),
      number("train.clip_norm", CUVAE_FIELD(train.clip_norm), 0, 1e30,
             "limit of the gradient's norm; 0 = off"),
      number("train.ema", CUVAE_FIELD(train.ema), 0, 0.9999999,
             "decay of an average of the weights, which is evaluated and kept as the model; 0 = "
             "off"),
      simple(Kind::texts, "train.freeze", CUVAE_FIELD(train.freeze),
             "layers that stay as they are: [\"encoder.0\"], or what begins so: [\"encoder.*\"]"),
      integer("train.early_stopping.patience", CUVAE_FIELD(train.early_stopping.patience), 0,
              max_epochs, "evaluations without improvement before the end; 0 = off"),
      choice("train.early_stopping.metric", CUVAE_FIELD(train.early_stopping.metric),
             {"neg_elbo", "loss", "reconstruction", "kl"},
             "of the validation split: chooses the best weights; neg_elbo is at beta = 1; of iwae, "
             "dreg and autoencoder the standard is loss"),

      simple(Kind::text, "run.device", CUVAE_FIELD(run.device),
             "auto: the first usable GPU, else the CPU"),
      choice("run.precision", CUVAE_FIELD(run.precision), {"fp32", "tf32", "bf16"},
             "of the matrix products; tf32 and bf16 want a GPU"),
      choice("run.exec", CUVAE_FIELD(run.exec), {"auto", "eager", "graph", "persistent"},
             "how a step is launched; graph and persistent want a GPU"),
      boolean("run.autotune", CUVAE_FIELD(run.autotune),
              "time a library's algorithms for wide products on the GPU, and keep the fastest"),
      integer("run.threads", CUVAE_FIELD(run.threads), 0, 1024, "0 = all cores"),
  };
}

#undef CUVAE_FIELD

std::string listed(const std::vector<std::string_view>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += toml_string(words[i]);
  }
  return text;
}

bool contains(const std::vector<std::string_view>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// "CUVAE_TRAIN_" of "CUVAE_TRAIN_LR"; empty where the variable belongs to no section.
std::string_view section_of_variable(std::string_view variable) {
  for (const Key& key : keys()) {
    const auto dot = key.path.find('.');
    if (dot == std::string_view::npos) continue;
    const std::string beginning = environment_name(key.path.substr(0, dot + 1));
    if (variable.starts_with(beginning)) return variable.substr(0, beginning.size());
  }
  return {};
}

std::string_view last_part(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

// "lr" of "learning_rate".
std::string initials_of(std::string_view name) {
  std::string initials;
  for (std::size_t i = 0; i < name.size(); ++i)
    if (i == 0 || name[i - 1] == '_' || name[i - 1] == '-') initials += name[i];
  return initials;
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int more = lead < 0x80             ? 0
                     : (lead & 0xe0) == 0xc0 ? 1
                     : (lead & 0xf0) == 0xe0 ? 2
                     : (lead & 0xf8) == 0xf0 ? 3
                                             : -1;
    if (more < 0 || i + static_cast<std::size_t>(more) >= text.size()) return false;
    for (int k = 1; k <= more; ++k) {
      if ((static_cast<unsigned char>(text[i + static_cast<std::size_t>(k)]) & 0xc0) != 0x80) {
        return false;
      }
    }
    i += static_cast<std::size_t>(more) + 1;
  }
  return true;
}

bool digits_only(std::string_view text) {
  return !text.empty() && text.size() <= 4 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool text_is_allowed(std::string_view path, std::string_view text) {
  if (path == "name") {
    return !text.empty() && text.size() <= 100 && text[0] != '.' && text[0] != '-' &&
           std::all_of(text.begin(), text.end(), [](char c) {
             return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '_' || c == '-';
           });
  }
  if (path == "run.device") {
    return text == "auto" || text == "cpu" || text == "cuda" ||
           (text.starts_with("cuda:") && digits_only(text.substr(5)));
  }
  // data.path: must survive a TOML file and the system's calls.
  return !text.empty() && text.find('\0') == std::string_view::npos && is_utf8(text);
}

[[noreturn]] void refuse(std::string_view path, std::string_view value, std::string_view what,
                         std::string_view where, std::string_view use) {
  throw Error(Status::usage, fmt::format("`{}` = {} {}", path, value, what), where,
              fmt::format("use {}", use));
}

[[noreturn]] void out_of_range(std::string_view path, std::string_view value,
                               std::string_view where, std::string_view allowed) {
  throw Error(Status::usage, fmt::format("`{}` = {} is out of range", path, value), where,
              fmt::format("give {}", allowed));
}

void validate_choice(const Key& key, const std::string& value, const std::string& where) {
  if (!contains(key.choices, value)) {
    const std::string guess = closest(value, std::span<const std::string_view>(key.choices));
    throw Error(Status::usage, fmt::format("`{}` = {} is not known", key.path, toml_string(value)),
                where,
                guess.empty() ? fmt::format("use {}", allowed_text(key))
                              : fmt::format("did you mean {}?", toml_string(guess)));
  }
}

void validate_number(const Key& key, double value, const std::string& where) {
  if (!(value >= key.low && value <= key.high)) {
    out_of_range(key.path, number_as_toml(value), where, allowed_text(key));
  }
}

void validate_transforms(const Key& key, const std::vector<TransformConfig>& transforms,
                         const std::string& where) {
  for (std::size_t i = 0; i < transforms.size(); ++i) {
    const TransformConfig& transform = transforms[i];
    const std::string path = fmt::format("{}[{}]", key.path, i);
    if (transform.type != "log1p" && transform.type != "noise") {
      throw Error(Status::usage,
                  fmt::format("`{}` = {} is not known", path, toml_string(transform.type)), where,
                  fmt::format("give {}", allowed_text(key)));
    }
    if (transform.type == "noise" && !(transform.amount > 0 && transform.amount <= 1e6)) {
      out_of_range(path + ".noise", number_as_toml(transform.amount), where,
                   "a standard deviation above 0");
    }
  }
}

void validate_key(const Key& key, Config& config, const Places& places) {
  const std::string where = place_of(places, key.path);
  const Field field = field_of(key, config);
  if (!applies(key, config)) {
    const Config standard;
    if (value_as_toml(key, config) == value_as_toml(key, standard)) return;
    const std::string type(*std::get<std::string*>(field_of(*find_key(type_path(key)), config)));
    throw Error(
        Status::usage,
        fmt::format("`{}` means nothing to {} = {}", key.path, type_path(key), toml_string(type)),
        where.empty() ? place_of(places, type_path(key)) : where,
        fmt::format("remove it, or use {}", listed(key.types)));
  }
  switch (key.kind) {
    case Kind::boolean: break;
    case Kind::integer: {
      const std::int64_t value = *std::get<std::int64_t*>(field);
      if (value < key.int_low || value > key.int_high) {
        out_of_range(key.path, std::to_string(value), where, allowed_text(key));
      }
      break;
    }
    case Kind::number:
      if (key.word != nullptr && *key.word(config) != "none") {
        if (!contains(key.choices, *key.word(config))) {
          refuse(key.path, toml_string(*key.word(config)), "is not known", where,
                 allowed_text(key));
        }
        // The word takes the number's place, also in a file.
        Config standard;
        const double number = *std::get<double*>(field);
        if (number != *std::get<double*>(field_of(key, standard)))
          refuse(key.path, number_as_toml(number),
                 fmt::format("stands beside {}", toml_string(*key.word(config))), where,
                 "one of them");
        break;
      }
      validate_number(key, *std::get<double*>(field), where);
      break;
    case Kind::pair:
      for (const double value : *std::get<std::array<double, 2>*>(field)) {
        validate_number(key, value, where);
      }
      break;
    case Kind::text: {
      const std::string& value = *std::get<std::string*>(field);
      if (!text_is_allowed(key.path, value)) {
        throw Error(Status::usage,
                    fmt::format("`{}` = {} is not valid", key.path, toml_string(value)), where,
                    fmt::format("give {}", allowed_text(key)));
      }
      break;
    }
    case Kind::choice: validate_choice(key, *std::get<std::string*>(field), where); break;
    case Kind::layers:
      validate_layers(key.path, *std::get<std::vector<LayerConfig>*>(field), places);
      break;
    case Kind::transforms:
      validate_transforms(key, *std::get<std::vector<TransformConfig>*>(field), where);
      break;
    case Kind::out_layer:
      validate_out_layer(key.path, *std::get<LayerConfig*>(field), places);
      break;
    case Kind::validation: {
      const ValidationConfig& value = *std::get<ValidationConfig*>(field);
      const std::string text = value_as_toml(key, config);
      if (!(value.fraction >= 0 && value.fraction <= key.high) || value.rows < 0 ||
          value.rows > key.int_high)
        out_of_range(key.path, text, where, allowed_text(key));
      if (!value.path.empty() && !text_is_allowed(key.path, value.path))
        throw Error(Status::usage, fmt::format("`{}` = {} is not valid", key.path, text), where,
                    fmt::format("give {}", allowed_text(key)));
      break;
    }
    case Kind::texts:
      for (const std::string& text : *std::get<std::vector<std::string>*>(field)) {
        if (text_is_allowed(key.path, text)) continue;
        throw Error(Status::usage,
                    fmt::format("`{}` holds {}, which is not valid", key.path, toml_string(text)),
                    where, fmt::format("give {}", allowed_text(key)));
      }
      break;
  }
}

// Also within residual blocks.
bool holds_batch_norm(const std::vector<LayerConfig>& layers) {
  return std::ranges::any_of(layers, [](const LayerConfig& layer) {
    return layer.type == "batch_norm" || holds_batch_norm(layer.layers);
  });
}

}  // namespace

const std::vector<Key>& keys() {
  static const std::vector<Key> table = make_keys();
  return table;
}

const Key* find_key(std::string_view path) {
  for (const Key& key : keys()) {
    if (key.path == path) return &key;
  }
  return nullptr;
}

bool is_table(std::string_view path) {
  return std::any_of(keys().begin(), keys().end(), [&](const Key& key) {
    return key.path.size() > path.size() && key.path.starts_with(path) &&
           key.path[path.size()] == '.';
  });
}

std::string type_path(const Key& key) {
  if (!key.types_of.empty()) return std::string(key.types_of);
  return std::string(key.path.substr(0, key.path.rfind('.'))) + ".type";
}

bool applies(const Key& key, const Config& config) {
  if (key.types.empty()) return true;
  const Field type = field_of(*find_key(type_path(key)), const_cast<Config&>(config));
  return contains(key.types, *std::get<std::string*>(type));
}

void resolve_defaults(Config& config, const Places& places) {
  const auto open = [&](std::string_view path) { return place_of(places, path).empty(); };
  // Counts are what they are.
  if (const LikelihoodInfo* info = find_likelihood(config.model.likelihood.type);
      info != nullptr && info->target == LikelihoodTarget::counts && open("data.scale"))
    config.data.scale = "none";
  OptimizerConfig& optimizer = config.train.optimizer;
  const auto number = [&](std::string_view name, double& value, double standard) {
    if (open(fmt::format("train.optimizer.{}", name))) value = standard;
  };
  if (optimizer.type == "rmsprop" && optimizer.convention == "keras") {
    number("rho", optimizer.rho, 0.9);
    number("eps", optimizer.eps, 1e-7);
  } else if (optimizer.type == "adagrad") {
    number("eps", optimizer.eps, 1e-10);
  } else if (optimizer.type == "adamw") {
    number("weight_decay", optimizer.weight_decay, 0.01);
  } else if (optimizer.type == "iwae_adam") {
    if (open("train.optimizer.betas")) optimizer.betas = {0.99, 0.999};
    number("eps", optimizer.eps, 1e-4);
    number("v0", optimizer.v0, 1.0);
  }
  ObjectiveConfig& objective = config.objective;
  if (objective.type == "capacity" && open("objective.gamma")) objective.gamma = 1000;
  if (objective.type == "mmd" && open("objective.beta")) objective.beta = 0;
  if (objective.type == "m2") {
    if (open("objective.alpha")) objective.alpha = 0.1;
    if (open("model.classifier.on")) config.model.classifier.on = "label";
  }
  if (objective.type == "autoencoder") {
    if (open("model.latent.prior")) config.model.latent.prior = "none";
  }
  // A bound of several samples, or no bound: the best weights are those of the least loss.
  if (objective.type == "autoencoder" || objective.type == "iwae" || objective.type == "dreg")
    if (open("train.early_stopping.metric")) config.train.early_stopping.metric = "loss";
}

Field field_of(const Key& key, Config& config) {
  return key.field(config);
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out += '"';
}

std::string number_as_toml(double value) {
  std::string text = fmt::format("{}", value);
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string value_as_toml(const Key& key, const Config& config) {
  // The table hands out mutable fields; nothing is written here.
  const Field field = field_of(key, const_cast<Config&>(config));
  if (auto* const* b = std::get_if<bool*>(&field)) return **b ? "true" : "false";
  if (auto* const* i = std::get_if<std::int64_t*>(&field)) return std::to_string(**i);
  if (auto* const* d = std::get_if<double*>(&field)) {
    if (key.word != nullptr && *key.word(const_cast<Config&>(config)) != "none")
      return toml_string(*key.word(const_cast<Config&>(config)));
    return number_as_toml(**d);
  }
  if (auto* const* s = std::get_if<std::string*>(&field)) return toml_string(**s);
  if (auto* const* p = std::get_if<std::array<double, 2>*>(&field)) {
    return fmt::format("[{}, {}]", number_as_toml((**p)[0]), number_as_toml((**p)[1]));
  }
  if (auto* const* layers = std::get_if<std::vector<LayerConfig>*>(&field)) {
    std::string text = "[";
    for (const LayerConfig& layer : **layers) text += "\n  " + layer_as_toml(layer) + ",";
    return text + ((*layers)->empty() ? "]" : "\n]");
  }
  if (auto* const* layer = std::get_if<LayerConfig*>(&field)) return layer_as_toml(**layer);
  if (auto* const* transforms = std::get_if<std::vector<TransformConfig>*>(&field)) {
    std::string text;
    for (const TransformConfig& transform : **transforms) {
      text += text.empty() ? "" : ", ";
      text += transform.type == "noise"
                  ? fmt::format("{{ noise = {} }}", number_as_toml(transform.amount))
                  : toml_string(transform.type);
    }
    return "[" + text + "]";
  }
  if (auto* const* held = std::get_if<ValidationConfig*>(&field)) {
    if (!(*held)->path.empty()) return toml_string((*held)->path);
    return (*held)->rows != 0 ? std::to_string((*held)->rows) : number_as_toml((*held)->fraction);
  }
  if (auto* const* texts = std::get_if<std::vector<std::string>*>(&field)) {
    std::string list;
    for (const std::string& text : **texts) list += (list.empty() ? "" : ", ") + toml_string(text);
    return "[" + list + "]";
  }
  return {};
}

std::string range_text(const Key& key) {
  if (key.kind != Kind::integer) return fmt::format("{} to {}", key.low, key.high);
  if (key.int_high == std::numeric_limits<std::int64_t>::max())
    return fmt::format("at least {}", key.int_low);
  return fmt::format("{} to {}", key.int_low, key.int_high);
}

std::string allowed_text(const Key& key) {
  const std::string range = range_text(key);
  switch (key.kind) {
    case Kind::boolean: return "true or false";
    case Kind::integer:
      return fmt::format("an integer {}{}", range.starts_with("at") ? "of " : "from ", range);
    case Kind::number:
      if (key.word != nullptr)
        return fmt::format("a number from {}, {}", range, listed(key.choices));
      return fmt::format("a number from {}", range);
    case Kind::pair: return fmt::format("two numbers from {}, [a, b]", range);
    case Kind::choice: return listed(key.choices);
    case Kind::layers: return "an array of layers, [{ type = \"linear\", out = 512 }, ...]";
    case Kind::out_layer: return "a layer, { type = \"linear\" }";
    case Kind::transforms: return "a list, [\"log1p\"] or [{ noise = 0.3 }]";
    case Kind::validation:
      return fmt::format("a fraction from 0 to {}, a whole number of rows, or a path", key.high);
    case Kind::texts: return "a list of names, [\"encoder.0\", \"decoder.*\"]";
    case Kind::text: break;
  }
  if (key.path == "name") return "letters, digits, '_', '-' and '.'; at most 100";
  if (key.path == "run.device") return "\"auto\", \"cpu\", \"cuda\" or \"cuda:N\"";
  if (key.path == "data.weights") return "\"none\", \"balanced\" or the path of a .npy file";
  return "the path of a folder or a file, or a source's name";
}

std::string mend_unknown_key(std::string_view path) {
  // Best a neighbour in the same table; where there is no such table, the nearest of all keys; then
  // a key of this name elsewhere, or one that abbreviates it.
  std::vector<std::string> candidates;
  const auto dot = path.rfind('.');
  const std::string parent(dot == std::string_view::npos ? "" : path.substr(0, dot + 1));
  for (const Key& key : keys()) {
    if (!key.path.starts_with(parent)) continue;
    const std::string_view rest = key.path.substr(parent.size());
    const std::string sibling(rest.substr(0, rest.find('.')));
    if (candidates.empty() || candidates.back() != sibling) candidates.push_back(sibling);
  }
  std::string guess = closest(last_part(path), candidates);
  if (!guess.empty()) return fmt::format("did you mean `{}{}`?", parent, guess);
  const auto mean = [](std::string_view key) { return fmt::format("did you mean `{}`?", key); };
  candidates.clear();
  for (const Key& key : keys()) candidates.emplace_back(key.path);
  guess = closest(path, candidates);
  const bool misspelt = dot != std::string_view::npos && !is_table(path.substr(0, dot));
  if (misspelt && !guess.empty()) return mean(guess);
  for (const Key& key : keys())
    if (last_part(key.path) == last_part(path)) return mean(key.path);
  if (!guess.empty()) return mean(guess);
  const std::string initials = initials_of(last_part(path));
  for (const bool here : {true, false})
    for (const Key& key : keys())
      if (initials.size() > 1 && last_part(key.path) == initials &&
          (!here || key.path.starts_with(parent)))
        return mean(key.path);
  return "`cuvae init` prints every key";
}

std::string environment_name(std::string_view path) {
  std::string name = "CUVAE_";
  for (const char c : path) {
    name += c == '.' ? '_' : (c >= 'a' && c <= 'z') ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return name;
}

void refuse_unknown_variable(std::string_view variable) {
  const std::string_view section = section_of_variable(variable);
  if (section.empty()) return;
  std::vector<std::string> candidates;
  for (const Key& key : keys()) {
    const std::string name = environment_name(key.path);
    if (name == variable) return;
    // The common beginning would hide how far apart the rest is.
    if (name.starts_with(section)) candidates.push_back(name.substr(section.size()));
  }
  const std::string guess = closest(variable.substr(section.size()), candidates);
  throw Error(Status::usage, fmt::format("unknown variable `{}`", variable), "environment",
              guess.empty() ? "unset it; `cuvae init` prints every key, CUVAE_TRAIN_LR is train.lr"
                            : fmt::format("did you mean `{}{}`?", section, guess));
}

std::string variable_meant_by(std::string_view variable) {
  constexpr std::string_view prefix = "CUVAE_";
  if (!variable.starts_with(prefix) || !section_of_variable(variable).empty()) return {};
  const std::string_view rest = variable.substr(prefix.size());
  for (const std::string_view other : {"DEVICE", "THREADS", "CUDA_PATH", "CACHE", "NO_INSTALL",
                                       "PRESET", "SHARED", "BUILD_TYPE", "FASHION_MNIST"}) {
    if (rest == other) return {};
  }
  for (const std::string_view beginning : {"SIMT_", "PEERS_", "TEST_"}) {
    if (rest.starts_with(beginning)) return {};
  }
  // By the last part of a key's name, or the whole of it.
  std::vector<std::string> candidates = {"DEVICE", "THREADS"};
  std::vector<std::string> names = {"CUVAE_DEVICE", "CUVAE_THREADS"};
  for (const Key& key : keys()) {
    const std::string name = environment_name(key.path);
    if (name == variable) return {};
    for (const std::string& text : {environment_name(last_part(key.path)).substr(prefix.size()),
                                    name.substr(prefix.size())}) {
      candidates.push_back(text);
      names.push_back(name);
    }
  }
  const std::string guess = closest(rest, candidates);
  if (guess.empty()) return {};
  const auto found = std::find(candidates.begin(), candidates.end(), guess);
  return names[static_cast<std::size_t>(found - candidates.begin())];
}

std::string place_of(const Places& places, std::string_view path) {
  for (const auto& [key, where] : places) {
    if (key == path) return where;
  }
  return {};
}

void set_place(Places& places, std::string_view path, std::string_view where) {
  for (auto& [key, place] : places) {
    if (key == path) {
      place = where;
      return;
    }
  }
  places.emplace_back(path, where);
}

void validate(const Config& config, const Places& places) {
  for (const Key& key : keys()) validate_key(key, const_cast<Config&>(config), places);
  const auto wants_steps = [&](std::string_view table, const std::string& type,
                               std::int64_t steps) {
    if (steps > 0) return;
    throw Error(Status::usage,
                fmt::format("`{}.type` = {} without `{}.steps`", table, toml_string(type), table),
                place_of(places, fmt::format("{}.type", table)), "give a number of steps");
  };
  if (config.train.schedule.type == "step")
    wants_steps("train.schedule", "step", config.train.schedule.steps);
  if (config.objective.warmup.type != "none")
    wants_steps("objective.warmup", config.objective.warmup.type, config.objective.warmup.steps);
  const ObjectiveConfig& objective = config.objective;
  const auto contradiction = [&](std::string_view what, std::string_view path,
                                 std::string_view mend) {
    throw Error(Status::usage, std::string(what), place_of(places, path), std::string(mend));
  };
  const bool autoencoder = objective.type == "autoencoder";
  if (autoencoder != (config.model.latent.prior == "none"))
    contradiction(
        fmt::format("`objective.type` = {} with `model.latent.prior` = {}",
                    toml_string(objective.type), toml_string(config.model.latent.prior)),
        place_of(places, "model.latent.prior").empty() ? "objective.type" : "model.latent.prior",
        "an autoencoder has the prior \"none\", every other objective has one");
  const ModelConfig& model = config.model;
  const bool m2 = objective.type == "m2";
  if (m2 != (model.classifier.on == "label"))
    contradiction(
        fmt::format("`objective.type` = {} with `model.classifier.on` = {}",
                    toml_string(objective.type), toml_string(model.classifier.on)),
        place_of(places, "model.classifier.on").empty() ? "objective.type" : "model.classifier.on",
        "\"m2\" has the classifier \"label\", every other objective has none");
  if (!m2 && config.data.labelled > 0)
    contradiction(fmt::format("`data.labelled` = {} with `objective.type` = {}",
                              config.data.labelled, toml_string(objective.type)),
                  "data.labelled", "leave it out, or use \"m2\"");
  if (m2) {
    if (model.condition.on != "label" || model.condition.decoder != "concat")
      contradiction("`objective.type` = \"m2\" of a decoder that is told no label",
                    "objective.type",
                    "set model.condition.on = \"label\" and model.condition.decoder = \"concat\"");
    if (model.latent.prior != "normal")
      contradiction(fmt::format("`objective.type` = \"m2\" with `model.latent.prior` = {}",
                                toml_string(model.latent.prior)),
                    "model.latent.prior", "use \"normal\"");
    for (const auto* layers :
         {&model.encoder.layers, &model.decoder.layers, &model.classifier.layers})
      if (holds_batch_norm(*layers))
        contradiction("`objective.type` = \"m2\" with batch_norm", "objective.type",
                      "two batches go through every layer: use layer_norm or group_norm");
    if (config.data.labelled % model.condition.classes != 0)
      contradiction(fmt::format("`data.labelled` = {} of {} classes", config.data.labelled,
                                model.condition.classes),
                    "data.labelled", "give a multiple of model.condition.classes");
  }
  if (config.model.decoder.out_bias == "data_mean" && config.model.likelihood.type != "bernoulli")
    contradiction(fmt::format("`model.decoder.out_bias` = \"data_mean\" is a logit, which "
                              "`model.likelihood.type` = {} has not",
                              toml_string(config.model.likelihood.type)),
                  "model.decoder.out_bias", "use \"init\"");
  const bool weighs_kl =
      objective.type == "elbo" || objective.type == "beta_tc" || objective.type == "mmd";
  if (!weighs_kl && objective.warmup.type != "none")
    contradiction(fmt::format("`objective.warmup` with `objective.type` = {}, which has no beta",
                              toml_string(objective.type)),
                  "objective.warmup.type", "leave the warm-up out");
  if (objective.free_bits > 0 && (objective.kl == "mc" || config.model.latent.prior != "normal"))
    contradiction("`objective.free_bits` of a KL term that is not in closed form",
                  "objective.free_bits",
                  "use `objective.kl` = \"analytic\" and `model.latent.prior` = \"normal\"");
  if (config.model.latent.prior == "vamp" && config.model.condition.on == "label" &&
      config.model.condition.encoder == "concat")
    contradiction("`model.latent.prior` = \"vamp\" with an encoder that is told labels",
                  "model.latent.prior",
                  "pseudo-inputs have none: set model.condition.encoder = \"none\"");
  if (objective.type == "beta_tc" || objective.type == "mmd")
    if (config.model.latent.prior != "normal")
      contradiction(
          fmt::format("`objective.type` = {} with `model.latent.prior` = {}",
                      toml_string(objective.type), toml_string(config.model.latent.prior)),
          "model.latent.prior", "use \"normal\"");
  if (objective.pixel_reduction == "mse" &&
      !(config.model.likelihood.type == "gaussian" && config.model.likelihood.learned == "none" &&
        config.model.likelihood.sigma == 1.0))
    contradiction("`objective.pixel_reduction` = \"mse\" wants the gaussian likelihood, sigma = 1",
                  "objective.pixel_reduction",
                  "set `model.likelihood` = { type = \"gaussian\" }, or use \"mean\"");
  if (objective.type == "dreg") {
    if (holds_batch_norm(config.model.decoder.layers))
      contradiction("`objective.type` = \"dreg\" with batch_norm in the decoder", "objective.type",
                    "samples must not touch each other: use layer_norm or group_norm");
  }
  const DataConfig& data = config.data;
  const auto refuse_fold = [&](std::string_view key, const std::string& what, const char* mend) {
    throw Error(Status::usage, what, place_of(places, key), mend);
  };
  if (data.folds > 0 && data.validation.any())
    refuse_fold("data.folds", "`data.folds` beside `data.validation`",
                "leave one out: the fold is what is kept for validation");
  if (data.folds == 1)
    refuse_fold("data.folds", "`data.folds` = 1 leaves nothing to train on", "give at least 2");
  if (data.fold > 0 && data.fold >= data.folds)
    refuse_fold("data.fold", fmt::format("`data.fold` = {} of {}", data.fold, data.folds),
                "folds count from 0, and `data.folds` says how many there are");
  const LikelihoodTarget wanted = likelihood_target(config.model.likelihood.type);
  if (data.augment.shift > 0 && data.augment.crop > 0)
    contradiction(fmt::format("`data.augment.shift` = {} and `data.augment.crop` = {}",
                              data.augment.shift, data.augment.crop),
                  "data.augment.crop", "they are the same thing: give one of them");
  if (data.augment.noise > 0 &&
      (wanted == LikelihoodTarget::counts || wanted == LikelihoodTarget::levels ||
       wanted == LikelihoodTarget::labels))
    contradiction(fmt::format("`data.augment.noise` with the {} likelihood, whose targets are no "
                              "reals",
                              config.model.likelihood.type),
                  "data.augment.noise", "leave it out, or use `data.encoder_transform`");
  if (data.weighting == "loss" && data.weights == "none")
    contradiction("`data.weighting` = \"loss\" without `data.weights`", "data.weighting",
                  "give data.weights = \"balanced\" or a .npy file");
  if (data.weighting == "loss" && (objective.type == "beta_tc" || objective.type == "mmd"))
    contradiction(fmt::format("`data.weighting` = \"loss\" with `objective.type` = {}, whose rows "
                              "have no loss of their own",
                              toml_string(objective.type)),
                  "data.weighting", "use \"draws\"");
  const ConditionConfig& condition = config.model.condition;
  if (condition.on == "label" && condition.encoder == "none" && condition.decoder == "none")
    contradiction("`model.condition.on` = \"label\", of which neither side is told",
                  "model.condition.on", "give it to the encoder or the decoder, or leave it out");
  if (objective.type == "m2" && data.weights != "none")
    contradiction("`data.weights` with `objective.type` = \"m2\"", "data.weights",
                  "leave them out: labelled rows are drawn balanced");
  if (objective.type == "beta_tc" && objective.estimator == "mss" && config.train.batch_size < 2)
    contradiction("`objective.estimator` = \"mss\" with batches of one row", "train.batch_size",
                  "use larger batches, or \"mws\"");
  if (objective.dataset > 0 && objective.dataset < config.train.batch_size)
    contradiction(fmt::format("`objective.dataset` = {} with batches of {} rows", objective.dataset,
                              config.train.batch_size),
                  "objective.dataset", "give the rows of training, or leave it at 0");
  if (config.model.latent.prior == "vamp" && !data.encoder_transform.empty())
    contradiction("`data.encoder_transform` with `model.latent.prior` = \"vamp\"",
                  "data.encoder_transform",
                  "leave it out: pseudo-inputs stand for data as they are");
  const ScheduleConfig& schedule = config.train.schedule;
  if (schedule.type == "plateau" && !(schedule.factor > 0 && schedule.factor < 1))
    throw Error(
        Status::usage,
        fmt::format("`train.schedule.factor` = {} on a plateau", number_as_toml(schedule.factor)),
        place_of(places, "train.schedule.factor"), "give a number between 0 and 1");
  // Outside [0, 1] a Bernoulli has no lower bound; bytes as they are reach 255, and are counts.
  const std::string& type = config.model.likelihood.type;
  const LikelihoodTarget target = likelihood_target(type);
  const bool unit = target == LikelihoodTarget::unit || target == LikelihoodTarget::levels;
  const std::string where = place_of(places, "data.scale");
  const auto refuse_scale = [&](std::string_view what, std::string_view use) {
    throw Error(Status::usage,
                fmt::format("`data.scale` = {} {}, which the {} likelihood needs",
                            toml_string(config.data.scale), what, type),
                where.empty() ? place_of(places, "model.likelihood.type") : where,
                fmt::format("use `model.likelihood.type` = \"gaussian\", which takes any reals, or "
                            "`data.scale` = \"{}\"{}",
                            use, use == "unit" ? " for bytes and reals from 0 to 1" : ""));
  };
  if (target == LikelihoodTarget::labels && config.data.scale == "standardise")
    refuse_scale("gives no classes", "unit");
  if (target == LikelihoodTarget::labels && config.data.binarise != "none")
    contradiction("`data.binarise` with the categorical likelihood", "data.binarise",
                  "leave it out and set `model.likelihood.classes` = 2, or use \"bernoulli\"");
  if (config.data.dequantise) {
    const LikelihoodInfo* info = find_likelihood(type);
    if (info == nullptr || info->bits != LikelihoodBits::continuous)
      contradiction(
          fmt::format("`data.dequantise` with the {} likelihood, which is no density", type),
          "data.dequantise",
          "leave it out, or use \"gaussian\", \"laplace\" or \"continuous_bernoulli\"");
    if (config.data.binarise != "none")
      contradiction(fmt::format("`data.dequantise` beside `data.binarise` = {}",
                                toml_string(config.data.binarise)),
                    "data.dequantise", "leave one of them out");
    if (config.data.augment.noise > 0)
      contradiction("`data.dequantise` beside `data.augment.noise`", "data.dequantise",
                    "leave the noise out: what is dequantised are bytes");
    if (config.data.scale != "unit")
      contradiction(
          fmt::format("`data.dequantise` with `data.scale` = {}", toml_string(config.data.scale)),
          "data.dequantise", "use `data.scale` = \"unit\"");
  }
  if (unit && config.data.scale != "unit") refuse_scale("leaves [0, 1]", "unit");
  if (target == LikelihoodTarget::counts && config.data.scale != "none")
    refuse_scale("gives no counts", "none");
  if (config.data.binarise != "none" && config.data.scale != "unit")
    refuse_scale("leaves [0, 1], from which binarise draws", "unit");
}

}  // namespace cuvae::config

namespace cuvae {

void validate(const Config& config) {
  config::validate(config, {});
}

std::vector<ConfigKey> config_keys() {
  const Config standard;
  std::vector<ConfigKey> documented;
  for (const config::Key& key : config::keys()) {
    static constexpr const char* types[] = {"boolean",    "integer",    "number", "string",
                                            "string",     "numbers",    "layers", "layer",
                                            "transforms", "validation", "strings"};
    static_assert(std::size(types) == static_cast<std::size_t>(config::Kind::texts) + 1);
    documented.push_back({.path = std::string(key.path),
                          .type = types[static_cast<std::size_t>(key.kind)],
                          .default_value = config::value_as_toml(key, standard),
                          .allowed = config::allowed_text(key),
                          .doc = std::string(key.doc),
                          .environment = config::environment_name(key.path)});
  }
  return documented;
}

}  // namespace cuvae
