#pragma once
// The CUDA door on the CPU: kernels run on the SIMT runner, and everything that CUDA may do late or
// in another order, the runner does so. A kernel that breaks CUDA's rules makes the call fail that
// ran it (a launch, or what waits for it) with a report: what is wrong, kernel file and line,
// block, thread, order and seed.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/runtime.h"
#include "simt/async_copy.h"
#include "simt/mutation.h"
#include "simt/queue.h"
#include "simt/ready_queue.h"

namespace cuvae::simt {

struct SimtOptions {
  std::string chip = "sm_90";
  Order order = Order::sequential;
  std::uint64_t seed = 1;
  AsyncCopies async_copies = AsyncCopies::late;
  bool programmatic_early = true;  // kernels launched so begin as early as they may
  StreamOrder streams = StreamOrder::immediate;
  // Whether what a launch's accesses do not say to be written is compared before and after.
  bool check_writes = false;
  std::int64_t memory_bytes = 0;  // 0: as the chip has
  int multiprocessors = 0;        // 0: as the chip has
  Switching switching = best_switching;
  Mutation mutation = {};     // a bug that is to be in the kernels
  bool list_places = false;   // for places()
  bool say_mutation = false;  // at the end, on standard error, whether a kernel had a place for it
};

// What was made and not given back.
struct Live {
  std::size_t device_allocations = 0;
  std::size_t host_allocations = 0;
  std::size_t streams = 0;
  std::size_t events = 0;
  std::size_t graphs = 0;
  std::size_t executables = 0;
  [[nodiscard]] std::size_t total() const noexcept {
    return device_allocations + host_allocations + streams + events + graphs + executables;
  }
};

class SimtRuntime : public cuda::Runtime {
 public:
  [[nodiscard]] virtual Live live() const = 0;
  [[nodiscard]] virtual const SchedulerStatistics& statistics() const = 0;
  // Every mutation that what has run so far had a place for.
  [[nodiscard]] virtual std::vector<Mutation> places() const = 0;
};

// Throws Error(usage) for a chip that it does not know.
[[nodiscard]] std::unique_ptr<SimtRuntime> make_simt_runtime(const SimtOptions& options = {});

// All kernels that this program holds, launched or not.
[[nodiscard]] std::vector<const KernelEntry*> all_kernels();

}  // namespace cuvae::simt
