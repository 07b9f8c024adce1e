#pragma once
// Kernels with bugs that break no rule which could be checked, but give wrong results in some legal
// order or race. Each is right with `bug` false; each run_...() says what is wrong with the result,
// or nothing.

#include <string>
#include <vector>

#include "kernels/launch.cuh"
#include "simt/launching.h"

namespace CUVAE_KERNELS {
namespace {

using cuda::Runtime;
using testing::Device;
using testing::expect_equal;
using testing::launch;

using BugRun = std::string (*)(Runtime&);
constexpr int threads = 128;

std::vector<float> numbers(int n) {
  std::vector<float> values;
  for (int i = 0; i < n; ++i) values.push_back(static_cast<float>(i % 97 + 1));
  return values;
}

template <bool bug>
__global__ void neighbour(const float* in, float* out) {
  CUVAE_SHARED(float, tile, [threads]);
  tile[threadIdx.x] = in[threadIdx.x];
  if (!bug) __syncthreads();
  out[threadIdx.x] = threadIdx.x == 0 ? 0 : tile[threadIdx.x - 1];
}
template <bool bug>
std::string run_neighbour(Runtime& runtime) {
  Device<float> in(runtime, numbers(threads));
  Device<float> out(runtime, std::size_t{threads});
  const auto kernel = CUVAE_KERNEL(neighbour<bug>);
  launch(runtime, kernel, {.block = {threads, 1, 1}}, nullptr, in.get(), out.get());
  std::vector<float> expected = numbers(threads);
  expected.insert(expected.begin(), 0.0f);
  expected.pop_back();
  return expect_equal(out.values(), expected);
}

// Scratch that is written again while others still read it.
template <bool bug>
__device__ float block_sum(float value) {
  CUVAE_SHARED(float, partial, [threads / 32]);
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < threads / 32; ++i) sum += partial[i];
  if (!bug) __syncthreads();
  return sum;
}
template <bool bug>
__global__ void sums(const float* in, float* out) {
  for (int row = 0; row < 4; ++row) {
    const float sum = block_sum<bug>(in[row * threads + static_cast<int>(threadIdx.x)]);
    out[row * threads + static_cast<int>(threadIdx.x)] = sum;
  }
}
template <bool bug>
std::string run_sums(Runtime& runtime) {
  const std::vector<float> values = numbers(4 * threads);
  Device<float> in(runtime, values);
  Device<float> out(runtime, std::size_t{4 * threads});
  const auto kernel = CUVAE_KERNEL(sums<bug>);
  launch(runtime, kernel, {.block = {threads, 1, 1}}, nullptr, in.get(), out.get());
  std::vector<float> expected;
  for (int row = 0; row < 4; ++row) {
    float sum = 0;
    for (int i = 0; i < threads; ++i) sum += values[static_cast<std::size_t>(row * threads + i)];
    expected.insert(expected.end(), threads, sum);
  }
  return expect_equal(out.values(), expected);
}

// Lanes of a warp do not run in step.
template <bool bug>
__global__ void in_step(const float* in, float* out) {
  CUVAE_SHARED(float, tile, [threads]);
  tile[threadIdx.x] = in[threadIdx.x];
  if (!bug) __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 31];
}
template <bool bug>
std::string run_in_step(Runtime& runtime) {
  Device<float> in(runtime, numbers(threads));
  Device<float> out(runtime, std::size_t{threads});
  const auto kernel = CUVAE_KERNEL(in_step<bug>);
  launch(runtime, kernel, {.block = {threads, 1, 1}}, nullptr, in.get(), out.get());
  std::vector<float> expected;
  for (int i = 0; i < threads; ++i)
    expected.push_back(numbers(threads)[static_cast<std::size_t>(i ^ 31)]);
  return expect_equal(out.values(), expected);
}

