// What binarise and dequantise draw: by the data set's row or anew at each read.

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "cpu/cpu_device.h"
#include "cuvae/graph.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

// The node on rows of pixels that all are `x`, or given ones.
struct Drawn {
  std::string op = "binarise";
  std::string mode = "dynamic";
  Int step = 0;
  std::vector<Int> key = {};  // empty: none
  Int rows = 64;
  Int d = 100;
  float x = 0.3F;
  int steps = 1;  // unrolled; gives the last one

  [[nodiscard]] std::vector<float> run() const {
    Graph g;
    const Shape shape{key.empty() ? rows : static_cast<Int>(key.size()), d};
    std::vector<Value> inputs = {g.input("x", DType::f32, shape),
                                 g.input("clock", DType::i64, Shape{5})};
    if (!key.empty()) inputs.push_back(g.input("key", DType::i64, Shape{shape[0]}));
    Attrs attrs;
    if (op == "binarise") attrs.set("mode", mode);
    g.output(g.apply(op, "y", inputs, attrs));
    const auto device = make_cpu_device({.threads = 2, .real = DType::f32});
    const auto store = device->make_store();
    Tensor pixels(DType::f32, shape);
    for (float& p : pixels.as<float>()) p = x;
    store->write("x", pixels);
    Tensor clock(DType::i64, Shape{5});
    clock.as<Int>()[0] = 77;
    clock.as<Int>()[1] = step;
    store->write("clock", clock);
    if (!key.empty()) {
      Tensor rows_of(DType::i64, Shape{shape[0]});
      std::copy(key.begin(), key.end(), rows_of.as<Int>().begin());
      store->write("key", rows_of);
    }
    CompileOptions options;
    options.steps = steps;
    const auto program = device->compile(g, *store, options);
    program->run();
    const Tensor y = program->read("y", steps - 1);
    return {y.as<float>().begin(), y.as<float>().end()};
  }
  [[nodiscard]] std::vector<float> row(Int at) const {
    const std::vector<float> all = run();
    return {all.begin() + at * d, all.begin() + (at + 1) * d};
  }
};

TEST(Binarise, OnesAreAsLikelyAsThePixelSays) {
  for (const float x : {0.0F, 0.1F, 0.5F, 0.93F, 1.0F}) {
    const std::vector<float> y = Drawn{.rows = 400, .x = x}.run();
    double ones = 0;
    for (const float v : y) {
      EXPECT_TRUE(v == 0 || v == 1);
      ones += static_cast<double>(v);
    }
    const double n = static_cast<double>(y.size()), p = static_cast<double>(x);
    EXPECT_LE(std::abs(ones / n - p), 4 * std::sqrt(p * (1 - p) / n)) << x;  // 0 and 1 are certain
  }
}

TEST(Binarise, StaticIsOfTheDataSetsRowAlone) {
  const std::vector<float> once = Drawn{.mode = "static", .key = {4, 9, 2}}.row(1);
  // At another step, in another batch, at another place of it.
  EXPECT_EQ((Drawn{.mode = "static", .step = 1000, .key = {9}}.row(0)), once);
  EXPECT_EQ((Drawn{.mode = "static", .step = 3, .key = {0, 1, 2, 3, 9}, .steps = 3}.row(4)), once);
  EXPECT_NE((Drawn{.mode = "static", .key = {8}}.row(0)), once);
}

TEST(Binarise, DynamicIsOfTheStep) {
  const Drawn first{.step = 10};
  EXPECT_EQ(first.run(), first.run());
  EXPECT_NE((Drawn{.step = 11}.run()), first.run());
  // Unrolled steps are the steps that follow.
  EXPECT_EQ((Drawn{.step = 8, .steps = 3}.run()), first.run());
  // A batch begins as the larger one does.
  EXPECT_EQ((Drawn{.step = 10, .rows = 3}.row(2)), first.row(2));
  // In evaluation: of the row and the clock's step, which says the how-many-eth sample it is.
  const std::vector<float> keyed = Drawn{.step = 2, .key = {5, 7}}.row(1);
  EXPECT_EQ((Drawn{.step = 2, .key = {7}}.row(0)), keyed);
  EXPECT_EQ((Drawn{.step = 2, .key = {7}, .steps = 3}.row(0)), keyed);
  EXPECT_NE((Drawn{.step = 3, .key = {7}}.row(0)), keyed);
}

TEST(Dequantise, IsUniformWithinTheLevel) {
  const std::vector<float> y = Drawn{.op = "dequantise", .rows = 400, .x = 200.0F / 255.0F}.run();
  double mean = 0, squares = 0;
  for (const float v : y) {
    EXPECT_TRUE(v >= 200.0F / 256 && v <= 201.0F / 256) << v;
    const double u = static_cast<double>(v) * 256 - 200;
    mean += u / static_cast<double>(y.size());
    squares += u * u / static_cast<double>(y.size());
  }
  EXPECT_NEAR(mean, 0.5, 4 * std::sqrt(1.0 / 12 / static_cast<double>(y.size())));
  EXPECT_NEAR(squares, 1.0 / 3, 4 * std::sqrt(4.0 / 45 / static_cast<double>(y.size())));
}

}  // namespace
}  // namespace cuvae
