#include "ops/batch_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/alias_table.h"
#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "cuvae/graph.h"
#include "cuvae/rng.h"

namespace cuvae::testing {
namespace {

using Int = std::int64_t;

Tensor whole(const std::vector<Int>& values) {
  Tensor tensor(DType::i64, Shape{static_cast<Int>(values.size())});
  std::copy(values.begin(), values.end(), tensor.as<Int>().begin());
  return tensor;
}

Tensor of_reals(const Device& device, const Shape& shape, const std::vector<double>& values) {
  return Tensor(shape, std::span<const double>(values)).to(device.info().real);
}

std::vector<double> reals(const Tensor& tensor) {
  const Tensor wide = tensor.to(DType::f64);
  return {wide.as<double>().begin(), wide.as<double>().end()};
}

}  // namespace

void check_weighted_draws(Device& device) {
  // Columns of every kind: always their own row, never, and a threshold in between; the largest
  // and the least that a threshold may differ by.
  constexpr Int rows = 301;
  std::vector<Int> keep, other;
  for (Int i = 0; i < rows; ++i) {
    const Int all = Int{1} << alias_keep_bits;
    keep.push_back(i % 3 == 0 ? all : i % 3 == 1 ? 0 : all / rows * i + i);
    other.push_back((i * 7 + 5) % rows);
  }
  constexpr Int batch = 43;
  constexpr int steps = 3;
  struct {
    bool staged;
    Int beside;  // rows of another batch in a step, whose positions have `batch` draws each; 0:
                 // none
  } const cases[] = {{false, 0}, {true, 0}, {false, 16}, {false, 1}};
  for (const auto& [staged, beside] : cases) {
    Graph g;
    const Value clock = g.input("clock", DType::i64, Shape{5});
    const Value columns[] = {g.input("keep", DType::i64, Shape{rows}),
                             g.input("other", DType::i64, Shape{rows})};
    Attrs attrs = {{"batch", batch}, {"rows", rows}, {"staged", Int{staged ? 1 : 0}}};
    if (beside > 0) {
      attrs.set("stride", beside);
      attrs.set("times", batch);
    }
    const auto drawn = g.add("batch_index", "batch", {clock, columns[0], columns[1]}, attrs);
    for (const Value value : drawn) g.output(value);
    const auto store = device.make_store();
    store->write("keep", whole(keep));
    store->write("other", whole(other));
    CompileOptions options;
    options.steps = steps;
    const auto program = device.compile(g, *store, options);
    for (const Int epoch : {Int{0}, Int{5}}) {
      constexpr Int first = 100, base = 17, seed = 0x1234567890abcde;
      store->write("clock", whole({seed, 9, epoch, first, base}));
      program->run();
      for (int step = 0; step < steps; ++step) {
        const Tensor row = program->read(g[drawn[0]].name, step);
        const Tensor index = program->read(g[drawn[1]].name, step);
        for (Int b = 0; b < batch; ++b) {
          const Int position =
              beside > 0 ? (first + step * beside) * batch + b : first + step * batch + b;
          // As it is said in reals, in long double, which holds all of it.
          const PhiloxWords words = random_words({.seed = static_cast<std::uint64_t>(seed),
                                                  .purpose = Purpose::resampling,
                                                  .stream = 0,
                                                  .step = static_cast<std::uint64_t>(epoch)},
                                                 static_cast<std::uint64_t>(position));
          const long double unit = std::ldexp(static_cast<long double>(words[0]), -32) +
                                   std::ldexp(static_cast<long double>(words[1]), -64);
          const auto column = static_cast<std::size_t>(unit * rows);
          const long double u = std::ldexp(static_cast<long double>(words[2]), -32) +
                                std::ldexp(static_cast<long double>(words[3] >> 11), -53);
          const Int wanted = u < std::ldexp(static_cast<long double>(keep[column]), -53)
                                 ? static_cast<Int>(column)
                                 : other[column];
          ASSERT_EQ(index.as<Int>()[static_cast<std::size_t>(b)], wanted) << position;
          ASSERT_EQ(row.as<Int>()[static_cast<std::size_t>(b)],
                    (staged ? position : wanted) - base);
        }
      }
    }
  }
}

void check_labels(Device& device) {
  for (const DType dtype : {DType::u8, DType::i64}) {
    SCOPED_TRACE(name_of(dtype));
    Graph g;
    const Value labels = g.input("labels", dtype, Shape{5});
    const Value rows = g.input("rows", DType::i64, Shape{6});
    g.output(g.apply("one_hot", "hot", {labels, rows}, {{"classes", Int{3}}}));
    g.output(g.apply("label_rows", "target", {labels, rows}));
    const auto store = device.make_store();
    Tensor values(dtype, Shape{5});
    const Int numbers[] = {2, 0, dtype == DType::u8 ? 255 : -1, 3, 1};
    for (std::size_t i = 0; i < 5; ++i)
      if (dtype == DType::u8)
        values.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(numbers[i]);
      else
        values.as<Int>()[i] = numbers[i];
    store->write("labels", values);
    store->write("rows", whole({4, 0, 2, 3, 1, 0}));
    const auto program = device.compile(g, *store, {});
    program->run();
    const std::vector<double> hot = reals(program->read("hot"));
    const std::vector<double> target = reals(program->read("target"));
    const Int wanted[] = {1, 2, -1, -1, 0, 2};
    for (std::size_t b = 0; b < 6; ++b)
      for (std::size_t c = 0; c < 3; ++c) {
        const double y = hot[b * 3 + c];
        if (wanted[b] < 0)
          EXPECT_TRUE(std::isnan(y)) << b << ", " << c;
        else
          EXPECT_EQ(y, static_cast<Int>(c) == wanted[b] ? 1 : 0) << b << ", " << c;
      }
    EXPECT_EQ(target, (std::vector<double>{1, 2, static_cast<double>(numbers[2]), 3, 0, 2}));
    for (const Int bad : {Int{5}, Int{-1}}) {
      std::string said;
      try {
        const auto again = device.make_store();
        again->write("labels", values);
        again->write("rows", whole({0, 0, 0, bad, 0, 0}));
        const auto other = device.compile(g, *again, {});
        other->run();
        static_cast<void>(other->read("hot"));
      } catch (const Error& error) {
        said = error.what();
      }
      EXPECT_NE(said.find("window of 5 rows"), said.npos) << said;
    }
  }
}

void check_augmentation(Device& device) {
  constexpr Int batch = 400, channels = 2, height = 5, width = 7, shift = 2;
  constexpr Int plane = height * width, d = channels * plane;
  const auto run = [&](Device& on, Int step, int steps, const Attrs& more) {
    Graph g;
    const Value x = g.input("x", DType::f32, Shape{batch, d});
    const Value clock = g.input("clock", DType::i64, Shape{5});
    Attrs attrs = more;
    attrs.set("channels", channels);
    attrs.set("height", height);
    attrs.set("width", width);
    attrs.set("stream", Int{3});
    g.output(g.apply("augment", "y", {x, clock}, attrs));
    const auto store = on.make_store();
    // Every pixel of an image is another number, and none is 0.
    std::vector<double> values(static_cast<std::size_t>(batch * d));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<double>(1 + i % static_cast<std::size_t>(d)) / 128;
    store->write("x", of_reals(on, Shape{batch, d}, values));
    store->write("clock", whole({99, step, 0, 0, 0}));
    CompileOptions options;
    options.steps = steps;
    const auto program = on.compile(g, *store, options);
    program->run();
    return reals(program->read("y", steps - 1));
  };
  const auto cpu = make_cpu_device({.threads = 1, .real = DType::f64});
  const Attrs moved = {{"flip", 0.25}, {"shift", shift}};
  const std::vector<double> y = run(device, 4, 1, moved);
  EXPECT_EQ(y, run(*cpu, 4, 1, moved));
  // The second unrolled step is the next one; what is cropped is shifted.
  EXPECT_EQ(run(device, 3, 2, moved), y);
  EXPECT_NE(run(device, 5, 1, moved), y);
  EXPECT_EQ(run(device, 4, 1, {{"flip", 0.25}, {"crop", shift}}), y);
  std::map<Int, int> down, right;
  int flips = 0;
  for (Int b = 0; b < batch; ++b) {
    const auto at = [&](Int c, Int i, Int j) {
      return y[static_cast<std::size_t>(b * d + c * plane + i * width + j)] * 128;
    };
    // Where the middle pixel of the image went is where all of it did.
    const auto pixel = [&](Int i, Int j) { return static_cast<double>(1 + i * width + j); };
    bool found = false;
    for (Int dy = -shift; dy <= shift && !found; ++dy)
      for (Int dx = -shift; dx <= shift && !found; ++dx)
        for (const bool flip : {false, true}) {
          bool same = true;
          for (Int c = 0; c < channels; ++c)
            for (Int i = 0; i < height; ++i)
              for (Int j = 0; j < width; ++j) {
                const Int row = i - dy, column = j - dx;
                const bool inside = row >= 0 && row < height && column >= 0 && column < width;
                const double wanted = inside ? static_cast<double>(c * plane) +
                                                   pixel(row, flip ? width - 1 - column : column)
                                             : 0;
                same = same && at(c, i, j) == wanted;
              }
          if (!same) continue;
          found = true;
          ++down[dy];
          ++right[dx];
          flips += flip ? 1 : 0;
          break;
        }
    ASSERT_TRUE(found) << "row " << b << " is no moved image";
  }
  // 400 draws: expected 100 flips, 80 of each offset; five standard deviations.
  EXPECT_NEAR(flips, 100, 44);
  for (Int offset = -shift; offset <= shift; ++offset) {
    EXPECT_NEAR(down[offset], 80, 40) << offset;
    EXPECT_NEAR(right[offset], 80, 40) << offset;
  }
  // Noise does not move what is moved, and is the same number of the same place; it is held.
  Attrs noisy = moved;
  noisy.set("noise", 0.25);
  const std::vector<double> with = run(device, 4, 1, noisy);
  noisy.set("clamp", Int{1});
  const std::vector<double> held = run(device, 4, 1, noisy);
  double mean = 0, squares = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(held[i], std::min(std::max(with[i], 0.0), 1.0));
    mean += (with[i] - y[i]) / static_cast<double>(y.size());
    squares += (with[i] - y[i]) * (with[i] - y[i]) / static_cast<double>(y.size());
  }
  EXPECT_NEAR(mean, 0, 5 * 0.25 / std::sqrt(static_cast<double>(y.size())));
  EXPECT_NEAR(std::sqrt(squares), 0.25, 5 * 0.25 / std::sqrt(2.0 * static_cast<double>(y.size())));
}

