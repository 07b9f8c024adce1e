#include "cuvae/npy.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <iterator>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cuvae/error.h"
#include "io/file.h"
#include "io/npy_file.h"

namespace cuvae {
namespace {

static_assert(std::endian::native == std::endian::little,
              "NPY elements are copied as they stand, which is little-endian");

constexpr std::string_view magic{"\x93NUMPY", 6};
constexpr std::size_t max_header = 65536;
constexpr std::string_view again = "write it again with numpy.save";

struct Descr {
  DType dtype;
  std::string_view name;
};
constexpr Descr descrs[] = {
    {DType::f32, "<f4"}, {DType::f64, "<f8"}, {DType::u8, "|u1"}, {DType::i64, "<i8"}};

struct Header {
  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<std::int64_t>> shape;
};

// The header is a Python literal; this takes exactly the dictionaries that NumPy writes.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  Header parse() {
    Header header;
    expect('{');
    while (!take('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !header.descr) {
        if (peek() == '[') {
          fail("a structured dtype", "save one field of it, array['name'], with numpy.save");
        }
        header.descr = string();
      } else if (key == "fortran_order" && !header.fortran_order) {
        header.fortran_order = boolean();
      } else if (key == "shape" && !header.shape) {
        header.shape = tuple();
      } else {
        fail("a key '" + printable(key) + "' in the header that is unknown or stands twice");
      }
      if (!take(',') && peek() != '}') fail("a header that is no dictionary");
    }
    if (peek() != '\0') fail("text behind the header's dictionary");
    if (!header.descr || !header.fortran_order || !header.shape) {
      fail("a header without descr, fortran_order or shape");
    }
    return header;
  }

  [[noreturn]] void fail(const std::string& what, std::string_view mend = again) const {
    throw Error(Status::input, what, path_, mend);
  }

 private:
  // The next character that is no space; '\0' at the end (a NUL in the text fails everywhere).
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail("a header that is no dictionary");
  }
  std::string string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') fail("a header that is no dictionary");
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail("a header that is no dictionary");
    std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }
  bool boolean() {
    peek();
    for (const auto& [word, value] :
         {std::pair{std::string_view("True"), true}, std::pair{std::string_view("False"), false}}) {
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return value;
      }
    }
    fail("a fortran_order that is neither True nor False");
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> dims;
    expect('(');
    bool comma = true;
    while (!take(')')) {
      if (!comma) fail("a shape that is no tuple");
      if (dims.size() == static_cast<std::size_t>(Shape::max_rank)) {
        fail("more than four dimensions", "reshape the array before numpy.save");
      }
      peek();
      std::int64_t dim = 0;
      const char* first = text_.data() + at_;
      const auto [last, error] = std::from_chars(first, text_.data() + text_.size(), dim);
      if (error == std::errc::result_out_of_range) fail("a dimension beyond 63 bits");
      if (error != std::errc() || dim < 0) fail("a shape that is no tuple of sizes");
      at_ += static_cast<std::size_t>(last - first);
      take('L');  // as Python 2 wrote long integers
      dims.push_back(dim);
      comma = take(',');
    }
    if (dims.size() == 1 && !comma) fail("a shape that is no tuple");  // "(3)" is a number
    return dims;
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t at_ = 0;
};

// Of the accepted one that it is.
std::string_view accepted_descr(const std::string& descr,
                                std::span<const std::string_view> accepted, std::string_view mend,
                                const HeaderParser& parser) {
  // One byte has no order.
  std::string plain = descr;
  if (plain.size() == 3 && plain[2] == '1' && plain.find_first_of("<>=") == 0) plain[0] = '|';
  const auto place = std::ranges::find(accepted, plain);
  if (place != accepted.end()) return *place;
  if (descr.find('O') != std::string::npos) parser.fail("an array of Python objects", mend);
  if (descr.starts_with('>')) {
    std::string little = descr;
    little[0] = '<';
    if (std::ranges::find(accepted, little) != accepted.end()) {
      parser.fail("big-endian elements '" + descr + "'", "save array.astype('" + little + "')");
    }
  }
  parser.fail("dtype '" + printable(descr) + "', which is not supported", mend);
}

}  // namespace

