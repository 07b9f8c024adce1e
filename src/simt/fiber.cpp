#include "simt/fiber.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <new>

#include "simt/sanitizer.h"

namespace cuvae::simt {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t stack_bytes = with_asan || with_tsan ? 256 * 1024 : 64 * 1024;
// A page without access below a stack costs two of the 65530 mappings that Linux gives a process:
// the first stacks of all pools together have it, the others a word that is looked at now and then.
constexpr std::size_t guarded_stacks = 8192;
std::atomic<std::size_t> guarded = 0;
constexpr std::uint64_t end_mark = 0x5354'4143'4b45'4e44;

#if defined(__x86_64__)
// System V AMD64 ABI: the callee keeps rbp, rbx, r12 to r15; the return address is on the stack.
__attribute__((naked, noinline)) void switch_stack(void** /*from: rdi*/, void* /*to: rsi*/) {
  __asm__ volatile(
      "pushq %rbp\n\t"
      "pushq %rbx\n\t"
      "pushq %r12\n\t"
      "pushq %r13\n\t"
      "pushq %r14\n\t"
      "pushq %r15\n\t"
      "movq %rsp, (%rdi)\n\t"
      "movq %rsi, %rsp\n\t"
      "popq %r15\n\t"
      "popq %r14\n\t"
      "popq %r13\n\t"
      "popq %r12\n\t"
      "popq %rbx\n\t"
      "popq %rbp\n\t"
      "ret\n\t");
}
#endif

void jump(Fiber& from, Fiber& to) {
#if defined(__x86_64__)
  if (to.context == nullptr && to.stack_pointer != nullptr) {
    switch_stack(&from.stack_pointer, to.stack_pointer);
    return;
  }
#endif
  if (from.context == nullptr) from.context = std::make_unique<ucontext_t>();
  swapcontext(from.context.get(), to.context.get());
}

}  // namespace

void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.asan_fake_stack, to.stack, to.stack_bytes);
#endif
  if (with_tsan) switch_tsan_fiber(to.tsan);
  jump(from, to);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
#endif
}

void leave_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, to.stack, to.stack_bytes);
#endif
  if (with_tsan) switch_tsan_fiber(to.tsan);
  jump(from, to);
}

void arrive_on_fiber([[maybe_unused]] Fiber& from) {
#if defined(__SANITIZE_ADDRESS__)
  const void* stack = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (from.stack == nullptr) {
    from.stack = static_cast<std::byte*>(const_cast<void*>(stack));
    from.stack_bytes = bytes;
  }
#endif
}

StackPool::~StackPool() {
  for (const auto& fiber : fibers_) {
    if (fiber->guarded) --guarded;
    unpoison(fiber->stack, fiber->stack_bytes);
    munmap(fiber->stack - page, fiber->stack_bytes + page);
  }
}

void StackPool::prepare(Fiber& fiber) {
  if (switching_ == Switching::ucontext) {
    if (fiber.context == nullptr) fiber.context = std::make_unique<ucontext_t>();
    getcontext(fiber.context.get());
    fiber.context->uc_stack.ss_sp = fiber.stack;
    fiber.context->uc_stack.ss_size = fiber.stack_bytes;
    fiber.context->uc_link = nullptr;
    makecontext(fiber.context.get(), entry_, 0);
  } else {
    // As switch_stack leaves a stack: six registers, then where to go on. entry_ finds the stack as
    // if it had been called: a return address (none) at an address that is 8 modulo 16.
    auto* top = reinterpret_cast<void**>(fiber.stack + fiber.stack_bytes);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry_);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fiber.stack_pointer = top;
  }
  *reinterpret_cast<std::uint64_t*>(fiber.stack) = end_mark;
}

Fiber& StackPool::take() {
  constexpr int protection = PROT_READ | PROT_WRITE;
  constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (!parked_.empty()) {
    Fiber& fiber = *parked_.back();
    parked_.pop_back();
    return fiber;
  }
  if (!retired_.empty()) {
    Fiber& fiber = *retired_.back();
    retired_.pop_back();
    unpoison(fiber.stack, fiber.stack_bytes);
    // ThreadSanitizer forgets what another thread did on the old stack.
    if (mmap(fiber.stack, fiber.stack_bytes, protection, flags | MAP_FIXED, -1, 0) == MAP_FAILED)
      throw std::bad_alloc();
    prepare(fiber);
    return fiber;
  }
  auto fiber = std::make_unique<Fiber>();
  fibers_.reserve(fibers_.size() + 1);
  void* memory = mmap(nullptr, stack_bytes + page, protection, flags, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  if (guarded < guarded_stacks && mprotect(memory, page, PROT_NONE) == 0) {
    fiber->guarded = true;
    ++guarded;
  }
  fiber->stack = static_cast<std::byte*>(memory) + page;
  fiber->stack_bytes = stack_bytes;
  prepare(*fiber);
  fibers_.push_back(std::move(fiber));
  return *fibers_.back();
}

bool StackPool::intact() const noexcept {
  for (const auto& fiber : fibers_)
    if (!fiber->guarded && *reinterpret_cast<const std::uint64_t*>(fiber->stack) != end_mark)
      return false;
  return true;
}

}  // namespace cuvae::simt
