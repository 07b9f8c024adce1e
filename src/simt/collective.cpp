// What threads do together: the block's barrier, and the warp's collectives. A collective is done
// by the lane that arrives last, for all: each lane leaves what it brings on its own stack.

#include <algorithm>
#include <bit>
#include <cstring>

#include "simt/matrix.h"
#include "simt/report.h"
#include "simt/sanitizer.h"
#include "simt/scheduler.h"

namespace cuvae::simt {

int Scheduler::barrier(Vote vote, bool predicate, Place at) {
  Thread& thread = *running_;
  if (thread.owes_wait) wait(thread);
  if (mutates(MutationKind::skip_barrier, at)) return predicate ? 1 : 0;
  Block& block = *thread.block;
  thread.place = at;
  void* const order = &block.order[block.phase & 1];
  order_after_me(order);
  if (block.at_barrier == 0) {
    block.votes = 0;
    block.vote = vote;
  }
  block.votes += predicate ? 1 : 0;
  ++block.at_barrier;
  if (block.at_barrier == block.live) {
    complete_barrier(block, &thread);
    if (order_ == Order::random && dice_.coin()) {
      ready_.push(thread);
      this->block(State::ready);
    } else if (order_ == Order::greedy && ready_.size() != 0) {
      ready_.push(thread);  // the most urgent one goes on
      this->block(State::ready);
    }
  } else {
    this->block(State::at_barrier);
  }
  order_me_after(order);
  return thread.vote_result;
}

// `last` arrives now; null where the end of another thread completes it.
void Scheduler::complete_barrier(Block& block, Thread* last) {
  const std::size_t n = block.threads.size();
  const auto arrived = [&](const Thread& t) { return t.state == State::at_barrier || &t == last; };
  const Thread* first = nullptr;
  for (const Thread& thread : block.threads) {
    if (!arrived(thread)) continue;
    if (first == nullptr) first = &thread;
    if (same(first->place, thread.place)) continue;
    note("divergent barrier: thread " + text_of(first->index) + " waits at " +
         text_of(first->place) + ", thread " + text_of(thread.index) + " at " +
         text_of(thread.place) + "; " + whereabouts(*first));
    cancel();
    throw Unwind{};
  }
  if (block.live != n) {
    note("a barrier after " + std::to_string(n - block.live) + " of " + std::to_string(n) +
         " threads of the block have ended, at " + text_of(first->place) + "; " +
         whereabouts(*first));
    cancel();
    throw Unwind{};
  }
  int result = 0;
  switch (block.vote) {
    case Vote::none: break;
    case Vote::any: result = block.votes != 0; break;
    case Vote::all: result = block.votes == block.live; break;
    case Vote::count: result = static_cast<int>(block.votes); break;
  }
  spins_ = 0;
  block.at_barrier = 0;
  ++block.phase;
  for (std::size_t i = 0; i < n; ++i) {
    Thread& thread = block.threads[order_ == Order::reverse ? n - 1 - i : i];
    thread.vote_result = result;
    if (&thread != last) wake(thread);
  }
}

void Scheduler::collective(Lane& lane, Place at) {
  Thread& thread = *running_;
  if (thread.owes_wait) wait(thread);
  Warp& warp = thread.block->warps[thread.linear / 32];
  Thread* const lanes = &thread.block->threads[thread.linear / 32 * 32];
  const std::uint32_t me = thread.linear % 32;
  if ((lane.mask >> me & 1) == 0)
    fail(std::string(lane.operation) + ": the caller's lane is not in its mask", at);
  thread.lane = &lane;
  thread.place = at;
  for (std::uint32_t other = 0; other < 32; ++other) {
    if ((warp.waiting & lane.mask & 1u << other) == 0) continue;
    const Lane& theirs = *lanes[other].lane;
    if ((theirs.mask >> me & 1) == 0) continue;
    // Each waits for the other, so this is one collective, or none.
    const std::string who = "lane " + std::to_string(me) + " and lane " + std::to_string(other);
    if (theirs.mask != lane.mask)
      fail(std::string(lane.operation) + ": " + who + " give different masks", at);
    if (theirs.operate != lane.operate || !same(lanes[other].place, at))
      fail(who + " meet in different operations: " + lane.operation + ", and " + theirs.operation +
               " at " + text_of(lanes[other].place) + ",",
           at);
  }
  order_after_me(&thread.arrived);
  warp.waiting |= 1u << me;
  if (!try_collective(thread)) {
    block(State::in_collective);
  } else if ((order_ == Order::random && dice_.coin()) ||
             (order_ == Order::greedy && ready_.size() != 0)) {
    ready_.push(thread);
    block(State::ready);
  }
  order_me_after(&thread.released);
  thread.lane = nullptr;
}

// Whether all lanes that `thread` waits for have come; then it is done.
bool Scheduler::try_collective(Thread& thread) {
  Warp& warp = thread.block->warps[thread.linear / 32];
  Thread* const lanes = &thread.block->threads[thread.linear / 32 * 32];
  const Lane& lane = *thread.lane;
  const std::uint32_t active = lane.mask & ~warp.gone;
  std::uint32_t here = 0;
  for (std::uint32_t rest = warp.waiting & active; rest != 0; rest &= rest - 1) {
    const int i = std::countr_zero(rest);
    if (lanes[i].lane->mask == lane.mask) here |= 1u << i;
  }
  if (here != active) return false;
  spins_ = 0;
  for (std::uint32_t rest = active; rest != 0; rest &= rest - 1)
    order_me_after(&lanes[std::countr_zero(rest)].arrived);
  warp.waiting &= ~active;
  if (lane.operate != nullptr) lane.operate(*this, lanes, active);
  for (std::uint32_t i = 0; i < 32; ++i) {
    const std::uint32_t l = order_ == Order::reverse ? 31 - i : i;
    if ((active >> l & 1) == 0) continue;
    order_after_me(&lanes[l].released);
    if (&lanes[l] != running_) wake(lanes[l]);
  }
  return true;
}

namespace {

constexpr std::uint32_t full_warp = ~0u;

template <class F>
void each(std::uint32_t lanes, F&& f) {
  for (; lanes != 0; lanes &= lanes - 1) f(std::countr_zero(lanes));
}

void do_shuffle(Scheduler& scheduler, Thread* lanes, std::uint32_t active) {
  std::uint64_t values[32] = {};
  each(active, [&](int l) {
    const int source = lanes[l].lane->source;
    if ((active >> source & 1) == 0)
      scheduler.fail("lane " + std::to_string(l) + " reads lane " + std::to_string(source) +
                         ", which takes no part in the shuffle",
                     lanes[l].place);
    values[l] = lanes[source].lane->value;
  });
  each(active, [&](int l) { lanes[l].lane->value = values[l]; });
}

std::uint32_t ballot(Thread* lanes, std::uint32_t active) {
  std::uint32_t result = 0;
  each(active, [&](int l) { result |= lanes[l].lane->value != 0 ? 1u << l : 0; });
  return result;
}
void set_all(Thread* lanes, std::uint32_t active, std::uint64_t value) {
  each(active, [&](int l) { lanes[l].lane->value = value; });
}
void do_ballot(Scheduler&, Thread* lanes, std::uint32_t active) {
  set_all(lanes, active, ballot(lanes, active));
}
void do_any(Scheduler&, Thread* lanes, std::uint32_t active) {
  set_all(lanes, active, ballot(lanes, active) != 0);
}
void do_all(Scheduler&, Thread* lanes, std::uint32_t active) {
  set_all(lanes, active, ballot(lanes, active) == active);
}
void do_add(Scheduler&, Thread* lanes, std::uint32_t active) {
  std::uint32_t sum = 0;
  each(active, [&](int l) { sum += static_cast<std::uint32_t>(lanes[l].lane->value); });
  set_all(lanes, active, sum);
}

void need_full_warp(Scheduler& scheduler, Thread* lanes, std::uint32_t active) {
  if (active == full_warp) return;
  const Thread& first = lanes[std::countr_zero(active)];
  scheduler.fail(std::string(first.lane->operation) + " needs all 32 lanes of the warp, and " +
                     std::to_string(std::popcount(active)) + " take part",
                 first.place);
}

void maybe_swap(Scheduler& scheduler, Thread* lanes) {
  if (scheduler.mutates(MutationKind::swap_lanes, lanes[0].place))
    std::swap_ranges(lanes[0].lane->d, lanes[0].lane->d + 4, lanes[1].lane->d);
}

void do_matrix_tf32(Scheduler& scheduler, Thread* lanes, std::uint32_t active) {
  need_full_warp(scheduler, lanes, active);
  WarpFragments fragments;
  for (int l = 0; l < 32; ++l)
    fragments[l] = {lanes[l].lane->d, lanes[l].lane->a, lanes[l].lane->b};
  multiply_tf32(fragments);
  maybe_swap(scheduler, lanes);
}
void do_matrix_bf16(Scheduler& scheduler, Thread* lanes, std::uint32_t active) {
  need_full_warp(scheduler, lanes, active);
  WarpFragments fragments;
  for (int l = 0; l < 32; ++l)
    fragments[l] = {lanes[l].lane->d, lanes[l].lane->a, lanes[l].lane->b};
  multiply_bf16(fragments);
  maybe_swap(scheduler, lanes);
}

template <int matrices, bool transposed>
void do_load_matrix(Scheduler& scheduler, Thread* lanes, std::uint32_t active) {
  need_full_warp(scheduler, lanes, active);
  for (int m = 0; m < matrices; ++m) {
    std::uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row)
      std::memcpy(matrix[row], lanes[8 * m + row].lane->row, sizeof matrix[row]);
    for (int l = 0; l < 32; ++l) {
      const int i = l / 4;
      const int j = 2 * (l % 4);
      const std::uint32_t low = transposed ? matrix[j][i] : matrix[i][j];
      const std::uint32_t high = transposed ? matrix[j + 1][i] : matrix[i][j + 1];
      lanes[l].lane->result[m] = high << 16 | low;
    }
  }
  if (scheduler.mutates(MutationKind::swap_lanes, lanes[0].place))
    std::swap_ranges(lanes[0].lane->result, lanes[0].lane->result + matrices,
                     lanes[1].lane->result);
}

}  // namespace

