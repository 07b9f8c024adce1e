// What kernels/device/simt.cuh asks of the runner, beside what threads do together
// (collective.cpp).

#include "simt/report.h"
#include "simt/sanitizer.h"
#include "simt/scheduler.h"

namespace cuvae::simt {
namespace {

const KernelEntry* all_kernels = nullptr;

bool aligned(const void* address, std::size_t to) {
  return reinterpret_cast<std::uintptr_t>(address) % to == 0;
}

}  // namespace

const KernelEntry* enter_kernel(KernelEntry& entry) noexcept {
  return std::exchange(all_kernels, &entry);
}
const KernelEntry* first_kernel() noexcept {
  return all_kernels;
}

void* static_shared(const void* key, std::size_t bytes, std::size_t alignment, const char* name,
                    Place at) {
  const Quiet quiet;
  Scheduler& scheduler = Scheduler::current();
  Block& block = *scheduler.running().block;
  void* memory = block.shared.find(key, bytes, alignment, name);
  if (memory == nullptr || block.shared.static_bytes() > static_shared_limit)
    scheduler.fail("too much shared memory: " + std::string(name) + ", " + std::to_string(bytes) +
                       " bytes beside " + std::to_string(block.shared.static_bytes()) +
                       " static and " + std::to_string(block.launch->shared_bytes) +
                       " dynamic ones,",
                   at);
  return memory;
}

void* dynamic_shared(std::size_t alignment, Place at) {
  const Quiet quiet;
  Scheduler& scheduler = Scheduler::current();
  if (alignment > 16) scheduler.fail("dynamic shared memory is aligned to 16 bytes", at);
  return scheduler.running().block->shared.dynamic();
}

void async_copy(void* shared, const void* global, int bytes, int valid_bytes, Place at) {
  Scheduler& scheduler = Scheduler::current();
  {
    const Quiet quiet;
    const auto size = static_cast<std::size_t>(bytes);
    if (!aligned(shared, size) || !aligned(global, size))
      scheduler.fail("cp_async: an address is not aligned to " + std::to_string(bytes) + " bytes",
                     at);
    if (valid_bytes < 0 || valid_bytes > bytes)
      scheduler.fail(
          "cp_async: " + std::to_string(valid_bytes) + " valid bytes of " + std::to_string(bytes),
          at);
    if (!scheduler.running().block->shared.contains(shared, size))
      scheduler.fail("cp_async: the destination does not lie in shared memory", at);
  }
  note_read(global, static_cast<std::size_t>(valid_bytes));
  note_write(shared, static_cast<std::size_t>(bytes));
  const Quiet quiet;
  scheduler.async_copy(shared, global, bytes, valid_bytes);
}

void async_commit() {
  const Quiet quiet;
  Scheduler::current().running().copies.commit();
}

void async_wait(int pending, Place at) {
  const Quiet quiet;
  Scheduler& scheduler = Scheduler::current();
  if (scheduler.mutates(MutationKind::skip_copy_wait, at)) return;
  scheduler.running().copies.wait(static_cast<std::size_t>(pending));
}

void before_atomic(Atomicity what, const void* address, std::size_t bytes, Place at) {
  const Quiet quiet;
  Scheduler& scheduler = Scheduler::current();
  if (!aligned(address, bytes))
    scheduler.fail("an atomic operation on an address that is not aligned to " +
                       std::to_string(bytes) + " bytes",
                   at);
  scheduler.step(what == Atomicity::changes);
}

Ordering before_ordered(Atomicity what, const unsigned* address, Place at) {
  before_atomic(what, address, sizeof(unsigned), at);
  const Quiet quiet;
  Scheduler& scheduler = Scheduler::current();
  if (what == Atomicity::looks && scheduler.mutates(MutationKind::skip_spin, at))
    return Ordering::not_awaited;
  return scheduler.mutates(MutationKind::skip_acquire, at) ? Ordering::lost : Ordering::kept;
}

void spin(Place at) {
  const Quiet quiet;
  Scheduler::current().spin(at);
}

void wait_for_producers(Place at) {
  const Quiet quiet;
  Scheduler::current().wait_for_producers(at);
}

void let_dependents_start(Place at) {
  const Quiet quiet;
  Scheduler& scheduler = Scheduler::current();
  if (!scheduler.running().waited)
    scheduler.fail("let_dependents_start() before wait_for_producers()", at);
}

void refuse(std::string_view what, Place at) {
  const Quiet quiet;
  Scheduler::current().fail(std::string(what), at);
}

void Scheduler::async_copy(void* shared, const void* global, int bytes, int valid_bytes) {
  running_->copies.issue(copies_, shared, global, bytes, valid_bytes);
}

void Scheduler::wait_for_producers(Place at) {
  Thread& thread = *running_;
  thread.waited = true;
  if (mutates(MutationKind::skip_producer_wait, at)) return;
  thread.owes_wait = mutates(MutationKind::early_read, at);
  if (!thread.owes_wait) wait(thread);
}

void Scheduler::wait(Thread& thread) {
  const Launch& launch = *thread.block->launch;
  thread.owes_wait = false;
  if (!launch.producers_done) block(State::at_wait);
  if (launch.producer_order != nullptr) order_me_after(launch.producer_order);
}

}  // namespace cuvae::simt
