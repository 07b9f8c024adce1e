// Threads, warps, blocks, memory. conformance_matrix.cu has the matrix instructions.

#include <cmath>

#include "kernels/launch.cuh"
#include "simt/conformance.h"
#include "simt/conformance_matrix.h"
#include "simt/launching.h"

namespace CUVAE_KERNELS {
namespace {

using cuda::LaunchShape;
using cuda::Runtime;
using testing::Device;
using testing::expect_equal;
using testing::launch;

// Indexes -----------------------------------------------------------------------------------------

__global__ void indexes(unsigned* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
std::string run_indexes(Runtime& runtime) {
  const unsigned threads = 5 * 3 * 2;
  const unsigned blocks = 3 * 2 * 4;
  Device<unsigned> out(runtime, std::size_t{blocks * threads});
  launch(runtime, CUVAE_KERNEL(indexes), {.grid = {3, 2, 4}, .block = {5, 3, 2}}, nullptr,
         out.get());
  std::vector<unsigned> expected;
  for (unsigned b = 0; b < blocks; ++b)
    for (unsigned t = 0; t < threads; ++t) expected.push_back(1000 * b + t);
  return expect_equal(out.values(), expected);
}

// Shuffles ----------------------------------------------------------------------------------------

template <class T>
__global__ void shuffles(T* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const T mine = static_cast<T>(lane + 100 * static_cast<int>(threadIdx.x / 32));
  T* row = out + threadIdx.x * 8;
  row[0] = __shfl_sync(~0u, mine, 5);
  row[1] = __shfl_sync(~0u, mine, lane + 1);
  row[2] = __shfl_xor_sync(~0u, mine, 9);
  row[3] = __shfl_up_sync(~0u, mine, 3);
  row[4] = __shfl_down_sync(~0u, mine, 7);
  row[5] = __shfl_sync(~0u, mine, 3, 8);
  row[6] = __shfl_up_sync(~0u, mine, 2, 4);
  row[7] = __shfl_down_sync(~0u, mine, 2, 16);
}
template <class T>
std::string run_shuffles(Runtime& runtime) {
  Device<T> out(runtime, std::size_t{64 * 8});
  launch(runtime, CUVAE_KERNEL(shuffles<T>), {.block = {64, 1, 1}}, nullptr, out.get());
  std::vector<T> expected;
  for (int thread = 0; thread < 64; ++thread) {
    const int l = thread % 32;
    const int sources[] = {5,
                           (l + 1) % 32,
                           l ^ 9,
                           l < 3 ? l : l - 3,
                           l + 7 > 31 ? l : l + 7,
                           l / 8 * 8 + 3,
                           l % 4 < 2 ? l : l - 2,
                           l % 16 + 2 > 15 ? l : l + 2};
    for (const int source : sources)
      expected.push_back(static_cast<T>(source + 100 * (thread / 32)));
  }
  return expect_equal(out.values(), expected);
}

// Halves of a warp talk apart, and meet again.
__global__ void half_warps(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int value = 0;
  if (lane < 16) {
    value = __shfl_xor_sync(0x0000ffffu, lane, 1);
    value += __shfl_xor_sync(0x0000ffffu, value, 2);
  } else {
    value = __shfl_sync(0xffff0000u, lane, 31);
  }
  __syncwarp();
  out[lane] = value + __shfl_xor_sync(~0u, value, 16);
}
std::string run_half_warps(Runtime& runtime) {
  Device<int> out(runtime, std::size_t{32});
  launch(runtime, CUVAE_KERNEL(half_warps), {.block = {32, 1, 1}}, nullptr, out.get());
  std::vector<int> expected;
  for (int lane = 0; lane < 32; ++lane) {
    const int low = lane % 16;
    expected.push_back((low ^ 1) + (low ^ 2 ^ 1) + 31);
  }
  return expect_equal(out.values(), expected);
}

__global__ void votes(unsigned* out) {
  const int lane = static_cast<int>(threadIdx.x);
  unsigned* row = out + lane * 8;
  row[0] = __ballot_sync(~0u, lane % 3 == 0);
  row[1] = static_cast<unsigned>(__any_sync(~0u, lane == 17) != 0);
  row[2] = static_cast<unsigned>(__all_sync(~0u, lane < 32) != 0);
  row[3] = static_cast<unsigned>(__all_sync(~0u, lane != 9) != 0);
  row[4] = __reduce_add_sync(~0u, static_cast<unsigned>(lane));
  row[5] = static_cast<unsigned>(__reduce_add_sync(~0u, -lane));
  if (lane % 2 == 0) {
    row[6] = __ballot_sync(0x55555555u, lane < 8);
    row[7] = __reduce_add_sync(0x55555555u, 1u);
  } else {
    row[6] = static_cast<unsigned>(__any_sync(0xaaaaaaaau, lane == 2) != 0);
    row[7] = 0;
  }
}
std::string run_votes(Runtime& runtime) {
  Device<unsigned> out(runtime, std::size_t{32 * 8});
  launch(runtime, CUVAE_KERNEL(votes), {.block = {32, 1, 1}}, nullptr, out.get());
  unsigned thirds = 0;
  for (unsigned lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
  std::vector<unsigned> expected;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const bool even = lane % 2 == 0;
    for (const unsigned value : {thirds, 1u, 1u, 0u, 496u, static_cast<unsigned>(-496),
                                 even ? 0x55u : 0u, even ? 16u : 0u})
      expected.push_back(value);
  }
  return expect_equal(out.values(), expected);
}

// Blocks ------------------------------------------------------------------------------------------

__global__ void barrier_votes(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  const int any = __syncthreads_or(t == 70) != 0;
  const int none = __syncthreads_or(t < 0) != 0;
  const int all = __syncthreads_and(t >= 0) != 0;
  const int not_all = __syncthreads_and(t != 3) != 0;
  const int count = __syncthreads_count(t % 5 == 0);
  out[t] = any + 2 * none + 4 * all + 8 * not_all + 16 * count;
}
std::string run_barrier_votes(Runtime& runtime) {
  Device<int> out(runtime, std::size_t{96});
  launch(runtime, CUVAE_KERNEL(barrier_votes), {.block = {96, 1, 1}}, nullptr, out.get());
  return expect_equal(out.values(), std::vector<int>(96, 1 + 4 + 16 * 20));
}

// Each instantiation of a function has arrays of its own.
template <int which>
__device__ float reversed(float value) {
  CUVAE_SHARED(float, values, [64]);
  values[threadIdx.x] = value;
  __syncthreads();
  return values[63 - threadIdx.x];
}
__global__ void shared_arrays(float* out) {
  CUVAE_DYNAMIC_SHARED(float, buffer);
  CUVAE_SHARED(double, total, );
  const float t = static_cast<float>(threadIdx.x);
  buffer[threadIdx.x] = t + 1;
  const float once = reversed<0>(t);
  const float twice = reversed<1>(once);
  if (threadIdx.x == 5) total = 0.5;
  __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] =
      1000 * once + twice + static_cast<float>(total) * buffer[threadIdx.x ^ 1];
}
std::string run_shared_arrays(Runtime& runtime) {
  Device<float> out(runtime, std::size_t{3 * 64});
  launch(runtime, CUVAE_KERNEL(shared_arrays),
         {.grid = {3, 1, 1}, .block = {64, 1, 1}, .shared_bytes = 64 * sizeof(float)}, nullptr,
         out.get());
  std::vector<float> expected;
  for (int i = 0; i < 3 * 64; ++i) {
    const int t = i % 64;
    expected.push_back(static_cast<float>(1000 * (63 - t) + t) +
                       0.5f * static_cast<float>((t ^ 1) + 1));
  }
  return expect_equal(out.values(), expected);
}

// More dynamic shared memory than kernels have without asking.
__global__ void large_shared(int* out, int words) {
  CUVAE_DYNAMIC_SHARED(int, buffer);
  for (int i = static_cast<int>(threadIdx.x); i < words; i += 128) buffer[i] = i;
  __syncthreads();
  int sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < words; i += 128) sum += buffer[words - 1 - i] & 1;
  out[threadIdx.x] = sum;
}
std::string run_large_shared(Runtime& runtime) {
  const std::size_t bytes = 96 * 1024;
  Device<int> out(runtime, std::size_t{128});
  const auto kernel = CUVAE_KERNEL(large_shared);
  runtime.set_shared_limit(kernel.kernel, bytes);
  const int words = static_cast<int>(bytes / 4);
  launch(runtime, kernel, {.block = {128, 1, 1}, .shared_bytes = bytes}, nullptr, out.get(), words);
  std::vector<int> expected;
  for (int t = 0; t < 128; ++t) expected.push_back((t & 1) == 0 ? words / 128 : 0);
  return expect_equal(out.values(), expected);
}

// Atomics -----------------------------------------------------------------------------------------

template <class T>
__global__ void atomics(T* out) {
  const T i = static_cast<T>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&out[0], i);
  atomicMax(&out[1], i);
  atomicCAS(&out[2], T{7}, i + 100);
  const T before = atomicExch(&out[3], T{1});
  if (before == T{0}) atomicAdd(&out[4], T{1});
}
template <class T>
std::string run_atomics(Runtime& runtime) {
  Device<T> out(runtime, std::vector<T>(5));
  launch(runtime, CUVAE_KERNEL(atomics<T>), {.grid = {3, 1, 1}, .block = {64, 1, 1}}, nullptr,
         out.get());
  return expect_equal(out.values(), std::vector<T>{191 * 192 / 2, 191, 0, 1, 1});
}

