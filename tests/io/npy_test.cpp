#include "cuvae/npy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "io/io_testing.h"

namespace cuvae {
namespace {

using testing::expect_error;
using testing::from_hex;
using testing::get;
using testing::put;
using testing::TemporaryFolder;

// A file of version 1, 2 or 3 with `header` as it stands.
std::string npy(int version, const std::string& header, const std::string& data) {
  std::string bytes = from_hex("934e554d5059");
  bytes += static_cast<char>(version);
  bytes += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) {
    bytes += static_cast<char>(header.size() >> (8 * i) & 0xff);
  }
  return bytes + header + data;
}

std::string header(const std::string& descr, const std::string& shape,
                   const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
}

// What numpy.save writes for numpy.array([[1, -2, 0], [0.5, 0, 0]], dtype='<f4').
std::string golden() {
  return from_hex("934e554d5059 0100 7600") +
         "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" + std::string(58, ' ') +
         "\n" +
         from_hex(
             "0000803f 000000c0 00000000"
             "0000003f 00000000 00000000");
}

Tensor golden_tensor() {
  const std::vector<float> values = {1, -2, 0, 0.5F, 0, 0};
  return {Shape{2, 3}, std::span<const float>(values)};
}

class Npy : public ::testing::Test {
 protected:
  Tensor read(const std::string& bytes) {
    put(path_, bytes);
    return read_npy(path_);
  }
  void refuse(const std::string& bytes, std::vector<std::string> parts) {
    put(path_, bytes);
    parts.push_back("z.npy)");
    expect_error(Status::input, parts, [&] { (void)read_npy(path_); });
  }
  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "z.npy";
};

TEST_F(Npy, WritesTheGoldenBytes) {
  write_npy(path_, golden_tensor());
  EXPECT_EQ(get(path_), golden());
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"z.npy"});
}

TEST_F(Npy, ReadsTheGoldenBytes) {
  const Tensor tensor = read(golden());
  EXPECT_EQ(tensor.shape(), (Shape{2, 3}));
  EXPECT_TRUE(std::ranges::equal(tensor.as<float>(), golden_tensor().as<float>()));
}

template <class T>
void round_trip(const std::filesystem::path& path, Shape shape, const std::vector<T>& values) {
  const Tensor tensor(shape, std::span<const T>(values));
  write_npy(path, tensor);
  const std::string bytes = get(path);
  EXPECT_EQ((bytes.size() - values.size() * sizeof(T)) % 64, 0u);
  const Tensor back = read_npy(path);
  EXPECT_EQ(back.dtype(), tensor.dtype());
  EXPECT_EQ(back.shape(), tensor.shape());
  EXPECT_TRUE(std::ranges::equal(back.bytes(), tensor.bytes()));
}

TEST_F(Npy, RoundTripsEveryDtypeAndRank) {
  round_trip<float>(path_, Shape{4}, {std::nanf(""), -INFINITY, -0.0F, 1e-45F});
  round_trip<double>(path_, Shape{}, {0.1});
  round_trip<std::uint8_t>(path_, Shape{1, 2, 1, 2}, {0, 1, 128, 255});
  round_trip<std::int64_t>(path_, Shape{2, 1}, {std::numeric_limits<std::int64_t>::min(), -1});
  round_trip<float>(path_, Shape{0, 784}, {});
  round_trip<std::uint8_t>(path_, Shape{1'000'000'000'000, 0, 1'000'000}, {});
}

