// Small images of one white shape on black with known factors, after dSprites (Matthey, Higgins,
// Hassabis and Lerchner, 2017), with 32 x 32 pixels, or as many as `size` says: 3 shapes (square,
// ellipse, heart) x 5 scales x 16 orientations x 16 x 16 places, 61,440 images. Rows are a random
// order of them without repetition, those of the test split after those for training. A pixel is
// 255 where its centre lies within the shape, else 0; labels are the shapes. As in dSprites, some
// orientations of a square and of an ellipse look alike.

#include <array>
#include <cmath>

#include "data/synthetic.h"

namespace cuvae {
namespace {

constexpr std::array<std::int64_t, 5> levels = {3, 5, 16, 16, 16};  // shape, scale, turn, x, y
constexpr std::int64_t combinations = 3LL * 5 * 16 * 16 * 16;

constexpr SyntheticParameter parameters[] = {
    train_rows("8192"),
    test_rows("2048"),
    source_seed(),
    {"size", "32", "pixels a side", SyntheticParameter::Kind::whole, 16, 256},
};

// Half the width, in pixels of 32 a side.
double half_width(std::int64_t scale) {
  return 4 + static_cast<double>(scale);
}
// Of the shape's centre, in pixels of 32 a side: all of it stays off the border at any turn.
double place(std::int64_t level) {
  return 8.5 + static_cast<double>(level);
}

// cos and sin of k turns of 1/16, by half angles.
std::array<double, 2> turn(std::int64_t k) {
  const double c = std::sqrt(2 + std::sqrt(2.0)) / 2;
  const double s = std::sqrt(2 - std::sqrt(2.0)) / 2;
  std::array<double, 2> now = {1, 0};
  for (std::int64_t i = 0; i < k; ++i) now = {now[0] * c - now[1] * s, now[0] * s + now[1] * c};
  return now;
}

// u to the right and v upwards, in half widths.
bool inside(std::int64_t shape, double u, double v) {
  if (shape == 0) return std::abs(u) <= 0.7 && std::abs(v) <= 0.7;
  if (shape == 1) return u * u + 4 * v * v <= 0.95;
  const double x = 1.5 * u;
  const double y = 1.5 * v;
  const double f = x * x + y * y - 1;
  return f * f * f <= x * x * y * y * y;
}

Dataset draw(const SyntheticValues& values) {
  const std::int64_t train = values.integer("n");
  const std::int64_t test = values.integer("test");
  const std::int64_t side = values.integer("size");
  const double unit = static_cast<double>(side) / 32;
  if (train + test > combinations)
    values.refuse("more rows than there are images", "n + test can be 61440 at most");
  const Shuffle order(values.seed(), 0, combinations);
  std::array<std::array<double, 2>, 16> turns;
  for (std::size_t k = 0; k < turns.size(); ++k) turns[k] = turn(static_cast<std::int64_t>(k));
  const auto split = [&](std::int64_t first, std::int64_t rows) {
    auto images = std::make_shared<Tensor>(DType::u8, Shape{rows, side * side});
    auto factors =
        std::make_shared<Tensor>(DType::i64, Shape{rows, static_cast<std::int64_t>(levels.size())});
    DatasetSplit drawn;
    std::uint8_t* pixel = images->as<std::uint8_t>().data();
    std::int64_t* factor = factors->as<std::int64_t>().data();
    for (std::int64_t r = 0; r < rows; ++r, factor += levels.size()) {
      std::int64_t rest = order(first + r);
      for (std::size_t f = 0; f < levels.size(); ++f) {
        factor[f] = rest % levels[f];
        rest /= levels[f];
      }
      drawn.labels.push_back(static_cast<std::uint8_t>(factor[0]));
      const double half = unit * half_width(factor[1]);
      const auto [c, s] = turns[static_cast<std::size_t>(factor[2])];
      const double x0 = unit * place(factor[3]);
      const double y0 = unit * place(factor[4]);
      for (std::int64_t y = 0; y < side; ++y) {
        for (std::int64_t x = 0; x < side; ++x) {
          const double dx = (static_cast<double>(x) + 0.5 - x0) / half;
          const double dy = (y0 - static_cast<double>(y) - 0.5) / half;
          *pixel++ = inside(factor[0], c * dx + s * dy, c * dy - s * dx) ? 255 : 0;
        }
      }
    }
    drawn.images = std::move(images);
    drawn.factors = std::move(factors);
    return drawn;
  };
  Dataset dataset;
  dataset.image = {.channels = 1, .height = side, .width = side};
  dataset.train = split(0, train);
  if (test > 0) dataset.test = split(train, test);
  constexpr std::array<std::string_view, 5> names = {"shape", "scale", "orientation", "x", "y"};
  for (std::size_t f = 0; f < names.size(); ++f) {
    Factor factor{.name = std::string(names[f]), .values = {}};
    for (std::int64_t level = 0; level < levels[f]; ++level) {
      const auto number = static_cast<double>(level);
      factor.values.push_back(f == 0   ? number
                              : f == 1 ? unit * half_width(level)
                              : f == 2 ? number / 16  // of a turn, counterclockwise
                                       : unit * place(level));
    }
    dataset.factors.push_back(std::move(factor));
  }
  return dataset;
}

}  // namespace

const SyntheticSource synthetic_shapes = {
    .name = "shapes",
    .doc =
        "32 x 32 pixels (or `size`), a square, ellipse or heart (the label) of known scale, turn "
        "and place",
    .parameters = parameters,
    .draw = draw};

}  // namespace cuvae
