#include "train/metrics_json.h"

#include <nlohmann/json.hpp>

namespace cuvae {

nlohmann::ordered_json as_json(const Metrics& metrics) {
  return {{"loss", metrics.loss},
          {"neg_elbo", metrics.neg_elbo},
          {"reconstruction", metrics.reconstruction},
          {"kl", metrics.kl},
          {"n", metrics.n}};
}

}  // namespace cuvae
