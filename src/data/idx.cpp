#include "data/idx.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <string>

#include "base/text.h"
#include "cuvae/error.h"
#include "data/byte_reader.h"

namespace cuvae {
namespace {

constexpr std::size_t chunk_bytes = std::size_t{1} << 22;
constexpr std::string_view fetch_again = "fetch the file again";

std::string_view type_name(std::uint8_t type) {
  switch (type) {
    case 0x08: return "unsigned bytes";
    case 0x09: return "signed bytes";
    case 0x0B: return "16-bit integers";
    case 0x0C: return "32-bit integers";
    case 0x0D: return "32-bit floats";
    case 0x0E: return "64-bit floats";
    default: return {};
  }
}

std::uint32_t big_endian(std::span<const std::byte> bytes) {
  std::uint32_t value = 0;
  for (const std::byte byte : bytes.first(4))
    value = value << 8 | std::to_integer<std::uint32_t>(byte);
  return value;
}

[[noreturn]] void refuse(const ByteReader& reader, const std::string& what, std::string_view mend) {
  throw Error(Status::input, what, reader.path().string(), mend);
}

void check_magic(const ByteReader& reader, std::uint32_t magic, IdxKind kind) {
  const auto type = static_cast<std::uint8_t>(magic >> 8);
  const std::uint32_t rank = magic & 0xff;
  constexpr std::string_view wanted =
      "give images as IDX files (train-images-idx3-ubyte) or rows as .npy files";
  if (magic >> 16 != 0 || type_name(type).empty() || rank == 0) {
    refuse(reader, "not an IDX file: wrong magic number", wanted);
  }
  if (type != 0x08) {
    refuse(reader, "an IDX file of " + std::string(type_name(type)),
           "only unsigned bytes (type 0x08) are supported");
  }
  if (rank == static_cast<std::uint32_t>(kind)) return;
  if (kind == IdxKind::images && rank == static_cast<std::uint32_t>(IdxKind::labels)) {
    refuse(reader, "an IDX file of labels where images are expected",
           "give the matching file of images");
  }
  if (kind == IdxKind::labels && rank == static_cast<std::uint32_t>(IdxKind::images)) {
    refuse(reader, "an IDX file of images where labels are expected",
           "give the matching file of labels");
  }
  refuse(reader,
         "an IDX file of " + std::to_string(rank) + " dimensions where " +
             std::to_string(static_cast<int>(kind)) + " are expected",
         wanted);
}

// Reads what the header promised, and not a byte more.
class Body {
 public:
  Body(ByteReader& reader, Sha256& hash, std::int64_t expected)
      : reader_(reader), hash_(hash), expected_(static_cast<std::size_t>(expected)) {}

  Tensor into(const Shape& shape) {
    Tensor tensor;
    if (reader_.gzipped()) {
      // The true size is only known at the end, so memory grows with the bytes that arrive.
      std::vector<std::vector<std::byte>> chunks;
      for (std::size_t done = 0; done < expected_;) {
        std::vector<std::byte> chunk(std::min(chunk_bytes, expected_ - done));
        fill(chunk, done);
        done += chunk.size();
        chunks.push_back(std::move(chunk));
      }
      check_end();
      tensor = Tensor(DType::u8, shape);
      std::byte* target = tensor.bytes().data();
      for (const auto& chunk : chunks) {
        std::memcpy(target, chunk.data(), chunk.size());
        target += chunk.size();
      }
    } else {
      // The file's size was compared with the header's before.
      tensor = Tensor(DType::u8, shape);
      for (std::size_t done = 0; done < expected_;) {
        const std::size_t count = std::min(chunk_bytes, expected_ - done);
        fill(tensor.bytes().subspan(done, count), done);
        done += count;
      }
      check_end();
    }
    return tensor;
  }

 private:
  void fill(std::span<std::byte> target, std::size_t done) {
    const std::size_t count = reader_.read(target);
    if (count < target.size()) {
      refuse(reader_,
             "truncated: the header promises " +
                 format_count(static_cast<std::int64_t>(expected_)) +
                 " bytes of data, the file holds " +
                 format_count(static_cast<std::int64_t>(done + count)),
             fetch_again);
    }
    hash_.update(target);
  }

  void check_end() {
    std::array<std::byte, 1> extra{};
    if (reader_.read(extra) != 0) {
      refuse(reader_,
             "more data than the header's " + format_count(static_cast<std::int64_t>(expected_)) +
                 " bytes",
             fetch_again);
    }
  }

  ByteReader& reader_;
  Sha256& hash_;
  std::size_t expected_;
};

}  // namespace

IdxContent read_idx(const std::filesystem::path& path, IdxKind kind, Sha256& hash) {
  ByteReader reader(path);
  std::array<std::byte, 16> buffer{};
  const auto rank = static_cast<std::size_t>(kind);
  const std::span<std::byte> magic = std::span(buffer).first(4);
  if (reader.read(magic) < magic.size()) {
    refuse(reader, "truncated: too short for an IDX header", fetch_again);
  }
  check_magic(reader, big_endian(magic), kind);
  const std::span<std::byte> sizes = std::span(buffer).subspan(4, 4 * rank);
  if (reader.read(sizes) < sizes.size()) {
    refuse(reader, "truncated: too short for an IDX header", fetch_again);
  }
  const std::span<std::byte> header = std::span(buffer).first(4 + 4 * rank);

  std::vector<std::int64_t> dims;
  std::int64_t elements = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::int64_t dim = big_endian(sizes.subspan(4 * i));
    if (dim == 0)
      refuse(reader, "an IDX file whose dimension " + std::to_string(i) + " is 0", fetch_again);
    if (elements > std::numeric_limits<std::int64_t>::max() / 8 / dim) {
      refuse(reader, "an IDX header with absurd dimensions", fetch_again);
    }
    dims.push_back(dim);
    elements *= dim;
  }
  const auto promised = static_cast<std::uint64_t>(elements) + header.size();
  if (promised > reader.most_bytes()) {
    refuse(
        reader,
        "truncated: the header promises " + format_count(elements) + " bytes of data, the file " +
            (reader.gzipped() ? "can hold at most " : "holds ") +
            format_count(static_cast<std::int64_t>(
                reader.most_bytes() - std::min<std::uint64_t>(reader.most_bytes(), header.size()))),
        fetch_again);
  }
  if (!reader.gzipped() && promised < reader.most_bytes()) {
    refuse(reader,
           "more data than the header's " + format_count(elements) + " bytes: the file holds " +
               format_count(static_cast<std::int64_t>(reader.most_bytes() - header.size())),
           fetch_again);
  }
  hash.update(header);
  Body body(reader, hash, elements);
  if (kind == IdxKind::labels) return {Shape(dims), body.into(Shape(dims))};
  return {Shape(dims), body.into(Shape{dims[0], dims[1] * dims[2]})};
}

}  // namespace cuvae
