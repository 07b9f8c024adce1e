#pragma once
// Device vocabulary for the host compiler (device.cuh says what it is): small inline functions over
// the hooks of the SIMT runner, which src/simt defines. Semantics follow NVIDIA's "CUDA C++
// Programming Guide" and "Parallel Thread Execution ISA". Where a kernel breaks their rules, the
// runner ends the launch with a report that names the place given by the `at` parameters, which
// kernels leave to their defaults.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string_view>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

namespace cuvae::simt {

using Place = std::source_location;

struct Index {
  std::uint32_t x = 0;
  std::uint32_t y = 0;
  std::uint32_t z = 0;
};

// Where the CUDA thread that now runs stands.
struct Self {
  Index thread;
  Index block;
  Index block_size;
  Index grid_size;
};
extern constinit thread_local Self self;

// What a kernel's name stands for on the host; one for each, in a list from static initialisation
// on, launched or not.
struct KernelEntry {
  void (*invoke)(void* const* arguments);
  std::string_view name;  // "gemm<64, 64>"
  bool local = false;     // in an unnamed namespace: a test's own
  std::size_t parameters = 0;
  const std::size_t* bytes = nullptr;  // of each parameter
  const std::size_t* alignment = nullptr;
  const KernelEntry* next = nullptr;
  mutable std::size_t launches = 0;
  mutable std::size_t static_shared_bytes = 0;  // as far as launches have shown
};
const KernelEntry* enter_kernel(
    KernelEntry& entry) noexcept;  // returns the head of the list before

// Hooks -----------------------------------------------------------------------------------------

enum class Vote : std::uint8_t { none, any, all, count };
int block_barrier(Vote vote, bool predicate, Place at);

enum class WarpOp : std::uint8_t { sync, shuffle, ballot, any, all, add };
// `value` is of the calling lane; `source` is the lane that a shuffle reads.
std::uint64_t warp_collective(WarpOp op, std::uint32_t mask, std::uint64_t value, int source,
                              Place at);
int lane() noexcept;  // of the running thread

void matrix_tf32(float* d, const std::uint32_t* a, const std::uint32_t* b, Place at);
void matrix_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, Place at);
void load_matrix(std::uint32_t* r, int matrices, bool transposed, const void* row, Place at);

void* static_shared(const void* key, std::size_t bytes, std::size_t alignment, const char* name,
                    Place at);
void* dynamic_shared(std::size_t alignment, Place at);

void async_copy(void* shared, const void* global, int bytes, int valid_bytes, Place at);
void async_commit();
void async_wait(int pending, Place at);

enum class Atomicity : std::uint8_t { looks, changes };  // `changes`: a loop that does it gets on
void before_atomic(Atomicity what, const void* address, std::size_t bytes, Place at);
// What an operation that orders memory does: what it should, but for the runner's mutations.
enum class Ordering : std::uint8_t { kept, lost, not_awaited };
Ordering before_ordered(Atomicity what, const unsigned* address, Place at);
void spin(Place at);  // lets others run
void wait_for_producers(Place at);
void let_dependents_start(Place at);
[[noreturn]] void refuse(std::string_view what, Place at);  // ends the launch with a report

// Kernels -----------------------------------------------------------------------------------------

template <auto K>
std::string_view scoped_kernel_name() {
  std::string_view text = __PRETTY_FUNCTION__;  // "... [with auto K = name; ...]"
  const std::size_t begin = text.find("K = ");
  if (begin != std::string_view::npos) text.remove_prefix(begin + 4);
  const std::size_t end = text.find("; std::");
  return text.substr(0, end != std::string_view::npos ? end : text.rfind(']'));
}
template <auto K>
std::string_view kernel_name() {
  std::string_view text = scoped_kernel_name<K>();
  for (const std::string_view scope : {"cuvae::gpu_on_simt::", "{anonymous}::"})
    if (text.starts_with(scope)) text.remove_prefix(scope.size());
  return text;
}

