#include "cuvae/safetensors.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <span>

#include "io/io_testing.h"

namespace cuvae {
namespace {

using testing::expect_error;
using testing::from_hex;
using testing::get;
using testing::put;
using testing::TemporaryFolder;

template <class T>
Tensor tensor(Shape shape, const std::vector<T>& values) {
  return {shape, std::span<const T>(values)};
}

std::string with_header(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

// Written out from the format's specification: an i64 scalar, two floats, three bytes.
std::string golden() {
  return from_hex("c000000000000000") +
         R"({"__metadata__":{"k":"v"},)"
         R"("n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
         R"("w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)"
         R"("p":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})"
         "      " +
         from_hex(
             "0500000000000000"
             "0000803f 000000c0"
             "0102ff");
}

TensorFile golden_file() {
  TensorFile file;
  file.tensors = {{"p", tensor<std::uint8_t>({3}, {1, 2, 255})},
                  {"w", tensor<float>({2}, {1.0F, -2.0F})},
                  {"n", tensor<std::int64_t>(Shape{}, {5})}};
  file.metadata["k"] = "v";
  return file;
}

void expect_equal(const TensorFile& a, const TensorFile& b) {
  EXPECT_EQ(a.metadata, b.metadata);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const NamedTensor& named : a.tensors) {
    const Tensor& other = b.at(named.name);
    EXPECT_EQ(named.tensor.dtype(), other.dtype()) << named.name;
    EXPECT_EQ(named.tensor.shape(), other.shape()) << named.name;
    EXPECT_TRUE(std::ranges::equal(named.tensor.bytes(), other.bytes())) << named.name;
  }
}

class Safetensors : public ::testing::Test {
 protected:
  // Reading `bytes` ends with status 3 and a line that holds every part and the path.
  void refuse(const std::string& bytes, std::vector<std::string> parts) {
    put(path_, bytes);
    parts.push_back("weights.safetensors");
    expect_error(Status::input, parts, [&] { (void)read_safetensors(path_); });
  }
  void refuse_header(const std::string& header, const std::string& data,
                     std::vector<std::string> parts) {
    SCOPED_TRACE(header);
    refuse(with_header(header, data), std::move(parts));
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "weights.safetensors";
};

TEST_F(Safetensors, WritesTheGoldenBytes) {
  write_safetensors(path_, golden_file());
  EXPECT_EQ(get(path_), golden());
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"weights.safetensors"});
}

TEST_F(Safetensors, ParsesBytesInMemory) {
  const std::string bytes = golden();
  const TensorFile file = parse_safetensors(std::as_bytes(std::span(bytes)), "the golden bytes");
  expect_equal(file, golden_file());
  EXPECT_EQ(file.source, "the golden bytes");
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{20}, bytes.size() - 1}) {
    expect_error(Status::input, {"the golden bytes"}, [&] {
      (void)parse_safetensors(std::as_bytes(std::span(bytes).first(size)), "the golden bytes");
    });
  }
}

TEST_F(Safetensors, ReadsTheGoldenBytes) {
  put(path_, golden());
  const TensorFile file = read_safetensors(path_);
  expect_equal(file, golden_file());
  EXPECT_EQ(file.tensors[0].name, "n");
  EXPECT_EQ(file.tensors[2].name, "p");
  EXPECT_EQ(file.source, path_.string());
}

TEST_F(Safetensors, TheOrderOfTensorsDoesNotChangeTheBytes) {
  TensorFile file = golden_file();
  file.tensors.push_back({"a", tensor<double>({1}, {0.5})});
  file.tensors.push_back({"b", tensor<float>({1}, {0.5F})});
  write_safetensors(path_, file);
  const std::string bytes = get(path_);
  for (int i = 0; i < 5; ++i) {
    std::rotate(file.tensors.begin(), file.tensors.begin() + 2, file.tensors.end());
    std::swap(file.tensors[0], file.tensors[1]);
    write_safetensors(path_, file);
    EXPECT_EQ(get(path_), bytes);
  }
  std::string order;
  for (const NamedTensor& named : read_safetensors(path_).tensors) order += named.name;
  EXPECT_EQ(order, "nabwp");  // i64, f64, f32, u8; then by name
}

TEST_F(Safetensors, TheHeaderEndsAtAMultipleOfEight) {
  for (std::size_t length = 1; length <= 17; ++length) {
    TensorFile file;
    file.tensors = {{std::string(length, 'n'), tensor<float>({1}, {1.0F})}};
    write_safetensors(path_, file);
    std::uint64_t header = 0;
    const std::string bytes = get(path_);
    std::memcpy(&header, bytes.data(), 8);
    EXPECT_EQ(header % 8, 0u);
    EXPECT_EQ(bytes.size(), 8 + header + 4);
    expect_equal(read_safetensors(path_), file);
  }
}