enum class CopyBug { none, no_wait, no_barrier };
template <CopyBug bug>
__global__ void pipeline(const float* in, float* out, int tiles) {
  CUVAE_SHARED(float, buffer, [2][4 * threads]);
  const int t = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int tile) {
    if (tile < tiles) device::cp_async16(&buffer[tile % 2][4 * t], in + 4 * threads * tile + 4 * t);
    device::cp_async_commit();
  };
  fetch(0);
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    fetch(tile + 1);
    if (bug == CopyBug::no_wait) {
      device::cp_async_wait<2>();
    } else {
      device::cp_async_wait<1>();
    }
    __syncthreads();
    sum += buffer[tile % 2][(4 * t + 201) % (4 * threads)];
    if (bug != CopyBug::no_barrier) __syncthreads();
  }
  out[t] = sum;
}
template <CopyBug bug>
std::string run_pipeline(Runtime& runtime) {
  const int tiles = 5;
  const std::vector<float> values = numbers(4 * threads * tiles);
  Device<float> in(runtime, values);
  Device<float> out(runtime, std::size_t{threads});
  const auto kernel = CUVAE_KERNEL(pipeline<bug>);
  launch(runtime, kernel, {.block = {threads, 1, 1}}, nullptr, in.get(), out.get(), tiles);
  std::vector<float> expected;
  for (int t = 0; t < threads; ++t) {
    float sum = 0;
    for (int tile = 0; tile < tiles; ++tile)
      sum += values[static_cast<std::size_t>(4 * threads * tile + (4 * t + 201) % (4 * threads))];
    expected.push_back(sum);
  }
  return expect_equal(out.values(), expected);
}

// Blocks write what others read in the next round.
template <bool bug>
__global__ void rounds(float* a, float* b, unsigned* counter) {
  const int n = static_cast<int>(gridDim.x * blockDim.x);
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  for (unsigned round = 1; round <= 4; ++round) {
    b[i] = a[(i + 40) % n] + 1;
    if (bug) {
      __syncthreads();
    } else {
      device::grid_barrier(counter, round * gridDim.x);
    }
    float* const t = a;
    a = b;
    b = t;
  }
}
template <bool bug>
std::string run_rounds(Runtime& runtime) {
  const int n = 4 * 64;
  const std::vector<float> values = numbers(n);
  Device<float> a(runtime, values);
  Device<float> b(runtime, std::size_t{n});
  Device<unsigned> counter(runtime, std::vector<unsigned>(1));
  const auto kernel = CUVAE_KERNEL(rounds<bug>);
  launch(runtime, kernel, {.grid = {4, 1, 1}, .block = {64, 1, 1}, .cooperative = true}, nullptr,
         a.get(), b.get(), counter.get());
  std::vector<float> expected;
  for (int i = 0; i < n; ++i)
    expected.push_back(values[static_cast<std::size_t>((i + 160) % n)] + 4);
  return expect_equal(a.values(), expected);
}

// Reads before its wait what the kernel before still writes.
__global__ void produce(float* out) {
  device::wait_for_producers();
  out[threadIdx.x] = static_cast<float>(threadIdx.x);
}
template <bool bug>
__global__ void consume(const float* in, float* out) {
  const float early = bug ? in[threadIdx.x] : 0;
  device::wait_for_producers();
  out[threadIdx.x] = bug ? early : in[threadIdx.x];
}
template <bool bug>
std::string run_early_read(Runtime& runtime) {
  Device<float> middle(runtime, std::vector<float>(threads, -1.0f));
  Device<float> out(runtime, std::size_t{threads});
  runtime.synchronize();
  cuda::Stream stream(runtime);
  const cuda::LaunchShape shape = {.block = {threads, 1, 1}, .programmatic = true};
  const auto kernel = CUVAE_KERNEL(consume<bug>);
  launch(runtime, CUVAE_KERNEL(produce), shape, stream.get(), middle.get());
  launch(runtime, kernel, shape, stream.get(), middle.get(), out.get());
  stream.synchronize();
  std::vector<float> expected;
  for (int i = 0; i < threads; ++i) expected.push_back(static_cast<float>(i));
  return expect_equal(out.values(), expected);
}

// Reads what nobody has written.
template <bool bug>
__global__ void uninitialised(float* out) {
  CUVAE_SHARED(float, tile, [threads]);
  CUVAE_DYNAMIC_SHARED(float, buffer);
  if (!bug) tile[threadIdx.x] = buffer[threadIdx.x] = out[threadIdx.x] = 0;
  out[threadIdx.x] += tile[threadIdx.x] + buffer[threadIdx.x];
}
template <bool bug>
std::string run_uninitialised(Runtime& runtime) {
  Device<float> out(runtime, std::size_t{threads});
  const auto kernel = CUVAE_KERNEL(uninitialised<bug>);
  launch(runtime, kernel,
         {.block = {threads, 1, 1}, .shared_bytes = std::size_t{threads} * sizeof(float)}, nullptr,
         out.get());
  return expect_equal(out.values(), std::vector<float>(threads));
}

}  // namespace
}  // namespace CUVAE_KERNELS
