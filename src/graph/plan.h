#pragma once
// A plan: one or several unrolled steps of a graph as a list of tasks, with an order, streams,
// events, and a place in memory for every value. Pure host data, testable without any device.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cuvae/graph.h"

namespace cuvae {

struct PlanOptions {
  int steps = 1;                 // unrolled steps; a persistent value flows from each to the next
  int streams = 1;               // tasks of one stream run in order
  bool reuse = true;             // off: every value has a buffer of its own
  bool keep_all = false;         // every value stays readable after the run (implies no reuse)
  std::int64_t alignment = 256;  // bytes
  DType real = DType::f32;       // what f32 values are stored as: f32 or f64
  // How f32 values are stored, by value id, versions as their persistent value; empty: as `real`.
  std::vector<DType> stored = {};
  // Bytes that stand beside a transient value and live as long as it does, by value id (what else
  // its producer leaves for its readers: the mask of a relu); empty: none.
  std::vector<std::int64_t> beside = {};
  std::vector<std::string> notes = {};  // printed beside nodes, by node; empty: none
  std::uint64_t order_seed = 0;         // 0: the default order; else a random legal one (tests)
};

struct Task {
  int step = 0;
  int node = 0;
  int stream = 0;
  std::vector<int> waits;  // earlier tasks of other streams that must have finished
};

struct Place {
  Value root;                // the persistent value that holds it; none: it is in the arena
  std::int64_t offset = -1;  // in the arena, bytes
  std::int64_t bytes = 0;    // without padding
  std::int64_t beside = 0;   // of them, those beside the value, behind it at the next alignment
};

class Plan {
 public:
  [[nodiscard]] const Graph& graph() const noexcept { return graph_; }
  [[nodiscard]] const PlanOptions& options() const noexcept { return options_; }
  // A legal total order; within a stream, the order of execution.
  [[nodiscard]] const std::vector<Task>& tasks() const noexcept { return tasks_; }
  // How a value is stored.
  [[nodiscard]] DType stored(Value value) const;
  [[nodiscard]] std::int64_t beside(Value value) const;  // bytes
  // Where a value of an unrolled step lives.
  [[nodiscard]] const Place& place(int step, Value value) const;
  [[nodiscard]] std::int64_t arena_bytes() const noexcept { return arena_bytes_; }
  [[nodiscard]] std::int64_t persistent_bytes() const noexcept { return persistent_bytes_; }
  // Ordering constraints between tasks (indices into tasks()), transitively reduced. They cover
  // true dependencies, write-after-read of updates and of reused buffers.
  [[nodiscard]] const std::vector<std::pair<int, int>>& edges() const noexcept { return edges_; }
  // The constraints across a replay: a task of this run must finish before one of the next run.
  // Where runs do not overlap, or one stream runs everything, they hold by themselves. What the
  // host writes (inputs) and reads (outputs) between runs is the executor's to order.
  [[nodiscard]] const std::vector<std::pair<int, int>>& replay_edges() const noexcept {
    return replay_edges_;
  }
  // How many tasks the longest path along the edges has.
  [[nodiscard]] int depth() const;
  [[nodiscard]] std::string dot() const;  // Graphviz
  [[nodiscard]] std::string str() const;  // a table: task, stream, node, shapes, offset, bytes

 private:
  [[nodiscard]] std::string note_of(int node) const;
  friend class Planner;
  friend class PlanEditor;  // tests: plants faults that the checker must find
  Graph graph_;
  PlanOptions options_;
  std::vector<Task> tasks_;
  std::vector<Place> places_;  // [step * values + value]
  std::int64_t arena_bytes_ = 0;
  std::int64_t persistent_bytes_ = 0;
  std::vector<std::pair<int, int>> edges_;
  std::vector<std::pair<int, int>> replay_edges_;
};

// Throws Error(usage) for impossible options, more than 2^14 tasks or 2^62 bytes, fewer rows of
// hyper-parameters than unrolled steps, and where a reader of a persistent value depends on that
// value's update.
Plan make_plan(Graph graph, const PlanOptions& options = {});

// Proves, from tasks, streams, waits, places and nothing the planner believed, that every read is
// ordered after its write and every overwrite after all reads of what it overwrites, that outputs
// survive, and that replaying is safe (on the same streams, with the replay edges, before the
// run before has finished). Returns one line per violation, at most 100. With `edges` given, the
// order is that of these edges instead of streams and waits (used to test the checker: without
// any one edge of the transitive reduction it must complain).
std::vector<std::string> plan_violations(const Plan& plan);
std::vector<std::string> plan_violations(const Plan& plan,
                                         const std::vector<std::pair<int, int>>& edges);
// Throws Error(failed) with the first violation.
void check_plan(const Plan& plan);

}  // namespace cuvae
