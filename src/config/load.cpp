// Reads and merges the sources of a configuration. Values are stored as they come, with the place
// they came from; ranges are judged once, on the merged result, so that a flag can
// mend what a file says.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <system_error>

#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include "base/text.h"
#include "config/keys.h"
#include "config/layers.h"
#include "cuvae/dataset.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

using config::Field;
using config::Key;
using config::Kind;

constexpr std::size_t max_file_bytes = std::size_t{16} << 20;

std::string_view type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "an array";
    case toml::node_type::string: return "a string";
    case toml::node_type::integer: return "an integer";
    case toml::node_type::floating_point: return "a number";
    case toml::node_type::boolean: return "a boolean";
    default: return "a date or a time";
  }
}

[[noreturn]] void wrong_type(std::string_view path, std::string_view is, std::string_view where,
                             std::string_view allowed) {
  throw Error(Status::usage, fmt::format("`{}` is {}", path, is), where,
              fmt::format("give {}", allowed));
}

// Reads one number, integer or real.
bool read_number(const toml::node& node, double& value) {
  const auto read = node.value_exact<double>();
  if (read) {
    value = *read;
    return true;
  }
  const auto whole = node.value_exact<std::int64_t>();
  if (whole) value = static_cast<double>(*whole);
  return whole.has_value();
}

// Collects values and the places they came from.
class Merger {
 public:
  Config config;
  config::Places places;
  bool data_path_is_from_file = false;
  bool validation_is_from_file = false;
  bool weights_are_from_file = false;

  // `where` is a fixed place (a flag), or empty: then `source`:line.
  void apply(const toml::table& table, std::string_view source, std::string_view fixed_where = {}) {
    source_ = source;
    fixed_where_ = fixed_where;
    walk(table, "");
  }

  // Text from a flag or the environment.
  void apply(const ConfigOverride& override) {
    source_ = {};
    fixed_where_ = override.where;
    const Key* key = config::find_key(override.key);
    if (key == nullptr && !config::is_table(override.key)) {
      throw Error(Status::usage, fmt::format("unknown key `{}`", override.key), override.where,
                  config::mend_unknown_key(override.key));
    }
    const toml::table holder = parse_value(key, override);
    const toml::node& node = *holder.get("v");
    if (key == nullptr && node.is_table()) {
      walk(*node.as_table(), override.key);
    } else {
      store(override.key, node);
    }
  }

  void finish() {
    config::resolve_defaults(config, places);
    config::validate(config, places);
  }

 private:
  std::string where(const toml::node& node) const { return where(node.source()); }
  std::string where(const toml::source_region& region) const {
    if (!fixed_where_.empty()) return std::string(fixed_where_);
    return fmt::format("{}:{}", source_, region.begin.line);
  }

  static toml::table parse_value(const Key* key, const ConfigOverride& override) {
    const std::string& text = override.value;
    toml::table holder;
    const char* const end = text.data() + text.size();
    if (key != nullptr && (key->kind == Kind::integer)) {
      std::int64_t value = 0;
      const auto [stop, error] = std::from_chars(text.data(), end, value);
      if (error == std::errc{} && stop == end) {
        holder.insert("v", value);
        return holder;
      }
    }
    if (key != nullptr && key->kind == Kind::number) {
      double value = 0;
      const auto [stop, error] = std::from_chars(text.data(), end, value);
      if (error == std::errc{} && stop == end) {
        holder.insert("v", value);
        return holder;
      }
    }
    if (key != nullptr && key->kind == Kind::validation) {
      std::int64_t rows = 0;
      double fraction = 0;
      if (const auto [stop, error] = std::from_chars(text.data(), end, rows);
          error == std::errc{} && stop == end) {
        holder.insert("v", rows);
        return holder;
      }
      if (const auto [stop, error] = std::from_chars(text.data(), end, fraction);
          error == std::errc{} && stop == end) {
        holder.insert("v", fraction);
        return holder;
      }
    }
    const bool is_path = key != nullptr && key->kind == Kind::validation && !text.starts_with('[');
    const bool wants_text =
        is_path || (key != nullptr && (key->kind == Kind::text || key->kind == Kind::choice));
    const bool is_quoted =
        text.size() >= 2 && (text[0] == '"' || text[0] == '\'') && text.back() == text[0];
    if (!wants_text || is_quoted) {
      try {
        holder = toml::parse("v = " + text);
        if (holder.size() == 1 && holder.contains("v")) return holder;
      } catch (const toml::parse_error&) {
        // Told below: what matters to the user is what the key takes.
      }
      holder.clear();
    }
    if (wants_text || (key != nullptr && !key->choices.empty())) {
      holder.insert("v", text);
      return holder;
    }
    wrong_type(override.key, fmt::format("not readable as {}", config::toml_string(text)),
               override.where,
               key != nullptr ? config::allowed_text(*key) : "a TOML table, { key = value, ... }");
  }

