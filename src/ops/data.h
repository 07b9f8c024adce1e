#pragma once
// Which positions of an epoch a batch's rows stand at.

#include <cstdint>

#include "cuvae/graph.h"

namespace cuvae {

// Of batch_index (src/ops/data.cpp): row b of unrolled step s has the number
// (clock.position + s * stride) * times + b.
struct BatchPositions {
  std::int64_t stride = 0;  // rows of the epoch in a step
  std::int64_t times = 1;   // numbers of each
  std::int64_t last = 0;    // the last position a batch may begin at
  bool beside = false;      // draws beside the epoch's own rows
};
// Throws Error(usage).
BatchPositions batch_positions(const Attrs& attrs, bool weighted);

}  // namespace cuvae
