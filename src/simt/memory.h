#pragma once
// Device and pinned host memory. Device memory is all ones when new (a NaN in every float type) and
// has red zones on both sides. With AddressSanitizer nobody can touch it but a kernel while it
// runs, within what its launch said, and a copy.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cuda/runtime.h"

namespace cuvae::simt {

class DeviceMemory {
 public:
  explicit DeviceMemory(std::int64_t capacity) : capacity_(capacity) {}
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  [[nodiscard]] void* allocate(std::size_t bytes);  // null: not enough
  [[nodiscard]] bool release(void* memory);         // false: not allocated here
  [[nodiscard]] bool contains(const void* memory, std::size_t bytes) const;
  [[nodiscard]] std::int64_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] std::int64_t used() const noexcept { return used_; }
  [[nodiscard]] std::size_t allocations() const noexcept { return blocks_.size(); }

  void open_all();
  void open(std::span<const cuda::Access> accesses, bool early_ones_only);
  void close();
  // Copies and fills, between closed device memory and any other.
  void copy(void* to, const void* from, std::size_t bytes);
  void fill(void* to, std::uint8_t value, std::size_t bytes);
  // What stands in device memory where `accesses` do not say that it is written, and what of that
  // has changed since, if something has.
  struct Piece {
    const std::byte* memory;
    std::size_t bytes;
    std::uint64_t hash;
  };
  [[nodiscard]] std::vector<Piece> unwritten(std::span<const cuda::Access> accesses);
  [[nodiscard]] std::optional<std::string> find_change(const std::vector<Piece>& pieces);
  // Beside which allocation something was written since the last call, if so.
  [[nodiscard]] std::optional<std::string> find_overrun();

 private:
  struct Block {
    std::byte* base;
    std::size_t bytes;
  };
  void open_range(const void* memory, std::size_t bytes) const;
  void close_range(const void* memory, std::size_t bytes) const;

  std::int64_t capacity_;
  std::int64_t used_ = 0;
  std::map<const std::byte*, Block> blocks_;
};

class PinnedMemory {
 public:
  PinnedMemory() = default;
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  [[nodiscard]] void* allocate(std::size_t bytes);
  [[nodiscard]] bool release(void* memory);
  [[nodiscard]] bool contains(const void* memory, std::size_t bytes) const;
  [[nodiscard]] std::size_t allocations() const noexcept { return blocks_.size(); }

 private:
  std::map<const std::byte*, std::size_t> blocks_;
};

}  // namespace cuvae::simt
