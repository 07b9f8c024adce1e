#include "cuvae/image.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <string>
#include <string_view>

#include "cuvae/error.h"
#include "io/file.h"

// libpng's simplified interface: it handles its errors itself and reports them as a value, so that
// no longjmp crosses C++ frames.

namespace cuvae {
namespace {

constexpr std::uint64_t max_read_bytes = std::uint64_t{1} << 28;
constexpr std::int64_t max_pixel_bytes = std::int64_t{1} << 30;
constexpr std::int64_t max_side = 1'000'000;  // libpng's own limit when reading

struct PngImage {
  png_image image = {};
  PngImage() { image.version = PNG_IMAGE_VERSION; }
  PngImage(const PngImage&) = delete;
  PngImage& operator=(const PngImage&) = delete;
  ~PngImage() { png_image_free(&image); }
};

[[noreturn]] void fail_png(const std::filesystem::path& path, std::string_view what) {
  throw Error(Status::input, "not a readable PNG: " + printable(what), path.string(),
              "write or fetch it again");
}

std::uint8_t quantised(double value) {
  return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 1.0) * 255.0));
}

// A grid being filled; positions are in output pixels.
class Canvas {
 public:
  Canvas(std::int64_t width, std::int64_t height, const ImageShape& shape,
         const GridOptions& options)
      : shape_(shape), scale_(options.scale) {
    if (width > max_side || height > max_side ||
        width > max_pixel_bytes / (height * shape.channels)) {
      throw Error(Status::usage,
                  "a grid of " + std::to_string(width) + " x " + std::to_string(height) + " pixels",
                  "", "draw fewer pictures or use a smaller scale");
    }
    image_.width = width;
    image_.height = height;
    image_.channels = shape.channels;
    image_.pixels.assign(static_cast<std::size_t>(width * height * shape.channels),
                         options.background);
  }

  // Picture `n` of `images` with its top left corner at (x, y).
  void draw(const Tensor& images, std::int64_t n, std::int64_t x, std::int64_t y) {
    switch (images.dtype()) {
      case DType::f32: draw_as<float>(images, n, x, y); return;
      case DType::f64: draw_as<double>(images, n, x, y); return;
      default: draw_as<std::uint8_t>(images, n, x, y); return;
    }
  }

  [[nodiscard]] Image take() { return std::move(image_); }

 private:
  template <class T>
  void draw_as(const Tensor& images, std::int64_t n, std::int64_t x, std::int64_t y) {
    const std::int64_t plane = shape_.height * shape_.width;
    const T* source = images.as<T>().data() + n * plane * shape_.channels;  // [C, H, W]
    for (std::int64_t c = 0; c < shape_.channels; ++c) {
      for (std::int64_t i = 0; i < plane; ++i) {
        const T value = source[c * plane + i];
        std::uint8_t level = 0;
        if constexpr (std::is_same_v<T, std::uint8_t>) {
          level = value;
        } else {
          if (std::isnan(value)) {
            throw Error(Status::failed, "a NaN in picture " + std::to_string(n), "",
                        "check the model's weights and its input");
          }
          level = quantised(static_cast<double>(value));
        }
        block(x + i % shape_.width * scale_, y + i / shape_.width * scale_, c, level);
      }
    }
  }

  void block(std::int64_t x, std::int64_t y, std::int64_t c, std::uint8_t level) {
    for (std::int64_t row = y; row < y + scale_; ++row) {
      std::uint8_t* out = image_.pixels.data() + (row * image_.width + x) * image_.channels + c;
      for (std::int64_t i = 0; i < scale_; ++i) out[i * image_.channels] = level;
    }
  }

  Image image_;
  ImageShape shape_;
  std::int64_t scale_;
};

// The number of pictures, after every check that a grid needs.
std::int64_t checked_count(const Tensor& images, const ImageShape& shape,
                           const GridOptions& options) {
  const auto refuse = [](const std::string& what, std::string_view mend) {
    throw Error(Status::usage, what, "", mend);
  };
  if (images.dtype() == DType::i64) refuse("pictures of i64", "convert them to f32 or u8");
  if (shape.channels != 1 && shape.channels != 3) {
    refuse("pictures of " + std::to_string(shape.channels) + " channels",
           "1 (grey) and 3 (RGB) can be drawn; write .npy instead");
  }
  if (shape.height < 1 || shape.width < 1 || shape.height > max_side || shape.width > max_side) {
    refuse("pictures of " + std::to_string(shape.height) + " x " + std::to_string(shape.width),
           "height and width start at 1");
  }
  if (options.scale < 1 || options.scale > 64) {
    refuse("a scale of " + std::to_string(options.scale), "1 to 64");
  }
  if (options.separator < 0 || options.pair_gap < 0 || options.separator > 1000 ||
      options.pair_gap > 1000) {
    refuse("a separator that is negative or beyond 1000 pixels", "0 to 1000");
  }
  if (options.columns < 0) refuse("a negative number of columns", "0 chooses them");
  const std::int64_t count = images.shape().rank() == 0 ? 0 : images.shape()[0];
  if (count < 1) refuse("no pictures to draw", "ask for at least one");
  const std::int64_t size = images.elements() / count;
  if (size != shape.channels * shape.height * shape.width) {
    refuse("rows of " + std::to_string(size) + " values drawn as " +
               std::to_string(shape.channels) + " x " + std::to_string(shape.height) + " x " +
               std::to_string(shape.width) + " pictures",
           "channels * height * width is the size of a row");
  }
  return count;
}

}  // namespace

