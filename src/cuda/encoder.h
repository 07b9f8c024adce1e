#pragma once
// The only way to launch a kernel. The encoder knows which node it is launching for, on which
// stream, and what that node may read and write; it checks every launch, names it in messages and
// profiler ranges, and lets it start before its predecessor has ended where that is safe
// (programmatic dependent launch). Recording into a graph is launching while a capture is open.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/runtime.h"

namespace cuvae::cuda {

// A kernel with the types of its parameters; made by CUVAE_KERNEL (kernels/launch.cuh).
template <class... P>
struct TypedKernel {
  Kernel kernel;
};

// How one launch is cut, beside its kernel.
struct LaunchSize {
  std::int64_t blocks_x = 1;  // up to 2^31 - 1
  std::int64_t blocks_y = 1;  // up to 65535
  std::int64_t blocks_z = 1;  // up to 65535
  int threads = 256;          // of a block
  std::size_t shared_bytes = 0;
  bool cooperative = false;  // all blocks at once: for kernels that wait for one another's blocks
};

class Encoder {
 public:
  // `programmatic`: whether kernels may overlap at all. Never where the code that runs is of below
  // compute capability 9.0: it has no instruction to wait for its producers.
  Encoder(Runtime& runtime, const Properties& properties, bool programmatic = true)
      : runtime_(runtime),
        properties_(properties),
        programmatic_(programmatic && runtime.code_architecture(properties) >= 90) {}

  [[nodiscard]] const Properties& properties() const noexcept { return properties_; }

  // What follows is launched for `node`, into `stream`, and touches `accesses` only (they must
  // outlive the node's launches). `overlap`: the first launch may start before what stands before
  // it in the stream has ended, which its kernel waits for (device::wait_for_producers).
  void begin(std::string_view node, Runtime::Raw stream, std::span<const Access> accesses,
             bool overlap);

  // Launches on the current node's stream; an empty grid (no blocks) is nothing to do. Launches of
  // one node may overlap likewise: every kernel waits for its producers before it touches anything
  // but early inputs. Throws Error(device) for what the device does not take, with the node's and
  // the kernel's name.
  template <class... P, class... A>
  void launch(const TypedKernel<P...>& kernel, const LaunchSize& size, A&&... arguments) {
    static_assert(sizeof...(P) == sizeof...(A), "a kernel's arguments do not match its parameters");
    std::tuple<std::remove_cv_t<P>...> values(
        static_cast<std::remove_cv_t<P>>(std::forward<A>(arguments))...);
    std::apply(
        [&](auto&... value) {
          void* const pointers[] = {static_cast<void*>(&value)..., nullptr};
          launch_raw(kernel.kernel, size, {pointers, sizeof...(P)});
        },
        values);
  }

  // Zeroes on the current node's stream.
  void zero(void* memory, std::size_t bytes);

  // While it lives, launches only make their kernels ready: what a capture must not meet.
  class Loading {
   public:
    explicit Loading(Encoder& encoder) : encoder_(encoder) { encoder_.loading_ = true; }
    ~Loading() { encoder_.loading_ = false; }
    Loading(const Loading&) = delete;
    Loading& operator=(const Loading&) = delete;

   private:
    Encoder& encoder_;
  };

  // Since the encoder was made.
  [[nodiscard]] std::int64_t launches() const noexcept { return launches_; }
  // Whether the current node's last work was a kernel: only that lets the next node's kernel start
  // early.
  [[nodiscard]] bool ends_with_kernel() const noexcept { return after_kernel_; }
  [[nodiscard]] bool programmatic() const noexcept { return programmatic_; }

 private:
  void launch_raw(const Kernel& kernel, const LaunchSize& size, std::span<void* const> arguments);

  Runtime& runtime_;
  const Properties& properties_;
  std::string_view node_;
  Runtime::Raw stream_ = nullptr;
  std::span<const Access> accesses_;
  bool programmatic_ = true;
  bool loading_ = false;
  bool overlap_ = false;       // the next launch may start before what stands before it has ended
  bool after_kernel_ = false;  // the current node's last work was a kernel
  std::int64_t launches_ = 0;
};

// A profiler's range for as long as it lives.
class ProfilerRange {
 public:
  ProfilerRange(Runtime& runtime, std::string_view name) noexcept : runtime_(runtime) {
    runtime_.range_push(name);
  }
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;
  ~ProfilerRange() { runtime_.range_pop(); }

 private:
  Runtime& runtime_;
};

}  // namespace cuvae::cuda
