#pragma once
// What convolutions and pools share: attributes of two axes, and the extents of windows.

#include <array>

#include "ops/rules.h"

namespace cuvae {

// {h, w} of an attribute that is an integer (both), "n" or "h,w"; `otherwise` where it is missing.
// Throws Error(usage) for what is smaller than `least` or larger than 2^31 - 1.
std::array<std::int64_t, 2> pair_of(const Attrs& attrs, std::string_view name,
                                    std::int64_t otherwise, std::int64_t least);

struct Padding {
  std::int64_t top = 0, bottom = 0, left = 0, right = 0;
};
// An integer (all four), "h,w" or "top,bottom,left,right"; 0 where it is missing.
Padding padding_of(const Attrs& attrs);

// How many windows of `extent` fit into `size`, which includes the padding; fails where none does.
std::int64_t windows_in(const InferContext& c, std::int64_t size, std::int64_t extent,
                        std::int64_t stride);

}  // namespace cuvae