void check_steps(Device& device) {
  constexpr int steps = 3;
  constexpr Int columns = 4, slot = 2, rows = 5, d = 6;
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{});
  const Value hyper = g.input("hyper", DType::f32, Shape{steps, columns});
  const Value gap = g.apply("capacity_gap", "gap", {x, hyper}, {{"slot", slot}});
  g.output(gap);
  const Value wrt[] = {x};
  const Value slope = gradients(g, gap, wrt)[0];
  g.output(slope);
  const Value data = g.input("data", DType::f32, Shape{rows, d});
  const Value clock = g.input("clock", DType::i64, Shape{5});
  const Value key = g.input("key", DType::i64, Shape{rows});
  const Attrs noise = {{"sigma", 0.5}, {"stream", Int{2}}};
  g.output(g.apply("add_noise", "noisy", {data, clock}, noise));
  g.output(g.apply("add_noise", "keyed", {data, clock, key}, noise));
  const auto store = device.make_store();
  store->write("x", of_reals(device, Shape{}, {2}));
  // Capacities 0.5, 2 and 8.
  std::vector<double> hypers(steps * columns, -100);
  const double capacities[] = {0.5, 2, 8};
  for (int step = 0; step < steps; ++step)
    hypers[static_cast<std::size_t>(step * columns + slot)] = capacities[step];
  store->write("hyper", of_reals(device, Shape{steps, columns}, hypers));
  store->write("data", of_reals(device, Shape{rows, d}, std::vector<double>(rows * d)));
  store->write("clock", whole({7, 40, 0, 0, 0}));
  const std::vector<Int> keys = {3, 0, 1000, 7, 3};
  store->write("key", whole(keys));
  CompileOptions options;
  options.steps = steps;
  const auto program = device.compile(g, *store, options);
  program->run();
  for (int step = 0; step < steps; ++step) {
    EXPECT_EQ(reals(program->read("gap", step))[0], std::abs(2 - capacities[step]));
    EXPECT_EQ(reals(program->read(g[slope].name, step))[0], step == 0 ? 1 : step == 1 ? 0 : -1);
    const auto noisy = reals(program->read("noisy", step));
    const auto keyed = reals(program->read("keyed", step));
    for (Int i = 0; i < rows * d; ++i) {
      const auto number = [&](Int row, int ahead) {
        const RandomKey random{.seed = 7,
                               .purpose = Purpose::augmentation,
                               .stream = 2,
                               .step = static_cast<std::uint64_t>(40 + ahead)};
        const auto at = static_cast<std::uint64_t>(row * d + i % d);
        return 0.5 * static_cast<double>(random_normal(random, at));
      };
      const auto at = static_cast<std::size_t>(i);
      EXPECT_EQ(noisy[at], number(i / d, step));
      EXPECT_EQ(keyed[at], number(keys[static_cast<std::size_t>(i / d)], 0));
    }
  }
  // A key that is no index is told.
  std::string said;
  try {
    store->write("key", whole({0, 0, -1, 0, 0}));
    program->run();
    static_cast<void>(program->read("keyed", 0));
  } catch (const Error& error) {
    said = error.what();
  }
  EXPECT_NE(said.find("indices are not negative"), said.npos) << said;
}

