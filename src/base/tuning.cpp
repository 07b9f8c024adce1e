#include "cuvae/tuning.h"

#include <fmt/format.h>

#include <algorithm>

#include "cuvae/error.h"

namespace cuvae {

std::optional<std::string> Tuning::find(const std::string& product) const {
  const auto found = choices_.find(product);
  return found == choices_.end() ? std::nullopt : std::optional(found->second);
}

void Tuning::set(const std::string& product, std::string algorithm) {
  choices_[product] = std::move(algorithm);
}

std::string Tuning::str() const {
  std::string text;
  for (const auto& [product, algorithm] : choices_)
    text += fmt::format("{}{} = {}", text.empty() ? "" : "; ", product, algorithm);
  return text;
}

Tuning Tuning::parse(std::string_view text, std::string_view where) {
  Tuning tuning;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find("; "), text.size());
    const std::string_view entry = text.substr(0, end);
    const std::size_t equals = entry.find(" = ");
    if (equals == 0 || equals == std::string_view::npos || equals + 3 == entry.size())
      throw Error(Status::input, fmt::format("`{}` is no choice of an algorithm", entry), where,
                  "resume from a checkpoint of this very run, or train anew with --overwrite");
    tuning.set(std::string(entry.substr(0, equals)), std::string(entry.substr(equals + 3)));
    text.remove_prefix(std::min(end + 2, text.size()));
  }
  return tuning;
}

}  // namespace cuvae
