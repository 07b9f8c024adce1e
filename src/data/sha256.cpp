#include "data/sha256.h"

#include <array>
#include <fstream>

#include "cuvae/error.h"

namespace cuvae {

Sha256::Sha256() noexcept {
  sha256_init(&context_);
}

void Sha256::update(std::span<const std::byte> bytes) noexcept {
  sha256_update(&context_, bytes.size(), reinterpret_cast<const std::uint8_t*>(bytes.data()));
}

std::string Sha256::hex() {
  std::array<std::uint8_t, SHA256_DIGEST_SIZE> digest;
  sha256_digest(&context_, digest.size(), digest.data());
  constexpr const char* digits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : digest) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

std::string sha256_of_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 65536> buffer;
  Sha256 hash;
  while (file) {
    file.read(buffer.data(), buffer.size());
    hash.update(std::as_bytes(
        std::span<const char>(buffer.data(), static_cast<std::size_t>(file.gcount()))));
  }
  if (!file.eof()) {
    throw Error(Status::input, "cannot read the file", path.string(),
                "check that it exists and is readable");
  }
  return hash.hex();
}

}  // namespace cuvae
