#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cuvae/run.h"
#include "cuvae/trainer.h"

namespace cuvae {

// {loss, neg_elbo, reconstruction, kl, n}, as every result has them; and `accuracy`, where there is
// one.
[[nodiscard]] nlohmann::ordered_json as_json(const Metrics& metrics);
// {epoch, step, metric, value}
[[nodiscard]] nlohmann::ordered_json as_json(const BestEvaluation& best);

}  // namespace cuvae