template <auto K, class F>
struct KernelCall;
template <auto K, class... P>
struct KernelCall<K, void (*)(P...)> {
  static_assert((std::is_trivially_copyable_v<P> && ...), "a kernel's parameters are plain bytes");
  static void invoke(void* const* arguments) {
    call(arguments, std::make_index_sequence<sizeof...(P)>());
  }
  template <std::size_t... I>
  static void call([[maybe_unused]] void* const* arguments, std::index_sequence<I...>) {
    K(*static_cast<std::remove_cv_t<P>*>(arguments[I])...);
  }
  static constexpr std::size_t bytes[] = {sizeof(P)..., 0};
  static constexpr std::size_t alignment[] = {alignof(P)..., 0};
  static bool is_local() {
    const std::string_view name = scoped_kernel_name<K>();
    return name.substr(0, name.find('<')).find("{anonymous}::") != std::string_view::npos;
  }
  static inline KernelEntry entry{&invoke, kernel_name<K>(), is_local(), sizeof...(P),
                                  bytes,   alignment};
  static inline const KernelEntry* const entered = entry.next = enter_kernel(entry);
};

template <auto K>
const KernelEntry& kernel_entry(std::string_view) {
  using Call = KernelCall<K, decltype(K)>;
  static_cast<void>(Call::entered);  // instantiates its initialisation
  return Call::entry;
}

}  // namespace cuvae::simt

#define threadIdx (::cuvae::simt::self.thread)
#define blockIdx (::cuvae::simt::self.block)
#define blockDim (::cuvae::simt::self.block_size)
#define gridDim (::cuvae::simt::self.grid_size)

// A static's address is the array's identity: one for each function and instantiation, as in CUDA.
#define CUVAE_SHARED(T, name, dims)                                                            \
  using name##_type = T dims;                                                                  \
  static char name##_key;                                                                      \
  name##_type& name = *static_cast<name##_type*>(::cuvae::simt::static_shared(                 \
      &name##_key, sizeof(name##_type), alignof(name##_type) < 16 ? 16 : alignof(name##_type), \
      #name, ::cuvae::simt::Place::current()))
#define CUVAE_DYNAMIC_SHARED(T, name) \
  T* const name =                     \
      static_cast<T*>(::cuvae::simt::dynamic_shared(alignof(T), ::cuvae::simt::Place::current()))

