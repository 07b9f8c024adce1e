#include "simt/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "simt/sanitizer.h"

namespace cuvae::simt {
namespace {

constexpr std::size_t alignment = 256;  // as cudaMalloc
constexpr std::size_t red_zone = 256;
constexpr int red_byte = 0xA5;
constexpr int new_byte = 0xFF;

constexpr std::size_t round_up(std::size_t value, std::size_t to) {
  return (value + to - 1) / to * to;
}

// The entry that may hold `memory`: the last that begins at or before it.
template <class Map>
auto at_or_before(const Map& map, const void* memory) {
  auto it = map.upper_bound(static_cast<const std::byte*>(memory));
  return it == map.begin() ? map.end() : std::prev(it);
}

bool intact(const std::byte* zone, std::size_t bytes) {
  return std::all_of(zone, zone + bytes, [](std::byte b) { return b == std::byte{red_byte}; });
}

// FNV-1a by words of eight bytes.
std::uint64_t hash_of(const std::byte* memory, std::size_t bytes) {
  constexpr std::uint64_t prime = 0x100000001b3;
  std::uint64_t hash = 0xcbf29ce484222325;
  for (; bytes >= 8; memory += 8, bytes -= 8) {
    std::uint64_t word;
    std::memcpy(&word, memory, 8);
    hash = (hash ^ word) * prime;
    hash ^= hash >> 32;
  }
  for (; bytes > 0; ++memory, --bytes) hash = (hash ^ static_cast<std::uint64_t>(*memory)) * prime;
  return hash;
}

}  // namespace

DeviceMemory::~DeviceMemory() {
  while (!blocks_.empty())
    static_cast<void>(release(const_cast<std::byte*>(blocks_.begin()->first)));
}

void* DeviceMemory::allocate(std::size_t bytes) {
  const Quiet quiet;
  const std::size_t rounded = round_up(bytes, alignment);
  if (rounded < bytes || static_cast<std::int64_t>(rounded) > capacity_ - used_) return nullptr;
  auto* base = static_cast<std::byte*>(std::aligned_alloc(alignment, rounded + 2 * red_zone));
  if (base == nullptr) return nullptr;
  std::byte* memory = base + red_zone;
  std::memset(base, red_byte, red_zone);
  std::memset(memory, new_byte, bytes);
  std::memset(memory + bytes, red_byte, rounded - bytes + red_zone);
  poison(base, rounded + 2 * red_zone);
  blocks_[memory] = {base, bytes};
  used_ += static_cast<std::int64_t>(rounded);
  return memory;
}

bool DeviceMemory::release(void* memory) {
  const auto it = blocks_.find(static_cast<std::byte*>(memory));
  if (it == blocks_.end()) return false;
  const Block block = it->second;
  const std::size_t rounded = round_up(block.bytes, alignment);
  blocks_.erase(it);
  used_ -= static_cast<std::int64_t>(rounded);
  unpoison(block.base, rounded + 2 * red_zone);
  std::free(block.base);
  return true;
}

bool DeviceMemory::contains(const void* memory, std::size_t bytes) const {
  const auto it = at_or_before(blocks_, memory);
  if (it == blocks_.end()) return false;
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(memory) - it->first);
  return offset <= it->second.bytes && bytes <= it->second.bytes - offset;
}

void DeviceMemory::open_all() {
  if (!with_asan) return;
  for (const auto& [memory, block] : blocks_) unpoison(memory, block.bytes);
}

void DeviceMemory::open(std::span<const cuda::Access> accesses, bool early_ones_only) {
  if (!with_asan) return;
  for (const cuda::Access& access : accesses)
    if (access.early || !early_ones_only) unpoison(access.memory, access.bytes);
}

void DeviceMemory::close() {
  if (!with_asan) return;
  for (const auto& [memory, block] : blocks_) poison(memory, block.bytes);
}

void DeviceMemory::open_range(const void* memory, std::size_t bytes) const {
  if (with_asan && contains(memory, bytes)) unpoison(memory, bytes);
}

