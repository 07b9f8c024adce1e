#include "cuvae/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "cuvae/error.h"

namespace cuvae {
namespace {

Status status_of(const std::function<void()>& action, std::string* what = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (what != nullptr) *what = error.what();
    return error.status();
  }
  return Status::done;
}

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape().rank(), 0);
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ(Shape().str(), "[]");
  const Shape image{128, 784};
  EXPECT_EQ(image.rank(), 2);
  EXPECT_EQ(image[0], 128);
  EXPECT_EQ(image[1], 784);
  EXPECT_EQ(image.elements(), 128 * 784);
  EXPECT_EQ(image.str(), "[128, 784]");
  EXPECT_EQ(image.dims().size(), 2U);
  EXPECT_EQ((Shape{2, 3, 5, 7}.elements()), 210);
  EXPECT_EQ((Shape{4, 0, 5}.elements()), 0);
}

TEST(Shape, Compares) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
  EXPECT_NE(Shape(), (Shape{1}));
  const std::array<std::int64_t, 2> dims = {2, 3};
  EXPECT_EQ(Shape(std::span<const std::int64_t>(dims)), (Shape{2, 3}));
}

TEST(Shape, RefusesWhatDoesNotFit) {
  constexpr std::int64_t big = std::int64_t{1} << 31;
  EXPECT_EQ(status_of([] { Shape{2, -1}; }), Status::usage);
  EXPECT_EQ(status_of([] { Shape{1, 1, 1, 1, 1}; }), Status::usage);
  EXPECT_EQ(status_of([] { Shape{big, big}; }), Status::usage);
  EXPECT_EQ(status_of([] { Shape{std::numeric_limits<std::int64_t>::max()}; }), Status::usage);
  EXPECT_EQ(status_of([] { Shape{big, big, big, big}; }), Status::usage);
  // Eight bytes an element still fit 63 bits.
  const Shape large{big, (std::int64_t{1} << 29) - 1};
  EXPECT_GT(large.elements(), 0);
  EXPECT_LE(large.elements(), std::numeric_limits<std::int64_t>::max() / 8);
}

TEST(Shape, ZeroDoesNotHideAnOverflow) {
  constexpr std::int64_t big = std::int64_t{1} << 40;
  EXPECT_EQ((Shape{0, big, big}.elements()), 0);
  EXPECT_EQ(status_of([] { Shape{big, big, 0}; }), Status::usage);
}

TEST(DTypes, SizesAndNames) {
  EXPECT_EQ(size_of(DType::f32), 4U);
  EXPECT_EQ(size_of(DType::f64), 8U);
  EXPECT_EQ(size_of(DType::u8), 1U);
  EXPECT_EQ(size_of(DType::i64), 8U);
  EXPECT_EQ(name_of(DType::f32), "f32");
  EXPECT_EQ(name_of(DType::f64), "f64");
  EXPECT_EQ(name_of(DType::u8), "u8");
  EXPECT_EQ(name_of(DType::i64), "i64");
  static_assert(dtype_of<float>() == DType::f32 && dtype_of<double>() == DType::f64);
  static_assert(dtype_of<std::uint8_t>() == DType::u8 && dtype_of<std::int64_t>() == DType::i64);
}

TEST(Tensors, StartAsZero) {
  const Tensor tensor(DType::f64, Shape{3, 5});
  EXPECT_EQ(tensor.bytes().size(), 3U * 5U * 8U);
  for (const double value : tensor.as<double>()) EXPECT_EQ(value, 0.0);
  EXPECT_EQ(Tensor().elements(), 0);
  EXPECT_EQ(Tensor(DType::f32, Shape{}).bytes().size(), 4U);
  EXPECT_EQ(Tensor(DType::f32, Shape{0, 7}).bytes().size(), 0U);
}

TEST(Tensors, TakeValues) {
  const std::array<float, 4> values = {1.0F, 2.0F, 3.0F, 4.0F};
  const Tensor tensor(Shape{2, 2}, std::span<const float>(values));
  EXPECT_EQ(tensor.dtype(), DType::f32);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(tensor.as<float>()[i], values[i]);
  EXPECT_EQ(status_of([&] { Tensor(Shape{3}, std::span<const float>(values)); }), Status::failed);
  EXPECT_EQ(Tensor(Shape{0}, std::span<const float>()).elements(), 0);
}

