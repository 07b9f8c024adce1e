#pragma once
// What a task may read before its predecessor has ended (programmatic dependent launch).

#include "graph/plan.h"

namespace cuvae {

// A task overlaps where it waits for no other stream and has a predecessor in its own: its first
// kernel may start once every kernel of the predecessor is past its own wait for producers.
[[nodiscard]] bool may_overlap(const Plan& plan, int task);

// Whether an overlapping task may read an input before it waits. When it starts, everything that
// its predecessor follows has ended, because a kernel lets dependents start only after its own
// wait; all kernels of the predecessor itself may still write. So: the task overlaps, and no output
// of its predecessor lies where the input does. False for an input that is left out.
[[nodiscard]] bool may_read_early(const Plan& plan, int task, int input);

}  // namespace cuvae
