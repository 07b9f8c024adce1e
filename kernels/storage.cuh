#pragma once
// Reals in memory as float or as bf16, decided when a node is prepared (CudaNode::in_bf16);
// kernels compute in float either way. Kernels that only move memory take both forms in one
// instantiation: the test is the same for all threads, and costs nothing beside the access.

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

struct RealsIn {
  const void* data = nullptr;
  bool bf16 = false;
  __device__ __forceinline__ float operator[](std::int64_t i) const {
    if (!bf16) return static_cast<const float*>(data)[i];
    return __uint_as_float(std::uint32_t{static_cast<const std::uint16_t*>(data)[i]} << 16);
  }
};

struct RealsOut {
  void* data = nullptr;
  bool bf16 = false;
  // To the nearest, ties to even.
  __device__ __forceinline__ void set(std::int64_t i, float value) const {
    if (bf16)
      static_cast<std::uint16_t*>(data)[i] =
          static_cast<std::uint16_t>(device::pack_bf16(value, 0.0f) & 0xffff);
    else
      static_cast<float*>(data)[i] = value;
  }
};

// How a node's inputs and outputs are stored; bound to memory at each launch.
inline RealsIn reals_in(const CudaArgs& args, int i, bool bf16) {
  return {args.inputs[i], bf16};
}
inline RealsOut reals_out(const CudaArgs& args, int i, bool bf16) {
  return {args.outputs[i], bf16};
}

}  // namespace CUVAE_KERNELS
