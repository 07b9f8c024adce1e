#pragma once
// What layers with a window share.

#include "layers/layer.h"

namespace cuvae::layers {

// Extents that were left out (0) become `otherwise`.
[[nodiscard]] inline LayerConfig::Pair pair_or(const LayerConfig::Pair& given,
                                               const LayerConfig::Pair& otherwise) {
  return {given[0] == 0 ? otherwise[0] : given[0], given[1] == 0 ? otherwise[1] : given[1]};
}
// "h,w", as operators take it.
[[nodiscard]] std::string pair_text(const LayerConfig::Pair& pair);

// The features as an image. Throws Misfit.
[[nodiscard]] const Features& image_of(const Features& in);

// How many windows of `extent` fit into `size` with padding on both sides. Throws Misfit where none
// does.
[[nodiscard]] std::int64_t windows(std::int64_t size, std::int64_t padding, std::int64_t extent,
                                   std::int64_t stride);

}  // namespace cuvae::layers