void DeviceMemory::close_range(const void* memory, std::size_t bytes) const {
  if (!with_asan || !contains(memory, bytes)) return;
  // AddressSanitizer knows eight bytes at the least.
  const auto* begin = static_cast<const std::byte*>(memory);
  const auto before = reinterpret_cast<std::uintptr_t>(memory) % 8;
  poison(begin - before, round_up(before + bytes, 8));
}

void DeviceMemory::copy(void* to, const void* from, std::size_t bytes) {
  note_read(from, bytes);
  note_write(to, bytes);
  const Quiet quiet;
  open_range(to, bytes);
  open_range(from, bytes);
  std::memmove(to, from, bytes);
  close_range(to, bytes);
  close_range(from, bytes);
}

void DeviceMemory::fill(void* to, std::uint8_t value, std::size_t bytes) {
  note_write(to, bytes);
  const Quiet quiet;
  open_range(to, bytes);
  std::memset(to, value, bytes);
  close_range(to, bytes);
}

std::optional<std::string> DeviceMemory::find_overrun() {
  if (with_asan) return {};  // it says so at once, and the zones cannot be read
  for (const auto& [memory, block] : blocks_) {
    const auto end = static_cast<std::size_t>(memory - block.base) + block.bytes;
    const std::size_t behind = round_up(block.bytes, alignment) - block.bytes + red_zone;
    const char* side = nullptr;
    if (!intact(block.base, red_zone)) side = "before";
    if (!intact(block.base + end, behind)) side = "behind";
    if (side == nullptr) continue;
    std::memset(block.base, red_byte, red_zone);  // said once
    std::memset(block.base + end, red_byte, behind);
    return std::string(side) + " an allocation of " + std::to_string(block.bytes) + " bytes";
  }
  return {};
}

std::vector<DeviceMemory::Piece> DeviceMemory::unwritten(std::span<const cuda::Access> accesses) {
  std::vector<std::pair<const std::byte*, std::size_t>> written;
  for (const cuda::Access& access : accesses)
    if (access.write) written.emplace_back(static_cast<std::byte*>(access.memory), access.bytes);
  std::sort(written.begin(), written.end());
  std::vector<Piece> pieces;
  const auto add = [&](const std::byte* begin, const std::byte* end) {
    if (begin >= end) return;
    const auto bytes = static_cast<std::size_t>(end - begin);
    pieces.push_back({begin, bytes, hash_of(begin, bytes)});
  };
  open_all();
  for (const auto& [memory, block] : blocks_) {
    const std::byte* at = memory;
    const std::byte* const end = memory + block.bytes;
    for (const auto& [begin, bytes] : written) {
      if (begin < memory || begin >= end) continue;
      add(at, begin);
      at = std::max(at, begin + bytes);
    }
    add(at, end);
  }
  close();
  return pieces;
}

std::optional<std::string> DeviceMemory::find_change(const std::vector<Piece>& pieces) {
  open_all();
  const auto changed = std::find_if(pieces.begin(), pieces.end(), [](const Piece& piece) {
    return hash_of(piece.memory, piece.bytes) != piece.hash;
  });
  close();
  if (changed == pieces.end()) return {};
  const auto block = at_or_before(blocks_, changed->memory);
  return "among " + std::to_string(changed->bytes) + " bytes at " +
         std::to_string(changed->memory - block->first) + " of an allocation of " +
         std::to_string(block->second.bytes) + " bytes";
}

PinnedMemory::~PinnedMemory() {
  for (const auto& [memory, bytes] : blocks_) std::free(const_cast<std::byte*>(memory));
}

void* PinnedMemory::allocate(std::size_t bytes) {
  const Quiet quiet;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(alignment, round_up(bytes, alignment)));
  if (memory == nullptr) return nullptr;
  std::memset(memory, new_byte, bytes);
  blocks_[memory] = bytes;
  return memory;
}

bool PinnedMemory::release(void* memory) {
  if (blocks_.erase(static_cast<std::byte*>(memory)) == 0) return false;
  std::free(memory);
  return true;
}

bool PinnedMemory::contains(const void* memory, std::size_t bytes) const {
  const auto it = at_or_before(blocks_, memory);
  if (it == blocks_.end()) return false;
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(memory) - it->first);
  return offset <= it->second && bytes <= it->second - offset;
}

}  // namespace cuvae::simt
