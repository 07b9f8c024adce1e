#pragma once
// The real GPU, as tests of kernels use it: one that this machine has and that the build's kernels
// run on.

#include <cstdint>
#include <string>
#include <vector>

#include "ops/parity_check.h"

namespace cuvae::testing {

// Why there is no such GPU; empty where there is one. Asked once.
const std::string& no_gpu();

// fp32, tf32 and bf16 on the GPU, as it is and with products cut for 8 multiprocessors and for 1,
// which take the larger tiles. Making the list touches no GPU; opening a device does. Variants:
// 0 as programs run, 1 without programmatic launches, 2 as 0 once more. None may differ by a bit.
const std::vector<Backend>& gpu_backends();

// Cases of more elements in all inputs together are left out: the environment's
// CUVAE_TEST_ELEMENTS, for tools that slow a GPU down; without it, none is.
std::int64_t most_elements();

}  // namespace cuvae::testing
