#include "simt/scheduler.h"

#include <algorithm>
#include <exception>
#include <numeric>
#include <utility>

#include "simt/report.h"
#include "simt/sanitizer.h"
#include "simt/tsan_fibers.h"

namespace cuvae::simt {
namespace {

// Blocks that orders by chance mix, beyond those that must run at once.
constexpr std::size_t mixed_blocks = 4;
// Threads of a kernel that waits for its producers which are begun before these end.
constexpr std::size_t early_threads = 4096;

}  // namespace

constinit thread_local Self self;
thread_local Scheduler* Scheduler::current_ = nullptr;

Scheduler::Scheduler(Order order, std::uint64_t seed, AsyncCopies copies,
                     std::size_t shared_capacity, Switching switching, Mutator* mutator)
    : order_(order),
      seed_(seed),
      copies_(copies),
      shared_capacity_(shared_capacity),
      mutator_(mutator),
      dice_(seed),
      ready_(order, dice_),
      stacks_(&Scheduler::fiber_main, switching) {}

Scheduler::~Scheduler() = default;

std::string Scheduler::conditions() const {
  return "order " + std::string(name_of(order_)) + ", seed " + std::to_string(seed_) +
         (copies_ == AsyncCopies::early ? ", early" : ", late") + " asynchronous copies";
}

// Launches ----------------------------------------------------------------------------------------

void Scheduler::start(Launch& launch) {
  launch.blocks = std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  ++launch.kernel->launches;
  if (order_ == Order::random || order_ == Order::greedy) {
    launch.order.resize(launch.blocks);
    std::iota(launch.order.begin(), launch.order.end(), 0u);
    for (std::size_t i = launch.order.size(); i > 1; --i)
      std::swap(launch.order[i - 1], launch.order[dice_.below(i)]);
  }
  order_after_me(&launch.start_order);
  launches_.push_back(&launch);
  std::size_t blocks = 1;
  if (launch.cooperative) {
    blocks = launch.blocks;
  } else if (order_ == Order::random || order_ == Order::greedy) {
    blocks =
        std::min({static_cast<std::size_t>(launch.blocks), launch.most_resident, mixed_blocks});
  }
  for (std::size_t i = 0; i < blocks; ++i) open_block(launch);
}

void Scheduler::release(Launch& launch) {
  launch.producers_done = true;
  for (const auto& block : launch.resident)
    for (Thread& thread : block->threads)
      if (thread.state == State::at_wait) wake(thread);
}

void Scheduler::finish(Launch& launch) {
  if (!cancelled_ && !launch.complete()) {
    note(deadlock_text(launch));
    cancel();
    run();
  }
  if (!stacks_.intact())
    note("a thread's stack ran over; kernel " + std::string(launch.kernel->name));
  for (auto& block : launch.resident) {
    for (Thread& thread : block->threads)
      TsanFibers::give_back(std::exchange(thread.tsan, nullptr), launch.serial);
    spare_.push_back(std::move(block));
  }
  launch.resident.clear();
  if (with_tsan) spare_.clear();  // addresses must not bring their order into the next launch
  std::erase(launches_, &launch);
  if (launches_.empty()) cancelled_ = false;
}

void Scheduler::abandon() {
  cancel();
  run();
}

std::unique_ptr<Block> Scheduler::new_block() {
  if (with_tsan || spare_.empty()) return std::make_unique<Block>();
  std::unique_ptr<Block> block = std::move(spare_.back());
  spare_.pop_back();
  return block;
}

void Scheduler::open_block(Launch& launch) {
  std::unique_ptr<Block> made = new_block();
  Block& block = *made;
  std::uint64_t number = launch.opened++;
  if (!launch.order.empty()) {
    number = launch.order[number];
  } else if (order_ == Order::reverse) {
    number = launch.blocks - 1 - number;
  }
  const std::uint64_t plane = std::uint64_t{launch.grid.x} * launch.grid.y;
  block.launch = &launch;
  block.number = number;
  block.index = {static_cast<std::uint32_t>(number % launch.grid.x),
                 static_cast<std::uint32_t>(number / launch.grid.x % launch.grid.y),
                 static_cast<std::uint32_t>(number / plane)};
  const std::size_t n = launch.block_threads();
  block.live = n;
  block.at_barrier = 0;
  block.votes = 0;
  block.phase = 0;
  block.threads.resize(n);
  block.warps.assign((n + 31) / 32, Warp{});
  if (n % 32 != 0) block.warps.back().gone = ~0u << n % 32;
  block.shared.begin(launch.shared_bytes, shared_capacity_);
  statistics_.threads += n;

  // Blocks before warps before lanes.
  const std::uint64_t block_priority = (dice_.next() & 0x3ff) << 53;
  std::uint64_t warp_priority = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t linear = order_ == Order::reverse ? n - 1 - i : i;
    Thread& thread = block.threads[linear];
    thread.block = &block;
    thread.fiber = nullptr;
    thread.linear = static_cast<std::uint32_t>(linear);
    thread.index = {static_cast<std::uint32_t>(linear % launch.block.x),
                    static_cast<std::uint32_t>(linear / launch.block.x % launch.block.y),
                    static_cast<std::uint32_t>(linear / launch.block.x / launch.block.y)};
    thread.waited = false;
    thread.owes_wait = false;
    thread.lane = nullptr;
    thread.copies.clear();
    if (order_ == Order::greedy) {
      if (i % 32 == 0) warp_priority = (dice_.next() & 0x3f) << 47;
      thread.priority = block_priority | warp_priority | (dice_.next() & 0x3f) << 41;
    }
    if constexpr (with_tsan) thread.tsan = TsanFibers::take(&launch.start_order, *launch.past);
    ready_.push(thread);
  }
  if (mutator_ != nullptr) mutate(block);
  launch.resident.push_back(std::move(made));
}

