#pragma once
// Memory and launches for tests of kernels, on any Runtime.

#include <cstddef>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/encoder.h"
#include "cuda/runtime.h"

namespace cuvae::testing {

template <class T>
class Device {
 public:
  Device(cuda::Runtime& runtime, const std::vector<T>& values)
      : runtime_(runtime), size_(values.size()), buffer_(runtime, values.size() * sizeof(T)) {
    runtime.copy_to_device(buffer_.get(), values.data(), size_ * sizeof(T), nullptr);
  }
  Device(cuda::Runtime& runtime, std::size_t size)
      : runtime_(runtime), size_(size), buffer_(runtime, size * sizeof(T)) {}
  [[nodiscard]] T* get() const { return static_cast<T*>(buffer_.get()); }
  [[nodiscard]] std::size_t bytes() const { return size_ * sizeof(T); }
  [[nodiscard]] std::vector<T> values() const {
    std::vector<T> result(size_);
    runtime_.copy_to_host(result.data(), buffer_.get(), bytes(), nullptr);
    runtime_.synchronize();
    return result;
  }

 private:
  cuda::Runtime& runtime_;
  std::size_t size_;
  cuda::DeviceBuffer buffer_;
};

template <class... P, class... A>
void launch(cuda::Runtime& runtime, const cuda::TypedKernel<P...>& kernel,
            const cuda::LaunchShape& shape, cuda::Runtime::Raw stream, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A));
  std::tuple<std::remove_cv_t<P>...> values(
      static_cast<std::remove_cv_t<P>>(std::forward<A>(arguments))...);
  std::apply(
      [&](auto&... value) {
        void* const pointers[] = {static_cast<void*>(&value)..., nullptr};
        runtime.launch(kernel.kernel, shape, {pointers, sizeof...(P)}, stream);
      },
      values);
}

// Empty where they are equal; a NaN is equal to nothing.
template <class T>
std::string expect_equal(const std::vector<T>& got, const std::vector<T>& wanted) {
  if (got.size() != wanted.size())
    return std::to_string(got.size()) + " values instead of " + std::to_string(wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!(got[i] == wanted[i]))
      return "value " + std::to_string(i) + " is " + std::to_string(got[i]) + ", not " +
             std::to_string(wanted[i]);
  return {};
}

}  // namespace cuvae::testing
