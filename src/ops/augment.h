#pragma once
// Noise and augmentation of data: add_noise, augment and log1p.
//
// How a model uses them: between gather and what reads the batch.
//   add_noise(x [B, d], clock, key; sigma)   a denoising model's encoder reads it, its target is x.
//       x + sigma eps, eps ~ N(0, 1) of the node's stream, purpose augmentation: number b d + j of
//       the step, or, given a key [B], number key[b] d + j of the step that the clock says
//       (evaluation). Its gradient is dy.
//   augment(x [B, C H W], clock; channels, height, width, flip, shift, crop, noise, clamp)
//       a training batch instead of x, for encoder and target alike (an evaluation leaves it out).
//   log1p(x)   counts as the encoder reads them; x >= 0 by contract. What is negative counts as 0
//       (its gradient is 0); what is not a number stays so.
//
// augment, row by row and all channels of a row alike:
//   flip   probability, in [0, 1], of a horizontal flip
//   shift  then moved down and to the right by whole numbers of pixels, each uniform in
//          [-shift, shift]; zeros come in
//   crop   padding an image by p zeros on every side and cropping it back at random is the same
//          thing as shift = p: another name for it; only one of them may be above 0
//   noise  then noise * N(0, 1) on every element, zeros too
//   clamp  1: then held to [0, 1]
// Draws: purpose augmentation, the node's stream, the step of the clock. A row of d elements has
// augment_groups(d) groups of four numbers, row b of the global batch those from
// b augment_groups(d) on: the first group is flip, down, right and one that is unused, the normals
// of the elements follow. Which pixel goes where is decided in integers: the same on all backends.

#include "base/box_muller.h"
#include "ops/sample.h"

namespace cuvae {

double noise_of(const Attrs& attrs, std::string_view name);  // finite, >= 0; throws Error(usage)

struct AugmentAttrs {
  std::int64_t channels, height, width;
  double flip = 0;
  std::int64_t shift = 0;  // or crop
  double noise = 0;
  bool clamp = false;
};
AugmentAttrs augment_of(const Attrs& attrs);  // throws Error(usage)

[[nodiscard]] constexpr std::int64_t augment_groups(std::int64_t d) {
  return 1 + (d + 3) / 4;
}

// Where a row's image goes.
struct Placement {
  bool flip;
  std::int64_t down;
  std::int64_t right;
};

// A whole number of [-most, most]. REQUIRES: 0 <= most < 2^31.
CUVAE_HOST_DEVICE inline std::int64_t offset_of_word(std::uint32_t word, std::int64_t most) {
  const std::uint64_t places = 2 * static_cast<std::uint64_t>(most) + 1;
  return static_cast<std::int64_t>(word * places >> 32) - most;
}

CUVAE_HOST_DEVICE inline Placement placement_of(std::uint32_t w0, std::uint32_t w1,
                                                std::uint32_t w2, float flip, std::int64_t shift) {
  return {uniform_of_word(w0) <= flip, offset_of_word(w1, shift), offset_of_word(w2, shift)};
}

// The pixel of an image of height x width that comes to (row, column); -1: a zero does.
CUVAE_HOST_DEVICE inline std::int64_t pixel_at(const Placement& at, std::int64_t height,
                                               std::int64_t width, std::int64_t row,
                                               std::int64_t column) {
  const std::int64_t i = row - at.down, j = column - at.right;
  if (i < 0 || i >= height || j < 0 || j >= width) return -1;
  return i * width + (at.flip ? width - 1 - j : j);
}

}  // namespace cuvae
