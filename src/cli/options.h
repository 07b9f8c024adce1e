#pragma once
// Options that several commands share.

#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/flags.h"
#include "cli/output.h"
#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"

namespace cuvae::cli {

// Flags that set configuration keys, and where the rest of the configuration comes from.
class ConfigFlags {
 public:
  // [CONFIG] or --config, --preset, --data, --epochs, ..., --set and the device's flags.
  void add(Flags& flags, bool positional = true);
  // --device, --threads, --exec and --precision alone, for commands that work on a finished run.
  void add_device(Flags& flags);

  // `instead` is the file where neither a file nor a preset was given.
  [[nodiscard]] Config load(const std::filesystem::path& instead = {}) const;
  [[nodiscard]] bool has_source() const { return !file_.empty() || !preset_.empty(); }
  [[nodiscard]] bool is_set(std::string_view key) const;  // by its flag
  // By its flag, --set (of it or its table) or its variable.
  [[nodiscard]] bool says(std::string_view key) const;
  // Whether --set or a flag says anything of what is built, and not only where it runs.
  [[nodiscard]] bool builds() const;

 private:
  struct Flag {
    std::string key;
    std::string value;
    CLI::Option* option = nullptr;
  };
  void add_key(Flags& flags, const char* name, const char* key, const char* type, const char* help);
  std::string file_;
  std::string preset_;
  std::vector<std::string> sets_;
  std::list<Flag> flags_;  // CLI11 keeps pointers to the values
};

// An integer option that is parsed by us. Error(usage) where the text is none or out of range.
[[nodiscard]] std::int64_t parse_integer(const std::string& text, std::string_view flag,
                                         std::int64_t low, std::int64_t high);

// Error(usage) where `text` was not given. `what` completes "give ...".
void require_given(const std::string& text, std::string_view flag, std::string_view what);

// The device that flags and environment ask for. (Commands on a finished run do not ask the run's
// own configuration: a model trained on a GPU is used anywhere.)
[[nodiscard]] std::unique_ptr<Device> open_device(const RunConfig& run, DType real = DType::f32);
// Where the device was left to us, says in one line which it is. Called once the input is known to
// be good, so that an error is the only line.
void announce_device(const RunConfig& run, const Device& device, const Output& output);

// "train" or "test"; Error(usage) where the data has no such split.
[[nodiscard]] const DatasetSplit& select_split(const Dataset& dataset, const std::string& split);

enum class OutputFormat : std::uint8_t { png, npy, csv };
// From the ending of --out, one of `allowed`; Error(usage) otherwise.
[[nodiscard]] OutputFormat output_format(const std::string& path,
                                         const std::vector<OutputFormat>& allowed);
// Before the work for it: Error(failed) where a file of that name cannot be written, such as in a
// folder that is not there. A pipe or device is not tried.
void require_writable(const std::string& path);
// Both of --out.
void check_out(const std::string& path, const std::vector<OutputFormat>& allowed);

}  // namespace cuvae::cli
