#pragma once
// What the sanitizers must be told: on which stack the program is (AddressSanitizer), which thread
// of the kernel it is and what orders it after another (ThreadSanitizer), and which memory nobody
// may touch. All of it is nothing in a plain build.
//
// ThreadSanitizer: src/simt is compiled without its instrumentation, because the runner's own
// memory passes between fibers without any order that it could see. Its interceptors (malloc, free,
// memcpy) and inline functions of the standard library remain: Quiet keeps them silent.

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CUVAE_SIMT_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
}
#endif

namespace cuvae::simt {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool with_asan = true;
#else
inline constexpr bool with_asan = false;
#endif
#if defined(CUVAE_SIMT_TSAN)
inline constexpr bool with_tsan = true;
#else
inline constexpr bool with_tsan = false;
#endif

inline void poison([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(memory, bytes);
#endif
}
inline void unpoison([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(memory, bytes);
#endif
}

#if defined(CUVAE_SIMT_TSAN)

class Quiet {
 public:
  Quiet() {
    AnnotateIgnoreReadsBegin("", 0);
    AnnotateIgnoreWritesBegin("", 0);
  }
  ~Quiet() {
    AnnotateIgnoreReadsEnd("", 0);
    AnnotateIgnoreWritesEnd("", 0);
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
};
// The kernel's own code within a Quiet.
class Loud {
 public:
  Loud() {
    AnnotateIgnoreReadsEnd("", 0);
    AnnotateIgnoreWritesEnd("", 0);
  }
  ~Loud() {
    AnnotateIgnoreReadsBegin("", 0);
    AnnotateIgnoreWritesBegin("", 0);
  }
  Loud(const Loud&) = delete;
  Loud& operator=(const Loud&) = delete;
};

// Whatever came before order_after_me(x) in one fiber comes before what follows order_me_after(x)
// in another.
inline void order_after_me(void* object) {
  __tsan_release(object);
}
inline void order_me_after(void* object) {
  __tsan_acquire(object);
}
inline void note_read(const void* memory, std::size_t bytes) {
  if (bytes != 0) __tsan_read_range(const_cast<void*>(memory), bytes);
}
inline void note_write(void* memory, std::size_t bytes) {
  if (bytes != 0) __tsan_write_range(memory, bytes);
}
// A fiber begins after what its maker has done so far.
inline void* make_tsan_fiber() {
  return __tsan_create_fiber(0);
}
inline void destroy_tsan_fiber(void* fiber) {
  __tsan_destroy_fiber(fiber);
}
inline void* this_tsan_fiber() {
  return __tsan_get_current_fiber();
}
inline void switch_tsan_fiber(void* fiber) {
  __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
}

#else

class Quiet {
 public:
  Quiet() {}
};
class Loud {
 public:
  Loud() {}
};
inline void order_after_me(void*) {}
inline void order_me_after(void*) {}
inline void note_read(const void*, std::size_t) {}
inline void note_write(void*, std::size_t) {}
inline void* make_tsan_fiber() {
  return nullptr;
}
inline void destroy_tsan_fiber(void*) {}
inline void* this_tsan_fiber() {
  return nullptr;
}
inline void switch_tsan_fiber(void*) {}

#endif

}  // namespace cuvae::simt
