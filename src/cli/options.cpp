#include "cli/options.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

#include "base/text.h"
#include "config/keys.h"
#include "cuvae/error.h"
#include "device/registry.h"
#include "io/file.h"

namespace cuvae::cli {

CLI::Option* Flags::value(const char* name, std::string& target, const char* type,
                          const char* help) {
  CLI::Option* option = app_.add_option(name, target, help);
  // An empty text would make CLI11 print its own type name.
  option->option_text(*type != '\0' ? type : " ");
  return option;
}

void Flags::hidden(const char* name, std::string& target) {
  app_.add_option(name, target)->group("");
}

void Flags::list(const char* name, std::vector<std::string>& target, const char* type,
                 const char* help) {
  app_.add_option(name, target, help)
      ->option_text(type)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1)
      ->allow_extra_args(false);
}

void Flags::flag(const char* name, bool& target, const char* help) {
  app_.add_flag(name, target, help);
}

bool Flags::given(const std::string& name) const {
  return app_.get_option(name)->count() > 0;
}

void ConfigFlags::add_key(Flags& flags, const char* name, const char* key, const char* type,
                          const char* help) {
  Flag& flag = flags_.emplace_back(Flag{key, {}, nullptr});
  flag.option = flags.value(name, flag.value, type, help);
}

void ConfigFlags::add(Flags& flags, bool positional) {
  if (positional) {
    flags.value("CONFIG", file_, "", "a TOML file; `cuvae init` prints one to start from");
  } else {
    flags.value("--config", file_, "FILE", "a TOML file");
  }
  flags.value("--preset", preset_, "NAME", "start from a preset; `cuvae presets` lists them");
  add_key(flags, "--data", "data.path", "PATH",
          "folder or file of the data, or a source (`cuvae presets`)");
  add_key(flags, "--epochs", "train.epochs", "N", "epochs in total");
  add_key(flags, "--batch-size", "train.batch_size", "N", "rows per step");
  add_key(flags, "--lr", "train.lr", "X", "learning rate");
  add_key(flags, "--seed", "train.seed", "S", "of every random number");
  add_device(flags);
  flags.list("--set", sets_, "KEY=VALUE", "set any key of the configuration; may be repeated");
}

void ConfigFlags::add_device(Flags& flags) {
  add_key(flags, "--device", "run.device", "NAME", "auto | cpu | cuda | cuda:N");
  add_key(flags, "--threads", "run.threads", "N", "CPU threads; 0 = all cores");
  add_key(flags, "--exec", "run.exec", "NAME", "auto | eager | graph | persistent");
  add_key(flags, "--precision", "run.precision", "NAME", "fp32 | tf32 | bf16");
}

bool ConfigFlags::is_set(std::string_view key) const {
  for (const Flag& flag : flags_) {
    if (flag.key == key) return flag.option->count() > 0;
  }
  return false;
}

Config ConfigFlags::load(const std::filesystem::path& instead) const {
  ConfigSources sources;
  sources.file = file_;
  sources.preset = preset_;
  if (!has_source()) sources.file = instead;
  sources.environment = process_environment;
  sources.environment_names = process_environment_names();
  for (const std::string& text : sets_) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw Error(Status::usage, fmt::format("`{}` is no setting", text), "--set",
                  "give KEY=VALUE, as in --set train.lr=1e-3");
    }
    std::string key = text.substr(0, equals);
    key.erase(key.find_last_not_of(' ') + 1);
    sources.overrides.push_back({key, text.substr(equals + 1), "--set " + key});
  }
  // After --set, so that a flag of its own wins.
  for (const Flag& flag : flags_) {
    if (flag.option->count() > 0) {
      sources.overrides.push_back({flag.key, flag.value, flag.option->get_name()});
    }
  }
  return load_config(sources);
}

bool ConfigFlags::says(std::string_view key) const {
  const char* variable = process_environment(config::environment_name(key).c_str());
  return is_set(key) || (variable != nullptr && *variable != '\0') ||
         std::ranges::any_of(sets_, [&](const std::string& text) {
           std::string_view set(text);
           set = set.substr(0, set.find('='));
           while (set.ends_with(' ')) set.remove_suffix(1);
           return key == set || (key.starts_with(set) && key[set.size()] == '.');
         });
}

bool ConfigFlags::builds() const {
  return std::ranges::any_of(sets_,
                             [](const std::string& text) { return !text.starts_with("run."); }) ||
         std::ranges::any_of(flags_, [](const Flag& flag) {
           return flag.option->count() > 0 && !flag.key.starts_with("run.");
         });
}

std::int64_t parse_integer(const std::string& text, std::string_view flag, std::int64_t low,
                           std::int64_t high) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || value < low || value > high) {
    throw Error(Status::usage, fmt::format("`{}` is not a possible value", text), flag,
                fmt::format("give an integer from {} to {}", low, high));
  }
  return value;
}

void require_given(const std::string& text, std::string_view flag, std::string_view what) {
  if (text.empty()) {
    throw Error(Status::usage, fmt::format("{} is missing", flag), "command line",
                fmt::format("give {}", what));
  }
}

std::unique_ptr<Device> open_device(const RunConfig& run, DType real) {
  return cuvae::open_device(run.device,
                            DeviceOptions{.threads = static_cast<int>(run.threads), .real = real});
}

void announce_device(const RunConfig& run, const Device& device, const Output& output) {
  if (run.device != "auto") return;
  const DeviceInfo info = device.info();
  std::string line = fmt::format("device: {}, {}", info.name, info.model);
  if (info.name == "cpu") {
    const std::string why = no_gpu_reason();
    if (!why.empty()) line += fmt::format(" (no GPU: {})", why);
  }
  output.log(line);
}

const DatasetSplit& select_split(const Dataset& dataset, const std::string& split) {
  if (split != "train" && split != "test" && split != "validation") {
    const std::string guess = closest(split, {"train", "test", "validation"});
    throw Error(
        Status::usage, fmt::format("unknown split `{}`", split), "--split",
        guess.empty() ? "use train, test or validation" : fmt::format("did you mean `{}`?", guess));
  }
  const auto& chosen = split == "train"  ? dataset.train
                       : split == "test" ? dataset.test
                                         : dataset.validation;
  if (!chosen) {
    throw Error(Status::usage, fmt::format("the data has no {} split", split),
                dataset.path.string(),
                fmt::format("use --split {}", dataset.test ? "test" : "train"));
  }
  return *chosen;
}

OutputFormat output_format(const std::string& path, const std::vector<OutputFormat>& allowed) {
  static constexpr std::string_view endings[] = {".png", ".npy", ".csv"};
  const std::string extension = std::filesystem::path(path).extension().string();
  std::string names;
  for (const OutputFormat format : allowed) {
    const std::string_view ending = endings[static_cast<std::size_t>(format)];
    if (extension == ending) return format;
    names += fmt::format("{}X{}", names.empty() ? "" : " or ", ending);
  }
  throw Error(Status::usage, fmt::format("`{}` names no format that this can write", path), "--out",
              fmt::format("give {}", names));
}

void require_writable(const std::string& path) {
  std::error_code error;
  const auto there = std::filesystem::status(path, error);
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there) &&
      !std::filesystem::is_directory(there))
    return;
  const AtomicFile file(path);
}

void check_out(const std::string& path, const std::vector<OutputFormat>& allowed) {
  (void)output_format(path, allowed);
  require_writable(path);
}

}  // namespace cuvae::cli