TEST_F(Safetensors, RoundTripsEveryDtypeRankAndBitPattern) {
  TensorFile file;
  file.tensors = {
      {"scalar", tensor<double>(Shape{}, {-0.0})},
      {"empty", tensor<float>({0, 7}, {})},
      {"empty too", tensor<std::uint8_t>({3, 0}, {})},
      {"four", tensor<std::int64_t>({1, 2, 1, 2}, {-1, 1, std::numeric_limits<std::int64_t>::min(),
                                                   std::numeric_limits<std::int64_t>::max()})},
      {"odd", tensor<float>({5}, {std::nanf("7"), INFINITY, -INFINITY, -0.0F, 1e-45F})},
      {"", tensor<std::uint8_t>({1}, {9})},
      {"quote\"back\\slash\n\xc3\xa4\xe2\x82\xac\x01", tensor<float>({1}, {3.0F})}};
  file.metadata = {{"config", "{\"a\": 1}\n"}, {"", ""}, {"step", "18446744073709551615"}};
  write_safetensors(path_, file);
  const TensorFile back = read_safetensors(path_);
  expect_equal(back, file);
  expect_equal(file, back);
}

TEST_F(Safetensors, NothingButMetadataAndNothingAtAll) {
  TensorFile file;
  write_safetensors(path_, file);
  EXPECT_EQ(get(path_), from_hex("0800000000000000") + "{}      ");
  expect_equal(read_safetensors(path_), file);
  file.metadata["a"] = "b";
  write_safetensors(path_, file);
  expect_equal(read_safetensors(path_), file);
}

TEST_F(Safetensors, FindAndAt) {
  const TensorFile file = golden_file();
  EXPECT_EQ(file.find("w"), &file.at("w"));
  EXPECT_EQ(file.find("none"), nullptr);
  put(path_, golden());
  const TensorFile back = read_safetensors(path_);
  expect_error(Status::input, {"no tensor 'none'", path_.string()}, [&] { (void)back.at("none"); });
}

TEST_F(Safetensors, WritingNamesThatCannotStand) {
  const auto refuse_name = [&](const std::vector<std::string>& names, const std::string& part) {
    TensorFile file;
    for (const auto& name : names) file.tensors.push_back({name, tensor<float>({1}, {1.0F})});
    expect_error(Status::failed, {part}, [&] { write_safetensors(path_, file); });
    EXPECT_TRUE(folder_.names().empty());
  };
  refuse_name({"a", "b", "a"}, "'a' is taken");
  refuse_name({"__metadata__"}, "'__metadata__' is taken");
  refuse_name({"\xff"}, "not UTF-8");
}

TEST_F(Safetensors, SpaceInTheHeaderAndGapsInTheOrderOfNames) {
  put(path_, with_header(R"(  {"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x"));
  expect_error(Status::input, {"no safetensors header"}, [&] { (void)read_safetensors(path_); });
  put(path_, with_header("{ \"b\" : {\"data_offsets\":[1,2], \"shape\":[1],\"dtype\":\"U8\"},\n"
                         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]} }   ",
                         "xy"));
  const TensorFile file = read_safetensors(path_);
  EXPECT_EQ(file.at("a").as<std::uint8_t>()[0], 'x');
  EXPECT_EQ(file.at("b").as<std::uint8_t>()[0], 'y');
}

TEST_F(Safetensors, HeaderLengths) {
  refuse("", {"too short"});
  refuse("1234567", {"too short"});
  refuse(from_hex("0000000000000000"), {"no safetensors header"});
  refuse(from_hex("0900000000000000") + "{}      ", {"a header of 9 bytes in a file of 16"});
  refuse(from_hex("ffffffffffffffff") + "{}      ", {"more than safetensors allows"});
  refuse(from_hex("01e1f50500000000") + "{}", {"a header of 100000001 bytes", "more than"});
  refuse(from_hex("00e1f50500000000") + "{}", {"a header of 100000000 bytes in a file of 10"});
  refuse("PK\x03\x04 some other kind of file", {"name a safetensors file"});
}

