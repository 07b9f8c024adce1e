#pragma once
// The one table of configuration keys. Parsing, --set, the environment, validation, writing and
// documentation are all loops over it: a new key is a field in config.h and a row in keys.cpp.

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cuvae/config.h"

namespace cuvae::config {

enum class Kind : std::uint8_t {
  boolean,
  integer,
  number,
  text,        // any string that `check_text` allows
  choice,      // one of `choices`
  pair,        // two numbers, each in the key's range
  layers,      // an array of layer tables
  out_layer,   // one, whose `out` follows from the data
  transforms,  // an array of changes of the encoder's input
  validation,  // a fraction, a number of rows or a path
  texts,       // an array of strings
};

using Field =
    std::variant<std::monostate, bool*, std::int64_t*, double*, std::string*,
                 std::array<double, 2>*, std::vector<LayerConfig>*, LayerConfig*,
                 std::vector<TransformConfig>*, ValidationConfig*, std::vector<std::string>*>;

// Where each key got its value; for a layer, "model.encoder.layers[0]". Keys that are missing here
// are reported by their path.
using Places = std::vector<std::pair<std::string, std::string>>;

struct Key {
  std::string_view path;
  Kind kind;
  Field (*field)(Config&);
  std::string_view doc;
  // integer and number (pair): closed range. A NaN is outside every range.
  std::int64_t int_low = 0;
  std::int64_t int_high = std::numeric_limits<std::int64_t>::max();
  double low = 0;
  double high = 0;
  // choice: what the schema knows. number: words that may stand in its place.
  std::vector<std::string_view> choices{};
  // Only where `<its table>.type` is one of these, which then has it among its keys; empty: always.
  std::vector<std::string_view> types{};
  // The choice that `types` speaks of, where it has another name; empty: the table's type.
  std::string_view types_of{};
  // number: where one of the words is kept in its place; "none" then says that it is the number.
  std::string* (*word)(Config&) = nullptr;
};

// The path of the choice that `types` speaks of: "train.optimizer.type".
[[nodiscard]] std::string type_path(const Key& key);
// Whether the key means something to that configuration.
[[nodiscard]] bool applies(const Key& key, const Config& config);
// Defaults that depend on another key, where `places` does not say that they were set.
void resolve_defaults(Config& config, const Places& places);

[[nodiscard]] const std::vector<Key>& keys();
[[nodiscard]] const Key* find_key(std::string_view path);  // null: no such key
// True where keys begin with `path` + ".": a section or a table within one.
[[nodiscard]] bool is_table(std::string_view path);

[[nodiscard]] Field field_of(const Key& key, Config& config);
// The field's value as TOML.
[[nodiscard]] std::string value_as_toml(const Key& key, const Config& config);
[[nodiscard]] std::string toml_string(std::string_view text);  // a TOML basic string
[[nodiscard]] std::string number_as_toml(double value);

// "1 to 1048576"; of an integer without an upper end "at least 1".
[[nodiscard]] std::string range_text(const Key& key);
// "an integer from 1 to 1048576": completes "give ...".
[[nodiscard]] std::string allowed_text(const Key& key);
// "`train.batch_size`", and the whole "did you mean" or a pointer to the list of keys.
[[nodiscard]] std::string mend_unknown_key(std::string_view path);

[[nodiscard]] std::string environment_name(std::string_view path);  // "CUVAE_TRAIN_LR"

// Error(usage) where it begins as a section's keys do, CUVAE_TRAIN_, and is none of them. Other
// variables, also of other CUVAE_ beginnings, are not ours to judge.
void refuse_unknown_variable(std::string_view variable);

// The key's variable that one named CUVAE_... was probably meant to be, CUVAE_TRAIN_EPOCHS for
// CUVAE_EPOCHS; empty for those that are known, that refuse_unknown_variable() judges, or that
// resemble none.
[[nodiscard]] std::string variable_meant_by(std::string_view variable);

[[nodiscard]] std::string place_of(const Places& places, std::string_view path);
void set_place(Places& places, std::string_view path, std::string_view where);

// Ranges and the rules between keys; throws Error(usage).
void validate(const Config& config, const Places& places);

}  // namespace cuvae::config
