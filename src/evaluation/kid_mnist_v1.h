#pragma once
// The classifier's weights, as CMake embedded them: data/kid_mnist_v1/kid_mnist_v1.safetensors.

#include <span>

namespace cuvae {

[[nodiscard]] std::span<const unsigned char> embedded_kid_mnist_v1();

}  // namespace cuvae