// The block that comes last sums what all have written.
__global__ void last_block(float* partial, unsigned* counter, float* out) {
  CUVAE_SHARED(unsigned, rank, );
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = static_cast<float>(blockIdx.x + 1);
    rank = device::add_acq_rel(counter, 1);
  }
  __syncthreads();
  if (rank != gridDim.x - 1) return;
  if (threadIdx.x == 0) {
    float sum = 0;
    for (unsigned i = 0; i < gridDim.x; ++i) sum += partial[i];
    *out = sum;
    *counter = 0;
  }
}
std::string run_last_block(Runtime& runtime) {
  Device<float> partial(runtime, std::size_t{20});
  Device<unsigned> counter(runtime, std::vector<unsigned>(1));
  Device<float> out(runtime, std::size_t{1});
  for (int i = 0; i < 2; ++i)
    launch(runtime, CUVAE_KERNEL(last_block), {.grid = {20, 1, 1}, .block = {64, 1, 1}}, nullptr,
           partial.get(), counter.get(), out.get());
  const std::string wrong = expect_equal(counter.values(), std::vector<unsigned>{0});
  return wrong.empty() ? expect_equal(out.values(), std::vector<float>{210}) : wrong;
}

__global__ void faults(unsigned* word) {
  if (threadIdx.x % 8 == 3) device::raise(word, 77);
}
std::string run_faults(Runtime& runtime) {
  Device<unsigned> words(runtime, std::vector<unsigned>{0, 5});
  launch(runtime, CUVAE_KERNEL(faults), {.block = {64, 1, 1}}, nullptr, words.get());
  launch(runtime, CUVAE_KERNEL(faults), {.block = {64, 1, 1}}, nullptr, words.get() + 1);
  return expect_equal(words.values(), std::vector<unsigned>{77, 5});
}