void write_png(const std::filesystem::path& path, const Image& image) {
  if (image.width < 1 || image.height < 1 || image.width > max_side || image.height > max_side ||
      (image.channels != 1 && image.channels != 3) ||
      image.width > max_pixel_bytes / (image.height * image.channels) ||
      image.pixels.size() !=
          static_cast<std::size_t>(image.width * image.height * image.channels)) {
    throw Error(Status::usage,
                "an image of " + std::to_string(image.width) + " x " +
                    std::to_string(image.height) + " x " + std::to_string(image.channels) +
                    " with " + std::to_string(image.pixels.size()) + " bytes",
                path.string(), "1 or 3 channels, sides from 1 to 1000000, at most 1 GiB");
  }
  PngImage png;
  png.image.width = static_cast<png_uint_32>(image.width);
  png.image.height = static_cast<png_uint_32>(image.height);
  png.image.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png.image);
  std::string bytes(size, '\0');
  if (png_image_write_to_memory(&png.image, bytes.data(), &size, 0, image.pixels.data(), 0,
                                nullptr) == 0) {
    throw Error(Status::failed, "cannot write a PNG: " + std::string(png.image.message),
                path.string(), "choose a smaller image");
  }
  bytes.resize(size);
  write_file(path, bytes);
}

Image read_png(const std::filesystem::path& path) {
  const std::string bytes = read_file(path, max_read_bytes);
  PngImage png;
  if (png_image_begin_read_from_memory(&png.image, bytes.data(), bytes.size()) == 0) {
    fail_png(path, png.image.message);
  }
  Image image;
  image.width = png.image.width;
  image.height = png.image.height;
  image.channels = (png.image.format & PNG_FORMAT_FLAG_COLOR) != 0 ? 3 : 1;
  png.image.format = image.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  const std::uint64_t size = std::uint64_t{png.image.width} * png.image.height *
                             static_cast<std::uint64_t>(image.channels);
  if (size > max_read_bytes) fail_png(path, "more than 256 MiB of pixels");
  image.pixels.resize(static_cast<std::size_t>(size));
  const png_color black = {0, 0, 0};
  if (png_image_finish_read(&png.image, &black, image.pixels.data(), 0, nullptr) == 0) {
    fail_png(path, png.image.message);
  }
  return image;
}

int display_scale(const ImageShape& shape) {
  return static_cast<int>(std::max<std::int64_t>(
      1, 56 / std::max<std::int64_t>(1, std::max(shape.height, shape.width))));
}

Image image_grid(const Tensor& images, const ImageShape& shape, const GridOptions& options) {
  const std::int64_t count = checked_count(images, shape, options);
  std::int64_t columns = options.columns;
  if (columns == 0) {
    columns = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(count))));
  }
  columns = std::min(columns, count);
  const std::int64_t rows = (count + columns - 1) / columns;
  const std::int64_t cell_width = shape.width * options.scale + options.separator;
  const std::int64_t cell_height = shape.height * options.scale + options.separator;
  Canvas canvas(columns * cell_width + options.separator, rows * cell_height + options.separator,
                shape, options);
  for (std::int64_t n = 0; n < count; ++n) {
    canvas.draw(images, n, options.separator + n % columns * cell_width,
                options.separator + n / columns * cell_height);
  }
  return canvas.take();
}

Image reconstruction_grid(const Tensor& originals, const Tensor& reconstructions,
                          const ImageShape& shape, const GridOptions& options) {
  const std::int64_t count = checked_count(originals, shape, options);
  if (checked_count(reconstructions, shape, options) != count) {
    throw Error(Status::usage,
                std::to_string(count) + " originals beside " +
                    std::to_string(reconstructions.shape()[0]) + " reconstructions",
                "", "give one reconstruction for each original");
  }
  const std::int64_t columns = std::min(options.columns == 0 ? 10 : options.columns, count);
  const std::int64_t pairs = (count + columns - 1) / columns;
  const std::int64_t cell_width = shape.width * options.scale + options.separator;
  const std::int64_t cell_height = shape.height * options.scale + options.separator;
  const std::int64_t pair_height = 2 * cell_height - options.separator + options.pair_gap;
  Canvas canvas(columns * cell_width + options.separator,
                pairs * pair_height - options.pair_gap + 2 * options.separator, shape, options);
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t x = options.separator + n % columns * cell_width;
    const std::int64_t y = options.separator + n / columns * pair_height;
    canvas.draw(originals, n, x, y);
    canvas.draw(reconstructions, n, x, y + cell_height);
  }
  return canvas.take();
}

}  // namespace cuvae
