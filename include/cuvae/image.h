#pragma once
// Pictures: PNG files and grids of samples and reconstructions.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

// Eight bits per channel, 1 (grey) or 3 (RGB) channels.
struct Image {
  std::int64_t width = 0;
  std::int64_t height = 0;
  int channels = 1;
  std::vector<std::uint8_t> pixels;  // [height, width, channels]
};

// The same image gives the same bytes: no time, no text. The file appears complete or not at all.
// Error(failed) where it cannot be written, Error(usage) for an empty or enormous image.
void write_png(const std::filesystem::path& path, const Image& image);

// Any PNG as 8-bit grey or RGB: palettes are expanded, 16 bits reduced, transparency laid over
// black. At most 256 MiB of file and of pixels. Error(input).
[[nodiscard]] Image read_png(const std::filesystem::path& path);

// The form of one picture among the columns of a tensor.
struct ImageShape {
  int channels = 1;  // 1 or 3
  std::int64_t height = 0;
  std::int64_t width = 0;
};

// An enlargement that shows small pictures well: about 56 output pixels a side, at least 1.
[[nodiscard]] int display_scale(const ImageShape& shape);

struct GridOptions {
  std::int64_t columns = 0;      // 0: as square as can be; for reconstructions at most 10
  int scale = 1;                 // every pixel becomes scale x scale; 1 to 64
  int separator = 2;             // output pixels between pictures and around them
  int pair_gap = 10;             // output pixels between one pair of rows and the next
  std::uint8_t background = 96;  // grey of separators and empty cells
};

// Pictures in rows, left to right. `images` is [N, C*H*W] (or any shape of N rows), C planes of
// H x W: f32 and f64 in [0, 1], values outside clamped; u8 as it stands. Error(usage): no pictures,
// sizes that do not agree, or a grid beyond 1 GiB. Error(failed): a NaN.
[[nodiscard]] Image image_grid(const Tensor& images, const ImageShape& shape,
                               const GridOptions& options = {});

// Pairs of rows: originals above, their reconstructions below, `separator` between the two and
// `pair_gap` before the next pair. The two tensors may differ in dtype.
[[nodiscard]] Image reconstruction_grid(const Tensor& originals, const Tensor& reconstructions,
                                        const ImageShape& shape, const GridOptions& options = {});

}  // namespace cuvae