// Each round reads what other blocks wrote in the one before.
__global__ void rounds(float* a, float* b, int n, int count, unsigned* counter) {
  for (int round = 0; round < count; ++round) {
    for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += static_cast<int>(gridDim.x * blockDim.x))
      b[i] = a[(i + 1) % n] + 1;
    device::grid_barrier(counter, gridDim.x * static_cast<unsigned>(round + 1));
    float* const t = a;
    a = b;
    b = t;
  }
}
std::string run_rounds(Runtime& runtime) {
  const int n = 300;
  std::vector<float> first;
  for (int i = 0; i < n; ++i) first.push_back(static_cast<float>(10 * i));
  for (const bool cooperative : {true, false}) {
    Device<float> a(runtime, first);
    Device<float> b(runtime, std::size_t{n});
    Device<unsigned> counter(runtime, std::vector<unsigned>(1));
    launch(runtime, CUVAE_KERNEL(rounds),
           {.grid = {4, 1, 1}, .block = {64, 1, 1}, .cooperative = cooperative}, nullptr, a.get(),
           b.get(), n, 6, counter.get());
    std::vector<float> expected;
    for (int i = 0; i < n; ++i) expected.push_back(static_cast<float>(10 * ((i + 6) % n) + 6));
    if (std::string wrong = expect_equal(a.values(), expected); !wrong.empty()) return wrong;
  }
  return {};
}

// Block 0 waits for what the others send, in turn.
__global__ void messages(unsigned* flags, int* mail, int* out) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    int sum = 0;
    for (unsigned from = gridDim.x - 1; from > 0; --from) {
      while (device::load_acquire(&flags[from]) == 0) __nanosleep(20);
      sum = 3 * sum + mail[from];
    }
    *out = sum;
  } else {
    mail[blockIdx.x] = static_cast<int>(blockIdx.x);
    device::store_release(&flags[blockIdx.x], 1);
  }
}
std::string run_messages(Runtime& runtime) {
  Device<unsigned> flags(runtime, std::vector<unsigned>(4));
  Device<int> mail(runtime, std::size_t{4});
  Device<int> out(runtime, std::size_t{1});
  launch(runtime, CUVAE_KERNEL(messages), {.grid = {4, 1, 1}, .block = {32, 1, 1}}, nullptr,
         flags.get(), mail.get(), out.get());
  return expect_equal(out.values(), std::vector<int>{3 * 9 + 2 * 3 + 1});
}

