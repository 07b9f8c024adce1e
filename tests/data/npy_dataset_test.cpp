// Data in .npy files: every dtype, shape and split, and files that are not what they should be.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "cuvae/dataset.h"
#include "cuvae/npy.h"
#include "data/idx_files.h"
#include "data/sha256.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

using test::Bytes;
using test::idx_file;
using test::Outcome;
using test::outcome_of;
using test::write_file;

// As numpy.save writes it, but for the padding.
Bytes npy(const std::string& descr, const std::string& shape, const Bytes& elements,
          const std::string& fortran = "False") {
  const std::string header =
      "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
  Bytes bytes = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
  bytes.push_back(static_cast<std::uint8_t>(header.size() & 0xff));
  bytes.push_back(static_cast<std::uint8_t>(header.size() >> 8));
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.insert(bytes.end(), elements.begin(), elements.end());
  return bytes;
}

template <class T>
Bytes as_bytes(const std::vector<T>& values) {
  Bytes bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// 0, 1, 2, ...: every dtype holds them.
template <class T>
Bytes counting(std::size_t count) {
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<T>(i);
  return as_bytes(values);
}

struct Type {
  std::string descr;
  Bytes (*counting)(std::size_t);
};
const std::vector<Type> types = {{"|u1", counting<std::uint8_t>},  {"<u1", counting<std::uint8_t>},
                                 {"|i1", counting<std::int8_t>},   {"<i2", counting<std::int16_t>},
                                 {"<u2", counting<std::uint16_t>}, {"<i4", counting<std::int32_t>},
                                 {"<u4", counting<std::uint32_t>}, {"<i8", counting<std::int64_t>},
                                 {"<u8", counting<std::uint64_t>}, {"<f4", counting<float>},
                                 {"<f8", counting<double>}};
bool is_real(const Type& type) {
  return type.descr[1] == 'f';
}
bool is_byte(const Type& type) {
  return type.descr.substr(1) == "u1";
}

class NpyData : public ::testing::Test {
 protected:
  void put(const std::string& name, const Bytes& bytes) { write_file(folder_ / name, bytes); }
  Outcome load(const std::filesystem::path& path) {
    return outcome_of([&] { dataset_ = load_dataset(path); });
  }
  Outcome load() { return load(folder_.path()); }

  void refuses(const std::filesystem::path& path, const std::vector<std::string>& parts,
               const std::string& where) {
    const Outcome outcome = load(path);
    EXPECT_EQ(outcome.status, Status::input) << outcome.text;
    EXPECT_EQ(outcome.text.find('\n'), std::string::npos) << outcome.text;
    EXPECT_NE(outcome.text.find(where + "): "), std::string::npos) << outcome.text;
    for (const std::string& part : parts)
      EXPECT_NE(outcome.text.find(part), std::string::npos)
          << "no \"" << part << "\" in " << outcome.text;
  }
  void refuses(const Bytes& train, const std::vector<std::string>& parts) {
    put("train.npy", train);
    refuses(folder_.path(), parts, "train.npy");
  }

  test::TemporaryFolder folder_;
  Dataset dataset_;
};

TEST_F(NpyData, EveryDtypeShapeAndSplit) {
  struct Form {
    std::string dims;  // behind N
    std::size_t features;
    ImageSize image;
  };
  const std::vector<Form> forms = {{"5", 5, {1, 1, 5}},
                                   {"2, 3", 6, {1, 2, 3}},
                                   {"3, 2, 4", 24, {3, 2, 4}},
                                   {"1, 1", 1, {1, 1, 1}}};
  const auto check = [&](const std::optional<DatasetSplit>& split, std::int64_t rows,
                         const Form& form, bool bytes, bool labelled) {
    ASSERT_TRUE(split);
    EXPECT_EQ(split->size(), rows);
    EXPECT_EQ(split->images->shape(), (Shape{rows, static_cast<std::int64_t>(form.features)}));
    ASSERT_EQ(split->images->dtype(), bytes ? DType::u8 : DType::f32);
    for (std::int64_t i = 0; i < split->images->elements(); ++i)
      EXPECT_EQ(split->images->item(i), static_cast<double>(i));
    EXPECT_EQ(split->labels.size(), labelled ? static_cast<std::size_t>(rows) : 0U);
    for (std::size_t i = 0; i < split->labels.size(); ++i) EXPECT_EQ(split->labels[i], i);
  };
  for (const Type& type : types) {
    for (const Form& form : forms) {
      SCOPED_TRACE(type.descr + " " + form.dims);
      for (const char* name : {"test.npy", "train-labels.npy", "test-labels.npy"})
        std::filesystem::remove(folder_ / name);
      const auto rows = [&](std::size_t count) {
        return npy(type.descr, fmt::format("({}, {})", count, form.dims),
                   type.counting(count * form.features));
      };
      put("train.npy", rows(4));
      ASSERT_EQ(load().text, "");
      EXPECT_EQ(dataset_.path, folder_.path());
      EXPECT_EQ(dataset_.image, form.image);
      check(dataset_.train, 4, form, is_byte(type), false);
      EXPECT_FALSE(dataset_.test);

      put("test.npy", rows(3));
      if (!is_real(type)) {
        put("train-labels.npy", npy(type.descr, "(4,)", type.counting(4)));
        put("test-labels.npy", npy(type.descr, "(3,)", type.counting(3)));
      }
      ASSERT_EQ(load().text, "");
      EXPECT_EQ(dataset_.image, form.image);
      check(dataset_.train, 4, form, is_byte(type), !is_real(type));
      check(dataset_.test, 3, form, is_byte(type), !is_real(type));
      EXPECT_EQ(data_type(dataset_), is_byte(type) ? DType::u8 : DType::f32);

      std::filesystem::remove(folder_ / "train.npy");
      std::filesystem::remove(folder_ / "train-labels.npy");
      ASSERT_EQ(load().text, "");
      EXPECT_FALSE(dataset_.train);
      check(dataset_.test, 3, form, is_byte(type), !is_real(type));
    }
  }
}

TEST_F(NpyData, MoreThanAChunkOfElements) {
  constexpr std::size_t rows = 1200;
  constexpr std::size_t columns = 1000;
  std::vector<double> values(rows * columns);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i) / 3;
  put("train.npy", npy("<f8", "(1200, 1000)", as_bytes(values)));
  ASSERT_EQ(load().text, "");
  const auto read = dataset_.train->images->as<float>();
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(read[i], static_cast<float>(values[i])) << i;
  EXPECT_EQ(dataset_.sha256, sha256_of_file(folder_ / "train.npy"));
  values[1'100'007] = std::nan("");
  refuses(npy("<f8", "(1200, 1000)", as_bytes(values)), {"row 1100, column 7 is nan"});
}