  void walk(const toml::table& table, const std::string& prefix) {
    const auto path_of = [&](std::string_view name) {
      return prefix.empty() ? std::string(name) : fmt::format("{}.{}", prefix, name);
    };
    // Types first: what belongs to another one goes with it.
    for (const auto& [name, node] : table)
      if (decides(path_of(name.str()))) store(path_of(name.str()), node);
    for (const auto& [name, node] : table) {
      const std::string path = path_of(name.str());
      if (prefix.empty() && (path == "schema" || path == "preset")) continue;
      if (decides(path)) continue;
      if (config::find_key(path) != nullptr) {
        store(path, node);
      } else if (!config::is_table(path)) {
        throw Error(Status::usage, fmt::format("unknown key `{}`", path), where(name.source()),
                    config::mend_unknown_key(path));
      } else if (const toml::table* inner = node.as_table()) {
        walk(*inner, path);
      } else {
        wrong_type(path, type_name(node), where(node), "a table");
      }
    }
  }

  // Whether keys belong to one of its choices.
  static bool decides(const std::string& path) {
    return std::any_of(config::keys().begin(), config::keys().end(), [&](const Key& key) {
      return !key.types.empty() && config::type_path(key) == path;
    });
  }

  // A table of another type starts anew.
  void forget_options(const std::string& type) {
    Config standard;
    for (const Key& key : config::keys()) {
      if (key.types.empty() || config::type_path(key) != type) continue;
      std::visit(
          [](auto to, auto from) {
            if constexpr (std::is_pointer_v<decltype(to)> &&
                          std::is_same_v<decltype(to), decltype(from)>)
              *to = *from;
          },
          config::field_of(key, config), config::field_of(key, standard));
      if (key.word != nullptr) *key.word(config) = *key.word(standard);
      std::erase_if(places, [&](const auto& entry) { return entry.first == key.path; });
    }
  }

