#pragma once
// Where a step finds its counters and hyper-parameters: in device memory, at the unrolled step.

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

// The row {lr, beta} of this unrolled step.
inline const float* hyper_row(const CudaArgs& args, int input) {
  return args.in(input) + 2 * static_cast<std::int64_t>(args.step);
}

// Entries of the clock.
inline constexpr int clock_seed = 0;
inline constexpr int clock_step = 1;
inline constexpr int clock_epoch = 2;
inline constexpr int clock_position = 3;
inline constexpr int clock_base = 4;

}  // namespace CUVAE_KERNELS
