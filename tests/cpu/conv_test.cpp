// The CPU's convolutions: every way they are computed against plain sums in double, the same bits
// for any number of threads, and their loops in every instruction set.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cpu/cpu_device.h"
#include "cpu/loops.h"
#include "cuvae/rng.h"
#include "ops/conv.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

std::vector<float> normals(Int n, std::uint16_t stream) {
  std::vector<float> values(static_cast<std::size_t>(n));
  const RandomKey key{.seed = 5, .purpose = Purpose::augmentation, .stream = stream};
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random_normal(key, i);
  return values;
}

struct Shapes {
  const char* what;
  Int batch, in, height, width, out, kernel, stride, padding, dilation = 1;
};

constexpr Shapes shapes[] = {
    {"slabs_of_images", 37, 8, 6, 7, 12, 3, 1, 1},
    {"slabs_of_rows", 2, 24, 70, 66, 10, 3, 1, 1},
    {"slabs_of_rows_apart", 1, 12, 101, 99, 9, 4, 2, 1},
    {"slabs_of_few_images", 2, 9, 5, 5, 70, 3, 1, 1},
    {"panels", 3, 1, 90, 75, 11, 3, 1, 1},
    {"panels_apart", 3, 1, 40, 36, 20, 4, 2, 1},
    {"panels_dilated", 2, 2, 23, 31, 17, 3, 1, 2, 2},
    {"taps", 2, 32, 90, 121, 1, 3, 1, 1},
    {"taps_unpadded", 2, 33, 13, 19, 1, 3, 1, 0},
    {"phases_of_one_channel", 3, 1, 41, 37, 20, 4, 2, 1},
    {"few_rows", 5, 60, 17, 16, 5, 3, 2, 1},
    {"many_both", 9, 40, 16, 16, 40, 3, 1, 1},
    {"keras_conv_first", 128, 1, 28, 28, 32, 3, 1, 1},
    {"keras_conv_middle", 128, 32, 7, 7, 32, 3, 1, 1},
    {"keras_conv_last", 128, 32, 28, 28, 1, 3, 1, 1},
    {"stride_3", 4, 18, 20, 23, 34, 5, 3, 2},
};

struct Convolved {
  std::vector<std::vector<float>> results;  // y, dx, dw
};

// The forward product and the gradients of x and w, with dy given.
struct Problem {
  explicit Problem(const Shapes& s)
      : shapes(s),
        x_shape{s.batch, s.in, s.height, s.width},
        w_shape{s.out, s.in, s.kernel, s.kernel} {
    const Attrs attrs = geometry();
    const Value x = graph.parameter("x", x_shape);
    const Value w = graph.parameter("w", w_shape);
    const Value b = graph.parameter("b", Shape{s.out});
    const Value y = graph.apply("conv2d", "y", {x, w, b}, attrs);
    y_shape = graph[y].shape;
    const Value dy = graph.parameter("dy", y_shape);
    graph.output(y);
    Attrs back = attrs;
    const auto rest = [&](Int size, Int windows) {
      return size + 2 * s.padding - (windows - 1) * s.stride - s.dilation * (s.kernel - 1) - 1;
    };
    back.set("output_padding", std::to_string(rest(s.height, y_shape[2])) + "," +
                                   std::to_string(rest(s.width, y_shape[3])));
    const Value c = graph.parameter("c", Shape{s.in});
    graph.output(graph.apply("conv_transpose2d", "dx", {dy, w, c}, back));
    Attrs weights = attrs;
    weights.set("kernel", s.kernel);
    graph.output(graph.apply("conv2d_wgrad", "dw", {dy, x}, weights));
    std::uint16_t stream = 0;
    for (const Value value : {x, w, b, dy, c})
      given.emplace_back(graph[value].name, graph[value].shape,
                         normals(graph[value].shape.elements(), ++stream));
  }
  [[nodiscard]] Attrs geometry() const {
    return {{"stride", shapes.stride}, {"padding", shapes.padding}, {"dilation", shapes.dilation}};
  }
  [[nodiscard]] const std::vector<float>& values(std::size_t i) const {
    return std::get<2>(given[i]);
  }

  [[nodiscard]] Convolved run(int threads) const {
    const auto device = make_cpu_device({.threads = threads});
    const auto store = device->make_store();
    for (const auto& [name, shape, values] : given) {
      Tensor tensor(DType::f32, shape);
      std::ranges::copy(values, tensor.as<float>().begin());
      store->write(name, tensor);
    }
    const auto program = device->compile(graph, *store, {});
    dynamic_cast<CpuProgram&>(*program).fill_memory(std::byte{0xff});  // NaN
    program->run();
    Convolved all;
    for (const char* name : {"y", "dx", "dw"}) {
      const Tensor tensor = program->read(name);
      const auto of = tensor.as<float>();
      all.results.emplace_back(of.begin(), of.end());
    }
    EXPECT_TRUE(dynamic_cast<const CpuProgram&>(*program).guards_intact());
    EXPECT_TRUE(dynamic_cast<const CpuStore&>(*store).guards_intact());
    return all;
  }

