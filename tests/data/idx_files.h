#pragma once
// Small IDX files, good and bad, made in memory.

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuvae/error.h"

namespace cuvae::test {

using Bytes = std::vector<std::uint8_t>;

inline void append_big_endian(Bytes& bytes, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8)
    bytes.push_back(static_cast<std::uint8_t>(value >> shift));
}

// Magic 0, 0, type, rank, then the sizes.
inline Bytes idx_header(const std::vector<std::uint32_t>& dims, std::uint8_t type = 0x08) {
  Bytes bytes = {0, 0, type, static_cast<std::uint8_t>(dims.size())};
  for (const std::uint32_t dim : dims) append_big_endian(bytes, dim);
  return bytes;
}

// Byte k of the data is (k * 7 + k / 256) mod 256.
inline Bytes idx_file(const std::vector<std::uint32_t>& dims, std::uint8_t type = 0x08) {
  Bytes bytes = idx_header(dims, type);
  std::uint64_t count = 1;
  for (const std::uint32_t dim : dims) count *= dim;
  for (std::uint64_t k = 0; k < count; ++k)
    bytes.push_back(static_cast<std::uint8_t>(k * 7 + k / 256));
  return bytes;
}

inline Bytes gzip(const Bytes& content) {
  z_stream stream{};
  if (deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::runtime_error("deflateInit2");
  }
  Bytes packed(deflateBound(&stream, static_cast<uLong>(content.size())) + 64);
  stream.next_in = const_cast<Bytef*>(content.data());
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  const int result = deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  if (result != Z_STREAM_END) throw std::runtime_error("deflate");
  return packed;
}

inline void write_file(const std::filesystem::path& path, const Bytes& bytes) {
  // A new file each time: some file systems write out a file that is truncated and closed.
  std::filesystem::remove(path);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

// What an action ends with: Status::done, or the error's status and text.
struct Outcome {
  Status status = Status::done;
  std::string text;
};

template <class Action>
Outcome outcome_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return {error.status(), error.what()};
  }
  return {};
}

}  // namespace cuvae::test