void check_extremes(Device& device) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{3, 4});
  g.output(g.apply("softmax", "p", {x}));
  g.output(g.apply("log_softmax", "log_p", {x}));
  g.output(g.apply("floor", "lifted", {x}, {{"level", 0.5}}));
  g.output(g.apply("log1p", "log1p", {x}));
  const auto store = device.make_store();
  store->write("x", of_reals(device, Shape{3, 4},
                             {1e4, -1e4, 9999, 0, -1e4, -1e4, -1e4, -1e4, 0, 1, nan, -1}));
  const auto program = device.compile(g, *store, {});
  program->run();
  const auto p = reals(program->read("p")), log_p = reals(program->read("log_p"));
  const double e = std::exp(-1.0);
  const double first[] = {1 / (1 + e), 0, e / (1 + e), 0};
  const double log_sum = std::log1p(e);
  const double logs[] = {-log_sum, -2e4 - log_sum, -1 - log_sum, -1e4 - log_sum};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(p[i], first[i], 1e-6);
    EXPECT_NEAR(log_p[i], logs[i], 2e-3);  // a float has 2e-3 between neighbours at 20,000
    EXPECT_NEAR(p[4 + i], 0.25, 1e-7);
    EXPECT_NEAR(log_p[4 + i], std::log(0.25), 1e-6);
    EXPECT_TRUE(std::isnan(p[8 + i])) << i;
    EXPECT_TRUE(std::isnan(log_p[8 + i])) << i;
  }
  const auto lifted = reals(program->read("lifted")), logs1 = reals(program->read("log1p"));
  EXPECT_EQ(lifted[0], 1e4);
  EXPECT_EQ(lifted[1], 0.5);
  EXPECT_EQ(logs1[1], 0);
  EXPECT_NEAR(logs1[0], std::log(10001.0), 1e-5);
  EXPECT_TRUE(std::isnan(lifted[10]));
  EXPECT_TRUE(std::isnan(logs1[10]));
}

}  // namespace cuvae::testing