  Shapes shapes;
  Graph graph;
  Shape x_shape, w_shape, y_shape;
  std::vector<std::tuple<std::string, Shape, std::vector<float>>> given;  // x, w, b, dy, c
};

// Sums of products in double, with the sums of their sizes and their numbers.
struct Exact {
  explicit Exact(std::size_t n) : sum(n), size(n), terms(n) {}
  void add(Int i, double value) {
    const auto at = static_cast<std::size_t>(i);
    sum[at] += value;
    size[at] += std::abs(value);
    terms[at] += 1;
  }
  std::vector<double> sum, size, terms;
};

std::vector<Exact> exact(const Problem& p) {
  const Shapes& s = p.shapes;
  const Int oh = p.y_shape[2], ow = p.y_shape[3];
  const auto& x = p.values(0);
  const auto& w = p.values(1);
  const auto& dy = p.values(3);
  const auto of = [](const std::vector<float>& v, Int i) {
    return static_cast<double>(v[static_cast<std::size_t>(i)]);
  };
  std::vector<Exact> all = {Exact(dy.size()), Exact(x.size()), Exact(w.size())};
  for (Int b = 0; b < s.batch; ++b)
    for (Int o = 0; o < s.out; ++o)
      for (Int i = 0; i < oh; ++i)
        for (Int j = 0; j < ow; ++j) {
          const Int y_at = ((b * s.out + o) * oh + i) * ow + j;
          all[0].add(y_at, of(p.values(2), o));
          for (Int c = 0; c < s.in; ++c)
            for (Int u = 0; u < s.kernel; ++u)
              for (Int v = 0; v < s.kernel; ++v) {
                const Int row = i * s.stride - s.padding + u * s.dilation;
                const Int column = j * s.stride - s.padding + v * s.dilation;
                if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
                const Int x_at = ((b * s.in + c) * s.height + row) * s.width + column;
                const Int w_at = ((o * s.in + c) * s.kernel + u) * s.kernel + v;
                all[0].add(y_at, of(x, x_at) * of(w, w_at));
                all[1].add(x_at, of(dy, y_at) * of(w, w_at));
                all[2].add(w_at, of(dy, y_at) * of(x, x_at));
              }
        }
  for (Int i = 0; i < p.x_shape.elements(); ++i)
    all[1].add(i, of(p.values(4), i / (s.height * s.width) % s.in));
  return all;
}

class CpuConvolution : public ::testing::TestWithParam<Shapes> {};

