#pragma once
// Runs the threads of launches, one at a time, each on a fiber of its own from where it first has
// to wait. A thread that never waits costs no switch: its fiber goes on with the next thread.
//
// What a kernel does wrong ends all launches that run: their threads are unwound, and finding()
// tells what it was.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "simt/fiber.h"
#include "simt/mutation.h"
#include "simt/ready_queue.h"
#include "simt/sanitizer.h"
#include "simt/threads.h"

namespace cuvae::simt {

struct SchedulerStatistics {
  std::uint64_t threads = 0;
  std::uint64_t switches = 0;
};

class Scheduler {
 public:
  Scheduler(Order order, std::uint64_t seed, AsyncCopies copies, std::size_t shared_capacity,
            Switching switching = best_switching, Mutator* mutator = nullptr);
  ~Scheduler();

  // The launch, which must stay until it has ended, gets its first blocks. Its kernel's threads
  // begin after what the caller has done so far.
  void start(Launch& launch);
  // What it waits for has ended.
  void release(Launch& launch);
  // Runs threads until none can go on.
  void run();
  // After run(): a launch that has not ended has deadlocked. Forgets the launch.
  void finish(Launch& launch);
  // Unwinds all that has begun.
  void abandon();
  void report(const std::string& what) { note(what); }

  [[nodiscard]] const std::string& finding() const noexcept { return finding_; }
  [[nodiscard]] std::string take_finding() { return std::exchange(finding_, {}); }
  [[nodiscard]] const SchedulerStatistics& statistics() const noexcept { return statistics_; }
  // "order greedy, seed 7"
  [[nodiscard]] std::string conditions() const;

  // For the hooks, from the thread that runs ----------------------------------------------------
  [[nodiscard]] static Scheduler& current() noexcept { return *current_; }
  [[nodiscard]] Thread& running() noexcept { return *running_; }
  int barrier(Vote vote, bool predicate, Place at);
  void collective(Lane& lane, Place at);
  void spin(Place at);
  void step(bool progress);  // at an atomic: others may run first
  void wait_for_producers(Place at);
  void async_copy(void* shared, const void* global, int bytes, int valid_bytes);
  [[noreturn]] void fail(const std::string& what, Place at);
  // Whether there is to be a bug here.
  [[nodiscard]] bool mutates(MutationKind kind, const Place& at) {
    return mutator_ != nullptr && mutator_->at(kind, at);
  }
  // Wakes a thread that waits.
  void wake(Thread& thread);

 private:
  struct Unwind {};

  static void fiber_main();
  void execute(Thread& thread) noexcept;
  void end(Thread& thread);
  void end_block(Block& block);
  void open_block(Launch& launch);
  bool open_one_more();
  std::unique_ptr<Block> new_block();

  // The running fiber waits, and something else goes on.
  void block(State state);
  void wait(Thread& thread);  // for its kernel's producers
  Fiber& next_fiber();
  void become(Thread& thread) noexcept;

  void complete_barrier(Block& block, Thread* last);
  bool try_collective(Thread& thread);
  void mutate(Block& block);
  void note(const std::string& what) noexcept;  // the first one stays
  void cancel();

  static thread_local Scheduler* current_;
  Order order_;
  std::uint64_t seed_;
  AsyncCopies copies_;
  std::size_t shared_capacity_;
  Mutator* mutator_;
  Dice dice_;
  ReadyQueue ready_;
  StackPool stacks_;
  Fiber host_;
  std::thread::id host_thread_;
  Fiber* fiber_ = nullptr;     // that runs
  Thread* running_ = nullptr;  // null: the host
  Thread* starting_ = nullptr;
  std::vector<Launch*> launches_;
  std::vector<std::unique_ptr<Block>> spare_;
  std::string finding_;
  bool cancelled_ = false;
  std::uint64_t spins_ = 0;  // since something last got on
  SchedulerStatistics statistics_;
};

}  // namespace cuvae::simt
