#pragma once
// What a device reaches at best: the roof that times are held against.

#include <algorithm>
#include <cstdint>

#include "cuvae/device.h"
#include "graph/op.h"

namespace cuvae {

struct Roof {
  double gflops = 0;  // of a large matrix product; 0: not measured
  double gbytes = 0;  // per second, of adding vectors larger than the caches

  // The least possible time: the longer of FLOPs at the one rate and bytes at the other.
  [[nodiscard]] double seconds(double flops, double bytes) const {
    const double products = gflops > 0 ? 1e-9 * flops / gflops : 0;
    return std::max(products, gbytes > 0 ? 1e-9 * bytes / gbytes : 0);
  }
};

// FLOPs and least bytes of all nodes.
[[nodiscard]] Cost cost_of(const Graph& graph);

// Through programs of the device, in that precision: sizes grow until one run takes some
// milliseconds. The operands are random.
[[nodiscard]] Roof measure_roof(Device& device, const CompileOptions& options);

// Bytes per second of copying (read and written) over a footprint of `bytes` on `threads` threads.
[[nodiscard]] double copy_bandwidth(std::int64_t bytes, int threads);

}  // namespace cuvae
