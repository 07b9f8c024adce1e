#pragma once
// Reals in memory as float or as bf16, decided when a node is prepared (CudaNode::in_bf16);
// kernels compute in float either way. Kernels that only move memory take both forms in one
// instantiation: the test is the same for all threads, and costs nothing beside the access.

#include "kernels/elementwise.cuh"

namespace CUVAE_KERNELS {

struct RealsIn {
  const void* data = nullptr;
  bool bf16 = false;
  __device__ __forceinline__ float operator[](std::int64_t i) const {
    if (!bf16) return static_cast<const float*>(data)[i];
    return __uint_as_float(std::uint32_t{static_cast<const std::uint16_t*>(data)[i]} << 16);
  }
  // Four of them from 4 i on, in one access.
  __device__ __forceinline__ float4 four(std::int64_t i) const {
    if (!bf16) return static_cast<const float4*>(data)[i];
    const uint2 words = static_cast<const uint2*>(data)[i];
    return {__uint_as_float(words.x << 16), __uint_as_float(words.x & 0xffff0000u),
            __uint_as_float(words.y << 16), __uint_as_float(words.y & 0xffff0000u)};
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
  __device__ __forceinline__ void set_four(std::int64_t i, float4 values) const {
    if (bf16)
      static_cast<uint2*>(data)[i] = {device::pack_bf16(values.x, values.y),
                                      device::pack_bf16(values.z, values.w)};
    else
      static_cast<float4*>(data)[i] = values;
  }
};

// f(i) for n elements, four to a thread: f.four(i) for elements 4 i and on. elementwise() runs it
// for divide_up(n, 4). Values lie at multiples of 16 bytes, as all do that begin a value of a
// program.
template <class F>
struct Fours {
  std::int64_t n;
  F f;
  __device__ void operator()(std::int64_t i) const {
    if (4 * i + 4 <= n) return f.four(i);
    for (std::int64_t at = 4 * i; at < n; ++at) f(at);
  }
};

inline cuda::LaunchSize fours_size(const cuda::Encoder& encoder, std::int64_t n) {
  return elementwise_size(encoder, divide_up(n, 4));
}

// How a node's inputs and outputs are stored; bound to memory at each launch.
inline RealsIn reals_in(const CudaArgs& args, int i, bool bf16) {
  return {args.inputs[i], bf16};
}
inline RealsOut reals_out(const CudaArgs& args, int i, bool bf16) {
  return {args.outputs[i], bf16};
}

}  // namespace CUVAE_KERNELS