// Asynchronous copies -----------------------------------------------------------------------------

__global__ void async_rows(const float* in, float* out) {
  CUVAE_SHARED(float, tile, [64][8]);
  const int t = static_cast<int>(threadIdx.x);
  const int valid = 4 * (t % 5);  // of 16 bytes
  device::cp_async16(&tile[t][0], in + 4 * t, valid);
  device::cp_async4(&tile[t][4], in + t);
  device::cp_async4(&tile[t][5], in + t, t % 2 == 0 ? 4 : 0);
  device::cp_async_commit();
  device::cp_async_wait<0>();
  __syncthreads();
  for (int i = 0; i < 6; ++i) out[6 * t + i] = tile[63 - t][i];
}
std::string run_async_rows(Runtime& runtime) {
  std::vector<float> in;
  for (int i = 0; i < 256; ++i) in.push_back(static_cast<float>(i + 1));
  Device<float> from(runtime, in);
  Device<float> out(runtime, std::size_t{64 * 6});
  launch(runtime, CUVAE_KERNEL(async_rows), {.block = {64, 1, 1}}, nullptr, from.get(), out.get());
  std::vector<float> expected;
  for (int thread = 0; thread < 64; ++thread) {
    const int t = 63 - thread;
    for (int i = 0; i < 4; ++i)
      expected.push_back(i < t % 5 ? static_cast<float>(4 * t + i + 1) : 0.0f);
    expected.push_back(static_cast<float>(t + 1));
    expected.push_back(t % 2 == 0 ? static_cast<float>(t + 1) : 0.0f);
  }
  return expect_equal(out.values(), expected);
}

// Three buffers: while one is read, the next two are on their way.
__global__ void async_pipeline(const float* in, float* out, int tiles) {
  CUVAE_SHARED(float, buffer, [3][128]);
  const int t = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int tile) {
    if (tile < tiles) device::cp_async16(&buffer[tile % 3][4 * t], in + 128 * tile + 4 * t);
    device::cp_async_commit();
  };
  fetch(0);
  fetch(1);
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    device::cp_async_wait<1>();
    __syncthreads();  // everybody's copies of this tile are there, and the tile before is read
    fetch(tile + 2);
    for (int i = 0; i < 4; ++i) sum += buffer[tile % 3][(4 * t + 37 * i + 11) % 128];
  }
  out[t] = sum;
}
std::string run_async_pipeline(Runtime& runtime) {
  const int tiles = 7;
  std::vector<float> in;
  for (int i = 0; i < 128 * tiles; ++i) in.push_back(static_cast<float>(i * 7 % 64));
  Device<float> from(runtime, in);
  Device<float> out(runtime, std::size_t{32});
  launch(runtime, CUVAE_KERNEL(async_pipeline), {.block = {32, 1, 1}}, nullptr, from.get(),
         out.get(), tiles);
  std::vector<float> expected;
  for (int t = 0; t < 32; ++t) {
    float sum = 0;
    for (int tile = 0; tile < tiles; ++tile)
      for (int i = 0; i < 4; ++i)
        sum += in[static_cast<std::size_t>(128 * tile + (4 * t + 37 * i + 11) % 128)];
    expected.push_back(sum);
  }
  return expect_equal(out.values(), expected);
}

// Programmatic launches ---------------------------------------------------------------------------

__global__ void add_rows(const float* weights, const float* in, float* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const float early = i < n ? weights[i] : 0.0f;  // nobody writes the weights
  device::wait_for_producers();
  device::let_dependents_start();
  if (i < n) out[i] = in[n - 1 - i] + early;
}
std::string run_programmatic(Runtime& runtime) {
  const int n = 150;
  std::vector<float> first;
  std::vector<float> weights;
  for (int i = 0; i < n; ++i) {
    first.push_back(static_cast<float>(i));
    weights.push_back(static_cast<float>(1000 * (i + 1)));
  }
  Device<float> w(runtime, weights);
  Device<float> a(runtime, first);
  Device<float> b(runtime, std::size_t{n});
  cuda::Stream stream(runtime);
  runtime.synchronize();
  float* in = a.get();
  float* out = b.get();
  for (int step = 0; step < 4; ++step) {
    launch(runtime, CUVAE_KERNEL(add_rows),
           {.grid = {3, 1, 1}, .block = {64, 1, 1}, .programmatic = true}, stream.get(), w.get(),
           in, out, n);
    std::swap(in, out);
  }
  stream.synchronize();
  std::vector<float> expected = first;
  for (int step = 0; step < 4; ++step) {
    std::vector<float> next;
    for (int i = 0; i < n; ++i)
      next.push_back(expected[static_cast<std::size_t>(n - 1 - i)] +
                     weights[static_cast<std::size_t>(i)]);
    expected = next;
  }
  return expect_equal(a.values(), expected);
}

