#pragma once
// Several models side by side on one device, against one.

#include <memory>
#include <vector>

#include "bench/measure.h"
#include "cuvae/bench.h"

namespace cuvae {

// 1, 2, 4, ... up to options.replicas, turn by turn.
[[nodiscard]] std::vector<ReplicasBench> bench_replicas(
    const Config& config, const std::shared_ptr<const Dataset>& dataset, Device& device,
    const BenchOptions& options, Session& session);

}  // namespace cuvae
