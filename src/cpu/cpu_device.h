#pragma once
// The CPU backend. In float it is the fast path of machines without a GPU, in double the reference.

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "cuvae/device.h"

namespace cuvae {

// Throws Error(usage) for an impossible number of threads or another real type than f32 and f64.
std::unique_ptr<Device> make_cpu_device(const DeviceOptions& options = {});

// What one node of a program takes.
struct NodeTime {
  int step = 0;
  std::string node;
  std::string op;
  double seconds = 0;  // median over the runs
  double flops = 0;
  double bytes = 0;
};

// What the CPU's programs and stores offer besides their interfaces; compile() and make_store() of
// a CPU device return these.
class CpuProgram : public Program {
 public:
  // Runs `runs` times (after one more) and measures every task.
  [[nodiscard]] virtual std::vector<NodeTime> profile(int runs) = 0;
  // Tests: sets every byte of the arena and of the scratch memory.
  virtual void fill_memory(std::byte value) = 0;
  // Tests: whether the guard bytes around the arena and the scratch memory are as they were.
  [[nodiscard]] virtual bool guards_intact() const = 0;
};

class CpuStore : public Store {
 public:
  [[nodiscard]] virtual bool guards_intact() const = 0;
};

}  // namespace cuvae
