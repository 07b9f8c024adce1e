#pragma once
// Bugs that the runner makes in kernels that have none, to test the tests: one barrier of a kernel
// does nothing, one wait returns at once, one block takes itself for its neighbour. A run that goes
// as if nothing had happened shows a test that is too weak, or a barrier that nobody needs.
//
// As text: "skip_barrier@kernels/gemm.cuh:108". The places of a run are listed by the runner
// (SimtOptions::list_places), so that a new barrier is tested without anybody thinking of it.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/device/device.cuh"

namespace cuvae::simt {

enum class MutationKind : std::uint8_t {
  none,
  // Places in the source, "kernels/gemm.cuh:108":
  skip_barrier,        // __syncthreads does nothing
  skip_syncwarp,       // __syncwarp does nothing
  skip_shuffle,        // a shuffle or vote gives back what the lane brought
  skip_copy_wait,      // cp_async_wait returns at once
  skip_producer_wait,  // wait_for_producers returns at once
  early_read,          // ... and waits where the thread next meets others, or at its end
  skip_acquire,        // load_acquire, add_acq_rel, store_release order nothing
  skip_spin,           // load_acquire sees what a loop waits for before it is there
  swap_lanes,          // lanes 0 and 1 get each other's result of a matrix instruction
  // Kernels, "row_sums<RowSum>":
  shift_thread,  // thread 1 of each block takes itself for thread 0
  shift_block,   // block 1 takes itself for block 0
  // Numbers, "3":
  drop_event,  // the stream does not wait in that call of "a stream waits for an event", from 0
};

struct Mutation {
  MutationKind kind = MutationKind::none;
  std::string place;  // empty: all places
  auto operator<=>(const Mutation&) const = default;
};

std::string_view name_of(MutationKind kind);
std::string text_of(const Mutation& mutation);
// Throws Error(usage) for what is no mutation.
Mutation parse_mutation(std::string_view text);

// Which waits for events order anything that nothing else orders: of streams, events and the host,
// told by their addresses.
class EventWaits {
 public:
  void work(const void* stream);  // something is put into it
  void record(const void* event, const void* stream);
  void wait(const void* stream, const void* event);
  void host_waits_for(const void* stream_or_event);
  void host_waits_for_all();
  // Numbers of the calls of wait() without which two pieces of work, or the host and one, could
  // change places.
  [[nodiscard]] std::vector<std::size_t> needed() const;

 private:
  using Ancestors = std::vector<std::vector<bool>>;  // [node][node that comes before it]
  struct Node {
    std::vector<int> before;
    bool real;  // work, or the host
  };
  struct Wait {
    int node = -1;
    int event = -1;  // what it waits for
  };
  int add(std::vector<int> before, bool real);
  [[nodiscard]] int last(const void* stream_or_event) const;
  // Without the edge of `left_out`.
  [[nodiscard]] Ancestors ancestors(const Wait& left_out) const;
  std::vector<Node> nodes_;
  std::map<const void*, int> last_;
  std::vector<Wait> waits_;
  int host_ = -1;
};

// Says to the runner where the mutation is, and remembers all places where it could have been.
class Mutator {
 public:
  explicit Mutator(Mutation mutation) : mutation_(std::move(mutation)) {}
  // Whether the mutation was made anywhere.
  [[nodiscard]] bool met() const noexcept { return met_; }

  [[nodiscard]] bool at(MutationKind kind, const Place& place);
  [[nodiscard]] bool in(MutationKind kind, std::string_view kernel);
  [[nodiscard]] bool next_event();

  [[nodiscard]] std::vector<Mutation> places() const;
  [[nodiscard]] EventWaits& waits() noexcept { return waits_; }

 private:
  [[nodiscard]] bool is(Mutation here);

  struct Known {
    MutationKind kind;
    const char* file;
    std::uint_least32_t line;
    auto operator<=>(const Known&) const = default;
  };
  Mutation mutation_;
  std::set<Mutation> places_;
  std::map<Known, bool> known_;  // what at() has said of them
  EventWaits waits_;
  std::uint64_t events_ = 0;
  bool met_ = false;
};

}  // namespace cuvae::simt
