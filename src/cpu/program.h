#pragma once
// A plan with its kernels and memory.

#include <memory>
#include <vector>

#include "cpu/kernel.h"
#include "cpu/store.h"
#include "graph/plan.h"

namespace cuvae {

// REQUIRES: every node of the plan's graph is supported. Declares what is missing in the store.
// The team and the store outlive it. T: float or double, as the plan's real type.
template <class T>
std::unique_ptr<CpuProgram> make_cpu_program(Plan plan, Team& team, HostStore& store);

}  // namespace cuvae