TEST_P(CpuConvolution, IsTheSumInDoubleAndTheSameForAnyThreads) {
  const Problem problem(GetParam());
  const Convolved one = problem.run(1);
  const std::vector<Exact> wanted = exact(problem);
  for (std::size_t k = 0; k < wanted.size(); ++k) {
    ASSERT_EQ(one.results[k].size(), wanted[k].sum.size());
    for (std::size_t i = 0; i < wanted[k].sum.size(); ++i)
      ASSERT_NEAR(one.results[k][i], wanted[k].sum[i],
                  std::ldexp(4 * std::sqrt(wanted[k].terms[i]) * wanted[k].size[i], -24))
          << "result " << k << ", element " << i;
  }
  for (const int threads : {2, 3, 5}) {
    const Convolved many = problem.run(threads);
    for (std::size_t k = 0; k < wanted.size(); ++k)
      EXPECT_EQ(std::memcmp(many.results[k].data(), one.results[k].data(),
                            one.results[k].size() * sizeof(float)),
                0)
          << "result " << k << ", " << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Table, CpuConvolution, ::testing::ValuesIn(shapes),
                         [](const auto& one) { return std::string(one.param.what); });

double at(const std::vector<float>& values, Int i) {
  return static_cast<double>(values[static_cast<std::size_t>(i)]);
}

TEST(ConvLoops, WindowProductsInEveryInstructionSet) {
  constexpr Int terms = 37, most = 300, stride = most + conv_lanes;
  const auto weights = normals(terms * conv_rows, 1);
  const auto source = normals(2000 + most + conv_lanes, 2);
  std::vector<Int> offsets;
  for (Int k = 0; k < terms; ++k) offsets.push_back(k * 7919 % 2000);
  for (const Loops<float>* variant : float_variants()) {
    SCOPED_TRACE(variant->isa);
    for (int rows = 1; rows <= conv_rows; ++rows)
      for (const Int n : {1, 15, 16, 17, 33, 48, 97, 128, 300}) {
        std::vector<float> out(static_cast<std::size_t>(conv_rows * stride), 1e9F);
        variant->window_products(rows, n, terms, weights.data(), offsets.data(), source.data(),
                                 out.data(), stride);
        for (Int r = 0; r < conv_rows; ++r)
          for (Int p = 0; p < stride; ++p) {
            if (r >= rows || p >= n + conv_lanes - 1) {
              ASSERT_EQ(at(out, r * stride + p), 1e9) << rows << " rows, " << n;
              continue;
            }
            if (p >= n) continue;
            double sum = 0;
            for (Int k = 0; k < terms; ++k)
              sum += at(weights, k * conv_rows + r) *
                     at(source, offsets[static_cast<std::size_t>(k)] + p);
            ASSERT_NEAR(at(out, r * stride + p), sum, 1e-4) << rows << " rows, " << n;
          }
      }
  }
}

TEST(ConvLoops, PositionAndRowProductsInEveryInstructionSet) {
  constexpr Int n = 83, terms = 2 * conv_terms, stride = 70;
  const auto source = normals(3000, 3);
  const auto columns = normals(n * conv_columns, 4);
  std::vector<Int> positions, offsets;
  for (Int p = 0; p < n; ++p) positions.push_back(p * 613 % 1000);
  for (Int k = 0; k < terms; ++k) offsets.push_back(k * 389 % 2000);
  for (const Loops<float>* variant : float_variants()) {
    SCOPED_TRACE(variant->isa);
    std::vector<float> out(static_cast<std::size_t>(terms * stride), 0.5F);
    variant->position_products(n, positions.data(), terms, offsets.data(), source.data(),
                               columns.data(), out.data(), stride);
    for (Int k = 0; k < terms; ++k)
      for (Int c = 0; c < stride; ++c) {
        double sum = 0.5;
        for (Int p = 0; p < n && c < conv_columns; ++p)
          sum += at(source,
                    offsets[static_cast<std::size_t>(k)] + positions[static_cast<std::size_t>(p)]) *
                 at(columns, p * conv_columns + c);
        ASSERT_NEAR(at(out, k * stride + c), sum, 1e-4) << k << ", " << c;
      }

    constexpr Int rows = 11, shown = 7, row_stride = 15;
    std::vector<float> lanes(static_cast<std::size_t>(12 * row_stride * conv_lanes));
    variant->row_products(n, rows, source.data(), 90, shown, columns.data(), 100, lanes.data(),
                          row_stride);
    for (Int r = 0; r < rows; ++r)
      for (Int t = 0; t < shown; ++t) {
        double got = 0;
        double sum = 0;
        for (Int i = 0; i < conv_lanes; ++i)
          got += at(lanes, (r * row_stride + t) * conv_lanes + i);
        for (Int p = 0; p < n; ++p) sum += at(source, r * 90 + p) * at(columns, t * 100 + p);
        ASSERT_NEAR(got, sum, 1e-4) << r << ", " << t;
      }
  }
}

TEST(ConvLoops, RowsAreMovedInEveryInstructionSet) {
  const auto source = normals(40 * 700, 5);
  for (const Loops<float>* variant : float_variants()) {
    SCOPED_TRACE(variant->isa);
    for (const Int width : {1, 4, 15, 16, 17, 33, 300})
      for (const Int every : {1, 2, 3})
        for (const Int left : {0, 2}) {
          const Int count = std::max<Int>(0, width - left - 1);
          std::vector<float> to(static_cast<std::size_t>(6 * width + 1), 7.0F);
          variant->gather_rows({.rows = 6,
                                .first = -2,
                                .every_row = 2,
                                .source_rows = 7,
                                .source_width = 700,
                                .left = std::min(left, width),
                                .count = count,
                                .width = width,
                                .column = 1,
                                .every_column = every,
                                .source = source.data(),
                                .to = to.data()});
          for (Int r = 0; r < 6; ++r)
            for (Int i = 0; i < width; ++i) {
              const Int row = -2 + 2 * r;
              const bool seen = row >= 0 && row < 7 && i >= left && i < left + count;
              const double wanted = seen ? at(source, row * 700 + 1 + (i - left) * every) : 0;
              ASSERT_EQ(at(to, r * width + i), wanted) << width << ", " << every << ", " << left;
            }
          ASSERT_EQ(to.back(), 7.0F);
        }
    for (const Int rows : {1, 3, 4, 17, 32})
      for (const Int n : {1, 6, 50}) {
        std::vector<float> to(static_cast<std::size_t>(n * conv_columns + 1), 7.0F);
        variant->transpose_rows(rows, n, source.data(), 60, to.data(), conv_columns);
        for (Int i = 0; i < n; ++i)
          for (Int r = 0; r < conv_columns; ++r)
            ASSERT_EQ(at(to, i * conv_columns + r), r < rows ? at(source, r * 60 + i) : 0);
        ASSERT_EQ(to.back(), 7.0F);
      }
  }
}

}  // namespace
}  // namespace cuvae
