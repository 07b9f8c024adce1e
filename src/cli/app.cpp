#include "cli/app.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cctype>
#include <csignal>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "base/text.h"
#include "cli/command.h"
#include "config/keys.h"
#include "cuvae/config.h"
#include "cuvae/device.h"
#include "cuvae/error.h"
#include "cuvae/version.h"

namespace cuvae::cli {
namespace {

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      train_command(),   eval_command(),   sample_command(), reconstruct_command(),
      encode_command(),  decode_command(), score_command(),  probe_command(),
      compare_command(), bench_command(),  info_command(),   presets_command(),
      init_command(),
  };
  return all;
}

std::string overview() {
  std::string text =
      "cuvae trains and runs variational autoencoders.\n\n"
      "Examples:\n"
      "  cuvae train --preset mnist-mlp --out runs/mnist\n"
      "  cuvae sample runs/mnist --count 64 --out samples.png\n"
      "  cuvae init --preset mnist-mlp > my.toml && cuvae train my.toml\n\n"
      "Usage: cuvae COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command& command : commands()) {
    text += fmt::format("  {:<12} {}\n", command.name, command.summary);
  }
  text +=
      "\nOptions:\n"
      "  -h, --help   this text; `cuvae COMMAND --help` tells more\n"
      "  --version    version and build\n\n"
      "Exit status: 0 done, 1 failed, 2 usage or configuration, 3 unreadable or invalid input\n"
      "file, 4 device or memory, 5 the training diverged, 6 a comparison outside its tolerance,\n"
      "130 interrupted.";
  return text;
}

std::string version_text() {
  std::string text =
      fmt::format("cuvae {} ({}, {}, {})", version(), git_hash(), build_type(), compiler());
  for (const DeviceInfo& device : list_devices().devices) {
    text += fmt::format("\n{}: {}, {}", device.name, device.model, device.details);
  }
  return text;
}

[[noreturn]] void refuse_argument(const CLI::App& app, std::string_view command,
                                  const std::string& argument) {
  const std::string name = argument.substr(0, argument.find('='));
  const std::string help = fmt::format("`cuvae {} --help` lists them", command);
  if (!name.starts_with('-') || name == "-" || name == "--") {
    throw Error(Status::usage, fmt::format("unexpected argument `{}`", argument), "command line",
                fmt::format("see `cuvae {} --help`", command));
  }
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // hidden
    for (const std::string& longname : option->get_lnames()) names.push_back("--" + longname);
  }
  const std::string guess = closest(name, names);
  throw Error(Status::usage, fmt::format("unknown flag `{}`", name), "command line",
              guess.empty() ? help : fmt::format("did you mean `{}`?", guess));
}

// CLI11 takes whatever follows a flag as its value, even another flag.
void refuse_flags_as_values(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_items_expected_max() == 0) continue;
    for (const std::string& value : option->results()) {
      if (value.starts_with("--") &&
          app.get_option_no_throw(value.substr(0, value.find('='))) != nullptr) {
        throw Error(
            Status::usage,
            fmt::format("`{}` stands where the value of `{}` should", value, option->get_name()),
            "command line", "give the flag its value");
      }
    }
  }
}

int run_command(const Command& command, const std::vector<std::string>& arguments) {
  std::string description(command.summary);
  description[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(description[0])));
  description += ".\n\nExamples:";
  std::size_t begin = 0;
  while (begin < command.examples.size()) {
    const std::size_t end = std::min(command.examples.find('\n', begin), command.examples.size());
    description += fmt::format("\n  {}", command.examples.substr(begin, end - begin));
    begin = end + 1;
  }
  CLI::App app(description + "\n", fmt::format("cuvae {}", command.name));
  app.allow_extras();
  app.get_formatter()->column_width(30);
  app.get_formatter()->label("Positionals", "Arguments");
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.set_help_flag("-h,--help", "this text");
  Flags flags(app);
  const Run run = command.setup(flags);
  Output output;
  app.add_flag("--json", output.json, "print the result as one JSON object");
  app.add_flag("-q,--quiet", output.quiet, "no log and no progress");
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    std::string help = app.help();
    help.erase(help.find_last_not_of('\n') + 1);
    output.text(help);
    output.finish();
    return 0;
  } catch (const CLI::ParseError& error) {
    throw Error(Status::usage, error.what(), "command line",
                fmt::format("see `cuvae {} --help`", command.name));
  }
  const std::vector<std::string> extras = app.remaining();
  for (const std::string& extra : extras) {
    if (extra.starts_with('-')) refuse_argument(app, command.name, extra);
  }
  if (!extras.empty()) refuse_argument(app, command.name, extras.front());
  refuse_flags_as_values(app);
  for (const std::string& name : process_environment_names()) {
    const std::string meant = config::variable_meant_by(name);
    const char* value = meant.empty() ? nullptr : process_environment(name.c_str());
    if (value == nullptr || *value == '\0') continue;
    output.log(fmt::format("cuvae: warning: `{}` has no effect (environment): did you mean `{}`?",
                           name, meant));
  }
  const int status = run(output);
  output.finish();
  return status;
}

int dispatch(std::vector<std::string> arguments) {
  const Output output;
  const auto is_help = [](const std::string& a) { return a == "-h" || a == "--help"; };
  if (arguments.empty()) {
    throw Error(Status::usage, "no command", "command line", "see `cuvae --help`");
  }
  if (arguments[0] == "help" && arguments.size() > 1) {
    arguments = {arguments[1], "--help"};
  }
  // What an unset variable of a shell leaves.
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].empty()) continue;
    throw Error(Status::usage, "an empty argument",
                i == 0 ? "command line" : fmt::format("after `{}`", arguments[i - 1]),
                "give a value, or leave both out");
  }
  const std::string& first = arguments[0];
  if (is_help(first) || first == "help") {
    output.text(overview());
    output.finish();
    return 0;
  }
  if (first == "--version") {
    output.text(version_text());
    output.finish();
    return 0;
  }
  std::vector<std::string> names;
  for (const Command& command : commands()) {
    if (command.name == first) {
      return run_command(command, {arguments.begin() + 1, arguments.end()});
    }
    names.emplace_back(command.name);
  }
  if (first.starts_with('-')) {
    const std::string guess = closest(first, {"--help", "--version"});
    throw Error(Status::usage, fmt::format("unknown flag `{}`", first), "command line",
                guess.empty() ? "flags stand after the command, see `cuvae --help`"
                              : fmt::format("did you mean `{}`?", guess));
  }
  const std::string guess = closest(first, names);
  throw Error(
      Status::usage, fmt::format("unknown command `{}`", first), "command line",
      guess.empty() ? "`cuvae --help` lists them" : fmt::format("did you mean `{}`?", guess));
}

}  // namespace

int run_cuvae(int argc, const char* const* argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is told as a full disk is, by the write
  try {
    return dispatch({argv + (argc > 0 ? 1 : 0), argv + argc});
  } catch (const Error& error) {
    print_error(error.what());
    return static_cast<int>(error.status());
  } catch (const std::bad_alloc&) {
    print_error(
        "out of memory (host): take a smaller batch or model, or less data; `cuvae info --config` "
        "tells what a model needs");
    return static_cast<int>(Status::device);
  } catch (const std::exception& error) {
    print_error(fmt::format("{} (unexpected): please report it", error.what()));
    return static_cast<int>(Status::failed);
  }
}

}  // namespace cuvae::cli
