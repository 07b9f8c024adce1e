#pragma once
// A kernel table whose kernels are the CPU backend's: what the host side of the CUDA backend does
// can be compared with the CPU bit for bit, on a machine without a GPU and without kernels for one.

#include "cuda/kernel.h"

namespace cuvae::cuda {

// For DeferredRuntime. Every kernel also demands what it asked for: zero counters, which it uses
// and leaves zero, and a workspace, which it overwrites.
const KernelTable& host_kernels();

}  // namespace cuvae::cuda
