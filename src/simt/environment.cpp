#include "simt/environment.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <utility>

#include "cuvae/error.h"

namespace cuvae::simt {
namespace {

template <class T>
void choose(const char* variable, T& value,
            std::initializer_list<std::pair<std::string_view, T>> choices) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return;
  std::string mend = "use ";
  for (const auto& [name, choice] : choices) {
    if (name == text) {
      value = choice;
      return;
    }
    if (name == (choices.end() - 1)->first)
      mend += " or ";
    else if (mend != "use ")
      mend += ", ";
    mend += name;
  }
  throw Error(Status::usage, "'" + std::string(text) + "' is none of its values", variable, mend);
}

template <class T>
void number(const char* variable, T& value) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return;
  const std::string_view digits = text;
  const auto [end, error] = std::from_chars(text, text + digits.size(), value);
  if (error != std::errc() || end != text + digits.size() || digits.empty())
    throw Error(Status::usage, "'" + std::string(text) + "' is no number", variable,
                "use a whole number from 0 to " + std::to_string(std::numeric_limits<T>::max()));
}

// A misspelt variable would silently test nothing.
void refuse_others(std::initializer_list<std::string_view> known) {
  constexpr std::string_view prefix = "CUVAE_SIMT_";
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    if (!name.starts_with(prefix)) continue;
    if (std::find(known.begin(), known.end(), name.substr(prefix.size())) != known.end()) continue;
    std::string mend = "there are";
    for (const std::string_view one : known) mend.append(" ").append(prefix).append(one);
    throw Error(Status::usage, "unknown variable of the runner", std::string(name), mend);
  }
}

}  // namespace

SimtOptions options_of_environment() {
  refuse_others({"CHIP", "ORDER", "SEED", "STREAMS", "COPIES", "DEPENDENTS", "MEMORY", "MUTATION"});
  SimtOptions options;
  if (const char* chip = std::getenv("CUVAE_SIMT_CHIP"); chip != nullptr && *chip != '\0')
    options.chip = chip;
  choose("CUVAE_SIMT_ORDER", options.order,
         {{"sequential", Order::sequential},
          {"reverse", Order::reverse},
          {"random", Order::random},
          {"greedy", Order::greedy}});
  choose("CUVAE_SIMT_STREAMS", options.streams,
         {{"immediate", StreamOrder::immediate}, {"deferred", StreamOrder::deferred}});
  choose("CUVAE_SIMT_COPIES", options.async_copies,
         {{"late", AsyncCopies::late}, {"early", AsyncCopies::early}});
  choose("CUVAE_SIMT_DEPENDENTS", options.programmatic_early, {{"early", true}, {"late", false}});
  number("CUVAE_SIMT_SEED", options.seed);
  number("CUVAE_SIMT_MEMORY", options.memory_bytes);
  if (const char* mutation = std::getenv("CUVAE_SIMT_MUTATION");
      mutation != nullptr && *mutation != '\0')
    options.mutation = parse_mutation(mutation);
  return options;
}

}  // namespace cuvae::simt
