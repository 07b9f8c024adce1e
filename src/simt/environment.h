#pragma once
// How the program `cuvae-simt` sets up the runner: from environment variables, because the
// program's own options are those of every device.
//
//   CUVAE_SIMT_CHIP        sm_80 | sm_90 | sm_120           (sm_90)
//   CUVAE_SIMT_ORDER       sequential | reverse | random | greedy
//   CUVAE_SIMT_SEED        a number                         (1)
//   CUVAE_SIMT_STREAMS     immediate | deferred
//   CUVAE_SIMT_COPIES      late | early                     cp.async
//   CUVAE_SIMT_DEPENDENTS  early | late                     programmatic launches
//   CUVAE_SIMT_MEMORY      device memory in bytes           (as the chip has)
//   CUVAE_SIMT_MUTATION    a bug to be made (mutation.h): skip_barrier@kernels/gemm.cuh:108

#include "simt/runtime.h"

namespace cuvae::simt {

// Throws Error(usage) for a value that it does not know.
[[nodiscard]] SimtOptions options_of_environment();

}  // namespace cuvae::simt
