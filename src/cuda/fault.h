#pragma once
// How a kernel reports what it finds wrong in its data. Plain C++, for host and device code.

#include <cstdint>

#include "cuvae/error.h"
#include "cuvae/graph.h"

namespace cuvae::cuda {

enum class FaultKind : std::uint8_t {
  none,
  position,  // batch_index: positions outside the epoch
  row,       // gather: a row outside the window
  key,       // a keyed draw: an index that is negative or too large
  stuck,     // the persistent path: a block waited in vain for others
};

// One word of device memory for each program: 0, or the fault that came first, as node << 8 | kind.
// The host looks at it whenever it waits for the device.
struct FaultWord {
  unsigned* word = nullptr;
  unsigned node = 0;  // its place in the graph, below 2^24

  [[nodiscard]] static constexpr unsigned code(unsigned node, FaultKind kind) {
    return node << 8 | static_cast<unsigned>(kind);
  }
};

// What such a word means, for the program of that graph.
[[nodiscard]] Error fault_error(const Graph& graph, unsigned code);

}  // namespace cuvae::cuda
