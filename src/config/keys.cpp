#include "config/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae::config {
namespace {

// Beyond these a size is a slip of the keyboard; whether the memory suffices is the plan's matter.
constexpr std::int64_t max_width = std::int64_t{1} << 20;
constexpr std::int64_t max_batch = std::int64_t{1} << 24;
constexpr std::int64_t max_epochs = 1'000'000'000;
constexpr std::size_t max_layers = 256;
#define CUVAE_FIELD(member) [](Config& c) -> Field { return &c.member; }

Key boolean(std::string_view path, Field (*field)(Config&), std::string_view doc) {
  return {.path = path, .kind = Kind::boolean, .field = field, .doc = doc};
}

Key integer(std::string_view path, Field (*field)(Config&), std::int64_t low, std::int64_t high,
            std::string_view doc, bool only_default = false) {
  return {.path = path,
          .kind = Kind::integer,
          .field = field,
          .doc = doc,
          .int_low = low,
          .int_high = high,
          .only_default = only_default};
}

Key number(std::string_view path, Field (*field)(Config&), double low, double high,
           std::string_view doc, bool only_default = false,
           std::vector<std::string_view> words = {}) {
  return {.path = path,
          .kind = Kind::number,
          .field = field,
          .doc = doc,
          .low = low,
          .high = high,
          .choices = std::move(words),
          .only_default = only_default};
}

Key pair(std::string_view path, Field (*field)(Config&), double low, double high,
         std::string_view doc) {
  return {.path = path, .kind = Kind::pair, .field = field, .doc = doc, .low = low, .high = high};
}

Key choice(std::string_view path, Field (*field)(Config&), std::vector<std::string_view> choices,
           std::string_view doc, std::vector<std::string_view> available = {},
           std::string_view lacking = "is not available in this version") {
  return {.path = path,
          .kind = Kind::choice,
          .field = field,
          .doc = doc,
          .choices = std::move(choices),
          .available = std::move(available),
          .lacking = lacking};
}

Key simple(Kind kind, std::string_view path, Field (*field)(Config&), std::string_view doc) {
  return {.path = path, .kind = kind, .field = field, .doc = doc};
}

Key reserved(std::string_view path, std::string_view doc) {
  return {.path = path,
          .kind = Kind::reserved,
          .field = [](Config&) -> Field { return std::monostate{}; },
          .doc = doc};
}

std::vector<Key> make_keys() {
  constexpr auto any_seed = std::numeric_limits<std::int64_t>::max();
  return {
      simple(Kind::text, "name", CUVAE_FIELD(name), "names the runs: runs/<name>-<n>"),

      simple(Kind::text, "data.path", CUVAE_FIELD(data.path),
             "folder or file; a relative path counts from this file"),
      choice("data.scale", CUVAE_FIELD(data.scale), {"unit", "none", "standardise"},
             "unit: bytes times 1/255; standardise: mean 0, deviation 1"),
      choice("data.binarise", CUVAE_FIELD(data.binarise),
             {"none", "threshold", "static", "dynamic"}, "how grey values become 0 or 1", {"none"}),
      number("data.validation", CUVAE_FIELD(data.validation), 0, 0.9,
             "fraction of the training split kept for validation", true, {"*"}),
      reserved("data.encoder_transform", "changes of the encoder's input, never of the target"),

      integer("model.latent.size", CUVAE_FIELD(model.latent.size), 1, max_width,
              "dimensions of the latent space"),
      choice("model.latent.scale", CUVAE_FIELD(model.latent.scale), {"logvar", "log_sigma"},
             "what the encoder's second head gives", {"logvar"}),
      choice("model.latent.prior", CUVAE_FIELD(model.latent.prior), {"normal", "mixture", "vamp"},
             "p(z)", {"normal"}),
      choice("model.likelihood.type", CUVAE_FIELD(model.likelihood.type), {"bernoulli", "gaussian"},
             "p(x|z)"),
      number("model.likelihood.sigma", CUVAE_FIELD(model.likelihood.sigma), 1e-6, 1e6,
             "gaussian: its fixed standard deviation", false, {"global", "pixel"}),
      choice("model.init", CUVAE_FIELD(model.init), {"torch", "glorot"},
             "torch: U(+-1/sqrt(fan_in)); glorot: U(+-sqrt(6/(fan_in + fan_out)))"),
      simple(Kind::layers, "model.encoder.layers", CUVAE_FIELD(model.encoder.layers),
             "from the data to the heads `mean` and `logvar`; activation: none, relu, leaky_relu "
             "(slope), elu (alpha), gelu, silu, tanh, sigmoid, softplus"),
      simple(Kind::layers, "model.decoder.layers", CUVAE_FIELD(model.decoder.layers),
             "from the latents to the last layer `out`"),
      choice("model.decoder.out.type", CUVAE_FIELD(model.decoder.out.type),
             {"linear", "conv2d", "conv_transpose2d"},
             "the layer that gives the likelihood's parameters", {"linear"}),
      reserved("model.condition", "labels as a second input"),

      choice("objective.type", CUVAE_FIELD(objective.type),
             {"elbo", "iwae", "dreg", "beta_tc", "capacity", "mmd", "autoencoder"},
             "what is trained", {"elbo"}),
      integer("objective.samples", CUVAE_FIELD(objective.samples), 1, 1'000'000,
              "latent samples per row", true),
      choice("objective.kl", CUVAE_FIELD(objective.kl), {"analytic", "mc"},
             "how the KL term is computed", {"analytic"}),
      number("objective.beta", CUVAE_FIELD(objective.beta), 0, 1e6, "factor of the KL term"),
      number("objective.free_bits", CUVAE_FIELD(objective.free_bits), 0, 1e6,
             "nats per latent that cost nothing", true),
      choice("objective.warmup.type", CUVAE_FIELD(objective.warmup.type),
             {"none", "linear", "cyclical"}, "how beta rises", {"none"}),
      reserved("objective.warmup.steps", "steps of one rise"),
      reserved("objective.warmup.cycles", "number of rises"),
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
             {"adam", "adamw", "sgd", "rmsprop"}, "as in PyTorch", {"adam"}),
      pair("train.optimizer.betas", CUVAE_FIELD(train.optimizer.betas), 0, 0.999999,
           "decay of the first and the second moment"),
      number("train.optimizer.eps", CUVAE_FIELD(train.optimizer.eps), 1e-30, 1,
             "added to the root of the second moment"),
      number("train.optimizer.v0", CUVAE_FIELD(train.optimizer.v0), 0, 1e30,
             "second moment before the first step"),
      number("train.optimizer.weight_decay", CUVAE_FIELD(train.optimizer.weight_decay), 0, 1e6,
             "times the weight, added to the gradient"),
      choice("train.schedule.type", CUVAE_FIELD(train.schedule.type),
             {"constant", "linear", "cosine", "step", "exponential"}, "of the learning rate",
             {"constant"}),
      number("train.clip_norm", CUVAE_FIELD(train.clip_norm), 0, 1e30,
             "limit of the gradient's norm; 0 = off", true),
      integer("train.early_stopping.patience", CUVAE_FIELD(train.early_stopping.patience), 0,
              max_epochs, "evaluations without improvement before the end; 0 = off", true),
      choice("train.early_stopping.metric", CUVAE_FIELD(train.early_stopping.metric),
             {"neg_elbo", "loss", "reconstruction", "kl"}, "what must improve", {"neg_elbo"}),

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

[[noreturn]] void refuse(std::string_view path, std::string_view value, std::string_view lacking,
                         std::string_view where, std::string_view use) {
  throw Error(Status::usage, fmt::format("`{}` = {} {}", path, value, lacking), where,
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
  if (!key.available.empty() && !contains(key.available, value)) {
    refuse(key.path, toml_string(value), key.lacking, where, listed(key.available));
  }
}

void validate_layers(const Key& key, const std::vector<LayerConfig>& layers, const Places& places) {
  if (layers.size() > max_layers) {
    out_of_range(key.path, fmt::format("{} layers", layers.size()), place_of(places, key.path),
                 fmt::format("at most {} layers", max_layers));
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const LayerConfig& layer = layers[i];
    const std::string path = fmt::format("{}[{}]", key.path, i);
    const std::string where = place_of(places, path);
    if (layer.type != "linear") {
      refuse(path + ".type", toml_string(layer.type), "is not available in this version", where,
             "\"linear\"");
    }
    if (layer.out < 1 || layer.out > max_width) {
      out_of_range(path + ".out", std::to_string(layer.out), where,
                   fmt::format("an integer from 1 to {}", max_width));
    }
    if (!contains(activations(), layer.activation)) {
      const std::string guess =
          closest(layer.activation, std::span<const std::string_view>(activations()));
      throw Error(
          Status::usage,
          fmt::format("`{}.activation` = {} is not known", path, toml_string(layer.activation)),
          where,
          guess.empty() ? fmt::format("use {}", listed(activations()))
                        : fmt::format("did you mean {}?", toml_string(guess)));
    }
    const auto factor = [&](std::string_view name, double value, double standard,
                            std::string_view owner) {
      if (!(value >= 0 && value <= 1e6)) {
        out_of_range(fmt::format("{}.{}", path, name), number_as_toml(value), where,
                     "a number from 0 to 1e6");
      }
      if (value != standard && layer.activation != owner) {
        throw Error(Status::usage,
                    fmt::format("`{}.{}` means nothing to activation {}", path, name,
                                toml_string(layer.activation)),
                    where, fmt::format("remove it, or use activation {}", toml_string(owner)));
      }
    };
    const LayerConfig standard;
    factor("slope", layer.slope, standard.slope, "leaky_relu");
    factor("alpha", layer.alpha, standard.alpha, "elu");
  }
}

void validate_number(const Key& key, double value, const std::string& where) {
  if (!(value >= key.low && value <= key.high)) {
    out_of_range(key.path, number_as_toml(value), where, allowed_text(key));
  }
}

void validate_key(const Key& key, Config& config, const Places& places) {
  const std::string where = place_of(places, key.path);
  const Field field = field_of(key, config);
  switch (key.kind) {
    case Kind::boolean:
    case Kind::reserved: break;
    case Kind::integer: {
      const std::int64_t value = *std::get<std::int64_t*>(field);
      if (value < key.int_low || value > key.int_high) {
        out_of_range(key.path, std::to_string(value), where, allowed_text(key));
      }
      break;
    }
    case Kind::number: validate_number(key, *std::get<double*>(field), where); break;
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
      validate_layers(key, *std::get<std::vector<LayerConfig>*>(field), places);
      break;
  }
  if (key.only_default) {
    const Config standard;
    const std::string value = value_as_toml(key, config);
    const std::string fixed = value_as_toml(key, standard);
    if (value != fixed) refuse(key.path, value, key.lacking, where, fixed);
  }
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

std::string layer_as_toml(const LayerConfig& layer) {
  std::string text = fmt::format("{{ type = {}, out = {}, activation = {}", toml_string(layer.type),
                                 layer.out, toml_string(layer.activation));
  if (layer.activation == "leaky_relu") text += ", slope = " + number_as_toml(layer.slope);
  if (layer.activation == "elu") text += ", alpha = " + number_as_toml(layer.alpha);
  return text + " }";
}

std::string value_as_toml(const Key& key, const Config& config) {
  // The table hands out mutable fields; nothing is written here.
  const Field field = field_of(key, const_cast<Config&>(config));
  if (auto* const* b = std::get_if<bool*>(&field)) return **b ? "true" : "false";
  if (auto* const* i = std::get_if<std::int64_t*>(&field)) return std::to_string(**i);
  if (auto* const* d = std::get_if<double*>(&field)) return number_as_toml(**d);
  if (auto* const* s = std::get_if<std::string*>(&field)) return toml_string(**s);
  if (auto* const* p = std::get_if<std::array<double, 2>*>(&field)) {
    return fmt::format("[{}, {}]", number_as_toml((**p)[0]), number_as_toml((**p)[1]));
  }
  if (auto* const* layers = std::get_if<std::vector<LayerConfig>*>(&field)) {
    std::string text = "[";
    for (const LayerConfig& layer : **layers) text += "\n  " + layer_as_toml(layer) + ",";
    return text + ((*layers)->empty() ? "]" : "\n]");
  }
  return {};
}

std::string allowed_text(const Key& key) {
  switch (key.kind) {
    case Kind::boolean: return "true or false";
    case Kind::integer:
      if (key.int_high == std::numeric_limits<std::int64_t>::max()) {
        return fmt::format("an integer of at least {}", key.int_low);
      }
      return fmt::format("an integer from {} to {}", key.int_low, key.int_high);
    case Kind::number: return fmt::format("a number from {} to {}", key.low, key.high);
    case Kind::pair: return fmt::format("two numbers from {} to {}, [a, b]", key.low, key.high);
    case Kind::choice: return listed(key.choices);
    case Kind::layers: return "an array of layers, [{ type = \"linear\", out = 512 }, ...]";
    case Kind::reserved: return "nothing: it is not available in this version";
    case Kind::text: break;
  }
  if (key.path == "name") return "letters, digits, '_', '-' and '.'; at most 100";
  if (key.path == "run.device") return "\"auto\", \"cpu\", \"cuda\" or \"cuda:N\"";
  return "the path of a folder or a file";
}

std::string mend_unknown_key(std::string_view path) {
  // Best a neighbour in the same table; then any key; then a key of this name elsewhere.
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
  candidates.clear();
  for (const Key& key : keys()) {
    if (last_part(key.path) == last_part(path)) {
      return fmt::format("did you mean `{}`?", key.path);
    }
    candidates.emplace_back(key.path);
  }
  guess = closest(path, candidates);
  if (!guess.empty()) return fmt::format("did you mean `{}`?", guess);
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
                                       "PRESET", "SHARED", "BUILD_TYPE"}) {
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

const std::vector<std::string_view>& activations() {
  static const std::vector<std::string_view> names = {
      "none", "relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus"};
  return names;
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
  if (config.data.scale != "unit" && config.model.likelihood.type == "bernoulli") {
    // The likelihood would have no lower bound outside [0, 1]; bytes as they are reach 255.
    const std::string where = place_of(places, "data.scale");
    throw Error(Status::usage,
                fmt::format("`data.scale` = {} leaves [0, 1], which the bernoulli likelihood needs",
                            toml_string(config.data.scale)),
                where.empty() ? place_of(places, "model.likelihood.type") : where,
                "use `data.scale` = \"unit\", or `model.likelihood.type` = \"gaussian\"");
  }
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
    static constexpr const char* types[] = {"boolean", "integer", "number", "string",
                                            "string",  "numbers", "layers", "reserved"};
    std::string missing;
    if (key.only_default) {
      missing = fmt::format("anything but {}", config::value_as_toml(key, standard));
    }
    if (key.kind == config::Kind::reserved) missing = "all of it";
    const auto unavailable = [&](std::string_view word) {
      return key.kind == config::Kind::number ||
             (!key.available.empty() && !config::contains(key.available, word));
    };
    for (const std::string_view word : key.choices) {
      if (key.only_default || !unavailable(word)) continue;
      missing += (missing.empty() ? "" : ", ") + config::toml_string(word);
    }
    documented.push_back({.path = std::string(key.path),
                          .type = types[static_cast<std::size_t>(key.kind)],
                          .default_value = config::value_as_toml(key, standard),
                          .allowed = config::allowed_text(key),
                          .doc = std::string(key.doc),
                          .environment = config::environment_name(key.path),
                          .not_available = missing});
  }
  return documented;
}

}  // namespace cuvae