// Hooks -------------------------------------------------------------------------------------------

int lane() noexcept {
  return static_cast<int>(Scheduler::current().running().linear % 32);
}

int block_barrier(Vote vote, bool predicate, Place at) {
  const Quiet quiet;
  return Scheduler::current().barrier(vote, predicate, at);
}

std::uint64_t warp_collective(WarpOp op, std::uint32_t mask, std::uint64_t value, int source,
                              Place at) {
  const Quiet quiet;
  if (Scheduler::current().mutates(
          op == WarpOp::sync ? MutationKind::skip_syncwarp : MutationKind::skip_shuffle, at))
    return value;
  Lane lane{};
  lane.mask = mask;
  lane.value = value;
  lane.source = source & 31;
  switch (op) {
    case WarpOp::sync: lane.operation = "__syncwarp"; break;
    case WarpOp::shuffle:
      lane.operation = "a shuffle";
      lane.operate = do_shuffle;
      break;
    case WarpOp::ballot:
      lane.operation = "__ballot_sync";
      lane.operate = do_ballot;
      break;
    case WarpOp::any:
      lane.operation = "__any_sync";
      lane.operate = do_any;
      break;
    case WarpOp::all:
      lane.operation = "__all_sync";
      lane.operate = do_all;
      break;
    case WarpOp::add:
      lane.operation = "__reduce_add_sync";
      lane.operate = do_add;
      break;
  }
  Scheduler::current().collective(lane, at);
  return lane.value;
}

