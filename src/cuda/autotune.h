#pragma once
// Algorithms of a library's product, timed on the GPU at hand.

#include <memory>
#include <vector>

#include "cuda/blas.h"
#include "cuda/context.h"

namespace cuvae::cuda {

// The place of the fastest of the candidates, each run several times on random numbers (zeros would
// be faster than any data); the least of several times counts. The first where there is too little
// free memory for the operands. Leaves nothing on the device. Throws Error(device).
[[nodiscard]] std::size_t fastest(Context& context, const BlasProduct& product,
                                  const std::vector<std::unique_ptr<Blas::Plan>>& candidates);

}  // namespace cuvae::cuda
