#include "simt/chip.h"

#include <algorithm>

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae::simt {
namespace {

constexpr std::int64_t kib = 1024;
constexpr std::int64_t gib = kib * kib * kib;

}  // namespace

Chip chip_of(std::string_view name) {
  Chip chip;
  cuda::Properties& p = chip.properties;
  p.max_threads_per_block = 1024;
  p.shared_bytes_per_block = 48 * kib;
  p.cooperative_launch = true;
  if (name == "sm_80") {
    p.name = "SIMT runner (A100)";
    p.major = 8;
    p.multiprocessors = 108;
    p.max_threads_per_multiprocessor = 2048;
    p.memory_bytes = 40 * gib;
    p.shared_bytes_per_block_optin = 163 * kib;
    p.shared_bytes_per_multiprocessor = 164 * kib;
    p.l2_bytes = 40 * kib * kib;
  } else if (name == "sm_90") {
    p.name = "SIMT runner (H200)";
    p.major = 9;
    p.multiprocessors = 132;
    p.max_threads_per_multiprocessor = 2048;
    p.memory_bytes = 141 * gib;
    p.shared_bytes_per_block_optin = 227 * kib;
    p.shared_bytes_per_multiprocessor = 228 * kib;
    p.l2_bytes = 60 * kib * kib;
  } else if (name == "sm_120") {
    p.name = "SIMT runner (RTX 5090)";
    p.major = 12;
    p.multiprocessors = 170;
    p.max_threads_per_multiprocessor = 1536;
    p.memory_bytes = 32 * gib;
    p.shared_bytes_per_block_optin = 99 * kib;
    p.shared_bytes_per_multiprocessor = 100 * kib;
    p.l2_bytes = 96 * kib * kib;
    chip.max_blocks_per_multiprocessor = 24;
  } else {
    throw Error(Status::usage, "the SIMT runner knows no chip '" + std::string(name) + "'", {},
                "use sm_80, sm_90 or sm_120");
  }
  return chip;
}

int resident_blocks(const Chip& chip, std::size_t block_threads, std::size_t shared_bytes) {
  const cuda::Properties& p = chip.properties;
  if (block_threads == 0 || block_threads > static_cast<std::size_t>(p.max_threads_per_block) ||
      shared_bytes > static_cast<std::size_t>(p.shared_bytes_per_block_optin))
    return 0;
  const std::size_t warps = (block_threads + 31) / 32;
  const std::size_t by_threads =
      static_cast<std::size_t>(p.max_threads_per_multiprocessor) / 32 / warps;
  const std::size_t by_shared = static_cast<std::size_t>(p.shared_bytes_per_multiprocessor) /
                                (shared_bytes + chip.reserved_shared_per_block);
  return static_cast<int>(std::min(
      {by_threads, by_shared, static_cast<std::size_t>(chip.max_blocks_per_multiprocessor)}));
}

}  // namespace cuvae::simt
