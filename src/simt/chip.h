#pragma once
// The GPU that the runner stands for: its limits, and how many blocks of a kernel run at once.

#include <string_view>

#include "cuda/runtime.h"

namespace cuvae::simt {

struct Chip {
  cuda::Properties properties;
  int max_blocks_per_multiprocessor = 32;
  std::size_t reserved_shared_per_block = 1024;
};

// "sm_80" (A100), "sm_90" (H200) or "sm_120" (RTX 5090), with the figures of the "CUDA C++
// Programming Guide", section "Compute capabilities". Throws Error(usage) for another name.
[[nodiscard]] Chip chip_of(std::string_view name);

// Blocks of one multiprocessor at once, as far as threads, blocks and shared memory decide (the
// host compiler does not count a kernel's registers).
[[nodiscard]] int resident_blocks(const Chip& chip, std::size_t block_threads,
                                  std::size_t shared_bytes);

}  // namespace cuvae::simt
