#pragma once
// What the scheduler knows of a launch: its blocks, their warps and their threads.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/runtime.h"
#include "kernels/device/device.cuh"
#include "simt/async_copy.h"
#include "simt/fiber.h"
#include "simt/shared_arena.h"
#include "simt/tsan_fibers.h"

namespace cuvae::simt {

inline constexpr std::size_t static_shared_limit = 48 * 1024;

struct Block;
struct Launch;
struct Thread;
class Scheduler;

enum class State : std::uint8_t { ready, running, at_barrier, in_collective, at_wait, done };

// What a lane brings to a collective and takes from it; on its own stack.
struct Lane {
  const char* operation;  // its name
  // Does it for all `active` lanes of a warp that begins at `lanes`. Whoever arrives last runs it.
  void (*operate)(Scheduler& scheduler, Thread* lanes, std::uint32_t active);
  std::uint32_t mask = ~0u;
  std::uint64_t value = 0;  // in and out
  int source = 0;
  float* d = nullptr;  // matrix instructions
  const std::uint32_t* a = nullptr;
  const std::uint32_t* b = nullptr;
  std::uint32_t* result = nullptr;
  const void* row = nullptr;
};

struct Thread {
  Block* block = nullptr;
  Fiber* fiber = nullptr;  // null before it has begun
  std::uint64_t priority = 0;
  std::uint64_t urgency = 0;  // priority, or less after it has given way
  Index index;
  std::uint32_t linear = 0;
  State state = State::ready;
  bool waited = false;     // for the kernel's producers
  bool owes_wait = false;  // MutationKind::early_read
  int vote_result = 0;
  Lane* lane = nullptr;  // in a collective
  Place place;           // of what it waits in
  CopyQueue copies;
  void* tsan = nullptr;
  char arrived = 0;  // addresses for sanitizer.h's orders
  char released = 0;
};

struct Warp {
  std::uint32_t waiting = 0;  // lanes in a collective
  std::uint32_t gone = 0;     // lanes that have ended or never were
};

struct Block {
  Launch* launch = nullptr;
  Index index;
  std::uint64_t number = 0;
  std::uint64_t priority = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  SharedArena shared;
  std::size_t live = 0;
  std::size_t at_barrier = 0;
  std::size_t votes = 0;
  Vote vote = Vote::none;
  unsigned phase = 0;
  std::array<char, 2> order = {};  // of the barrier's phases
};

// A kernel's launch while it runs. Its arguments are copies.
struct Launch {
  const KernelEntry* kernel = nullptr;
  cuda::Dim3 grid;
  cuda::Dim3 block;
  std::size_t shared_bytes = 0;
  bool cooperative = false;
  bool programmatic = false;
  std::vector<std::byte> argument_bytes;
  std::vector<void*> arguments;

  std::size_t most_resident = 1;     // blocks that the chip holds at once
  std::vector<std::uint32_t> order;  // of blocks; empty: by number
  std::uint64_t blocks = 0;
  std::uint64_t opened = 0;
  std::uint64_t ended = 0;
  std::vector<std::unique_ptr<Block>> resident;
  bool producers_done = true;
  // For ThreadSanitizer: which operation it is, and what has ended before its threads begin.
  Serial serial = 0;
  const Past* past = nullptr;
  char start_order = 0;
  char done_order = 0;
  char* producer_order = nullptr;  // done_order of the kernel that it waits for

  [[nodiscard]] bool complete() const noexcept { return ended == blocks; }
  [[nodiscard]] std::size_t block_threads() const noexcept {
    return std::size_t{block.x} * block.y * block.z;
  }
};

}  // namespace cuvae::simt
