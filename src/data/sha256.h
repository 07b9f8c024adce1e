#pragma once

#include <nettle/sha2.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace cuvae {

class Sha256 {
 public:
  Sha256() noexcept;
  void update(std::span<const std::byte> bytes) noexcept;
  // 64 hexadecimal digits; starts afresh.
  [[nodiscard]] std::string hex();

 private:
  sha256_ctx context_;
};

// Of a file as it lies on disk. Error(input) where it cannot be read.
[[nodiscard]] std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace cuvae
