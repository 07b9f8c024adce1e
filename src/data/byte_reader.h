#pragma once
// The content of a file, unpacked where the file is gzipped.

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace cuvae {

// Every failure is Error(input) that names the file. What begins with gzip's magic is gzip,
// whatever its name; what is named *.gz must be.
class ByteReader {
 public:
  explicit ByteReader(const std::filesystem::path& path);
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;
  ~ByteReader();

  // Fills `target`; returns fewer bytes only at the end of the content. Checks gzip's CRC and
  // refuses truncated members and whatever follows the last one.
  [[nodiscard]] std::size_t read(std::span<std::byte> target);

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] bool gzipped() const noexcept { return gzipped_; }
  // The most bytes that the content can have: exact for a plain file; for gzip 1032 times the
  // file, which is the limit of deflate (258 bytes from two bits).
  [[nodiscard]] std::uint64_t most_bytes() const noexcept { return most_bytes_; }

 private:
  struct Closer {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };

  std::size_t read_file(std::span<std::byte> target);
  std::size_t inflate_into(std::span<std::byte> target);

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Closer> file_;
  std::uint64_t most_bytes_ = 0;
  bool gzipped_ = false;
  bool member_done_ = false;
  std::vector<std::byte> packed_;
  z_stream stream_{};
};

}  // namespace cuvae
