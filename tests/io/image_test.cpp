#include "cuvae/image.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <random>

#include "io/io_testing.h"

namespace cuvae {
namespace {

using testing::expect_error;
using testing::get;
using testing::put;
using testing::TemporaryFolder;

Image noise(std::int64_t width, std::int64_t height, int channels) {
  Image image{width, height, channels, {}};
  std::mt19937 random(3);
  image.pixels.resize(static_cast<std::size_t>(width * height * channels));
  for (auto& pixel : image.pixels) pixel = static_cast<std::uint8_t>(random());
  return image;
}

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<std::uint8_t>(bytes[at + i]);
  return value;
}

std::string as_big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

std::string chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const auto crc =
      ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return as_big_endian(static_cast<std::uint32_t>(data.size())) + body +
         as_big_endian(static_cast<std::uint32_t>(crc));
}

std::string deflated(const std::string& data) {
  uLongf size = ::compressBound(data.size());
  std::string out(size, '\0');
  ::compress(reinterpret_cast<Bytef*>(out.data()), &size,
             reinterpret_cast<const Bytef*>(data.data()), data.size());
  out.resize(size);
  return out;
}

const std::string signature = "\x89PNG\r\n\x1a\n";

// A PNG by hand, from the format's specification; `rows` carry their filter bytes.
std::string png(std::uint32_t width, std::uint32_t height, char depth, char colour,
                const std::string& rows, const std::string& before_data = "") {
  return signature +
         chunk("IHDR", as_big_endian(width) + as_big_endian(height) + depth + colour +
                           std::string(3, '\0')) +
         before_data + chunk("IDAT", deflated(rows)) + chunk("IEND", "");
}