TEST(Tensors, RefuseAnotherType) {
  Tensor tensor(DType::f32, Shape{2});
  std::string what;
  EXPECT_EQ(status_of([&] { (void)tensor.as<double>(); }, &what), Status::failed);
  EXPECT_NE(what.find("f32"), std::string::npos);
  EXPECT_NE(what.find("f64"), std::string::npos);
  const Tensor& constant = tensor;
  EXPECT_EQ(status_of([&] { (void)constant.as<std::uint8_t>(); }), Status::failed);
}

TEST(Tensors, Convert) {
  const std::array<double, 3> doubles = {0.1, -2.5, 1e300};
  const Tensor wide(Shape{3}, std::span<const double>(doubles));
  const Tensor narrow = wide.to(DType::f32);
  EXPECT_EQ(narrow.as<float>()[0], 0.1F);
  EXPECT_EQ(narrow.as<float>()[1], -2.5F);
  EXPECT_EQ(narrow.as<float>()[2], std::numeric_limits<float>::infinity());
  EXPECT_EQ(narrow.to(DType::f64).as<double>()[0], static_cast<double>(0.1F));

  const std::array<std::uint8_t, 3> bytes = {0, 128, 255};
  const Tensor pixels(Shape{3, 1}, std::span<const std::uint8_t>(bytes));
  EXPECT_EQ(pixels.to(DType::f32).as<float>()[2], 255.0F);
  EXPECT_EQ(pixels.to(DType::f64).as<double>()[1], 128.0);
  EXPECT_EQ(pixels.to(DType::f32).shape(), (Shape{3, 1}));
  EXPECT_EQ(pixels.to(DType::u8).as<std::uint8_t>()[1], 128);

  const std::array<std::int64_t, 2> integers = {-7, 1 << 20};
  const Tensor counts(Shape{2}, std::span<const std::int64_t>(integers));
  EXPECT_EQ(counts.to(DType::f64).as<double>()[0], -7.0);
  EXPECT_EQ(counts.to(DType::f32).as<float>()[1], 1048576.0F);

  EXPECT_EQ(status_of([&] { (void)wide.to(DType::u8); }), Status::failed);
  EXPECT_EQ(status_of([&] { (void)pixels.to(DType::i64); }), Status::failed);
}

TEST(Tensors, Reshape) {
  const std::array<float, 6> values = {0, 1, 2, 3, 4, 5};
  const Tensor tensor(Shape{2, 3}, std::span<const float>(values));
  const Tensor reshaped = tensor.reshaped(Shape{3, 2});
  EXPECT_EQ(reshaped.shape(), (Shape{3, 2}));
  EXPECT_EQ(reshaped.as<float>()[5], 5.0F);
  EXPECT_EQ(tensor.shape(), (Shape{2, 3}));
  EXPECT_EQ(status_of([&] { (void)tensor.reshaped(Shape{7}); }), Status::failed);
}

TEST(Tensors, Bf16IsTheUpperHalfOfAFloatRoundedToEven) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<float, float>> rounded = {
      {0.0f, 0.0f},
      {-1.5f, -1.5f},
      {1.0f + 0x1p-8f, 1.0f},                      // half way, to the even one
      {1.0f + 0x1p-7f + 0x1p-8f, 1.0f + 0x1p-6f},  // ...
      {1.0f + 0x1p-8f + 0x1p-20f, 1.0f + 0x1p-7f},
      {0x1.fffp127f, inf},
      {-inf, -inf}};
  std::vector<float> values;
  for (const auto& [from, to] : rounded) values.push_back(from);
  values.push_back(std::numeric_limits<float>::quiet_NaN());
  const Tensor reals(Shape{8}, std::span<const float>(values));
  const Tensor stored = reals.to(DType::bf16);
  EXPECT_EQ(stored.bytes().size(), 16U);
  EXPECT_EQ(name_of(stored.dtype()), "bf16");
  const Tensor back = stored.to(DType::f32);
  for (std::size_t i = 0; i < rounded.size(); ++i) {
    EXPECT_EQ(back.as<float>()[i], rounded[i].second) << i;
    EXPECT_EQ(stored.item(static_cast<std::int64_t>(i)), static_cast<double>(rounded[i].second));
    EXPECT_EQ(stored.to(DType::f64).as<double>()[i], static_cast<double>(rounded[i].second));
  }
  EXPECT_TRUE(std::isnan(back.as<float>()[7]));
  EXPECT_THROW(static_cast<void>(stored.as<float>()), Error);
  EXPECT_THROW(static_cast<void>(Tensor(DType::u8, Shape{1}).to(DType::bf16)), Error);
}

}  // namespace
}  // namespace cuvae
