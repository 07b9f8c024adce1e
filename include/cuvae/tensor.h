#pragma once
// Shapes, dtypes and host tensors. Everything is row-major and sizes are 64-bit.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace cuvae {

// In a graph, `f32` is the real type: an executor for double widens every f32 value to f64.
// `bf16` (the upper half of a float) is how a GPU may store f32 values that only products read; no
// graph has values of it, and tensors only carry it between host and device.
enum class DType : std::uint8_t { f32, f64, u8, i64, bf16 };

[[nodiscard]] std::size_t size_of(DType dtype) noexcept;
[[nodiscard]] std::string_view name_of(DType dtype) noexcept;  // "f32", ...

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<T, double>)
    return DType::f64;
  else if constexpr (std::is_same_v<T, std::uint8_t>)
    return DType::u8;
  else {
    static_assert(std::is_same_v<T, std::int64_t>, "not a tensor element type");
    return DType::i64;
  }
}

// Up to four dimensions; a scalar has rank 0 and one element; a dimension may be 0.
class Shape {
 public:
  static constexpr int max_rank = 4;

  Shape() = default;
  // Throws Error(usage) for a negative dimension, for more than four, and where the number of
  // elements does not fit 63 bits.
  Shape(std::initializer_list<std::int64_t> dims);
  explicit Shape(std::span<const std::int64_t> dims);

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] std::int64_t operator[](int i) const noexcept { return dims_[i]; }
  [[nodiscard]] std::int64_t elements() const noexcept { return elements_; }
  [[nodiscard]] std::span<const std::int64_t> dims() const noexcept {
    return {dims_, static_cast<std::size_t>(rank_)};
  }
  [[nodiscard]] std::string str() const;  // "[128, 784]"; a scalar is "[]"
  [[nodiscard]] bool operator==(const Shape& other) const noexcept;

 private:
  void set(std::span<const std::int64_t> dims);
  std::int64_t dims_[max_rank] = {};
  std::int64_t elements_ = 1;
  int rank_ = 0;
};

// A tensor in host memory that owns its bytes. Fresh tensors are zero.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);
  template <class T>
  Tensor(Shape shape, std::span<const T> values) : Tensor(dtype_of<T>(), shape) {
    assign(values.data(), values.size() * sizeof(T));
  }

  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] std::int64_t elements() const noexcept { return shape_.elements(); }
  // Views do not outlive the tensor: never keep that of a temporary.
  [[nodiscard]] std::span<std::byte> bytes() noexcept { return bytes_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

  // Typed views. Throws Error(failed) where T is not the tensor's dtype.
  template <class T>
  [[nodiscard]] std::span<T> as() {
    require(dtype_of<T>());
    return {reinterpret_cast<T*>(bytes_.data()), static_cast<std::size_t>(elements())};
  }
  template <class T>
  [[nodiscard]] std::span<const T> as() const {
    require(dtype_of<T>());
    return {reinterpret_cast<const T*>(bytes_.data()), static_cast<std::size_t>(elements())};
  }

  // Element `i` as a real. Throws Error(failed) beyond the end.
  [[nodiscard]] double item(std::int64_t i = 0) const;

  // A copy in another dtype: f32, f64 and bf16 round or widen, i64 and u8 become reals. Other
  // conversions throw Error(failed).
  [[nodiscard]] Tensor to(DType dtype) const;
  // The same elements under another shape; throws Error(failed) where the counts differ.
  [[nodiscard]] Tensor reshaped(Shape shape) const;

 private:
  void assign(const void* data, std::size_t size);
  void require(DType dtype) const;
  DType dtype_ = DType::f32;
  Shape shape_{std::initializer_list<std::int64_t>{0}};
  std::vector<std::byte> bytes_;
};

}  // namespace cuvae