TEST_F(Npy, VersionsAndForms) {
  const std::string data = from_hex("0000803f 000000c0");
  for (const int version : {1, 2, 3}) {
    SCOPED_TRACE(version);
    EXPECT_EQ(read(npy(version, header("<f4", "(2,)"), data)).as<float>()[1], -2.0F);
    refuse(npy(version, header("<f4", "(2,)"), data + "x"), {"needs 8 bytes, the file holds 9"});
  }
  // Other orders of keys, other quotes, no last comma, no spaces, Python 2's long integers.
  EXPECT_EQ(read(npy(1, R"({"shape":(2L,1L),"fortran_order":False,"descr":"<f4"})", data)).shape(),
            (Shape{2, 1}));
  EXPECT_EQ(read(npy(1, header("<f4", "(1, 2)"), data)).shape(), (Shape{1, 2}));
  EXPECT_EQ(read(npy(1, header("<u1", "(8,)"), data)).dtype(), DType::u8);
  EXPECT_EQ(read(npy(2, header("|u1", "(8,)") + std::string(60'000, ' '), data)).elements(), 8);
}

TEST_F(Npy, WhatItDoesNotHoldSaysTheCallThatMends) {
  refuse(npy(1, header(">f4", "(1,)"), "0123"), {"big-endian", "array.astype('<f4')"});
  refuse(npy(1, header(">i8", "(1,)"), "01234567"), {"big-endian", "array.astype('<i8')"});
  refuse(npy(1, header("<f4", "(1,)", "True"), "0123"), {"Fortran order", "ascontiguousarray"});
  refuse(npy(1, header("<f2", "(1,)"), "01"), {"dtype '<f2'", "astype('<f4')"});
  refuse(npy(1, header("|b1", "(1,)"), "0"), {"dtype '|b1'", "astype('<f4')"});
  refuse(npy(1, header("|O", "(1,)"), "0"), {"Python objects", "astype"});
  refuse(npy(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "0123"),
         {"structured dtype", "array['name']"});
  refuse(npy(1, header("<f4", "(1, 1, 1, 1, 1)"), "0123"), {"more than four dimensions"});
  refuse(std::string("PK\x03\x04more", 8), {".npz", "numpy.save"});
  refuse(npy(4, header("<f4", "(1,)"), "0123"), {"format version 4.0"});
  refuse("something else entirely", {"not an .npy file"});
}

TEST_F(Npy, HeadersThatAreNotWhatTheyShouldBe) {
  const std::string data = "0123";
  const auto shape = [&](const std::string& text, const std::string& part) {
    SCOPED_TRACE(text);
    refuse(npy(1, header("<f4", text), data), {part});
  };
  shape("(1)", "no tuple");
  shape("1", "no dictionary");
  shape("(-1,)", "no tuple of sizes");
  shape("(1.0,)", "no");
  shape("(1 1)", "no tuple");
  shape("(,)", "no tuple");
  shape("('1',)", "no tuple");
  shape("(9223372036854775808,)", "beyond 63 bits");
  shape("(4294967296, 4294967296)", "does not fit 63 bits");
  shape("(9223372036854775807, 2)", "does not fit 63 bits");
  shape("(1099511627776,)", "needs 4398046511104 bytes, the file holds 4");
  shape("(2,)", "shape [2] of <f4 needs 8 bytes, the file holds 4");
  shape("(0,)", "needs 0 bytes");
  refuse(npy(1, "", data), {"no dictionary"});
  refuse(npy(1, "{}", data), {"without descr"});
  refuse(npy(1, "{'descr': '<f4', 'shape': (1,), }", data), {"without descr, fortran_order"});
  refuse(npy(1, "{'descr': '<f4', 'descr': '<f4', }", data), {"'descr'", "stands twice"});
  refuse(npy(1, "{'extra': 1, }", data), {"'extra'", "unknown"});
  refuse(npy(1, header("<f4", "(1,)", "Maybe"), data), {"neither True nor False"});
  refuse(npy(1, header("<f4", "(1,)") + "x", data), {"behind the header's dictionary"});
  refuse(npy(1, "{'descr: ", data), {"no dictionary"});
  refuse(npy(2, header("<f4", "(1,)") + std::string(70'000, ' '), data), {"more than is allowed"});
  refuse(from_hex("934e554d5059 0200 ffffffff") + data, {"more than is allowed"});
}

TEST_F(Npy, EveryTruncationIsRefused) {
  const std::string bytes = golden();
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    SCOPED_TRACE(length);
    refuse(bytes.substr(0, length), {});
  }
}

TEST_F(Npy, DamageIsRefusedOrHarmless) {
  std::mt19937 random(11);
  const std::string bytes = golden();
  const std::string likely = "{}()',:0123456789-. \n<>|fuiOTrueFalse";
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = bytes;
    for (int edits = 1 + static_cast<int>(random() % 3); edits > 0; --edits) {
      const std::size_t at = random() % 80;
      damaged[at] =
          random() % 2 == 0 ? likely[random() % likely.size()] : static_cast<char>(random() % 256);
    }
    put(path_, damaged);
    try {
      EXPECT_LE(read_npy(path_).bytes().size(), damaged.size());
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.status()), 3) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 1500);
}

TEST_F(Npy, NotAFile) {
  expect_error(Status::input, {"No such file", "check the path"},
               [&] { (void)read_npy(folder_ / "none.npy"); });
  expect_error(Status::input, {"Is a directory"}, [&] { (void)read_npy(folder_.path()); });
  expect_error(Status::failed, {"No such file", "create the folder"},
               [&] { write_npy(folder_ / "none/z.npy", golden_tensor()); });
}

}  // namespace
}  // namespace cuvae