namespace CUVAE_KERNELS {

using simt::Place;

// Types -------------------------------------------------------------------------------------------

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline int2 make_int2(int x, int y) {
  return {x, y};
}
inline int4 make_int4(int x, int y, int z, int w) {
  return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

inline constexpr int warpSize = 32;

// Arithmetic --------------------------------------------------------------------------------------

using ::copysignf;
using ::erff;
using ::expf;
using ::expm1f;
using ::fabsf;
using ::fmaf;
using ::fmaxf;
using ::fminf;
using ::log1pf;
using ::logf;
using ::sqrtf;
using ::tanhf;

inline float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}
inline unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
inline float __int_as_float(int bits) {
  return std::bit_cast<float>(bits);
}
inline int __float_as_int(float value) {
  return std::bit_cast<int>(value);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline int __popc(unsigned value) {
  return std::popcount(value);
}
inline int __clz(int value) {
  return std::countl_zero(static_cast<unsigned>(value));
}
inline int __ffs(int value) {
  return value == 0 ? 0 : std::countr_zero(static_cast<unsigned>(value)) + 1;
}

template <class T>
concept Whole = std::is_integral_v<T> && !std::is_same_v<T, bool>;
template <Whole T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <Whole T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

template <class T>
inline T __ldg(const T* address) {
  return *address;
}

// Blocks ------------------------------------------------------------------------------------------

inline void __syncthreads(Place at = Place::current()) {
  simt::block_barrier(simt::Vote::none, false, at);
}
inline int __syncthreads_or(int predicate, Place at = Place::current()) {
  return simt::block_barrier(simt::Vote::any, predicate != 0, at);
}
inline int __syncthreads_and(int predicate, Place at = Place::current()) {
  return simt::block_barrier(simt::Vote::all, predicate != 0, at);
}
inline int __syncthreads_count(int predicate, Place at = Place::current()) {
  return simt::block_barrier(simt::Vote::count, predicate != 0, at);
}

// Warps -------------------------------------------------------------------------------------------

inline void __syncwarp(unsigned mask = ~0u, Place at = Place::current()) {
  simt::warp_collective(simt::WarpOp::sync, mask, 0, 0, at);
}

template <class T>
concept Shuffled = std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, long long> ||
    std::is_same_v<T, unsigned long long> || std::is_same_v<T, long> ||
    std::is_same_v<T, unsigned long>;

template <Shuffled T>
inline T shuffle(unsigned mask, T value, int source, Place at) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = simt::warp_collective(simt::WarpOp::shuffle, mask, bits, source, at);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
inline int first_lane_of(int width, Place at) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0)
    simt::refuse("a shuffle's width is a power of two up to 32", at);
  return simt::lane() & ~(width - 1);
}
template <Shuffled T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                     Place at = Place::current()) {
  return shuffle(mask, value, first_lane_of(width, at) | (source & (width - 1)), at);
}
template <Shuffled T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        Place at = Place::current()) {
  const int source = simt::lane() - static_cast<int>(delta);
  return shuffle(mask, value, source < first_lane_of(width, at) ? simt::lane() : source, at);
}
template <Shuffled T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          Place at = Place::current()) {
  const int source = simt::lane() + static_cast<int>(delta);
  const int end = first_lane_of(width, at) + width;
  return shuffle(mask, value, source < end ? source : simt::lane(), at);
}
template <Shuffled T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                         Place at = Place::current()) {
  const int source = simt::lane() ^ lanes;
  const int end = first_lane_of(width, at) + width;
  return shuffle(mask, value, source < end ? source : simt::lane(), at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, Place at = Place::current()) {
  return static_cast<unsigned>(
      simt::warp_collective(simt::WarpOp::ballot, mask, predicate != 0, 0, at));
}
inline int __any_sync(unsigned mask, int predicate, Place at = Place::current()) {
  return static_cast<int>(simt::warp_collective(simt::WarpOp::any, mask, predicate != 0, 0, at));
}
inline int __all_sync(unsigned mask, int predicate, Place at = Place::current()) {
  return static_cast<int>(simt::warp_collective(simt::WarpOp::all, mask, predicate != 0, 0, at));
}
template <class T>
requires std::is_same_v<T, int> || std::is_same_v<T, unsigned>
inline T __reduce_add_sync(unsigned mask, T value, Place at = Place::current()) {
  const auto bits = static_cast<unsigned>(value);
  return static_cast<T>(
      static_cast<unsigned>(simt::warp_collective(simt::WarpOp::add, mask, bits, 0, at)));
}

// Memory ------------------------------------------------------------------------------------------

// The order of floating-point sums would show in the results: whole numbers only.
template <class T>
concept Atomic =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

template <Atomic T>
inline T atomicAdd(T* address, std::type_identity_t<T> value, Place at = Place::current()) {
  simt::before_atomic(simt::Atomicity::changes, address, sizeof(T), at);
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <Atomic T>
inline T atomicExch(T* address, std::type_identity_t<T> value, Place at = Place::current()) {
  simt::before_atomic(simt::Atomicity::looks, address, sizeof(T), at);
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
template <Atomic T>
inline T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value,
                   Place at = Place::current()) {
  simt::before_atomic(simt::Atomicity::looks, address, sizeof(T), at);
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <Atomic T>
inline T atomicMax(T* address, std::type_identity_t<T> value, Place at = Place::current()) {
  simt::before_atomic(simt::Atomicity::looks, address, sizeof(T), at);
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (before < value && !__atomic_compare_exchange_n(address, &before, value, false,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}

// The runner is sequentially consistent, and ThreadSanitizer knows no fences: order between threads
// is what acquire and release say.
inline void __threadfence() {}
inline void __threadfence_block() {}

inline void __nanosleep(unsigned, Place at = Place::current()) {
  simt::spin(at);
}

}  // namespace CUVAE_KERNELS

// What is PTX on the GPU; cuda.cuh says what each does.
namespace CUVAE_KERNELS::device {

inline void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     Place at = Place::current()) {
  simt::matrix_tf32(d, a, b, at);
}
inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     Place at = Place::current()) {
  simt::matrix_bf16(d, a, b, at);
}

inline std::uint32_t to_tf32(float value) {
  auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return 0x7fffffff;  // the canonical NaN
  // Half a unit of the tenth mantissa bit; a carry goes into the exponent, up to infinity.
  if ((bits & 0x7f800000) != 0x7f800000) bits += 0x1000;
  return bits & 0xffffe000;
}

inline std::uint32_t bf16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline std::uint32_t pack_bf16(float low, float high) {
  return bf16_bits(high) << 16 | bf16_bits(low);
}

inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* shared_row,
                        Place at = Place::current()) {
  simt::load_matrix(r, 4, false, shared_row, at);
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* shared_row,
                              Place at = Place::current()) {
  simt::load_matrix(r, 4, true, shared_row, at);
}
inline void ldmatrix_x2(std::uint32_t (&r)[2], const void* shared_row,
                        Place at = Place::current()) {
  simt::load_matrix(r, 2, false, shared_row, at);
}
inline void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* shared_row,
                              Place at = Place::current()) {
  simt::load_matrix(r, 2, true, shared_row, at);
}

inline void cp_async16(void* shared, const void* global, int valid_bytes = 16,
                       Place at = Place::current()) {
  simt::async_copy(shared, global, 16, valid_bytes, at);
}
inline void cp_async4(void* shared, const void* global, int valid_bytes = 4,
                      Place at = Place::current()) {
  simt::async_copy(shared, global, 4, valid_bytes, at);
}
inline void cp_async_commit() {
  simt::async_commit();
}
template <int N>
inline void cp_async_wait(Place at = Place::current()) {
  static_assert(N >= 0);
  simt::async_wait(N, at);
}

// A loop that reads until a value comes lets the others run.
inline unsigned load_acquire(const unsigned* address, Place at = Place::current()) {
  switch (simt::before_ordered(simt::Atomicity::looks, address, at)) {
    case simt::Ordering::kept: break;
    case simt::Ordering::lost: return __atomic_load_n(address, __ATOMIC_RELAXED);
    case simt::Ordering::not_awaited: return ~0u;
  }
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
inline unsigned add_acq_rel(unsigned* address, unsigned value, Place at = Place::current()) {
  if (simt::before_ordered(simt::Atomicity::changes, address, at) == simt::Ordering::lost)
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  return __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
}
inline void store_release(unsigned* address, unsigned value, Place at = Place::current()) {
  if (simt::before_ordered(simt::Atomicity::changes, address, at) == simt::Ordering::lost)
    __atomic_store_n(address, value, __ATOMIC_RELAXED);
  else
    __atomic_store_n(address, value, __ATOMIC_RELEASE);
}

// In a loop that looks at memory: lets the others run.
inline void spinning(Place at = Place::current()) {
  simt::spin(at);
}
inline void add_release(unsigned* address, unsigned value, Place at = Place::current()) {
  if (simt::before_ordered(simt::Atomicity::changes, address, at) == simt::Ordering::lost)
    __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  else
    __atomic_fetch_add(address, value, __ATOMIC_RELEASE);
}
inline unsigned load_relaxed(const unsigned* address, Place at = Place::current()) {
  simt::before_atomic(simt::Atomicity::looks, address, sizeof(unsigned), at);
  return __atomic_load_n(address, __ATOMIC_RELAXED);
}
inline void store_relaxed(unsigned* address, unsigned value, Place at = Place::current()) {
  simt::before_atomic(simt::Atomicity::changes, address, sizeof(unsigned), at);
  __atomic_store_n(address, value, __ATOMIC_RELAXED);
}
inline unsigned load_from_host(const unsigned* address, Place at = Place::current()) {
  simt::before_atomic(simt::Atomicity::looks, address, sizeof(unsigned), at);
  return __atomic_load_n(address, __ATOMIC_RELAXED);
}
inline void store_to_host(unsigned* address, unsigned value, Place at = Place::current()) {
  simt::before_atomic(simt::Atomicity::changes, address, sizeof(unsigned), at);
  __atomic_store_n(address, value, __ATOMIC_RELAXED);
}

inline void wait_for_producers(Place at = Place::current()) {
  simt::wait_for_producers(at);
}
inline void let_dependents_start(Place at = Place::current()) {
  simt::let_dependents_start(at);
}

inline int opaque(int value) {
  return value;
}

inline float float_of_byte(std::uint32_t word, int i) {
  return static_cast<float>(word >> 8 * i & 0xff);
}
inline float fast_divide(float a, float b) {
  return a / b;
}
inline float fast_exp(float x) {
  return ::expf(x);
}
inline float fast_log(float x) {
  return ::logf(x);
}
inline float fast_sqrt(float x) {
  return ::sqrtf(x);
}

// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
inline uint4 philox(uint4 c, uint2 key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c.x;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c.z;
    c = {static_cast<unsigned>(p1 >> 32) ^ c.y ^ key.x, static_cast<unsigned>(p1),
         static_cast<unsigned>(p0 >> 32) ^ c.w ^ key.y, static_cast<unsigned>(p0)};
    key = {key.x + 0x9E3779B9, key.y + 0xBB67AE85};
  }
  return c;
}

}  // namespace CUVAE_KERNELS::device
