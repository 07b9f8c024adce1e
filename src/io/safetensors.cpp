#include "cuvae/safetensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "cuvae/error.h"
#include "io/file.h"

namespace cuvae {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors bytes are copied as they stand, which is little-endian");

constexpr std::uint64_t max_header = 100'000'000;
constexpr std::size_t max_tensors = 100'000;
constexpr std::string_view metadata_key = "__metadata__";
constexpr std::string_view again = "the file is damaged; write or fetch it again";

struct DTypeName {
  DType dtype;
  std::string_view name;
};
// In the order the reference writer puts them: by descending alignment.
constexpr DTypeName held[] = {
    {DType::i64, "I64"}, {DType::f64, "F64"}, {DType::f32, "F32"}, {DType::u8, "U8"}};

// The format's other dtypes, to tell "cannot hold" from "no such dtype".
constexpr std::string_view not_held[] = {
    "BOOL", "F4",  "F6_E2M3", "F6_E3M2", "I8",  "F8_E5M2", "F8_E4M3", "F8_E8M0",
    "I16",  "U16", "F16",     "BF16",    "I32", "U32",     "C64",     "U64"};

std::size_t rank_of(DType dtype) {
  std::size_t i = 0;
  while (held[i].dtype != dtype) ++i;
  return i;
}

std::string where_of(std::string_view path, std::string_view tensor) {
  return std::string(path) + ", tensor '" + printable(tensor) + "'";
}

// What the header says of one tensor.
struct Entry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<std::int64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;
};

// Reads the header as a stream of events rather than into a document: a document keeps only one of
// two equal keys, and the depth is known, so that hostile nesting is refused where it begins.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(std::string_view path, TensorFile& file) : path_(path), file_(file) {}

  std::vector<Entry> entries;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return unexpected("a number that is no whole number of 64 bits");
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (at_ == At::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        fail("a dimension beyond 63 bits");
      }
      auto& shape = *entries.back().shape;
      if (shape.size() == static_cast<std::size_t>(Shape::max_rank)) {
        fail("more than four dimensions", "reshape the tensor");
      }
      shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (at_ == At::offsets) {
      auto& offsets = *entries.back().offsets;
      if (offsets.size() == 2) fail("data_offsets of more than two numbers");
      offsets.push_back(value);
      return true;
    }
    return unexpected("a number");
  }

  bool string(string_t& value) override {
    if (at_ == At::metadata) {
      file_.metadata[key_] = std::move(value);
      return true;
    }
    if (at_ == At::entry && key_ == "dtype") {
      entries.back().dtype = std::move(value);
      return true;
    }
    return unexpected("a string");
  }

  bool start_object(std::size_t) override {
    switch (at_) {
      case At::start: at_ = At::root; return true;
      case At::root:
        if (key_ == metadata_key) {
          at_ = At::metadata;
        } else {
          if (entries.size() == max_tensors) {
            fail("more than " + std::to_string(max_tensors) + " tensors", "split the file");
          }
          entries.push_back({key_, {}, {}, {}});
          at_ = At::entry;
        }
        return true;
      default: return unexpected("an object");
    }
  }

  bool key(string_t& value) override {
    if (at_ == At::root) {
      if (!names_.insert(value).second) fail("the name '" + printable(value) + "' stands twice");
    } else if (at_ == At::metadata) {
      if (file_.metadata.contains(value)) {
        fail("the metadata key '" + printable(value) + "' stands twice");
      }
    } else {
      const Entry& entry = entries.back();
      const bool twice = (value == "dtype" && entry.dtype) || (value == "shape" && entry.shape) ||
                         (value == "data_offsets" && entry.offsets);
      if (twice) fail("the key '" + value + "' stands twice");
      if (value != "dtype" && value != "shape" && value != "data_offsets") {
        fail("an unknown key '" + printable(value) + "'");
      }
    }
    key_ = std::move(value);
    return true;
  }

  bool end_object() override {
    if (at_ == At::entry) {
      const Entry& entry = entries.back();
      if (!entry.dtype) fail("no dtype");
      if (!entry.shape) fail("no shape");
      if (!entry.offsets) fail("no data_offsets");
    }
    at_ = at_ == At::root ? At::end : At::root;
    return true;
  }

  bool start_array(std::size_t) override {
    if (at_ == At::entry && key_ == "shape") {
      entries.back().shape.emplace();
      at_ = At::shape;
      return true;
    }
    if (at_ == At::entry && key_ == "data_offsets") {
      entries.back().offsets.emplace();
      at_ = At::offsets;
      return true;
    }
    return unexpected("a list");
  }

  bool end_array() override {
    if (at_ == At::offsets && entries.back().offsets->size() != 2) {
      fail("data_offsets of fewer than two numbers");
    }
    at_ = At::entry;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    at_ = At::root;
    fail("a header that is not JSON at byte " + std::to_string(position));
  }

 private:
  enum class At { start, root, metadata, entry, shape, offsets, end };

  bool unexpected(std::string_view what) {
    std::string place = "the header";
    if (at_ == At::metadata) place = "metadata '" + printable(key_) + "'";
    if (at_ == At::entry) place = key_;
    if (at_ == At::shape) place = "shape";
    if (at_ == At::offsets) place = "data_offsets";
    if (at_ == At::root) place = "'" + printable(key_) + "'";
    fail(std::string(what) + " in " + place);
  }

  [[noreturn]] void fail(const std::string& what, std::string_view mend = again) {
    const bool in_tensor = at_ == At::entry || at_ == At::shape || at_ == At::offsets;
    throw Error(Status::input, what, in_tensor ? where_of(path_, entries.back().name) : path_,
                mend);
  }

  std::string path_;
  TensorFile& file_;
  std::unordered_set<std::string> names_;
  std::string key_;
  At at_ = At::start;
};

