#pragma once
// The vocabulary of device code: plain CUDA C++ and what stands here. Each kernel file is compiled
// twice: by nvcc for the GPU (cuda.cuh), and by the host compiler for the SIMT runner, which runs
// it on the CPU (simt.cuh). Both give the same names; each compilation has a namespace of its own.
//
// Beside CUDA's own names (threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd on integers, ...):
//   CUVAE_SHARED(float, tile, [32][33]);      static shared memory, aligned to 16 bytes
//   CUVAE_DYNAMIC_SHARED(float, buffer);      `float* buffer`: the launch's dynamic shared memory
//   CUVAE_KERNELS::device::...                what PTX has and CUDA C++ has not, below
// Kernels may not use atomics on floating-point numbers (their order would show in results), nor
// spin on memory without __nanosleep or device::spinning() in the loop.

#ifndef CUVAE_KERNELS
#ifdef __CUDACC__
#define CUVAE_KERNELS cuvae::gpu
#else
#define CUVAE_KERNELS cuvae::gpu_on_simt
#endif
#endif

#ifdef __CUDACC__
#include "kernels/device/cuda.cuh"
#else
#include "kernels/device/simt.cuh"
#endif

namespace CUVAE_KERNELS::device {

// The code of the first fault stays in `word`.
__device__ __forceinline__ void raise(unsigned* word, unsigned code) {
  atomicCAS(word, 0u, code);
}

// Waits until all blocks of the launch have called it: `counter` (zero before the launch) counts
// arrivals, `target` is the number of blocks times the calls so far, this one included. What any
// block wrote before is visible to all threads of all blocks after it. All blocks must run at once.
__device__ __forceinline__ void grid_barrier(unsigned* counter, unsigned target) {
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
    __threadfence();
    add_acq_rel(counter, 1u);
    while (load_acquire(counter) < target) __nanosleep(32);
    __threadfence();
  }
  __syncthreads();
}

}  // namespace CUVAE_KERNELS::device