// A thread or block that takes itself for another.
void Scheduler::mutate(Block& block) {
  const Launch& launch = *block.launch;
  if (launch.block.x > 1 && mutator_->in(MutationKind::shift_thread, launch.kernel->name))
    block.threads[1].index = block.threads[0].index;
  if (launch.grid.x > 1 && mutator_->in(MutationKind::shift_block, launch.kernel->name) &&
      block.number == 1)
    block.index.x = 0;
}

// Where all that run wait for what only another block can do: that block.
bool Scheduler::open_one_more() {
  for (Launch* launch : launches_) {
    const std::size_t resident = launch->resident.size();
    if (launch->opened == launch->blocks || resident >= launch->most_resident) continue;
    if (!launch->producers_done && resident * launch->block_threads() >= early_threads) continue;
    open_block(*launch);
    return true;
  }
  return false;
}

void Scheduler::end_block(Block& block) {
  Launch& launch = *block.launch;
  launch.kernel->static_shared_bytes =
      std::max(launch.kernel->static_shared_bytes, block.shared.static_bytes());
  ++launch.ended;
  if (cancelled_) return;
  if (const std::string_view array = block.shared.overrun(); !array.empty()) {
    note("a write beside shared memory, at " + std::string(array) + "; kernel " +
         std::string(launch.kernel->name) + ", block " + text_of(block.index));
    cancel();
    return;
  }
  const auto at = std::find_if(launch.resident.begin(), launch.resident.end(),
                               [&](const auto& other) { return other.get() == &block; });
  spare_.push_back(std::move(*at));
  launch.resident.erase(at);
  if (launch.opened < launch.blocks) open_block(launch);
}

// Fibers ------------------------------------------------------------------------------------------

void Scheduler::run() {
  const Quiet quiet;
  Scheduler* const outer = std::exchange(current_, this);
  if (host_thread_ != std::this_thread::get_id()) {
    host_thread_ = std::this_thread::get_id();
    host_.stack = nullptr;  // a new fiber finds out (arrive_on_fiber)
    stacks_.renew();
  }
  host_.tsan = this_tsan_fiber();
  fiber_ = &host_;
  spins_ = 0;
  Fiber& next = next_fiber();
  if (&next != &host_) {
    fiber_ = &next;
    switch_fiber(host_, next);
    fiber_ = &host_;
  }
  running_ = nullptr;
  current_ = outer;
}

Fiber& Scheduler::next_fiber() {
  Thread* thread = ready_.pop();
  // Blocks that wait for a producer leave room for further ones of their launch.
  while (thread == nullptr && !cancelled_ &&
         std::any_of(launches_.begin(), launches_.end(),
                     [](const Launch* l) { return !l->producers_done; }) &&
         open_one_more())
    thread = ready_.pop();
  if (thread == nullptr) return host_;
  if (thread->fiber == nullptr) {
    thread->fiber = &stacks_.take();
    thread->fiber->tsan = thread->tsan;
    starting_ = thread;
  }
  return *thread->fiber;
}

void Scheduler::become(Thread& thread) noexcept {
  running_ = &thread;
  thread.state = State::running;
  self.thread = thread.index;
  self.block = thread.block->index;
  const Launch& launch = *thread.block->launch;
  self.block_size = {launch.block.x, launch.block.y, launch.block.z};
  self.grid_size = {launch.grid.x, launch.grid.y, launch.grid.z};
}

