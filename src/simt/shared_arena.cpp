#include "simt/shared_arena.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "simt/sanitizer.h"

namespace cuvae::simt {
namespace {

constexpr std::size_t most_arrays = 32;
constexpr int red_byte = 0xA5;
constexpr int new_byte = 0xFF;

constexpr std::size_t round_up(std::size_t value, std::size_t to) {
  return (value + to - 1) / to * to;
}

}  // namespace

void SharedArena::Free::operator()(std::byte* memory) const {
  std::free(memory);
}

SharedArena::~SharedArena() {
  if (memory_) unpoison(memory_.get(), size_);
}

void SharedArena::begin(std::size_t dynamic_bytes, std::size_t capacity) {
  const std::size_t wanted = round_up(capacity, 128) + red_zone * (most_arrays + 2);
  // ThreadSanitizer must not see what another block did in the same memory.
  if (with_tsan || wanted > size_) {
    if (memory_) unpoison(memory_.get(), size_);
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(128, wanted)));
    if (!memory_) throw std::bad_alloc();
    size_ = wanted;
    poison(memory_.get(), size_);
  } else {
    poison(memory_.get(), used_);
  }
  arrays_.clear();
  dynamic_bytes_ = dynamic_bytes;
  static_bytes_ = 0;
  capacity_ = capacity;
  unpoison(memory_.get(), red_zone);
  std::memset(memory_.get(), red_byte, red_zone);
  poison(memory_.get(), red_zone);
  place(nullptr, red_zone, dynamic_bytes, "dynamic shared memory");
}

void SharedArena::place(const void* key, std::size_t offset, std::size_t bytes, const char* name) {
  const std::size_t end = round_up(offset + bytes, 16) + red_zone;
  unpoison(memory_.get() + offset, end - offset);
  std::memset(memory_.get() + offset, new_byte, bytes);
  std::memset(memory_.get() + offset + bytes, red_byte, end - offset - bytes);
  poison(memory_.get() + offset + bytes, end - offset - bytes);
  arrays_.push_back({key, offset, bytes, name});
  used_ = end;
}

void* SharedArena::find(const void* key, std::size_t bytes, std::size_t alignment,
                        const char* name) {
  for (const Array& array : arrays_)
    if (array.key == key) return memory_.get() + array.offset;
  const std::size_t aligned = round_up(static_bytes_, alignment);
  if (aligned + bytes + dynamic_bytes_ > capacity_ || arrays_.size() > most_arrays) return nullptr;
  place(key, round_up(used_, alignment), bytes, name);
  static_bytes_ = aligned + bytes;
  return memory_.get() + arrays_.back().offset;
}

std::string_view SharedArena::overrun() const noexcept {
  if (with_asan) return {};  // it says so at once, and the zones cannot be read
  const auto intact = [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i)
      if (memory_[i] != std::byte{red_byte}) return false;
    return true;
  };
  for (std::size_t a = 0; a < arrays_.size(); ++a) {
    const std::size_t end = arrays_[a].offset + arrays_[a].bytes;
    const std::size_t next = a + 1 < arrays_.size() ? arrays_[a + 1].offset : used_;
    // Memory between a zone's end and the next array belongs to nothing.
    const std::size_t zone_end = round_up(end, 16) + red_zone;
    if (!intact(end, next < zone_end ? next : zone_end)) return arrays_[a].name;
  }
  return intact(0, red_zone) ? std::string_view{} : "the block";
}

bool SharedArena::contains(const void* address, std::size_t bytes) const noexcept {
  const auto* at = static_cast<const std::byte*>(address);
  for (const Array& array : arrays_) {
    const std::byte* begin = memory_.get() + array.offset;
    if (at >= begin && at + bytes <= begin + array.bytes) return true;
  }
  return false;
}

}  // namespace cuvae::simt
