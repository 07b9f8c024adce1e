#include "graph/plan_early.h"

namespace cuvae {
namespace {

// The task before this one in its stream, or -1.
int predecessor(const Plan& plan, int task) {
  const auto& tasks = plan.tasks();
  const int stream = tasks[static_cast<std::size_t>(task)].stream;
  while (--task >= 0)
    if (tasks[static_cast<std::size_t>(task)].stream == stream) return task;
  return -1;
}

bool meet(const Place& a, const Place& b) {
  if (a.bytes == 0 || b.bytes == 0) return false;
  if (a.root || b.root) return a.root == b.root;
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

}  // namespace

bool may_overlap(const Plan& plan, int task) {
  return plan.tasks()[static_cast<std::size_t>(task)].waits.empty() && predecessor(plan, task) >= 0;
}

bool may_read_early(const Plan& plan, int task, int input) {
  if (!may_overlap(plan, task)) return false;
  const auto& nodes = plan.graph().nodes();
  const Task& here = plan.tasks()[static_cast<std::size_t>(task)];
  const auto& inputs = nodes[static_cast<std::size_t>(here.node)].inputs;
  if (input < 0 || static_cast<std::size_t>(input) >= inputs.size()) return false;
  const Value read = inputs[static_cast<std::size_t>(input)];
  if (!read) return false;
  const Task& before = plan.tasks()[static_cast<std::size_t>(predecessor(plan, task))];
  for (const Value written : nodes[static_cast<std::size_t>(before.node)].outputs)
    if (meet(plan.place(here.step, read), plan.place(before.step, written))) return false;
  return true;
}

}  // namespace cuvae