// That of the files one after another, as `cat ... | sha256sum` gives it.
TEST_F(NpyData, Sha256) {
  const std::vector<std::pair<std::string, Bytes>> files = {
      {"train.npy", npy("<i4", "(2, 3)", counting<std::int32_t>(6))},
      {"train-labels.npy", npy("<i8", "(2,)", counting<std::int64_t>(2))},
      {"test.npy", npy("<f8", "(1, 3)", counting<double>(3))},
      {"test-labels.npy", npy("|u1", "(1,)", {7})}};
  Bytes all;
  for (const auto& [name, bytes] : files) {
    put(name, bytes);
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  put("all", all);
  ASSERT_EQ(load().text, "");
  EXPECT_EQ(dataset_.sha256, sha256_of_file(folder_ / "all"));
  const std::string before = dataset_.sha256;
  put("test-labels.npy", npy("|u1", "(1,)", {8}));
  ASSERT_EQ(load().text, "");
  EXPECT_NE(dataset_.sha256, before);
}

TEST_F(NpyData, OneFileIsTheTrainingSplit) {
  put("cells.npy", npy("<u2", "(2, 3)", counting<std::uint16_t>(6)));
  ASSERT_EQ(load(folder_ / "cells.npy").text, "");
  EXPECT_EQ(dataset_.path, folder_ / "cells.npy");
  ASSERT_TRUE(dataset_.train && !dataset_.test);
  EXPECT_TRUE(dataset_.train->labels.empty());
  EXPECT_EQ(dataset_.sha256, sha256_of_file(folder_ / "cells.npy"));

  put("cells-labels.npy", npy("|u1", "(2,)", {3, 255}));
  ASSERT_EQ(load(folder_ / "cells.npy").text, "");
  EXPECT_EQ(dataset_.train->labels, (std::vector<std::uint8_t>{3, 255}));
  EXPECT_EQ(label_classes(dataset_, "a test"), 256);

  // By its content where the name does not tell.
  std::filesystem::rename(folder_ / "cells.npy", folder_ / "any name");
  ASSERT_EQ(load(folder_ / "any name").text, "");
  EXPECT_EQ(dataset_.train->size(), 2);

  // A file of a folder is that split alone.
  put("train.npy", npy("|u1", "(1, 3)", {1, 2, 3}));
  put("test.npy", npy("|u1", "(2, 3)", counting<std::uint8_t>(6)));
  ASSERT_EQ(load(folder_ / "test.npy").text, "");
  ASSERT_TRUE(dataset_.train && !dataset_.test);
  EXPECT_EQ(dataset_.train->size(), 2);
}

TEST_F(NpyData, WhatWriteNpyWritesIsData) {
  const std::vector<float> values = {0.5F, -1, 2, 1e-45F};
  write_npy(folder_ / "train.npy", Tensor(Shape{2, 2}, std::span<const float>(values)));
  ASSERT_EQ(load().text, "");
  EXPECT_TRUE(std::ranges::equal(dataset_.train->images->as<float>(), values));
}

TEST_F(NpyData, RealsAreRoundedToFloatsAndFinite) {
  const auto f8 = [](double value) { return npy("<f8", "(1, 2)", as_bytes<double>({0, value})); };
  const auto f4 = [](float value) { return npy("<f4", "(1, 2)", as_bytes<float>({0, value})); };
  constexpr double largest = std::numeric_limits<float>::max();
  for (const double value : {0.1, -1e30, 1e-300, largest, 0x1.fffffefp+127}) {
    put("train.npy", f8(value));
    ASSERT_EQ(load().text, "") << value;
    EXPECT_EQ(dataset_.train->images->as<float>()[1], static_cast<float>(value));
  }
  constexpr double inf = std::numeric_limits<double>::infinity();
  refuses(f8(std::nan("")), {"row 0, column 1 is nan", "give finite numbers"});
  refuses(f8(inf), {"row 0, column 1 is inf"});
  refuses(f8(-inf), {"row 0, column 1 is -inf"});
  refuses(f8(1e39), {"row 0, column 1 is 1e+39", "beyond the range of 32-bit floats"});
  refuses(f8(-0x1.ffffffp+127), {"beyond the range of 32-bit floats"});
  refuses(f4(std::nanf("")), {"row 0, column 1 is nan"});
  refuses(f4(-std::numeric_limits<float>::infinity()), {"row 0, column 1 is -inf"});
  // The first of several; of images a pixel.
  std::vector<float> values(2 * 2 * 3 * 4);
  values[24 + 12 + 4 + 2] = values[40] = std::nanf("");
  refuses(npy("<f4", "(2, 2, 3, 4)", as_bytes(values)), {"row 1, pixel [1, 1, 0]"});
}

template <class T>
Bytes one(const std::string& descr, T value) {
  return npy(descr, "(2, 1)", as_bytes<T>({T{1}, value}));
}

TEST_F(NpyData, IntegersThatFloatsHoldExactly) {
  const auto takes = [&](const Bytes& bytes, double value) {
    put("train.npy", bytes);
    ASSERT_EQ(load().text, "") << value;
    EXPECT_EQ(dataset_.train->images->item(1), value);
  };
  constexpr std::int64_t limit = 1 << 24;
  takes(one<std::int8_t>("|i1", -128), -128);
  takes(one<std::int16_t>("<i2", -32768), -32768);
  takes(one<std::uint16_t>("<u2", 65535), 65535);
  takes(one<std::int32_t>("<i4", limit), limit);
  takes(one<std::int32_t>("<i4", -limit - 2), -limit - 2);
  takes(one<std::int32_t>("<i4", std::numeric_limits<std::int32_t>::min()), -0x1p31);
  takes(one<std::uint32_t>("<u4", 0xffffff00), 4294967040.0);
  takes(one<std::int64_t>("<i8", std::numeric_limits<std::int64_t>::min()), -0x1p63);
  takes(one<std::uint64_t>("<u8", std::uint64_t{1} << 63), 0x1p63);
  const auto gives_up = [&](const Bytes& bytes, const std::string& value) {
    refuses(bytes,
            {fmt::format("row 1, column 0 is {}, which 32-bit floats do not hold exactly", value),
             "astype('<f4')"});
  };
  gives_up(one<std::int32_t>("<i4", limit + 1), "16777217");
  gives_up(one<std::int32_t>("<i4", -limit - 1), "-16777217");
  gives_up(one<std::int32_t>("<i4", std::numeric_limits<std::int32_t>::max()), "2147483647");
  gives_up(one<std::uint32_t>("<u4", 0xffffffff), "4294967295");
  gives_up(one<std::int64_t>("<i8", std::numeric_limits<std::int64_t>::max()),
           "9223372036854775807");
  gives_up(one<std::int64_t>("<i8", std::numeric_limits<std::int64_t>::min() + 1),
           "-9223372036854775807");
  gives_up(one<std::uint64_t>("<u8", std::numeric_limits<std::uint64_t>::max()),
           "18446744073709551615");
}

TEST_F(NpyData, ShapesThatAreNoRows) {
  refuses(npy("<f4", "(3,)", counting<float>(3)), {"shape [3]", "array.reshape(-1, 1)"});
  refuses(npy("<f4", "()", counting<float>(1)), {"shape []", "[N, D]", "[N, C, H, W]"});
  refuses(npy("<f4", "(1, 1, 1, 1, 1)", counting<float>(1)), {"more than four dimensions"});
  for (const char* shape : {"(0, 3)", "(3, 0)", "(2, 0, 4)", "(1000000000000, 0, 1000000)"})
    refuses(npy("|u1", shape, {}), {"at least one row"});
}

TEST_F(NpyData, HeadersThatAreNotWhatTheyShouldBe) {
  const Bytes eight(8, 0);
  const auto shape = [&](const char* text, const std::string& part) {
    refuses(npy("<f4", text, eight), {part});
  };
  shape("(2, 2)", "needs 16 bytes, the file holds 8");
  shape("(1, 1)", "needs 4 bytes, the file holds 8");
  shape("(1099511627776, 1)", "needs 4398046511104 bytes, the file holds 8");
  shape("(4294967296, 4294967296)", "does not fit 63 bits");
  shape("(2305843009213693952, 1)", "does not fit 63 bits");  // times 8 bytes: 0 in 64 bits
  shape("(9223372036854775808, 1)", "beyond 63 bits");
  shape("(-2, -1)", "no tuple of sizes");
  shape("(2.0, 1)", "no tuple");
  refuses(npy("<f4", "(2, 1)", eight, "True"), {"Fortran order", "ascontiguousarray"});
  refuses(npy("<f4", "(2, 1)", eight, "Maybe"), {"neither True nor False"});
  for (const char* descr : {">f4", ">f8", ">i2", ">u8"})
    refuses(npy(descr, "(1, 1)", eight),
            {"big-endian", fmt::format("array.astype('<{}')", descr + 1)});
  for (const char* descr : {"<f2", "|b1", "<c8", "<U2", "|S8", "<f16", "<M8[ns]", "", "f4", "<i3"})
    refuses(npy(descr, "(1, 1)", eight), {fmt::format("dtype '{}'", descr), "array.astype('<f4')"});
  refuses(npy("|O", "(1, 1)", eight), {"Python objects", "array.astype('<f4')"});
  refuses({'P', 'K', 3, 4, 'm', 'o', 'r', 'e'}, {".npz", "numpy.save"});
  refuses(idx_file({2, 3, 4}), {"not an .npy file"});
  refuses({}, {"not an .npy file"});
  Bytes huge = {0x93, 'N', 'U', 'M', 'P', 'Y', 2, 0, 0xff, 0xff, 0xff, 0xff};
  refuses(huge, {"more than is allowed"});

  put("rows.npz", {'P', 'K', 3, 4, 'm', 'o', 'r', 'e'});
  refuses(folder_ / "rows.npz", {".npz", "numpy.save"}, "rows.npz");
}

TEST_F(NpyData, EveryTruncationIsRefused) {
  const Bytes whole = npy("<f4", "(2, 3)", counting<float>(6));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    SCOPED_TRACE(length);
    refuses(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)), {});
  }
}

