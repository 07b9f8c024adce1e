#pragma once
// Plants faults in a plan.

#include "graph/plan.h"

namespace cuvae {

class PlanEditor {
 public:
  explicit PlanEditor(Plan& plan) : plan_(plan) {}
  std::vector<Task>& tasks() { return plan_.tasks_; }
  Place& place(int step, Value value) {
    return plan_.places_[static_cast<std::size_t>(step) * plan_.graph_.values().size() + value.id];
  }
  std::vector<std::pair<int, int>>& replay_edges() { return plan_.replay_edges_; }
  void widen_arena(std::int64_t bytes) { plan_.arena_bytes_ += bytes; }

 private:
  Plan& plan_;
};

}  // namespace cuvae
