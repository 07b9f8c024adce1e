#pragma once
// Stacks that the program can be on. A fiber runs `entry` of the StackPool that made it, and gives
// way to another with switch_fiber(). One pool belongs to one OS thread at a time.

#include <cstddef>
#include <memory>
#include <vector>

#if !defined(__x86_64__) && !defined(CUVAE_SIMT_UCONTEXT)
#define CUVAE_SIMT_UCONTEXT 1
#endif
#if defined(CUVAE_SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace cuvae::simt {

struct Fiber {
#if defined(CUVAE_SIMT_UCONTEXT)
  ucontext_t context;
#endif
  void* stack_pointer = nullptr;  // while it does not run
  std::byte* stack = nullptr;     // its lowest address; null for the OS thread's own stack
  std::size_t stack_bytes = 0;
  void* asan_fake_stack = nullptr;
  void* tsan = nullptr;  // which thread it is
};

// From the fiber that runs to `to`, which goes on where it gave way, or begins. Returns when
// something switches back.
void switch_fiber(Fiber& from, Fiber& to);
// The last switch of a fiber that is never switched back to.
void leave_fiber(Fiber& from, Fiber& to);
// First thing on a new fiber: tells where the OS thread's own stack is, if `from` is that.
void arrive_on_fiber(Fiber& from);

class StackPool {
 public:
  using Entry = void (*)();
  explicit StackPool(Entry entry) : entry_(entry) {}
  ~StackPool();
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;

  // A fiber that begins at entry, or a parked one, which goes on where it was parked. Throws
  // std::bad_alloc.
  Fiber& take();
  void park(Fiber& fiber) { parked_.push_back(&fiber); }
  // For a fiber that has left: its stack is made anew.
  void retire(Fiber& fiber) { retired_.push_back(&fiber); }
  // Parked fibers begin anew.
  void renew() {
    retired_.insert(retired_.end(), parked_.begin(), parked_.end());
    parked_.clear();
  }
  [[nodiscard]] std::size_t size() const noexcept { return fibers_.size(); }
  // Whether each stack still ends where it should; false if one has run over its end.
  [[nodiscard]] bool intact() const noexcept;

 private:
  void prepare(Fiber& fiber);
  Entry entry_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> parked_;
  std::vector<Fiber*> retired_;
};

}  // namespace cuvae::simt
