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

// What the CPU's programs and stores offer besides their interfaces; compile() and make_store() of
// a CPU device return these.
class CpuProgram : public Program {
 public:
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
