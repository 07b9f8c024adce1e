#pragma once
// The list of likelihoods: descriptions by name, and all formulas.

#include <span>
#include <string>

#include "likelihoods/categorical.h"
#include "likelihoods/likelihood.h"

#define CUVAE_LIKELIHOOD(name)
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD

namespace cuvae {

// Those of the operator nll.
enum class LikelihoodKind : std::uint8_t {
#define CUVAE_LIKELIHOOD(name) name,
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
  count
};

const LikelihoodInfo& likelihood_info(LikelihoodKind kind);
// All, with those that have operators of their own (categorical, multinomial). The Bernoulli and
// the Gaussian of a fixed sigma with their fused forms are bernoulli_nll and gaussian_nll.
std::span<const LikelihoodInfo* const> all_likelihoods();
// By name, of all; null where there is none.
const LikelihoodInfo* find_likelihood(std::string_view name);
// What targets the likelihood of a configuration takes: with "bernoulli", of [0, 1].
LikelihoodTarget likelihood_target(std::string_view name);
// Throws Error(usage) with a "did you mean".
LikelihoodKind parse_likelihood(std::string_view name);

// "" where a value is a target of this likelihood, else what it should be: "a count". `most` is the
// number of trials or classes, where there is one. For whoever reads data: operators do not check,
// and a label outside the classes makes the loss NaN.
std::string target_problem(const LikelihoodInfo& info, double value, double most);

// Bits per dimension of `nll` nats over d dimensions of 8-bit data; NaN where the likelihood is
// none of bytes. `levels` is the number of values that a pixel has under a discrete one (trials +
// 1, or classes). Data of a continuous one must have been dequantised to (byte + u) / 256.
double bits_per_dim(const LikelihoodInfo& info, double nll, double d, double levels);

}  // namespace cuvae
