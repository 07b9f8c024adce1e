#pragma once
// Stands in for a library of matrix products where the GPU is the runner: plain loops that keep to
// the interface, its epilogues included, in streams and captured graphs like any kernel.

#include <memory>

#include "cuda/blas.h"

namespace cuvae::simt {

[[nodiscard]] std::unique_ptr<cuda::Blas> make_host_blas();

}  // namespace cuvae::simt