// Numbers -----------------------------------------------------------------------------------------

__global__ void philox_words(const uint4* counters, const uint2* keys, uint4* out) {
  out[threadIdx.x] = device::philox(counters[threadIdx.x], keys[threadIdx.x]);
}
// The known answers of Random123 (kat_vectors: philox4x32, 10 rounds).
std::string run_philox(Runtime& runtime) {
  Device<uint4> counters(
      runtime, std::vector<uint4>{make_uint4(0, 0, 0, 0), make_uint4(~0u, ~0u, ~0u, ~0u),
                                  make_uint4(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344)});
  Device<uint2> keys(runtime, std::vector<uint2>{make_uint2(0, 0), make_uint2(~0u, ~0u),
                                                 make_uint2(0xa4093822, 0x299f31d0)});
  Device<uint4> out(runtime, std::size_t{3});
  launch(runtime, CUVAE_KERNEL(philox_words), {.block = {3, 1, 1}}, nullptr, counters.get(),
         keys.get(), out.get());
  std::vector<unsigned> words;
  for (const uint4& w : out.values()) words.insert(words.end(), {w.x, w.y, w.z, w.w});
  return expect_equal(words, std::vector<unsigned>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8,
                                                   0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
                                                   0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

__global__ void bits(unsigned* out) {
  out[0] = __umulhi(0xdeadbeefu, 0x12345678u);
  out[1] = __float_as_uint(-1.5f);
  out[2] = __float_as_uint(__uint_as_float(0x40490fdb) * 2.0f);
  out[3] = static_cast<unsigned>(min(-3, 2) + 10 * max(-3, 2)) + 100 * min(3u, ~0u);
  out[4] = __float_as_uint(fmaf(0x1.000004p+0f, 0x1.000004p+0f, -1.0f));  // one rounding
  out[5] = __float_as_uint(copysignf(fabsf(-2.0f), -0.0f));
  out[6] = __float_as_uint(fmaxf(1.0f, __uint_as_float(0x7fc00000)));
  out[7] = __float_as_uint(sqrtf(2.0f));
}
std::string run_bits(Runtime& runtime) {
  Device<unsigned> out(runtime, std::size_t{8});
  launch(runtime, CUVAE_KERNEL(bits), {}, nullptr, out.get());
  return expect_equal(out.values(),
                      std::vector<unsigned>{0x0fd5bdee, 0xbfc00000, 0x40c90fdb, 317, 0x35000001,
                                            0xc0000000, 0x3f800000, 0x3fb504f3});
}

}  // namespace

const std::vector<testing::KernelCase>& conformance_cases() {
  static const std::vector<testing::KernelCase> cases = [] {
    std::vector<testing::KernelCase> list = {
        {"indexes", run_indexes},
        {"shuffles_int", run_shuffles<int>},
        {"shuffles_unsigned", run_shuffles<unsigned>},
        {"shuffles_float", run_shuffles<float>},
        {"shuffles_double", run_shuffles<double>},
        {"shuffles_long_long", run_shuffles<long long>},
        {"half_warps", run_half_warps},
        {"votes", run_votes},
        {"barrier_votes", run_barrier_votes},
        {"shared_arrays", run_shared_arrays},
        {"large_shared", run_large_shared},
        {"atomics_int", run_atomics<int>},
        {"atomics_unsigned", run_atomics<unsigned>},
        {"atomics_unsigned_long_long", run_atomics<unsigned long long>},
        {"last_block", run_last_block},
        {"faults", run_faults},
        {"grid_barrier", run_rounds},
        {"messages", run_messages},
        {"async_rows", run_async_rows},
        {"async_pipeline", run_async_pipeline},
        {"programmatic", run_programmatic, 9},
        {"philox", run_philox},
        {"bits", run_bits},
    };
    append_matrix_cases(list);
    return list;
  }();
  return cases;
}

}  // namespace CUVAE_KERNELS
