#include "train/metrics_json.h"

#include <nlohmann/json.hpp>

namespace cuvae {

nlohmann::ordered_json as_json(const Metrics& metrics) {
  nlohmann::ordered_json json = {{"loss", metrics.loss},
                                 {"neg_elbo", metrics.neg_elbo},
                                 {"reconstruction", metrics.reconstruction},
                                 {"kl", metrics.kl},
                                 {"n", metrics.n}};
  if (metrics.autoencoder) json["neg_elbo"] = json["kl"] = nullptr;  // it has none
  if (metrics.accuracy) json["accuracy"] = *metrics.accuracy;
  return json;
}

nlohmann::ordered_json as_json(const BestEvaluation& best) {
  return {
      {"epoch", best.epoch}, {"step", best.step}, {"metric", best.metric}, {"value", best.value}};
}

}  // namespace cuvae