TEST(Png, RoundTripsGreyAndColour) {
  const TemporaryFolder folder;
  for (const int channels : {1, 3}) {
    for (const auto& [width, height] : {std::pair{1, 1}, {7, 3}, {64, 65}, {1, 200}}) {
      const Image image = noise(width, height, channels);
      write_png(folder / "a.png", image);
      const Image back = read_png(folder / "a.png");
      EXPECT_EQ(back.width, width);
      EXPECT_EQ(back.height, height);
      EXPECT_EQ(back.channels, channels);
      EXPECT_EQ(back.pixels, image.pixels);
    }
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a.png"});
}

TEST(Png, TheSameImageGivesTheSameBytesWithoutTimeOrText) {
  const TemporaryFolder folder;
  write_png(folder / "a.png", noise(40, 30, 3));
  write_png(folder / "b.png", noise(40, 30, 3));
  const std::string bytes = get(folder / "a.png");
  EXPECT_EQ(bytes, get(folder / "b.png"));
  ASSERT_EQ(bytes.substr(0, 8), signature);
  EXPECT_EQ(big_endian(bytes, 16), 40u);
  EXPECT_EQ(big_endian(bytes, 20), 30u);
  EXPECT_EQ(bytes.substr(24, 2), std::string("\x08\x02"));  // 8 bits, RGB
  for (std::size_t at = 8; at < bytes.size(); at += 12 + big_endian(bytes, at)) {
    const std::string type = bytes.substr(at + 4, 4);
    EXPECT_TRUE(type == "IHDR" || type == "IDAT" || type == "IEND" || type == "sRGB" ||
                type == "gAMA")
        << type;
  }
}

TEST(Png, ReadsOtherKinds) {
  const TemporaryFolder folder;
  const auto path = folder / "a.png";
  put(path, png(2, 1, 8, 0, std::string("\0\x10\xf0", 3)));
  EXPECT_EQ(read_png(path).pixels, (std::vector<std::uint8_t>{0x10, 0xf0}));
  put(path, png(8, 1, 1, 0, std::string("\0\xa5", 2)));  // one bit per pixel
  EXPECT_EQ(read_png(path).pixels, (std::vector<std::uint8_t>{255, 0, 255, 0, 0, 255, 0, 255}));
  put(path, png(2, 1, 8, 3, std::string("\0\1\0", 3),
                chunk("PLTE", std::string("\x01\x02\x03\xc8\x64\x32", 6))));
  const Image palette = read_png(path);
  EXPECT_EQ(palette.channels, 3);
  EXPECT_EQ(palette.pixels, (std::vector<std::uint8_t>{0xc8, 0x64, 0x32, 1, 2, 3}));
  // Transparent becomes black, opaque stays.
  put(path, png(2, 1, 8, 6, std::string("\0\xc8\x64\x32\0\xc8\x64\x32\xff", 9)));
  EXPECT_EQ(read_png(path).pixels, (std::vector<std::uint8_t>{0, 0, 0, 0xc8, 0x64, 0x32}));
}

TEST(Png, DamagedFilesAreRefused) {
  const TemporaryFolder folder;
  const auto path = folder / "a.png";
  write_png(path, noise(20, 10, 1));
  const std::string bytes = get(path);
  const auto refuse = [&](const std::string& damaged, const std::string& part = "") {
    put(path, damaged);
    expect_error(Status::input, {part, "not a readable PNG", "a.png"},
                 [&] { (void)read_png(path); });
  };
  refuse("");
  refuse("not a picture at all");
  // Without its last bytes, IEND's, a picture is still complete; libpng reads it or refuses it.
  for (std::size_t length = 0; length < bytes.size() - 16; length += 3) {
    SCOPED_TRACE(length);
    refuse(bytes.substr(0, length));
  }
  for (const std::size_t at :
       {std::size_t{1}, std::size_t{18}, std::size_t{25}, bytes.size() / 2}) {
    SCOPED_TRACE(at);
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    refuse(damaged);
  }
  // A tiny file that claims to be enormous is refused before memory is taken.
  refuse(png(900'000, 900'000, 8, 2, "x"), "256 MiB");
  refuse(png(0xffffffff, 1, 8, 0, "x"));
  refuse(png(0, 1, 8, 0, "x"));
}

TEST(Png, DamageIsRefusedOrHarmless) {
  const TemporaryFolder folder;
  const auto path = folder / "a.png";
  write_png(path, noise(9, 5, 3));
  const std::string bytes = get(path);
  std::mt19937 random(5);
  for (int round = 0; round < 1000; ++round) {
    std::string damaged = bytes;
    damaged[random() % damaged.size()] ^= static_cast<char>(1 + random() % 255);
    put(path, damaged);
    try {
      const Image image = read_png(path);
      EXPECT_EQ(image.pixels.size(),
                static_cast<std::size_t>(image.width * image.height * image.channels));
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.status()), 3) << error.what();
    }
  }
}

TEST(Png, ImagesThatCannotBeWritten) {
  const TemporaryFolder folder;
  const auto refuse = [&](Image image) {
    expect_error(Status::usage, {"an image of"}, [&] { write_png(folder / "a.png", image); });
  };
  refuse({});
  refuse({0, 5, 1, {}});
  refuse({-1, -1, 1, {1}});
  refuse({2, 2, 1, {1, 2, 3}});
  refuse({1, 1, 4, {1, 2, 3, 4}});
  refuse({2'000'000, 1, 1, {}});
  expect_error(Status::failed, {"No such file", "create the folder"},
               [&] { write_png(folder / "none/a.png", noise(1, 1, 1)); });
  EXPECT_TRUE(folder.names().empty());
}

constexpr std::uint8_t bg = 96;

TEST(ImageGrid, LaysOutRowsWithSeparators) {
  // Three pictures of one row of two pixels; separators of one pixel.
  const std::vector<float> values = {0.0F, 1.0F, 0.2F, 0.4F, 0.6F, 0.8F};
  const Tensor images(Shape{3, 2}, std::span<const float>(values));
  const Image grid = image_grid(images, {1, 1, 2}, {.columns = 2, .separator = 1});
  EXPECT_EQ(grid.width, 7);
  EXPECT_EQ(grid.height, 5);
  const std::vector<std::uint8_t> expected = {
      bg, bg,  bg,  bg, bg, bg,  bg,  //
      bg, 0,   255, bg, 51, 102, bg,  //
      bg, bg,  bg,  bg, bg, bg,  bg,  //
      bg, 153, 204, bg, bg, bg,  bg,  // the last cell is empty
      bg, bg,  bg,  bg, bg, bg,  bg};
  EXPECT_EQ(grid.pixels, expected);
}