void matrix_tf32(float* d, const std::uint32_t* a, const std::uint32_t* b, Place at) {
  const Quiet quiet;
  Lane lane{};
  lane.operation = "mma_tf32";
  lane.operate = do_matrix_tf32;
  lane.d = d;
  lane.a = a;
  lane.b = b;
  Scheduler::current().collective(lane, at);
}

void matrix_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, Place at) {
  const Quiet quiet;
  Lane lane{};
  lane.operation = "mma_bf16";
  lane.operate = do_matrix_bf16;
  lane.d = d;
  lane.a = a;
  lane.b = b;
  Scheduler::current().collective(lane, at);
}

void load_matrix(std::uint32_t* r, int matrices, bool transposed, const void* row, Place at) {
  Scheduler& scheduler = Scheduler::current();
  Thread& thread = scheduler.running();
  const bool gives_row = static_cast<int>(thread.linear % 32) < 8 * matrices;
  if (gives_row) {
    const Quiet quiet;
    if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
      scheduler.fail("ldmatrix: the row's address is not aligned to 16 bytes", at);
    if (!thread.block->shared.contains(row, 16))
      scheduler.fail("ldmatrix: the row does not lie in shared memory", at);
  }
  if (gives_row) note_read(row, 16);  // by the lane itself, before the others go on
  const Quiet quiet;
  Lane lane{};
  lane.operation = "ldmatrix";
  if (matrices == 4) {
    lane.operate = transposed ? do_load_matrix<4, true> : do_load_matrix<4, false>;
  } else {
    lane.operate = transposed ? do_load_matrix<2, true> : do_load_matrix<2, false>;
  }
  lane.result = r;
  lane.row = row;
  scheduler.collective(lane, at);
}

}  // namespace cuvae::simt
