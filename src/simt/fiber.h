#pragma once
// Stacks that the program can be on. A fiber runs `entry` of the StackPool that made it, and gives
// way to another with switch_fiber(). One pool belongs to one OS thread at a time.

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cuvae::simt {

enum class Switching : std::uint8_t {
  assembly,  // x86-64
  ucontext,  // any machine; two system calls a switch
};
#if defined(__x86_64__)
inline constexpr Switching best_switching = Switching::assembly;
#else
inline constexpr Switching best_switching = Switching::ucontext;
#endif

struct Fiber {
  void* stack_pointer = nullptr;        // while it does not run
  std::unique_ptr<ucontext_t> context;  // instead, with Switching::ucontext
  std::byte* stack = nullptr;           // its lowest address; null for the OS thread's own stack
  std::size_t stack_bytes = 0;
  bool guarded = false;  // a page without access lies below the stack
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
  StackPool(Entry entry, Switching switching) : entry_(entry), switching_(switching) {}
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
  Switching switching_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> parked_;
  std::vector<Fiber*> retired_;
};

}  // namespace cuvae::simt
