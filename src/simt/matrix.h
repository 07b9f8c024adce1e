#pragma once
// mma.sync of a whole warp. The elements that each lane holds are those of the tables in NVIDIA's
// "Parallel Thread Execution ISA", sections "Matrix fragments for mma.m16n8k8" and
// "... mma.m16n8k16". Products of tf32 and bf16 numbers are exact in float; their sum is rounded to
// float at each step, in order of k. The hardware's order and rounding are not documented: results
// that are exact do not depend on them, others only within a bound.

#include <array>
#include <cstdint>

namespace cuvae::simt {

struct Fragments {
  float* d = nullptr;                // 4
  const std::uint32_t* a = nullptr;  // 4
  const std::uint32_t* b = nullptr;  // 2
};
using WarpFragments = std::array<Fragments, 32>;

// [16, 8] += [16, 8] [8, 8]; of the operands' words the low 13 bits are ignored.
void multiply_tf32(const WarpFragments& warp);
// [16, 8] += [16, 16] [16, 8]; two elements a word, the first in the low half.
void multiply_bf16(const WarpFragments& warp);

}  // namespace cuvae::simt