struct Placed {
  std::string name;
  DType dtype;
  Shape shape;
  std::uint64_t begin;
  std::uint64_t end;
};

Placed checked(Entry&& entry, std::string_view path, std::uint64_t length) {
  const std::string where = where_of(path, entry.name);
  const auto type =
      std::ranges::find_if(held, [&](const DTypeName& d) { return d.name == *entry.dtype; });
  if (type == std::end(held)) {
    const bool known = std::ranges::find(not_held, *entry.dtype) != std::end(not_held);
    throw Error(Status::input,
                (known ? "dtype " : "an unknown dtype '") + printable(*entry.dtype) +
                    (known ? ", which is not supported" : "'"),
                where, "convert the tensor to F32 (F64, U8 and I64 are read, too)");
  }
  Placed placed{std::move(entry.name), type->dtype, {}, (*entry.offsets)[0], (*entry.offsets)[1]};
  try {
    placed.shape = Shape(*entry.shape);
  } catch (const Error&) {
    throw Error(Status::input, "a shape whose size does not fit 63 bits", where, again);
  }
  if (placed.begin > placed.end) {
    throw Error(Status::input, "data_offsets that end before they begin", where, again);
  }
  if (placed.end > length) {
    throw Error(Status::input,
                "data up to byte " + std::to_string(placed.end) + " where the file holds " +
                    std::to_string(length),
                where, again);
  }
  // Shape keeps elements * 8 within 63 bits.
  const auto need = static_cast<std::uint64_t>(placed.shape.elements()) * size_of(placed.dtype);
  if (placed.end - placed.begin != need) {
    throw Error(Status::input,
                "shape " + placed.shape.str() + " needs " + std::to_string(need) +
                    " bytes, data_offsets give " + std::to_string(placed.end - placed.begin),
                where, again);
  }
  return placed;
}

template <class T>
void require_finite_values(const NamedTensor& named, std::string_view path) {
  const auto values = named.tensor.as<T>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    throw Error(Status::input,
                std::string(std::isnan(values[i]) ? "a NaN" : "an infinity") + " at element " +
                    std::to_string(i),
                where_of(path, named.name),
                "the weights are unusable; restore or train them again");
  }
}

std::string quoted(const std::string& text, const std::filesystem::path& path) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    throw Error(Status::failed, "the text '" + printable(text) + "' is not UTF-8", path.string(),
                "rename it");
  }
}

}  // namespace

const Tensor* TensorFile::find(std::string_view name) const noexcept {
  const auto found = std::ranges::find(tensors, name, &NamedTensor::name);
  return found == tensors.end() ? nullptr : &found->tensor;
}

const Tensor& TensorFile::at(std::string_view name) const {
  const Tensor* tensor = find(name);
  if (tensor == nullptr) {
    throw Error(Status::input, "no tensor '" + printable(name) + "'", source,
                "the file belongs to another model or is incomplete");
  }
  return *tensor;
}

