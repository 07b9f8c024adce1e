#pragma once
// Waiting with an end. Blocks that wait for one another set `failed` and leave when a wait took too
// long, so that a measurement ends in an error and never hangs.

#include "kernels/device/device.cuh"

namespace cuvae::units {

using gpu::device::add_acq_rel;
using gpu::device::load_acquire;
using gpu::device::store_release;

constexpr unsigned most_polls = 1u << 22;  // some seconds

// Adds without waiting for the old value.
__device__ __forceinline__ void add_release(unsigned* address, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// Until *address is at least `target`; false after most_polls, or where another wait has failed.
__device__ __forceinline__ bool wait_for(const unsigned* address, unsigned target,
                                         unsigned* failed) {
  for (unsigned polls = 0; polls < most_polls; ++polls) {
    if (load_acquire(address) >= target) return true;
    if (polls % 1024 == 1023 && load_acquire(failed) != 0) return false;
  }
  store_release(failed, 1u);
  return false;
}

}  // namespace cuvae::units
