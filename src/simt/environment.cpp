#include "simt/environment.h"

#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <utility>

#include "cuvae/error.h"

namespace cuvae::simt {
namespace {

template <class T>
void choose(const char* variable, T& value,
            std::initializer_list<std::pair<std::string_view, T>> choices) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return;
  std::string mend = "use";
  for (const auto& [name, choice] : choices) {
    if (name == text) {
      value = choice;
      return;
    }
    mend.append(" ").append(name);
  }
  throw Error(Status::usage, std::string(variable) + " is '" + text + "'", {}, mend);
}

template <class T>
void number(const char* variable, T& value) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return;
  const std::string_view digits = text;
  const auto [end, error] = std::from_chars(text, text + digits.size(), value);
  if (error != std::errc() || end != text + digits.size() || digits.empty())
    throw Error(Status::usage, std::string(variable) + " is '" + text + "'", {}, "use a number");
}

}  // namespace

SimtOptions options_of_environment() {
  SimtOptions options;
  if (const char* chip = std::getenv("CUVAE_SIMT_CHIP")) options.chip = chip;
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
  if (const char* mutation = std::getenv("CUVAE_SIMT_MUTATION"))
    options.mutation = parse_mutation(mutation);
  return options;
}

}  // namespace cuvae::simt
