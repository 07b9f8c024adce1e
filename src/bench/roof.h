#pragma once
// What a device reaches at best: the roof that times are held against.

#include <cstdint>
#include <string>

#include "cuvae/device.h"

namespace cuvae {

struct Roof {
  double gflops = 0;  // of a large matrix product
  double gbytes = 0;  // per second, of adding vectors larger than the caches
};

// Through programs of the device, in that precision: sizes grow until one run takes some
// milliseconds. The operands are random.
[[nodiscard]] Roof measure_roof(Device& device, const CompileOptions& options);

// Bytes per second of copying (read and written) over a footprint of `bytes` on `threads` threads.
[[nodiscard]] double copy_bandwidth(std::int64_t bytes, int threads);

}  // namespace cuvae
