#pragma once
// How commands declare their options. Values are taken as text, so that every complaint has our
// form and names the flag. (Keeps CLI11's headers, which are large, out of the commands' files.)

#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cuvae::cli {

class Flags {
 public:
  explicit Flags(CLI::App& app) : app_(app) {}
  // A name without dashes is a positional argument. `type` stands behind the name in the help. The
  // targets must outlive the parser; of a flag given twice the last value counts.
  CLI::Option* value(const char* name, std::string& target, const char* type, const char* help);
  // A flag for tests: works, but no help and no "did you mean" names it.
  void hidden(const char* name, std::string& target);
  void list(const char* name, std::vector<std::string>& target, const char* type, const char* help);
  void flag(const char* name, bool& target, const char* help);
  // Whether the command line, once it is parsed, had that name of these. As long as the parser
  // lives, which is as long as the command runs.
  [[nodiscard]] bool given(const std::string& name) const;

 private:
  CLI::App& app_;
};

}  // namespace cuvae::cli