  void store(const std::string& path, const toml::node& node) {
    const std::string place = where(node);
    const Key* found = config::find_key(path);
    if (found == nullptr) wrong_type(path, type_name(node), place, "a table");
    const Key& key = *found;
    config::set_place(places, path, place);
    const auto wrong = [&]() { wrong_type(path, type_name(node), place, allowed_text(key)); };
    const Field field = config::field_of(key, config);
    switch (key.kind) {
      case Kind::boolean: {
        const auto value = node.value_exact<bool>();
        if (!value) wrong();
        *std::get<bool*>(field) = *value;
        break;
      }
      case Kind::integer: {
        const auto value = node.value_exact<std::int64_t>();
        if (!value) wrong();
        *std::get<std::int64_t*>(field) = *value;
        break;
      }
      case Kind::number: {
        if (const auto* word = node.as_string()) {
          if (key.word == nullptr || std::ranges::find(key.choices, **word) == key.choices.end())
            wrong();
          Config standard;
          *key.word(config) = **word;
          *std::get<double*>(field) = *std::get<double*>(config::field_of(key, standard));
        } else if (!read_number(node, *std::get<double*>(field))) {
          wrong();
        } else if (key.word != nullptr) {
          *key.word(config) = "none";
        }
        break;
      }
      case Kind::text:
      case Kind::choice: {
        const auto* value = node.as_string();
        if (value == nullptr) wrong();
        if (*std::get<std::string*>(field) != **value) forget_options(path);
        *std::get<std::string*>(field) = **value;
        if (path == "data.path") data_path_is_from_file = fixed_where_.empty();
        if (path == "data.weights") weights_are_from_file = fixed_where_.empty();
        break;
      }
      case Kind::pair: {
        const auto* array = node.as_array();
        auto& values = *std::get<std::array<double, 2>*>(field);
        if (array == nullptr || array->size() != values.size()) wrong();
        for (std::size_t i = 0; i < values.size(); ++i) {
          if (!read_number(*array->get(i), values[i])) wrong();
        }
        break;
      }
      case Kind::layers: {
        const auto* array = node.as_array();
        if (array == nullptr) wrong();
        read_layers(*array, path, *std::get<std::vector<LayerConfig>*>(field));
        break;
      }
      case Kind::transforms: {
        const auto* array = node.as_array();
        if (array == nullptr) wrong();
        auto& transforms = *std::get<std::vector<TransformConfig>*>(field);
        transforms.clear();
        for (const toml::node& entry : *array) {
          TransformConfig transform;
          const auto* options = entry.as_table();
          if (const auto* word = entry.as_string()) {
            transform.type = **word;
          } else if (options != nullptr && options->size() == 1 && options->contains("noise") &&
                     read_number(*options->get("noise"), transform.amount)) {
            transform.type = "noise";
          } else {
            wrong();
          }
          transforms.push_back(transform);
        }
        break;
      }
      case Kind::out_layer: {
        const auto* table = node.as_table();
        if (table == nullptr) wrong();
        *std::get<LayerConfig*>(field) = read_layer(*table, path, true);
        break;
      }
      case Kind::validation: {
        ValidationConfig value;
        if (const auto* word = node.as_string()) {
          if ((*word)->empty()) wrong();
          value.path = **word;
        } else if (const auto whole = node.value_exact<std::int64_t>()) {
          value.rows = *whole;
        } else if (!read_number(node, value.fraction)) {
          wrong();
        }
        *std::get<ValidationConfig*>(field) = std::move(value);
        validation_is_from_file = fixed_where_.empty();
        break;
      }
      case Kind::texts: {
        const auto* array = node.as_array();
        if (array == nullptr) wrong();
        auto& texts = *std::get<std::vector<std::string>*>(field);
        texts.clear();
        for (const toml::node& entry : *array) {
          if (!entry.is_string()) wrong();
          texts.push_back(**entry.as_string());
        }
        break;
      }
    }
  }

  LayerConfig read_layer(const toml::table& table, const std::string& path, bool is_out = false) {
    LayerConfig layer;
    config::set_place(places, path, where(table));
    if (const toml::node* type = table.get("type")) read_into(&layer.type, *type, path + ".type");
    // Other types bring keys of their own; validation names the type.
    if (layers::find_type(layer.type) == nullptr) return layer;
    for (const auto& [name, node] : table) {
      const std::string full = fmt::format("{}.{}", path, name.str());
      if (name.str() == "type") continue;
      if (!config::takes(layer.type, name.str(), is_out)) {
        throw Error(Status::usage, fmt::format("unknown key `{}`", full), where(name.source()),
                    config::mend_layer_key(layer.type, name.str(), is_out));
      }
      const layers::Key& key = *layers::find_key(name.str());
      const layers::Field field = key.field(layer);
      read_into(field, node, full, key.allowed);
      // 0 stands for what was left out, and is nothing to write.
      if (auto* const* pair = std::get_if<LayerConfig::Pair*>(&field);
          pair != nullptr && key.int_low > 0 && std::ranges::count(**pair, 0) > 0)
        throw Error(Status::usage, fmt::format("`{}` = 0 is out of range", full), where(node),
                    fmt::format("give {}", key.allowed));
    }
    for (const std::string_view name : layers::find_type(layer.type)->required) {
      if (table.contains(name) || (is_out && name == "out")) continue;
      throw Error(Status::usage, fmt::format("`{}` has no `{}`", path, name), where(table),
                  fmt::format("give {}, {} = ...", layers::find_key(name)->allowed, name));
    }
    return layer;
  }