NpyFile::NpyFile(const std::filesystem::path& path, std::span<const std::string_view> descrs,
                 std::string_view mend)
    : path_(path.string()), in_(path) {
  const auto fail = [&](const std::string& what, std::string_view how = again) {
    throw Error(Status::input, what, path_, how);
  };
  std::uint8_t start[12] = {};  // magic, version, length
  const std::size_t have = std::min<std::size_t>(in_.size(), sizeof start);
  in_.read(0, std::as_writable_bytes(std::span(start, have)));
  if (have >= 4 && start[0] == 'P' && start[1] == 'K' && start[2] == 3 && start[3] == 4) {
    fail("an .npz archive, not an .npy file", "save the one array with numpy.save");
  }
  if (have < magic.size() || !std::equal(magic.begin(), magic.end(), start, [](char a, auto b) {
        return static_cast<std::uint8_t>(a) == b;
      })) {
    fail("not an .npy file", "name a file that numpy.save wrote");
  }
  if (have < 10) fail("the file ends early");
  const int version = start[6];
  if (version < 1 || version > 3 || start[7] != 0) {
    fail("format version " + std::to_string(version) + "." + std::to_string(start[7]) +
         ", which is not supported");
  }
  const std::size_t prefix = version == 1 ? 10 : 12;
  if (have < prefix) fail("the file ends early");
  std::uint64_t length = start[8] | start[9] << 8;
  if (version > 1) {
    length |= std::uint64_t{start[10]} << 16 | std::uint64_t{start[11]} << 24;
  }
  if (length > max_header) {
    fail("a header of " + std::to_string(length) + " bytes, more than is allowed");
  }
  if (length > in_.size() - prefix) fail("the file ends early");

  header_.resize(prefix + static_cast<std::size_t>(length));
  in_.read(0, std::as_writable_bytes(std::span(header_)));
  HeaderParser parser(std::string_view(header_).substr(prefix), path_);
  const Header header = parser.parse();
  descr_ = accepted_descr(*header.descr, descrs, mend, parser);
  element_bytes_ = static_cast<std::size_t>(descr_[2] - '0');
  if (*header.fortran_order) {
    fail("Fortran order (columns first)", "save numpy.ascontiguousarray(array)");
  }
  try {
    shape_ = Shape(*header.shape);
  } catch (const Error&) {
    fail("a shape whose size does not fit 63 bits");
  }
  // A shape's elements times eight bytes fit 63 bits.
  const std::uint64_t need = static_cast<std::uint64_t>(shape_.elements()) * element_bytes_;
  const std::uint64_t held = in_.size() - header_.size();
  if (need != held) {
    fail("shape " + shape_.str() + " of " + *header.descr + " needs " + std::to_string(need) +
         " bytes, the file holds " + std::to_string(held));
  }
}

void NpyFile::read(std::int64_t first, std::span<std::byte> bytes) const {
  in_.read(header_.size() + static_cast<std::uint64_t>(first) * element_bytes_, bytes);
}

Tensor read_npy(const std::filesystem::path& path) {
  std::string_view names[std::size(descrs)];
  std::ranges::transform(descrs, names, &Descr::name);
  const NpyFile file(path, names,
                     "save array.astype('<f4') ('<f8', '|u1' and '<i8' are read, too)");
  const auto descr = std::ranges::find(descrs, file.descr(), &Descr::name);
  try {
    Tensor tensor(descr->dtype, file.shape());
    file.read(0, tensor.bytes());
    return tensor;
  } catch (const std::bad_alloc&) {
    throw Error(Status::device, "not enough memory for an array of " + file.shape().str(),
                file.path(), "free some memory or save a part of the array");
  }
}

void write_npy(AtomicFile& file, const Tensor& tensor) {
  const auto descr = std::ranges::find(descrs, tensor.dtype(), &Descr::dtype);
  std::string text = "{'descr': '" + std::string(descr->name) + "', 'fortran_order': False, ";
  text += "'shape': (";
  const auto dims = tensor.shape().dims();
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(dims[i]);
  }
  text += dims.size() == 1 ? ",), }" : "), }";
  const std::size_t whole = (magic.size() + 4 + text.size() + 1 + 63) / 64 * 64;
  text.resize(whole - magic.size() - 4 - 1, ' ');
  text += '\n';
  // At most 192 bytes with four dimensions, so the length's high byte is 0.
  std::string header(magic);
  header += {'\x01', '\x00', static_cast<char>(text.size()), '\x00'};
  header += text;

  file.write(header);
  file.write(tensor.bytes());
}

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  AtomicFile file(path);
  write_npy(file, tensor);
  file.commit();
}

}  // namespace cuvae
