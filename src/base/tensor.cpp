#include "cuvae/tensor.h"

#include <bit>
#include <cstring>
#include <limits>

#include "cuvae/error.h"

namespace cuvae {
namespace {

template <class From, class To>
void convert(const Tensor& from, Tensor& to) {
  const auto source = from.as<From>();
  const auto target = to.as<To>();
  for (std::size_t i = 0; i < source.size(); ++i) target[i] = static_cast<To>(source[i]);
}

// To the nearest, ties to even; NaN stays NaN.
std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Element by element as raw bits: bf16 has no type of C++20.
void widen_bf16(const Tensor& from, std::span<float> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from.bytes().data() + 2 * i, 2);
    to[i] = std::bit_cast<float>(std::uint32_t{bits} << 16);
  }
}

Tensor narrow_to_bf16(const Tensor& from) {
  Tensor to(DType::bf16, from.shape());
  const auto source = from.as<float>();
  for (std::size_t i = 0; i < source.size(); ++i) {
    const std::uint16_t bits = to_bf16(source[i]);
    std::memcpy(to.bytes().data() + 2 * i, &bits, 2);
  }
  return to;
}

template <class To>
bool convert_to(const Tensor& from, Tensor& to) {
  switch (from.dtype()) {
    case DType::f32: convert<float, To>(from, to); return true;
    case DType::f64: convert<double, To>(from, to); return true;
    case DType::u8: convert<std::uint8_t, To>(from, to); return true;
    case DType::i64: convert<std::int64_t, To>(from, to); return true;
    case DType::bf16: return convert_to<To>(from.to(DType::f32), to);
  }
  return false;
}

}  // namespace

std::size_t size_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32: return 4;
    case DType::u8: return 1;
    case DType::bf16: return 2;
    case DType::f64:
    case DType::i64: return 8;
  }
  return 0;
}

std::string_view name_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::u8: return "u8";
    case DType::i64: return "i64";
    case DType::bf16: return "bf16";
  }
  return "?";
}

Shape::Shape(std::initializer_list<std::int64_t> dims) {
  set({dims.begin(), dims.size()});
}
Shape::Shape(std::span<const std::int64_t> dims) {
  set(dims);
}

void Shape::set(std::span<const std::int64_t> dims) {
  if (dims.size() > static_cast<std::size_t>(max_rank)) {
    throw Error(Status::usage, "a shape of " + std::to_string(dims.size()) + " dimensions", "",
                "at most four are supported");
  }
  for (const std::int64_t dim : dims) {
    if (dim < 0) throw Error(Status::usage, "a negative dimension " + std::to_string(dim));
    dims_[rank_++] = dim;
    if (dim != 0 && elements_ > std::numeric_limits<std::int64_t>::max() / 8 / dim) {
      throw Error(Status::usage, "a shape whose size does not fit 63 bits", str(),
                  "use smaller dimensions");
    }
    elements_ *= dim;
  }
}

std::string Shape::str() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(dims_[i]);
  }
  return text + "]";
}

bool Shape::operator==(const Shape& other) const noexcept {
  if (rank_ != other.rank_) return false;
  for (int i = 0; i < rank_; ++i) {
    if (dims_[i] != other.dims_[i]) return false;
  }
  return true;
}

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype),
      shape_(shape),
      bytes_(static_cast<std::size_t>(shape.elements()) * size_of(dtype)) {}

void Tensor::assign(const void* data, std::size_t size) {
  if (size != bytes_.size()) {
    throw Error(Status::failed,
                "a tensor of shape " + shape_.str() + " given " + std::to_string(size) + " bytes");
  }
  if (size > 0) std::memcpy(bytes_.data(), data, size);
}

void Tensor::require(DType dtype) const {
  if (dtype != dtype_) {
    throw Error(Status::failed, "a tensor of " + std::string(name_of(dtype_)) + " read as " +
                                    std::string(name_of(dtype)));
  }
}

double Tensor::item(std::int64_t i) const {
  if (i < 0 || i >= elements()) {
    throw Error(Status::failed,
                "element " + std::to_string(i) + " of a tensor of shape " + shape_.str());
  }
  const auto index = static_cast<std::size_t>(i);
  switch (dtype_) {
    case DType::f32: return static_cast<double>(as<float>()[index]);
    case DType::f64: return as<double>()[index];
    case DType::u8: return as<std::uint8_t>()[index];
    case DType::i64: return static_cast<double>(as<std::int64_t>()[index]);
    case DType::bf16: {
      std::uint16_t bits = 0;
      std::memcpy(&bits, bytes_.data() + 2 * index, 2);
      return static_cast<double>(std::bit_cast<float>(std::uint32_t{bits} << 16));
    }
  }
  return 0;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  if (dtype == DType::bf16 && (dtype_ == DType::f32 || dtype_ == DType::f64))
    return narrow_to_bf16(to(DType::f32));
  Tensor copy(dtype, shape_);
  if (dtype == DType::f32 && dtype_ == DType::bf16) {
    widen_bf16(*this, copy.as<float>());
    return copy;
  }
  const bool done = dtype == DType::f32   ? convert_to<float>(*this, copy)
                    : dtype == DType::f64 ? convert_to<double>(*this, copy)
                                          : false;
  if (!done) {
    throw Error(Status::failed, "no conversion from " + std::string(name_of(dtype_)) + " to " +
                                    std::string(name_of(dtype)));
  }
  return copy;
}

Tensor Tensor::reshaped(Shape shape) const {
  if (shape.elements() != elements()) {
    throw Error(Status::failed,
                "a tensor of shape " + shape_.str() + " reshaped to " + shape.str());
  }
  Tensor copy = *this;
  copy.shape_ = shape;
  return copy;
}

}  // namespace cuvae