TEST_F(NpyData, SplitsOfDifferentRows) {
  put("train.npy", npy("<f4", "(1, 6)", counting<float>(6)));
  const auto beside = [&](const Bytes& bytes, const std::string& part) {
    put("test.npy", bytes);
    refuses(folder_.path(), {part}, "test.npy");
  };
  beside(npy("<f4", "(1, 5)", counting<float>(5)),
         "test rows of 5 features beside training rows of 6 features");
  beside(npy("<f4", "(1, 2, 3)", counting<float>(6)), "1 x 2 x 3 pixels");
  beside(npy("<f4", "(1, 3, 2, 1)", counting<float>(6)), "3 x 2 x 1 pixels");
  beside(npy("|u1", "(1, 6)", counting<std::uint8_t>(6)),
         "test rows of '|u1' beside training rows of '<f4'");
  beside(npy("<f4", "(6,)", counting<float>(6)), "rows of shape [6]");
  // Other dtypes than bytes are all floats here, and one channel is none.
  put("test.npy", npy("<i8", "(1, 1, 1, 6)", counting<std::int64_t>(6)));
  EXPECT_EQ(load().text, "");
}

TEST_F(NpyData, LabelsThatDoNotFit) {
  put("train.npy", npy("<f4", "(3, 2)", counting<float>(6)));
  const auto labels = [&](const Bytes& bytes, const std::vector<std::string>& parts) {
    put("train-labels.npy", bytes);
    refuses(folder_.path(), parts, "train-labels.npy");
  };
  labels(npy("|u1", "(2,)", {0, 1}), {"2 labels for 3 rows"});
  labels(npy("|u1", "(4,)", {0, 1, 2, 3}), {"4 labels for 3 rows"});
  labels(npy("|u1", "(0,)", {}), {"0 labels for 3 rows"});
  labels(npy("|u1", "(3, 1)", {0, 1, 2}), {"labels of shape [3, 1]", "labels.reshape(-1)"});
  labels(npy("|u1", "()", {0}), {"labels of shape []"});
  labels(npy("<f4", "(3,)", counting<float>(3)), {"dtype '<f4'", "labels.astype('|u1')"});
  labels(npy("|b1", "(3,)", {0, 1, 1}), {"dtype '|b1'", "labels.astype('|u1')"});
  labels(npy("<i4", "(3,)", as_bytes<std::int32_t>({0, 256, -1})),
         {"the label of row 1 is 256", "from 0 to 255"});
  labels(npy("|i1", "(3,)", as_bytes<std::int8_t>({0, 1, -1})), {"the label of row 2 is -1"});
  labels(npy("<u8", "(3,)",
             as_bytes<std::uint64_t>({0, 1, std::numeric_limits<std::uint64_t>::max()})),
         {"the label of row 2 is 18446744073709551615"});
  std::filesystem::remove(folder_ / "train-labels.npy");
  put("test-labels.npy", npy("|u1", "(3,)", {0, 1, 2}));
  refuses(folder_.path(), {"labels without rows", "add test.npy"}, "test-labels.npy");
}