TEST_F(Safetensors, HeadersThatAreNotWhatTheyShouldBe) {
  refuse_header("{", "", {"not JSON"});
  refuse_header("{} x", "", {"not JSON"});
  refuse_header("[]", "", {"no safetensors header"});
  refuse_header("{\"\xff\":1}", "", {"not JSON"});
  refuse_header(R"({"a":1})", "", {"a number in 'a'"});
  refuse_header(R"({"a":[]})", "", {"a list in 'a'"});
  refuse_header(R"({"a":null})", "", {"null in 'a'"});
  refuse_header(R"({"a":true})", "", {"a boolean in 'a'"});
  refuse_header(R"({"a":"x"})", "", {"a string in 'a'"});
  refuse_header(R"({"__metadata__":"x"})", "", {"a string in '__metadata__'"});
  refuse_header(R"({"__metadata__":{"a":1}})", "", {"a number in metadata 'a'"});
  refuse_header(R"({"__metadata__":{"a":{}}})", "", {"an object in metadata 'a'"});
  refuse_header("{\"a\":" + std::string(100'000, '['), "", {"a list in 'a'"});
  refuse_header("{\"a\":{\"shape\":" + std::string(100'000, '['), "", {"a list in shape"});
}

TEST_F(Safetensors, EntriesThatAreNotWhatTheyShouldBe) {
  const auto entry = [&](const std::string& body, std::vector<std::string> parts) {
    parts.push_back("tensor 'a'");
    refuse_header("{\"a\":{" + body + "}}", "xxxx", std::move(parts));
  };
  entry(R"("shape":[1],"data_offsets":[0,4])", {"no dtype"});
  entry(R"("dtype":"F32","data_offsets":[0,4])", {"no shape"});
  entry(R"("dtype":"F32","shape":[1])", {"no data_offsets"});
  entry(R"("dtype":1,"shape":[1],"data_offsets":[0,4])", {"a number in dtype"});
  entry(R"("dtype":"F32","shape":1,"data_offsets":[0,4])", {"a number in shape"});
  entry(R"("dtype":"F32","shape":"1","data_offsets":[0,4])", {"a string in shape"});
  entry(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])", {"a negative number in shape"});
  entry(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])", {"no whole number", "shape"});
  refuse_header(R"({"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}})", "xxxx",
                {"not JSON at byte"});
  entry(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])",
        {"no whole number of 64 bits"});
  entry(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4])", {"beyond 63 bits"});
  entry(R"("dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4])", {"more than four dimensions"});
  entry(R"("dtype":"F32","shape":[1],"data_offsets":[0])", {"fewer than two"});
  entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])", {"more than two"});
  entry(R"("dtype":"F32","shape":[1],"data_offsets":{})", {"an object in data_offsets"});
  entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1)", {"unknown key 'x'"});
}

TEST_F(Safetensors, DuplicateKeys) {
  const std::string entry = R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  refuse_header("{" + entry + "," + entry + "}", "x", {"the name 'a' stands twice"});
  refuse_header(R"({"__metadata__":{},"__metadata__":{}})", "", {"'__metadata__' stands twice"});
  refuse_header(R"({"__metadata__":{"k":"1","k":"2"}})", "", {"metadata key 'k' stands twice"});
  for (const std::string key : {R"("dtype":"U8")", R"("shape":[1])", R"("data_offsets":[0,1])"}) {
    refuse_header(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],)" + key + "}}", "x",
                  {"stands twice", "tensor 'a'"});
  }
}

TEST_F(Safetensors, DtypesItDoesNotHold) {
  for (const std::string dtype : {"BF16", "F16", "BOOL", "I32", "U64", "F8_E4M3", "C64"}) {
    refuse_header(R"({"a":{"dtype":")" + dtype + R"(","shape":[],"data_offsets":[0,2]}})", "xx",
                  {"dtype " + dtype + ", which is not supported", "tensor 'a'", "to F32"});
  }
  refuse_header(R"({"a":{"dtype":"f32","shape":[],"data_offsets":[0,4]}})", "xxxx",
                {"an unknown dtype 'f32'", "tensor 'a'"});
}

TEST_F(Safetensors, SizesAndOffsets) {
  const auto one = [&](const std::string& shape, const std::string& offsets,
                       const std::string& part) {
    refuse_header(
        R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
        "01234567", {part, "tensor 'a'"});
  };
  one("[2]", "[8,0]", "end before they begin");
  one("[2]", "[0,9]", "up to byte 9 where the file holds 8");
  one("[2]", "[0,18446744073709551615]", "up to byte 18446744073709551615");
  one("[3]", "[0,8]", "shape [3] needs 12 bytes, data_offsets give 8");
  one("[]", "[0,8]", "shape [] needs 4 bytes, data_offsets give 8");
  one("[0]", "[0,8]", "needs 0 bytes");
  // Products that come out right modulo 2^64.
  one("[4294967296,4294967296]", "[0,0]", "does not fit 63 bits");
  one("[9223372036854775807,2]", "[0,8]", "does not fit 63 bits");
  one("[4611686018427387905]", "[0,4]", "does not fit 63 bits");
  // Far more than there is: refused before memory is taken.
  one("[1099511627776]", "[0,4398046511104]", "the file holds 8");
  one("[1099511627776]", "[0,8]", "needs 4398046511104 bytes");
}