void Scheduler::fiber_main() {
  Scheduler& s = *current_;
  arrive_on_fiber(s.host_);
  for (;;) {
    Fiber* next = nullptr;
    {
      const Quiet quiet;
      s.execute(*s.starting_);
      // A thread that has not begun needs no fiber of its own yet: this one is free. But what
      // ThreadSanitizer takes for a thread ends with it.
      Thread* thread = with_tsan ? nullptr : s.ready_.pop();
      if (thread != nullptr && thread->fiber == nullptr) {
        s.starting_ = thread;
        thread->fiber = s.fiber_;
        continue;
      }
      next = thread != nullptr ? thread->fiber : &s.next_fiber();
      // Not before the next one was taken: this stack is still in use.
      if (with_tsan) {
        s.stacks_.retire(*s.fiber_);
      } else {
        s.stacks_.park(*s.fiber_);
      }
    }
    ++s.statistics_.switches;
    Fiber& here = *std::exchange(s.fiber_, next);
    if (with_tsan) leave_fiber(here, *next);
    switch_fiber(here, *next);
  }
}

void Scheduler::execute(Thread& thread) noexcept {
  become(thread);
  Launch& launch = *thread.block->launch;
  try {
    {
      const Loud kernel;
      launch.kernel->invoke(launch.arguments.data());
    }
    end(thread);
  } catch (const Unwind&) {
    thread.state = State::done;
  } catch (const std::exception& e) {
    note(std::string("an exception: ") + e.what() + "; " + whereabouts(thread));
    thread.state = State::done;
    cancel();
  }
  order_after_me(&launch.done_order);
  TsanFibers::give_back(std::exchange(thread.tsan, nullptr), launch.serial);
  running_ = nullptr;
}

void Scheduler::end(Thread& thread) {
  Block& block = *thread.block;
  if (block.launch->programmatic && !thread.waited) {
    fail(
        "a thread ended without wait_for_producers() in a kernel that is launched "
        "programmatically",
        {});
  }
  if (thread.owes_wait) wait(thread);
  thread.copies.finish();
  thread.state = State::done;
  spins_ = 0;
  --block.live;
  Warp& warp = block.warps[thread.linear / 32];
  warp.gone |= 1u << thread.linear % 32;
  if (block.live == 0) {
    end_block(block);
    return;
  }
  // Who waits for lanes or threads that have not ended may have waited for this one.
  for (std::uint32_t lane = 0; lane < 32 && warp.waiting != 0; ++lane)
    if ((warp.waiting >> lane & 1) != 0)
      try_collective(block.threads[thread.linear / 32 * 32 + lane]);
  if (block.at_barrier == block.live) complete_barrier(block, nullptr);
}

void Scheduler::block(State state) {
  Thread& thread = *running_;
  thread.state = state;
  Fiber& here = *fiber_;
  Fiber& next = next_fiber();
  if (&next != &here) {
    ++statistics_.switches;
    fiber_ = &next;
    switch_fiber(here, next);
    fiber_ = &here;
  }
  become(thread);
  if (cancelled_) throw Unwind{};
}

void Scheduler::wake(Thread& thread) {
  ready_.push(thread);
}

void Scheduler::spin(Place at) {
  Thread& thread = *running_;
  ++spins_;
  const std::size_t others = ready_.size();
  // Everyone had a turn, and nothing came of it.
  if (spins_ > 2 * others + 16 && open_one_more()) spins_ = 0;
  if (spins_ > 10'000 + 100 * others) {
    const Launch& launch = *thread.block->launch;
    fail("no thread gets on: all that run spin, in " + std::to_string(launch.resident.size()) +
             " blocks of " + std::to_string(launch.blocks) + ", of which " +
             std::to_string(launch.most_resident) + " run at once",
         at);
  }
  if (others == 0 && ready_.size() == 0) return;
  thread.place = at;
  ready_.push_behind(thread);
  block(State::ready);
}

void Scheduler::step(bool progress) {
  if (progress) spins_ = 0;
  if (order_ != Order::random && order_ != Order::greedy) return;
  if (ready_.size() == 0 || dice_.below(8) != 0) return;
  ready_.push_behind(*running_);
  block(State::ready);
}

// Findings ----------------------------------------------------------------------------------------

void Scheduler::note(const std::string& what) noexcept {
  if (finding_.empty()) finding_ = what + "; " + conditions();
}

void Scheduler::fail(const std::string& what, Place at) {
  note(what + (at.line() != 0 ? " at " + text_of(at) : "") + "; " + whereabouts(*running_));
  cancel();
  throw Unwind{};
}

// All threads that have begun are unwound; the others never begin.
void Scheduler::cancel() {
  cancelled_ = true;
  ready_.clear();
  for (const Launch* launch : launches_)
    for (const auto& block : launch->resident)
      for (Thread& thread : block->threads)
        if (&thread != running_ && thread.fiber != nullptr && thread.state != State::done)
          ready_.push(thread);
}

}  // namespace cuvae::simt
