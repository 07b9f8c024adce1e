#include "likelihoods/likelihoods.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

constexpr const LikelihoodInfo* table[] = {
#define CUVAE_LIKELIHOOD(name) &likelihoods::name::info,
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
    &likelihoods::categorical_info, &likelihoods::multinomial_info};

bool whole(double value) {
  return value == std::rint(value);
}

}  // namespace

const LikelihoodInfo& likelihood_info(LikelihoodKind kind) {
  return *table[static_cast<std::size_t>(kind)];
}

std::span<const LikelihoodInfo* const> all_likelihoods() {
  return table;
}

const LikelihoodInfo* find_likelihood(std::string_view name) {
  for (const LikelihoodInfo* info : table)
    if (info->name == name) return info;
  return nullptr;
}

LikelihoodTarget likelihood_target(std::string_view name) {
  if (name == "bernoulli") return LikelihoodTarget::unit;
  const LikelihoodInfo* info = find_likelihood(name);
  return info != nullptr ? info->target : likelihood_info(parse_likelihood(name)).target;
}

LikelihoodKind parse_likelihood(std::string_view name) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < static_cast<std::size_t>(LikelihoodKind::count); ++i) {
    if (table[i]->name == name) return static_cast<LikelihoodKind>(i);
    names.emplace_back(table[i]->name);
  }
  const std::string near = closest(name, names);
  throw Error(Status::usage, fmt::format("there is no likelihood \"{}\"", name), {},
              near.empty() ? fmt::format("use one of {}", fmt::join(names, ", "))
                           : fmt::format("did you mean \"{}\"?", near));
}

std::string target_problem(const LikelihoodInfo& info, double value, double most) {
  switch (info.target) {
    case LikelihoodTarget::reals: return std::isfinite(value) ? "" : "a finite number";
    case LikelihoodTarget::unit: return value >= 0 && value <= 1 ? "" : "a number from 0 to 1";
    case LikelihoodTarget::levels:
      // As float has k / most.
      return value >= 0 && value <= 1 && std::abs(value * most - std::rint(value * most)) < 1e-3
                 ? ""
                 : fmt::format("one of 0, 1/{0}, .., {0}/{0}", most);
    case LikelihoodTarget::counts:
      return value >= 0 && whole(value) && std::isfinite(value) ? "" : "a count";
    case LikelihoodTarget::labels:
      return value >= 0 && value < most && whole(value)
                 ? ""
                 : fmt::format("a label from 0 to {}", most - 1);
  }
  return "?";
}

double bits_per_dim(const LikelihoodInfo& info, double nll, double d, double levels) {
  const double bits = nll / (d * std::numbers::ln2);
  if (info.bits == LikelihoodBits::continuous) return bits + 8;
  if (info.bits == LikelihoodBits::discrete && levels == 256) return bits;
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace cuvae