TEST_F(Safetensors, HolesAndOverlaps) {
  const auto two = [&](const std::string& a, const std::string& b, std::vector<std::string> parts) {
    refuse_header(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + a +
                      R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}",
                  "0123", std::move(parts));
  };
  two("[0,2]", "[1,3]", {"overlap", "tensor 'b'"});
  two("[0,2]", "[0,2]", {"overlap", "tensor 'b'"});
  two("[2,4]", "[1,3]", {"a hole", "tensor 'b'"});
  two("[1,3]", "[0,2]", {"overlap", "tensor 'a'"});
  refuse_header(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
                "0123", {"a hole before", "tensor 'b'"});
  refuse_header(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "0123",
                {"2 bytes behind the last tensor"});
  refuse_header("{}", "0", {"1 bytes behind the last tensor"});
}

TEST_F(Safetensors, TooManyTensors) {
  std::string header = "{";
  for (int i = 0; i <= 100'000; ++i) {
    if (i > 0) header += ',';
    header += '"' + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  refuse_header(header + "}", "", {"more than 100000 tensors"});
}

TEST_F(Safetensors, ControlCharactersDoNotReachTheTerminal) {
  refuse_header(R"({"a\u001b[2J":{"dtype":"Q","shape":[],"data_offsets":[0,0]}})", "",
                {"tensor 'a?[2J'"});
}

TEST_F(Safetensors, NotAFile) {
  expect_error(Status::input, {"No such file", "check the path"},
               [&] { (void)read_safetensors(folder_ / "none"); });
  expect_error(Status::input, {"Is a directory"}, [&] { (void)read_safetensors(folder_.path()); });
}

TEST_F(Safetensors, EveryTruncationIsRefused) {
  const std::string bytes = golden();
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    SCOPED_TRACE(length);
    refuse(bytes.substr(0, length), {});
  }
  refuse(bytes + "x", {"1 bytes behind"});
}

// A damaged file is refused, or read as another valid one; nothing else may come of it, neither
// another status nor (under the sanitizers) a wrong access.
TEST_F(Safetensors, DamageIsRefusedOrHarmless) {
  const std::string bytes = golden();
  std::mt19937 random(7);
  int refused = 0;
  const auto attempt = [&](const std::string& damaged) {
    put(path_, damaged);
    try {
      std::size_t held = 0;
      for (const NamedTensor& named : read_safetensors(path_).tensors) {
        held += named.tensor.bytes().size();
      }
      EXPECT_LE(held, damaged.size());
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.status()), 3) << error.what();
      ++refused;
    }
  };
  for (std::size_t i = 0; i < bytes.size() * 8; ++i) {  // every bit
    std::string damaged = bytes;
    damaged[i / 8] = static_cast<char>(damaged[i / 8] ^ (1 << i % 8));
    attempt(damaged);
  }
  EXPECT_GT(refused, 600);
  EXPECT_LT(refused, static_cast<int>(bytes.size() * 8));
  const std::string likely = std::string("{}[]\",:0123456789-.eE\\ ") + '\0' + '\xff';
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = bytes;
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
      const std::size_t at = random() % damaged.size();
      const char c =
          random() % 2 == 0 ? likely[random() % likely.size()] : static_cast<char>(random() % 256);
      switch (random() % 3) {
        case 0: damaged[at] = c; break;
        case 1: damaged.insert(at, 1, c); break;
        default: damaged.erase(at, 1 + random() % 8); break;
      }
      if (damaged.empty()) damaged.assign(1, 'x');
    }
    attempt(damaged);
  }
}

TEST_F(Safetensors, WeightsThatAreNotFinite) {
  require_finite(golden_file());
  TensorFile file = golden_file();
  file.source = "model.safetensors";
  file.tensors.push_back({"encoder.0.weight", tensor<float>({3}, {1.0F, std::nanf(""), 2.0F})});
  expect_error(Status::input,
               {"a NaN at element 1", "model.safetensors, tensor 'encoder.0.weight'", "restore"},
               [&] { require_finite(file); });
  for (const double value : std::vector<double>{-INFINITY, INFINITY, std::nan("")}) {
    file.tensors.back() = {"x", tensor<double>({2}, {0.0, value})};
    expect_error(Status::input, {"at element 1", "tensor 'x'"}, [&] { require_finite(file); });
  }
  file.tensors.back() = {"x", tensor<double>({2}, {0.0, 1e308})};
  require_finite(file);
}

}  // namespace
}  // namespace cuvae