// A link to nothing, or a folder of the name, is not the same as no file.
TEST_F(NpyData, WhatHasTheNameAndIsNoFileIsRefused) {
  put("train.npy", npy("<f4", "(3, 2)", counting<float>(6)));
  ASSERT_EQ(load().text, "");
  for (const char* name : {"test.npy", "train-labels.npy", "test-labels.npy"}) {
    std::filesystem::create_symlink("nowhere", folder_ / name);
    EXPECT_NE(load().text, "") << name;
    std::filesystem::remove(folder_ / name);
    std::filesystem::create_directory(folder_ / name);
    EXPECT_NE(load().text, "") << name;
    std::filesystem::remove(folder_ / name);
  }
  EXPECT_EQ(load().text, "");
}

TEST_F(NpyData, BothFormsInOneFolderAndNeither) {
  for (const char* name : {"train.npy", "test.npy", "train-images-idx3-ubyte"})
    EXPECT_NE(load().text.find(name), std::string::npos) << name;
  std::filesystem::create_directory(folder_ / "train.npy");
  refuses(folder_.path(), {}, "train.npy");
  std::filesystem::remove(folder_ / "train.npy");
  put("train.npy", npy("<f4", "(3, 2)", counting<float>(6)));
  put("t10k-images-idx3-ubyte", idx_file({2, 1, 2}));
  refuses(folder_.path(), {"IDX files and of .npy files"}, folder_.path().string());
  EXPECT_EQ(load(folder_ / "train.npy").text, "");
  EXPECT_EQ(load(folder_ / "t10k-images-idx3-ubyte").text, "");
}

