#pragma once
// Stands in for a library of matrix products where the GPU is the runner: plain loops that keep to
// the interface, its epilogues included, in streams and captured graphs like any kernel.

#include <chrono>
#include <functional>
#include <memory>

#include "cuda/blas.h"

namespace cuvae::simt {

struct HostBlasOptions {
  std::chrono::milliseconds delay = {};
  // Products that it has no algorithm for; null: none.
  std::function<bool(const cuda::BlasProduct&)> refuses = {};
};

// It has two algorithms for each product, with other bits. The first, which it thinks best, takes
// `delay` longer than it needs.
[[nodiscard]] std::unique_ptr<cuda::Blas> make_host_blas(HostBlasOptions options = {});

}  // namespace cuvae::simt