TEST(ImageGrid, TheDefaultsAreSquareWithSeparatorsOfTwo) {
  const Tensor images(DType::f32, {10, 784});
  const Image grid = image_grid(images, {1, 28, 28});
  EXPECT_EQ(grid.width, 4 * 30 + 2);
  EXPECT_EQ(grid.height, 3 * 30 + 2);
  const Image one = image_grid(Tensor(DType::f32, {1, 784}), {1, 28, 28});
  EXPECT_EQ(one.width, 32);
  EXPECT_EQ(one.height, 32);
  // More columns than pictures leave no empty cells.
  EXPECT_EQ(image_grid(images, {1, 28, 28}, {.columns = 100}).width, 10 * 30 + 2);
}

TEST(ImageGrid, ScaleRepeatsPixelsAndNotSeparators) {
  const std::vector<float> values = {0.0F, 1.0F};
  const Tensor images(Shape{1, 2}, std::span<const float>(values));
  const Image grid = image_grid(images, {1, 1, 2}, {.scale = 2, .separator = 1});
  EXPECT_EQ(grid.width, 6);
  const std::vector<std::uint8_t> expected = {bg, bg, bg, bg,  bg,  bg,  //
                                              bg, 0,  0,  255, 255, bg,  //
                                              bg, 0,  0,  255, 255, bg,  //
                                              bg, bg, bg, bg,  bg,  bg};
  EXPECT_EQ(grid.pixels, expected);
}

TEST(ImageGrid, ColourPlanesBecomePixels) {
  const std::vector<std::uint8_t> values = {1, 2, 10, 20, 100, 200};  // [C = 3, H = 1, W = 2]
  const Tensor images(Shape{1, 3, 1, 2}, std::span<const std::uint8_t>(values));
  const Image grid = image_grid(images, {3, 1, 2}, {.separator = 0});
  EXPECT_EQ(grid.channels, 3);
  EXPECT_EQ(grid.pixels, (std::vector<std::uint8_t>{1, 10, 100, 2, 20, 200}));
}

TEST(ImageGrid, ValuesAreRoundedAndClamped) {
  const std::vector<double> values = {
      -1.0, 0.5 / 255 - 1e-9, 0.5 / 255 + 1e-9, 254.4 / 255, 254.6 / 255, 7.0, INFINITY, -INFINITY};
  const Tensor images(Shape{1, 8}, std::span<const double>(values));
  const GridOptions plain{.separator = 0};
  EXPECT_EQ(image_grid(images, {1, 1, 8}, plain).pixels,
            (std::vector<std::uint8_t>{0, 0, 1, 254, 255, 255, 255, 0}));
  // u8 pixels come through the floats of the data path unchanged.
  std::vector<float> levels(256);
  for (int i = 0; i < 256; ++i)
    levels[static_cast<std::size_t>(i)] = static_cast<float>(i) / 255.0F;
  const Image image =
      image_grid(Tensor(Shape{1, 256}, std::span<const float>(levels)), {1, 16, 16}, plain);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(image.pixels[static_cast<std::size_t>(i)], i);
}

