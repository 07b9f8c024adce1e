#pragma once
// What Program::run_batches() is asked for, checked: the same for every backend.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cuvae/graph.h"

namespace cuvae {

struct Batches {
  Value input;   // persistent
  Value output;  // a graph output
  std::int64_t count = 0;
  std::size_t input_bytes = 0;   // of one batch, as the tensors have it
  std::size_t output_bytes = 0;  // ...
};

// Throws Error(usage) as run_batches() says.
[[nodiscard]] Batches batches_of(const Graph& graph, int steps, std::string_view input,
                                 const Tensor& rows, std::string_view output,
                                 const Tensor& results);

}  // namespace cuvae
