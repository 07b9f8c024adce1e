#pragma once
// Work that was put into streams and has not happened yet. CUDA promises only what streams, events
// and graphs order; in between the queue does things as late as it may and in an order by chance,
// or at once, as a user who is lucky sees it. By chance is, by the seed, a new choice each time, or
// random priorities given in advance: one stream then runs far ahead of another, which hardly ever
// happens by single choices (Burckhardt et al., as in simt/ready_queue.h).

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda/runtime.h"
#include "simt/memory.h"
#include "simt/scheduler.h"
#include "simt/tsan_fibers.h"

namespace cuvae::simt {

enum class StreamOrder : std::uint8_t {
  immediate,  // everything happens when it is put into its stream
  deferred,   // nothing before something waits for it; then by chance among what may happen
};

enum class WorkKind : std::uint8_t { kernel, copy, fill, record, nothing };

struct EventTime {
  std::chrono::steady_clock::time_point at;
};

// What is to be done; it may be done many times, from a graph.
struct Work {
  WorkKind kind = WorkKind::nothing;
  // kernel
  const KernelEntry* kernel = nullptr;
  cuda::LaunchShape shape;  // its accesses are `accesses`
  std::vector<cuda::Access> accesses;
  bool says_accesses = false;
  std::vector<std::byte> argument_bytes;
  std::vector<std::size_t> argument_offsets;
  std::size_t most_resident = 1;
  // copy and fill
  void* to = nullptr;
  const void* from = nullptr;
  std::vector<std::byte> staged;  // where the source was pageable
  std::size_t bytes = 0;
  std::uint8_t value = 0;
  // record
  std::shared_ptr<EventTime> time;
};

// One time that it is done.
struct Operation {
  Operation() = default;
  ~Operation();
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  std::shared_ptr<const Work> work;
  std::vector<std::shared_ptr<Operation>> after;  // empty once it is done
  bool programmatic = false;                      // may begin before the kernel before it has ended
  std::uint64_t priority = 0;                     // all 0: a new choice each time
  bool begun = false;
  bool done = false;
  std::unique_ptr<Launch> launch;
  // For ThreadSanitizer: the thread that it takes it for, and what has ended before it begins.
  void* tsan = nullptr;
  Serial serial = 0;
  Past past;
  char put_order = 0;
  char order = 0;  // released when it is done
};
using OperationPtr = std::shared_ptr<Operation>;

class Queue {
 public:
  Queue(StreamOrder order, bool programmatic_early, bool check_writes, std::uint64_t seed,
        DeviceMemory& memory, Scheduler& scheduler);
  ~Queue();

  // The new operation begins after those in `after` have ended.
  OperationPtr put(std::shared_ptr<const Work> work, std::vector<OperationPtr> after,
                   bool programmatic);
  // With StreamOrder::immediate: does everything.
  void after_put();
  // Does at least what `target` needs; null: everything. What the host does next comes after it.
  void wait(const Operation* target);
  // Whether something pending reads or writes that host memory.
  [[nodiscard]] bool uses(const void* memory, std::size_t bytes) const;
  [[nodiscard]] bool late() const noexcept { return order_ == StreamOrder::deferred; }
  // What a kernel did wrong; it ended everything that was pending. Empty: nothing.
  [[nodiscard]] std::string take_finding() { return std::exchange(finding_, {}); }
  [[nodiscard]] bool has_finding() const noexcept { return !finding_.empty(); }

 private:
  [[nodiscard]] OperationPtr next(const Operation* target);
  void run(Operation& operation);
  void run_kernel(Operation& operation);
  static void prepare(Operation& operation);
  void open_memory(const Work& work, bool early_only);
  Operation* dependent_of(const Operation& operation) const;
  void ended_here(Operation& operation);
  void end(Operation& operation);
  void drop_all();

  StreamOrder order_;
  bool priorities_ = false;
  bool programmatic_early_;
  bool check_writes_;
  Dice dice_;
  DeviceMemory& memory_;
  Scheduler& scheduler_;
  std::vector<OperationPtr> pending_;
  std::string finding_;
  char all_order_ = 0;
  Past host_past_;  // what the host has waited for
};

}  // namespace cuvae::simt