TEST(ImageGrid, WhatCannotBeDrawn) {
  const Tensor images(DType::f32, {4, 6});
  const auto refuse = [](Status status, const std::vector<std::string>& parts, const Tensor& tensor,
                         ImageShape shape, GridOptions options = {}) {
    expect_error(status, parts, [&] { (void)image_grid(tensor, shape, options); });
  };
  refuse(Status::usage, {"rows of 6 values drawn as 1 x 2 x 2"}, images, {1, 2, 2});
  refuse(Status::usage, {"2 channels", ".npy"}, images, {2, 1, 3});
  refuse(Status::usage, {"start at 1"}, images, {1, 0, 6});
  refuse(Status::usage, {"start at 1"}, images, {1, -2, -3});
  refuse(Status::usage, {"no pictures"}, Tensor(DType::f32, {0, 6}), {1, 2, 3});
  refuse(Status::usage, {"no pictures"}, Tensor(DType::f32, Shape{}), {1, 1, 1});
  refuse(Status::usage, {"i64"}, Tensor(DType::i64, {4, 6}), {1, 2, 3});
  refuse(Status::usage, {"a scale of 0"}, images, {1, 2, 3}, {.scale = 0});
  refuse(Status::usage, {"a scale of 65"}, images, {1, 2, 3}, {.scale = 65});
  refuse(Status::usage, {"negative number of columns"}, images, {1, 2, 3}, {.columns = -1});
  refuse(Status::usage, {"separator"}, images, {1, 2, 3}, {.separator = -1});
  refuse(Status::usage, {"fewer pictures"}, Tensor(DType::u8, {1, 1'000'000}), {1, 1000, 1000},
         {.scale = 64});
  const std::vector<float> values = {0.0F, std::nanf("")};
  refuse(Status::failed, {"a NaN in picture 1"},
         Tensor(Shape{2, 1}, std::span<const float>(values)), {1, 1, 1});
}

TEST(ReconstructionGrid, OriginalsStandAboveTheirReconstructions) {
  const std::vector<std::uint8_t> originals = {1, 2, 3};
  const std::vector<float> reconstructions = {0.2F, 0.4F, 0.6F};
  const Image grid =
      reconstruction_grid(Tensor(Shape{3, 1}, std::span<const std::uint8_t>(originals)),
                          Tensor(Shape{3, 1}, std::span<const float>(reconstructions)), {1, 1, 1},
                          {.columns = 2, .separator = 1, .pair_gap = 2});
  EXPECT_EQ(grid.width, 5);
  EXPECT_EQ(grid.height, 10);
  const std::vector<std::uint8_t> expected = {bg, bg,  bg, bg,  bg,  //
                                              bg, 1,   bg, 2,   bg,  //
                                              bg, bg,  bg, bg,  bg,  //
                                              bg, 51,  bg, 102, bg,  //
                                              bg, bg,  bg, bg,  bg,  // the gap
                                              bg, bg,  bg, bg,  bg,  //
                                              bg, 3,   bg, bg,  bg,  //
                                              bg, bg,  bg, bg,  bg,  //
                                              bg, 153, bg, bg,  bg,  //
                                              bg, bg,  bg, bg,  bg};
  EXPECT_EQ(grid.pixels, expected);
}

TEST(ReconstructionGrid, TheDefaultsHoldTenToARow) {
  const Tensor images(DType::f32, {25, 784});
  const Image grid = reconstruction_grid(images, images, {1, 28, 28});
  EXPECT_EQ(grid.width, 10 * 30 + 2);
  EXPECT_EQ(grid.height, 3 * (28 + 2 + 28) + 2 * 10 + 2 * 2);
}

TEST(ReconstructionGrid, CountsThatDoNotAgree) {
  expect_error(Status::usage, {"3 originals beside 2 reconstructions"}, [] {
    (void)reconstruction_grid(Tensor(DType::f32, {3, 4}), Tensor(DType::f32, {2, 4}), {1, 2, 2});
  });
  expect_error(Status::usage, {"rows of 5 values"}, [] {
    (void)reconstruction_grid(Tensor(DType::f32, {3, 4}), Tensor(DType::f32, {3, 5}), {1, 2, 2});
  });
}

TEST(ImageGrid, SmallPicturesAreEnlargedForDisplay) {
  EXPECT_EQ(display_scale({1, 28, 28}), 2);
  EXPECT_EQ(display_scale({1, 8, 8}), 7);
  EXPECT_EQ(display_scale({3, 64, 64}), 1);
  EXPECT_EQ(display_scale({1, 1, 500}), 1);
}

}  // namespace
}  // namespace cuvae