// The same tensors as those of the source that drew them, so that all that is done with data is.
TEST_F(NpyData, IsTheDrawnDataThatWasSaved) {
  for (const char* source : {"synthetic:shapes?n=20&test=10", "synthetic:counts?n=20&test=10"}) {
    SCOPED_TRACE(source);
    const Dataset drawn = load_dataset(source);
    const auto save = [&](const DatasetSplit& split, const std::string& name) {
      const ImageSize& image = drawn.image;
      write_npy(
          folder_ / (name + ".npy"),
          split.images->reshaped(Shape{split.size(), image.channels, image.height, image.width}));
      std::filesystem::remove(folder_ / (name + "-labels.npy"));
      if (!split.labels.empty())
        write_npy(folder_ / (name + "-labels.npy"),
                  Tensor(Shape{split.size()}, std::span<const std::uint8_t>(split.labels)));
    };
    save(*drawn.train, "train");
    save(*drawn.test, "test");
    ASSERT_EQ(load().text, "");
    EXPECT_EQ(dataset_.image, drawn.image);
    for (const auto split : {&Dataset::train, &Dataset::test}) {
      const DatasetSplit& read = *(dataset_.*split);
      const DatasetSplit& made = *(drawn.*split);
      EXPECT_EQ(read.images->dtype(), made.images->dtype());
      EXPECT_EQ(read.images->shape(), made.images->shape());
      EXPECT_TRUE(std::ranges::equal(read.images->bytes(), made.images->bytes()));
      EXPECT_EQ(read.labels, made.labels);
    }
  }
}

}  // namespace
}  // namespace cuvae
