#include "model/likelihood.h"

#include <fmt/format.h>

#include "cuvae/error.h"
#include "likelihoods/likelihoods.h"

namespace cuvae {

ModelLikelihood model_likelihood(const LikelihoodConfig& config) {
  ModelLikelihood likelihood{
      .heads = {"decoder.out"}, .global = {}, .op = {}, .attrs = {}, .library = false};
  const bool fixed = config.learned == "none";
  if (config.type == "bernoulli" || (config.type == "gaussian" && fixed)) {
    likelihood.op = config.type + "_nll";
    if (config.type == "gaussian") likelihood.attrs.set("sigma", config.sigma);
    return likelihood;
  }
  if (const LikelihoodInfo* whole = find_likelihood(config.type);
      whole != nullptr && whole->op == "multinomial_nll") {
    likelihood.op = whole->op;
    return likelihood;
  }
  if (config.type == likelihoods::categorical_info.name) {
    if (config.classes < 2 || config.classes > 256)
      throw Error(Status::usage, fmt::format("a categorical likelihood of {}", config.classes),
                  "model.likelihood.classes", "choose from 2 to 256");
    likelihood.op = likelihoods::categorical_info.op;
    likelihood.outputs = config.classes;
    return likelihood;
  }
  const LikelihoodInfo& info = likelihood_info(parse_likelihood(config.type));
  likelihood.op = "nll";
  likelihood.attrs.set("likelihood", config.type);
  likelihood.library = config.library;
  int own = info.parameters;  // heads
  if (info.fixed_scale && config.learned != "pixel") {
    --own;
    if (fixed)
      likelihood.attrs.set("scale", config.sigma);
    else
      likelihood.global = "likelihood." + std::string(info.names[static_cast<std::size_t>(own)]);
  }
  for (int i = 1; i < own; ++i)
    likelihood.heads.push_back("decoder.out_" +
                               std::string(info.names[static_cast<std::size_t>(i)]));
  return likelihood;
}

}  // namespace cuvae