  void read_into(const layers::Field& field, const toml::node& node, const std::string& path,
                 std::string_view allowed = "a string") {
    const auto wrong = [&]() { wrong_type(path, type_name(node), where(node), allowed); };
    if (auto* const* text = std::get_if<std::string*>(&field)) {
      const auto* read = node.as_string();
      if (read == nullptr) wrong();
      **text = **read;
    } else if (auto* const* flag = std::get_if<bool*>(&field)) {
      const auto read = node.value_exact<bool>();
      if (!read) wrong();
      **flag = *read;
    } else if (auto* const* number = std::get_if<double*>(&field)) {
      if (!read_number(node, **number)) wrong();
    } else if (auto* const* integer = std::get_if<std::int64_t*>(&field)) {
      const auto read = node.value_exact<std::int64_t>();
      if (!read) wrong();
      **integer = *read;
    } else if (auto* const* pair = std::get_if<LayerConfig::Pair*>(&field)) {
      // One number stands for both.
      const auto* array = node.as_array();
      if (array != nullptr && array->size() != 2) wrong();
      for (std::size_t i = 0; i < 2; ++i) {
        const auto read = (array != nullptr ? *array->get(i) : node).value_exact<std::int64_t>();
        if (!read) wrong();
        (**pair)[i] = *read;
      }
    } else if (auto* const* list = std::get_if<std::vector<std::int64_t>*>(&field)) {
      const auto* array = node.as_array();
      if (array == nullptr) wrong();
      for (const toml::node& entry : *array) {
        const auto read = entry.value_exact<std::int64_t>();
        if (!read) wrong();
        (*list)->push_back(*read);
      }
    } else {
      const auto* array = node.as_array();
      if (array == nullptr) wrong();
      read_layers(*array, path, *std::get<std::vector<LayerConfig>*>(field));
    }
  }

  void read_layers(const toml::array& array, const std::string& path,
                   std::vector<LayerConfig>& into) {
    into.clear();
    for (const toml::node& entry : array) {
      const std::string layer_path = fmt::format("{}[{}]", path, into.size());
      const auto* table = entry.as_table();
      if (table == nullptr) {
        wrong_type(layer_path, type_name(entry), where(entry),
                   "a layer, { type = \"linear\", out = 512 }");
      }
      into.push_back(read_layer(*table, layer_path));
    }
  }

  std::string_view source_;
  std::string_view fixed_where_;
};

toml::table parse_toml(std::string_view text, std::string_view source) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw Error(Status::usage, fmt::format("not valid TOML: {}", error.description()),
                fmt::format("{}:{}", source, error.source().begin.line),
                "mend the line; `cuvae init` prints a working file");
  }
}

void check_schema(const toml::table& table, std::string_view source) {
  const toml::node* node = table.get("schema");
  if (node == nullptr) return;
  const auto version = node->value_exact<std::int64_t>();
  if (!version || *version != 1) {
    throw Error(Status::usage, "`schema` is not one that this version reads",
                fmt::format("{}:{}", source, node->source().begin.line), "use schema = 1");
  }
}

std::string preset_key(const toml::table& table, std::string_view source, std::string& where) {
  const toml::node* node = table.get("preset");
  if (node == nullptr) return {};
  where = fmt::format("{}:{}", source, node->source().begin.line);
  const auto* name = node->as_string();
  if (name == nullptr) wrong_type("preset", type_name(*node), where, "the name of a preset");
  return **name;
}

const Preset& find_preset(std::string_view name, std::string_view where) {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) {
    if (preset.name == name) return preset;
    names.push_back(preset.name);
  }
  const std::string guess = closest(name, names);
  throw Error(Status::usage, fmt::format("unknown preset {}", config::toml_string(name)), where,
              guess.empty() ? "`cuvae presets` lists them"
                            : fmt::format("did you mean {}?", config::toml_string(guess)));
}

// A preset may build on another one; the depth is bounded because files name each other freely.
void apply_preset(Merger& merger, std::string_view name, std::string_view where, int depth = 0) {
  if (depth > 8) {
    throw Error(Status::usage,
                fmt::format("preset {} inherits from itself", config::toml_string(name)), where,
                "break the circle");
  }
  const Preset& preset = find_preset(name, where);
  const std::string source = preset.name + ".toml";
  const toml::table table = parse_toml(preset.toml, source);
  check_schema(table, source);
  std::string inner_where;
  const std::string inner = preset_key(table, source, inner_where);
  if (!inner.empty()) apply_preset(merger, inner, inner_where, depth + 1);
  merger.apply(table, source);
  if (!table.contains("name")) merger.config.name = preset.name;
  // A preset is no file on the user's disk: its data counts from the current directory.
  merger.data_path_is_from_file = merger.validation_is_from_file = false;
}