void write_safetensors(const std::filesystem::path& path, const TensorFile& file) {
  std::vector<const NamedTensor*> order;
  std::unordered_set<std::string_view> names;
  for (const NamedTensor& named : file.tensors) {
    if (named.name == metadata_key || !names.insert(named.name).second) {
      throw Error(Status::failed, "the tensor name '" + printable(named.name) + "' is taken",
                  path.string(), "give every tensor a name of its own");
    }
    order.push_back(&named);
  }
  std::ranges::sort(order, [](const NamedTensor* a, const NamedTensor* b) {
    const std::size_t ra = rank_of(a->tensor.dtype());
    const std::size_t rb = rank_of(b->tensor.dtype());
    return ra != rb ? ra < rb : a->name < b->name;
  });

  std::string header(8, '\0');
  header += '{';
  const auto separate = [&] {
    if (header.back() != '{') header += ',';
  };
  if (!file.metadata.empty()) {
    header += '"';
    header += metadata_key;
    header += "\":{";
    for (const auto& [key, value] : file.metadata) {
      separate();
      header += quoted(key, path) + ":" + quoted(value, path);
    }
    header += '}';
  }
  std::uint64_t offset = 0;
  for (const NamedTensor* named : order) {
    separate();
    header += quoted(named->name, path) + ":{\"dtype\":\"";
    header += held[rank_of(named->tensor.dtype())].name;
    header += "\",\"shape\":[";
    const auto dims = named->tensor.shape().dims();
    for (std::size_t i = 0; i < dims.size(); ++i) {
      if (i > 0) header += ',';
      header += std::to_string(dims[i]);
    }
    header += "],\"data_offsets\":[" + std::to_string(offset) + ',';
    offset += named->tensor.bytes().size();
    header += std::to_string(offset) + "]}";
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = header.size() - 8;
  if (length > max_header || order.size() > max_tensors) {
    throw Error(Status::failed, "more names and metadata than a safetensors file may hold",
                path.string(), "write fewer tensors or less metadata");
  }
  std::memcpy(header.data(), &length, 8);

  AtomicFile out(path);
  out.write(header);
  for (const NamedTensor* named : order) out.write(named->tensor.bytes());
  out.commit();
}

namespace {

// Bytes in memory, read as an InputFile is.
class InputBytes {
 public:
  explicit InputBytes(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] std::uint64_t size() const noexcept { return bytes_.size(); }
  void read(std::uint64_t offset, std::span<std::byte> to) const {
    const auto from = bytes_.subspan(static_cast<std::size_t>(offset), to.size());
    std::ranges::copy(from, to.begin());
  }

 private:
  std::span<const std::byte> bytes_;
};

template <class Input>
TensorFile read_from(const Input& in, std::string source) {
  TensorFile file;
  file.source = std::move(source);
  const auto fail = [&](const std::string& what, std::string_view mend = again) {
    throw Error(Status::input, what, file.source, mend);
  };
  constexpr std::string_view other = "restore it, or name a safetensors file";
  if (in.size() < 8) fail("too short for a safetensors file", other);
  std::uint64_t header_length = 0;
  in.read(0, std::as_writable_bytes(std::span(&header_length, 1)));
  if (header_length > max_header) {
    fail("a header of " + std::to_string(header_length) + " bytes, more than safetensors allows",
         other);
  }
  if (header_length > in.size() - 8) {
    fail("a header of " + std::to_string(header_length) + " bytes in a file of " +
         std::to_string(in.size()));
  }
  try {
    std::string header(static_cast<std::size_t>(header_length), '\0');
    in.read(8, std::as_writable_bytes(std::span(header)));
    if (header.empty() || header[0] != '{') fail("no safetensors header", other);
    HeaderReader reader(file.source, file);
    nlohmann::json::sax_parse(header, &reader);

    const std::uint64_t length = in.size() - 8 - header_length;
    std::vector<Placed> placed;
    placed.reserve(reader.entries.size());
    for (Entry& entry : reader.entries) {
      placed.push_back(checked(std::move(entry), file.source, length));
    }
    std::ranges::sort(placed, [](const Placed& a, const Placed& b) {
      return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    std::uint64_t end = 0;
    for (const Placed& tensor : placed) {
      if (tensor.begin != end) {
        throw Error(Status::input,
                    tensor.begin < end ? "data that overlap another tensor's"
                                       : "a hole before the tensor's data",
                    where_of(file.source, tensor.name), again);
      }
      end = tensor.end;
    }
    if (end != length) {
      fail(std::to_string(length - end) + " bytes behind the last tensor's data");
    }
    file.tensors.reserve(placed.size());
    for (Placed& tensor : placed) {
      Tensor values(tensor.dtype, tensor.shape);
      in.read(8 + header_length + tensor.begin, values.bytes());
      file.tensors.push_back({std::move(tensor.name), std::move(values)});
    }
  } catch (const std::bad_alloc&) {
    throw Error(Status::device, "not enough memory for the file", file.source,
                "free some memory or use a smaller model");
  }
  return file;
}

}  // namespace

TensorFile read_safetensors(const std::filesystem::path& path) {
  return read_from(InputFile(path), path.string());
}

TensorFile parse_safetensors(std::span<const std::byte> bytes, std::string source) {
  return read_from(InputBytes(bytes), std::move(source));
}

void require_finite(const TensorFile& file) {
  for (const NamedTensor& named : file.tensors) {
    if (named.tensor.dtype() == DType::f32) require_finite_values<float>(named, file.source);
    if (named.tensor.dtype() == DType::f64) require_finite_values<double>(named, file.source);
  }
}

}  // namespace cuvae
