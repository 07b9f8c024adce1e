#include "data/byte_reader.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "cuvae/error.h"

namespace cuvae {
namespace {

constexpr std::size_t packed_bytes = std::size_t{1} << 18;
constexpr std::uint64_t deflate_limit = 1032;
constexpr int gzip_window_bits = 15 + 16;  // zlib: the largest window, with a gzip header

constexpr std::string_view fetch_again = "fetch the file again";

}  // namespace

ByteReader::ByteReader(const std::filesystem::path& path) : path_(path) {
  std::error_code failure;
  const auto status = std::filesystem::status(path, failure);
  if (!std::filesystem::exists(status)) {
    throw Error(Status::input, "no such file", path.string(), "check the path");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw Error(Status::input, "not a regular file", path.string(), "give a file");
  }
  const std::uint64_t size = std::filesystem::file_size(path, failure);
  file_.reset(failure ? nullptr : std::fopen(path.c_str(), "rb"));
  if (!file_) {
    const std::string reason = failure ? failure.message() : std::strerror(errno);
    throw Error(Status::input, "cannot open the file: " + reason, path.string(),
                "check its permissions");
  }
  std::array<std::byte, 2> magic{};
  const std::size_t found = read_file(magic);
  std::rewind(file_.get());
  gzipped_ = found == 2 && magic[0] == std::byte{0x1f} && magic[1] == std::byte{0x8b};
  if (!gzipped_ && path.extension() == ".gz") {
    throw Error(Status::input, "named .gz, but not gzip", path.string(),
                "fetch the file again, or take .gz off its name if it is not packed");
  }
  most_bytes_ = size;
  if (gzipped_) {
    most_bytes_ = size > std::numeric_limits<std::uint64_t>::max() / deflate_limit
                      ? std::numeric_limits<std::uint64_t>::max()
                      : size * deflate_limit;
    packed_.resize(packed_bytes);
    if (inflateInit2(&stream_, gzip_window_bits) != Z_OK) throw std::bad_alloc();
  }
}

ByteReader::~ByteReader() {
  if (gzipped_) inflateEnd(&stream_);
}

std::size_t ByteReader::read_file(std::span<std::byte> target) {
  const std::size_t count = std::fread(target.data(), 1, target.size(), file_.get());
  if (count < target.size() && std::ferror(file_.get()) != 0) {
    throw Error(Status::input, std::string("cannot read the file: ") + std::strerror(errno),
                path_.string(), "check the disk");
  }
  return count;
}

std::size_t ByteReader::read(std::span<std::byte> target) {
  if (target.empty()) return 0;
  return gzipped_ ? inflate_into(target) : read_file(target);
}

std::size_t ByteReader::inflate_into(std::span<std::byte> target) {
  std::size_t done = 0;
  while (done < target.size()) {
    if (stream_.avail_in == 0) {
      stream_.next_in = reinterpret_cast<Bytef*>(packed_.data());
      stream_.avail_in = static_cast<uInt>(read_file(packed_));
      if (stream_.avail_in == 0) {
        if (member_done_) return done;
        throw Error(Status::input, "truncated gzip file", path_.string(), fetch_again);
      }
    }
    // A gzip file is one or more members on end (RFC 1952, section 2.2).
    if (member_done_) {
      inflateReset(&stream_);
      member_done_ = false;
    }
    const std::size_t room =
        std::min<std::size_t>(target.size() - done, std::numeric_limits<uInt>::max());
    stream_.next_out = reinterpret_cast<Bytef*>(target.data() + done);
    stream_.avail_out = static_cast<uInt>(room);
    const int result = inflate(&stream_, Z_NO_FLUSH);
    done += room - stream_.avail_out;
    if (result == Z_STREAM_END) {
      member_done_ = true;
    } else if (result == Z_MEM_ERROR) {
      throw std::bad_alloc();
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      const std::string reason = stream_.msg != nullptr ? stream_.msg : "unknown";
      throw Error(Status::input, "damaged gzip file: " + reason, path_.string(), fetch_again);
    }
  }
  return done;
}

}  // namespace cuvae