std::string read_file(const std::filesystem::path& path) {
  const auto mend = [&]() -> std::string {
    for (const Preset& preset : presets()) {
      if (preset.name == path.string()) {
        return fmt::format("did you mean --preset {}?", preset.name);
      }
    }
    return "`cuvae init --preset mnist-mlp > config.toml` makes one";
  };
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw Error(Status::input, "no such configuration file", path.string(), mend());
  }
  if (std::filesystem::is_directory(status)) {
    throw Error(Status::input, "the configuration is a folder", path.string(),
                "give a TOML file, such as the folder's config.toml");
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(max_file_bytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(stream.gcount(), 0)));
  if (stream.bad() || (stream.fail() && !stream.eof())) {
    throw Error(Status::input, "cannot read the configuration", path.string(),
                "check its permissions");
  }
  if (text.size() > max_file_bytes) {
    throw Error(Status::input, "the configuration is larger than 16 MiB", path.string(),
                "give a TOML file");
  }
  return text;
}

// A name for the runs from the file's, with what a folder's name should not have replaced.
std::string name_from(const std::filesystem::path& file) {
  std::string name = file.stem().string().substr(0, 100);
  for (char& c : name) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-' || c == '.';
    if (!good) c = '_';
  }
  if (name.empty()) return "run";
  if (name[0] == '.' || name[0] == '-') name[0] = '_';
  return name;
}

}  // namespace

const char* process_environment(const char* name) {
  return std::getenv(name);
}

std::vector<std::string> process_environment_names() {
  std::vector<std::string> names;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    names.emplace_back(text.substr(0, text.find('=')));
  }
  return names;
}

Config load_config(const ConfigSources& sources) {
  Merger merger;
  toml::table table;
  std::string source;
  std::string preset = sources.preset;
  std::string preset_where = "--preset";
  if (!sources.file.empty()) {
    source = sources.file.string();
    table = parse_toml(read_file(sources.file), source);
    check_schema(table, source);
    std::string where;
    const std::string inherited = preset_key(table, source, where);
    if (preset.empty()) {
      preset = inherited;
      preset_where = where;
    }
  }
  if (!preset.empty()) apply_preset(merger, preset, preset_where);
  if (!sources.file.empty()) {
    if (!table.contains("name")) merger.config.name = name_from(sources.file);
    merger.apply(table, source);
  }
  if (sources.environment) {
    for (const std::string& variable : sources.environment_names) {
      const char* value = sources.environment(variable.c_str());
      if (value != nullptr && *value != '\0') config::refuse_unknown_variable(variable);
    }
    const auto from_environment = [&](const std::string& variable, std::string_view key) {
      const char* value = sources.environment(variable.c_str());
      if (value == nullptr || *value == '\0') return;
      const std::string where = "environment " + variable;
      merger.apply(ConfigOverride{.key = std::string(key), .value = value, .where = where});
    };
    for (const Key& key : config::keys()) {
      if (key.path == "run.device") from_environment("CUVAE_DEVICE", key.path);
      if (key.path == "run.threads") from_environment("CUVAE_THREADS", key.path);
      from_environment(config::environment_name(key.path), key.path);
    }
  }
  // Types first, whatever the order of the flags: another type forgets the options of the last.
  const auto is_type = [](const ConfigOverride& o) { return o.key.ends_with(".type"); };
  for (const ConfigOverride& override : sources.overrides)
    if (is_type(override)) merger.apply(override);
  for (const ConfigOverride& override : sources.overrides)
    if (!is_type(override)) merger.apply(override);
  merger.finish();
  const auto make_absolute = [&](std::string& path, bool from_file) {
    if (path.empty() || is_data_source(path)) return;
    std::filesystem::path from = path;
    if (from_file) from = sources.file.parent_path() / from;
    path = std::filesystem::absolute(from).lexically_normal().string();
  };
  make_absolute(merger.config.data.path, merger.data_path_is_from_file);
  make_absolute(merger.config.data.validation.path, merger.validation_is_from_file);
  if (DataConfig& data = merger.config.data; data.weights_are_a_file())
    make_absolute(data.weights, merger.weights_are_from_file);
  return merger.config;
}

Config parse_config(std::string_view toml, std::string_view source) {
  Merger merger;
  const toml::table table = parse_toml(toml, source);
  check_schema(table, source);
  std::string where;
  const std::string preset = preset_key(table, source, where);
  if (!preset.empty()) apply_preset(merger, preset, where);
  merger.apply(table, source);
  merger.finish();
  return merger.config;
}

Config preset_config(std::string_view name) {
  Merger merger;
  apply_preset(merger, name, "");
  merger.finish();
  return merger.config;
}

}  // namespace cuvae
