#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cuvae/trainer.h"

namespace cuvae {

// {loss, neg_elbo, reconstruction, kl, n}, as every result has them.
[[nodiscard]] nlohmann::ordered_json as_json(const Metrics& metrics);

}  // namespace cuvae
