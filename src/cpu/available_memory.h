#pragma once
// How much memory this process may still take before the system ends it. Linux hands out more than
// there is and kills a process when it touches what is missing; asking first gives an error
// instead.

#include <cstdint>
#include <filesystem>
#include <optional>

namespace cuvae {

struct AvailableMemory {
  std::uint64_t bytes = 0;
  const char* where = "";  // what sets the limit: "on this machine", "in the control group"
};

// The smaller of what the machine has left (MemAvailable and SwapFree of /proc/meminfo) and what
// the memory limits of our control groups leave (versions 1 and 2, with those above them; page
// cache that can be dropped counts as free, swap does not). Empty where the system does not say.
[[nodiscard]] std::optional<AvailableMemory> available_memory();

// The folder under which /proc and /sys are read: "/". Tests set another; not to be changed while
// memory is being allocated.
[[nodiscard]] std::filesystem::path& memory_root() noexcept;

}  // namespace cuvae
