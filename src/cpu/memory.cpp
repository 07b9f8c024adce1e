#include "cpu/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "base/text.h"
#include "cpu/available_memory.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

constexpr std::size_t guard = GuardedMemory::alignment;
constexpr auto pattern = std::byte{0xA5};
// What a process can address on x86-64; allocators of sanitizers abort far beyond it.
constexpr std::size_t address_space = std::size_t{1} << 47;
constexpr std::size_t huge_page = std::size_t{2} << 20;
// Blocks below this are not compared with the memory there is: asking takes longer than they do.
constexpr std::size_t least_checked = std::size_t{1} << 20;

std::string size_text(std::uint64_t bytes) {
  return format_bytes(static_cast<std::int64_t>(std::min(bytes, std::uint64_t{1} << 62)));
}

bool guarded(const std::byte* begin) {
  return std::all_of(begin, begin + guard, [](std::byte b) { return b == pattern; });
}

}  // namespace

void GuardedMemory::Free::operator()(std::byte* memory) const noexcept {
  std::free(memory);
}

GuardedMemory::GuardedMemory(std::size_t bytes, const char* what) : bytes_(bytes) {
  const auto refuse = [&](const std::string& there) {
    throw Error(Status::device,
                fmt::format("not enough memory: {} for {}{}", size_text(bytes), what, there), "cpu",
                "use a smaller batch or model");
  };
  if (bytes > address_space) refuse("");
  if (bytes >= least_checked) {
    const auto there = available_memory();
    if (there && bytes > there->bytes) {
      refuse(fmt::format(", {} are available {}", size_text(there->bytes), there->where));
    }
  }
  // Large blocks begin on a huge page: fewer misses of the address cache in products.
  const std::size_t align = bytes >= huge_page ? huge_page : alignment;
  const std::size_t total = (bytes + 2 * guard + align - 1) / align * align;
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(align, total)));
  if (!memory_) refuse("");
  if (align == huge_page) madvise(memory_.get(), total, MADV_HUGEPAGE);
  std::memset(memory_.get(), static_cast<int>(pattern), guard);
  std::memset(data(), 0, bytes);
  std::memset(data() + bytes, static_cast<int>(pattern), guard);
}

std::byte* GuardedMemory::data() const noexcept {
  return memory_ ? memory_.get() + guard : nullptr;
}

bool GuardedMemory::intact() const noexcept {
  return !memory_ || (guarded(memory_.get()) && guarded(data() + bytes_));
}

}  // namespace cuvae
