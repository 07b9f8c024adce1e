// Plain loops in double over whole tensors, nothing of src/ops but the layout of random numbers.

#include "ops/parity_batch.h"

#include <algorithm>
#include <cmath>

#include "cuvae/rng.h"

namespace cuvae::testing {
namespace {

using Int = std::int64_t;
using Reals = std::vector<double>;

// Cases -------------------------------------------------------------------------------------------

CaseInput real(Shape shape, Fill fill = Fill::normal, double scale = 1) {
  return {.shape = shape, .fill = fill, .scale = scale};
}
CaseInput clock() {
  return {.shape = Shape{5}, .fill = Fill::clock, .dtype = DType::i64};
}
CaseInput indices(Int n, Int limit) {
  return {.shape = Shape{n}, .fill = Fill::rows, .dtype = DType::i64, .limit = limit};
}
CaseInput byte_labels(Int n, Int limit) {
  return {.shape = Shape{n}, .fill = Fill::pixels, .dtype = DType::u8, .limit = limit};
}
std::string text(Int a, Int b) {
  return std::to_string(a) + "x" + std::to_string(b);
}

struct Matrix {
  Int b, d;
};
constexpr Matrix matrices[] = {{0, 5},   {4, 0},   {1, 1},    {3, 7},     {1, 2003}, {31, 33},
                               {32, 32}, {65, 63}, {97, 127}, {128, 784}, {300, 10}};

struct Builder {
  std::vector<Case> cases;

  void add(std::string op, std::string what, std::vector<CaseInput> inputs, Attrs attrs,
           Int reduction = 1, bool differentiable = false) {
    Int elements = 0;
    for (const CaseInput& one : inputs) elements += one.shape.elements();
    cases.push_back({std::move(op), std::move(what), std::move(inputs), std::move(attrs), reduction,
                     differentiable && elements > 0 && elements <= 6000});
  }

  void samples() {
    constexpr Int times_of_rows[][2] = {{3, 1}, {0, 5}, {1, 1}, {1, 50}, {7, 3}, {33, 2}, {2, 257}};
    for (const auto& [rows, times] : times_of_rows)
      for (const bool factor : {false, true}) {
        Attrs attrs = {{"times", times}};
        if (factor) attrs.set("factor", 1.0 / static_cast<double>(times));
        const std::string what = text(rows, times) + (factor ? "_mean_of_" : "_of_");
        const auto with = [&](Int n) {
          return std::vector<Shape>{Shape{n}, Shape{n, 1}, Shape{n, 37}, Shape{n, 0},
                                    Shape{n, 2, 3, 5}};
        };
        const std::vector<Shape> few = with(rows), many = with(rows * times);
        for (std::size_t i = 0; i < few.size(); ++i) {
          add("repeat_rows", what + std::to_string(i), {real(few[i])}, attrs, 1, true);
          add("segment_sum", what + std::to_string(i), {real(many[i])}, attrs, times, true);
        }
      }
    add("repeat_rows", "20x50_of_784", {real(Shape{20, 784})}, {{"times", Int{50}}});
    add("segment_sum", "20x50_of_784", {real(Shape{1000, 784})}, {{"times", Int{50}}}, 50);
    for (const Matrix m : matrices)
      add("row_scale", text(m.b, m.d), {real(Shape{m.b, m.d}), real(Shape{m.b})}, {}, 1, true);
  }

  void objectives() {
    for (const Matrix m : matrices) {
      const CaseInput x = real(Shape{m.b, m.d});
      const std::string what = text(m.b, m.d);
      add("gaussian_kl_elements", what, {x, x}, {}, 1, true);
      add("gaussian_kl_elements_grad", what, {x, x, x}, {});
    }
    const Shape wide{7, 40};
    // From about 88 on float's exp(logvar) is infinite, which bound_logvar keeps away.
    add("gaussian_kl_elements", "wide", {real(wide), real(wide, Fill::normal, 20)}, {});
    add("gaussian_kl_elements", "tiny",
        {real(wide, Fill::normal, 1e-6), real(wide, Fill::normal, 1e-6)}, {});
    add("gaussian_kl_elements_grad", "wide", {real(wide), real(wide), real(wide, Fill::normal, 20)},
        {});
    for (const Shape& shape :
         {Shape{}, Shape{1}, Shape{32}, Shape{33, 7}, Shape{2, 3, 4, 5}, Shape{0}, Shape{10007}}) {
      const std::string what =
          std::to_string(shape.rank()) + "d_" + std::to_string(shape.elements());
      const CaseInput x = real(shape, Fill::away_from_zero);
      add("floor", what, {x}, {{"level", 0.02}}, 1, true);
      add("floor_grad", what, {real(shape), x}, {{"level", 0.5}});
      add("log1p", what, {real(shape, Fill::positive)}, {}, 1, true);
      add("log1p_grad", what, {real(shape), real(shape, Fill::counts)}, {});
    }
    add("floor", "extreme", {real(Shape{40}, Fill::extreme)}, {{"level", -50.0}});
    add("floor_grad", "at_the_level", {real(Shape{40}), real(Shape{40}, Fill::extreme)},
        {{"level", 0.0}});
    for (const Fill fill : {Fill::extreme, Fill::wide_counts}) {
      const std::string what = fill == Fill::extreme ? "signs" : "counts";
      add("log1p", what, {real(Shape{40}, fill)}, {});
      add("log1p_grad", what, {real(Shape{40}), real(Shape{40}, fill)}, {});
    }
    for (const Int columns : {Int{2}, Int{5}})
      for (const Int slot : {Int{0}, Int{1}, columns - 1}) {
        const CaseInput hyper{.shape = Shape{3, columns}, .fill = Fill::hyper};
        const std::string what = "slot_" + std::to_string(slot) + "_of_" + std::to_string(columns);
        for (const double size : {0.1, 100.0}) {
          const std::string name = what + (size < 1 ? "_below" : "_beyond");
          if (slot == columns - 1 && slot == 1) continue;
          add("capacity_gap", name, {real(Shape{}, Fill::normal, size), hyper}, {{"slot", slot}}, 1,
              true);
          add("capacity_gap_grad", name, {real(Shape{}), real(Shape{}, Fill::normal, size), hyper},
              {{"slot", slot}});
        }
      }
    add("capacity_gap_grad", "equal",
        {real(Shape{}), real(Shape{}, Fill::commit), real(Shape{1, 2}, Fill::commit)},
        {{"slot", Int{1}}});
  }

  void classes() {
    for (const Matrix m : matrices) {
      const Shape shape{m.b, m.d};
      const std::string what = text(m.b, m.d);
      for (const char* op : {"softmax", "log_softmax"}) {
        add(op, what, {real(shape)}, {}, m.d, true);
        add(std::string(op) + "_grad", what, {real(shape), real(shape)}, {}, m.d);
      }
    }
    const Shape wide{6, 40};
    for (const char* op : {"softmax", "log_softmax"}) {
      add(op, "extreme", {real(wide, Fill::extreme)}, {}, 40);
      add(op, "ten_thousands", {real(wide, Fill::normal, 1e4)}, {}, 40);
      add(op, "near_a_thousand", {real(wide, Fill::thousands)}, {}, 40);
    }
    constexpr Int batches[][3] = {{0, 9, 10}, {1, 1, 1}, {33, 50, 10}, {65, 7, 257}, {128, 97, 3}};
    for (const auto& [batch, window, count] : batches) {
      const std::string what = text(batch, window) + "_of_" + std::to_string(count);
      const Attrs attrs = {{"classes", count}};
      const CaseInput rows = indices(batch, window);
      if (count < 257) add("one_hot", "u8_" + what, {byte_labels(window, count), rows}, attrs);
      add("one_hot", "i64_" + what, {indices(window, count), rows}, attrs);
      add("label_rows", "u8_" + what, {byte_labels(window, 256), rows}, {});
      add("label_rows", "i64_" + what, {indices(window, count), rows}, {});
      add("one_hot_cycle", what, {}, {{"rows", batch}, {"classes", count}});
    }
    add("label_rows", "large", {indices(9, Int{1} << 40), indices(5, 9)}, {});
  }

  void noise() {
    const Attrs stream = {{"stream", Int{5}}};
    for (const Matrix m : matrices) {
      Attrs attrs = stream;
      attrs.set("sigma", 0.3);
      const CaseInput x = real(Shape{m.b, m.d});
      add("add_noise", text(m.b, m.d), {x, clock()}, attrs, 1, true);
      add("add_noise", text(m.b, m.d) + "_keyed", {x, clock(), indices(m.b, 100000)}, attrs, 1,
          true);
    }
    struct Image {
      Int b, c, h, w;
    };
    struct How {
      const char* what;
      std::vector<std::pair<const char*, Attrs::Attr>> attrs;
    };
    const How ways[] = {
        {"as_it_is", {}},
        {"flip", {{"flip", 0.5}}},
        {"always", {{"flip", 1.0}}},
        {"shift", {{"shift", Int{1}}}},
        {"crop", {{"crop", Int{1}}, {"flip", 0.25}}},
        {"far", {{"shift", Int{3}}, {"flip", 0.5}}},
        {"noise", {{"noise", 0.2}}},
        {"all", {{"flip", 0.5}, {"shift", Int{2}}, {"noise", 0.5}, {"clamp", Int{1}}}}};
    for (const Image s : {Image{0, 1, 3, 3}, Image{1, 1, 1, 3}, Image{33, 1, 3, 4},
                          Image{17, 3, 5, 3}, Image{4, 2, 7, 31}, Image{9, 1, 28, 28}})
      for (const How& how : ways) {
        Attrs attrs = stream;
        attrs.set("channels", s.c);
        attrs.set("height", s.h);
        attrs.set("width", s.w);
        for (const auto& [name, value] : how.attrs) attrs.set(name, value);
        add("augment", text(s.b, s.c) + "x" + text(s.h, s.w) + "_" + how.what,
            {real(Shape{s.b, s.c * s.h * s.w}, Fill::unit), clock()}, attrs);
      }
  }

  void draws() {
    for (const Int batch : {Int{0}, Int{1}, Int{97}})
      for (const Int staged : {0, 1})
        add("batch_index", std::to_string(batch) + "_weighted" + (staged != 0 ? "_staged" : ""),
            {clock(), indices(1009, Int{1} << 53), indices(1009, 1009)},
            {{"batch", batch}, {"rows", Int{1009}}, {"staged", staged}, {"shuffle", Int{1}}});
    // A second batch beside the epoch's own, and every row of it three times.
    add("batch_index", "97_beside_16", {clock(), indices(1009, Int{1} << 53), indices(1009, 1009)},
        {{"batch", Int{97}}, {"rows", Int{1009}}, {"stride", Int{16}}, {"times", Int{97}}});
    add("batch_index", "96_of_three_numbers", {clock()},
        {{"batch", Int{96}}, {"rows", Int{3027}}, {"times", Int{3}}});
  }
};

// Meanings ----------------------------------------------------------------------------------------

struct Inputs {
  const Case& c;
  const std::vector<Tensor>& tensors;

  [[nodiscard]] bool has(std::size_t i) const { return i < c.inputs.size() && !c.inputs[i].absent; }
  [[nodiscard]] Reals real(std::size_t i) const {
    const Tensor wide = tensors[i].to(DType::f64);
    return {wide.as<double>().begin(), wide.as<double>().end()};
  }
  [[nodiscard]] std::vector<Int> integers(std::size_t i) const {
    if (tensors[i].dtype() == DType::u8) {
      const auto bytes = tensors[i].as<std::uint8_t>();
      return {bytes.begin(), bytes.end()};
    }
    const auto values = tensors[i].as<Int>();
    return {values.begin(), values.end()};
  }
  [[nodiscard]] std::size_t dim(std::size_t i, int axis) const {
    return static_cast<std::size_t>(tensors[i].shape()[axis]);
  }
};

Expected expect(Reals values) {
  double scale = 1;
  for (const double v : values) scale = std::max(scale, std::abs(v));
  return {std::move(values), {}, scale, 0};
}

template <class F>
std::vector<Expected> each(std::size_t n, F f) {
  Reals y(n);
  for (std::size_t i = 0; i < n; ++i) y[i] = f(i);
  return {expect(std::move(y))};
}

std::vector<Expected> segments(const Inputs& in) {
  const Reals x = in.real(0);
  const auto times = static_cast<std::size_t>(in.c.attrs.integer("times"));
  const double factor = in.c.attrs.real("factor", 1.0);
  const std::size_t rows = in.dim(0, 0), width = rows > 0 ? x.size() / rows : 0;
  Reals y;
  double scale = 1;
  if (in.c.op == "repeat_rows") {
    for (std::size_t b = 0; b < rows; ++b)
      for (std::size_t k = 0; k < times; ++k)
        for (std::size_t j = 0; j < width; ++j) y.push_back(factor * x[b * width + j]);
  } else {
    y.resize(x.size() / times);
    for (std::size_t i = 0; i < x.size(); ++i)
      y[i / width / times * width + i % width] += factor * x[i];
    scale = std::sqrt(static_cast<double>(times)) * 3;
  }
  Expected e = expect(std::move(y));
  e.scale = std::max(e.scale, scale);
  return {e};
}

std::vector<Expected> softmax(const Inputs& in) {
  const bool log = in.c.op == "log_softmax";
  Reals y = in.real(0);
  const std::size_t n = in.dim(0, 1);
  for (std::size_t first = 0; n > 0 && first < y.size(); first += n) {
    long double sum = 0;
    double largest = y[first];
    for (std::size_t i = first; i < first + n; ++i) largest = std::max(largest, y[i]);
    for (std::size_t i = first; i < first + n; ++i)
      sum += std::exp(static_cast<long double>(y[i] - largest));
    for (std::size_t i = first; i < first + n; ++i) {
      const long double log_p = y[i] - largest - std::log(sum);
      y[i] = static_cast<double>(log ? log_p : std::exp(log_p));
    }
  }
  return {expect(std::move(y))};
}

std::vector<Expected> softmax_grad(const Inputs& in) {
  const bool log = in.c.op == "log_softmax_grad";
  const Reals dy = in.real(0), y = in.real(1);
  const std::size_t n = in.dim(0, 1);
  Reals dx(y.size());
  double scale = 1;
  for (std::size_t first = 0; n > 0 && first < y.size(); first += n) {
    double sum = 0, squares = 0, largest = 0;
    for (std::size_t i = first; i < first + n; ++i) {
      const double term = log ? dy[i] : dy[i] * y[i];
      const double factor = log ? std::exp(y[i]) : std::abs(y[i]);
      sum += term;
      squares += term * term;
      largest = std::max(largest, factor);
    }
    for (std::size_t i = first; i < first + n; ++i)
      dx[i] = log ? dy[i] - std::exp(y[i]) * sum : y[i] * (dy[i] - sum);
    scale = std::max(scale, largest * std::sqrt(squares));
  }
  Expected e = expect(std::move(dx));
  e.scale = std::max(e.scale, scale);
  return {e};
}

std::vector<Expected> labels(const Inputs& in) {
  const Attrs& a = in.c.attrs;
  std::vector<Int> of_rows;
  if (in.c.op == "one_hot_cycle") {
    for (Int n = 0; n < a.integer("rows"); ++n) of_rows.push_back(n % a.integer("classes"));
  } else {
    const std::vector<Int> window = in.integers(0);
    for (const Int row : in.integers(1)) of_rows.push_back(window[static_cast<std::size_t>(row)]);
  }
  Reals y;
  for (const Int label : of_rows) {
    if (in.c.op == "label_rows") {
      y.push_back(static_cast<double>(static_cast<float>(label)));
      continue;
    }
    for (Int k = 0; k < a.integer("classes"); ++k) y.push_back(k == label ? 1 : 0);
  }
  return {expect(std::move(y))};
}

RandomKey augmentation(const Inputs& in) {
  const std::vector<Int> at = in.integers(1);
  return {.seed = static_cast<std::uint64_t>(at[0]),
          .purpose = Purpose::augmentation,
          .stream = static_cast<std::uint16_t>(in.c.attrs.integer("stream")),
          .step = static_cast<std::uint64_t>(at[1])};
}

std::vector<Expected> add_noise(const Inputs& in) {
  const RandomKey key = augmentation(in);
  const std::vector<Int> rows = in.has(2) ? in.integers(2) : std::vector<Int>{};
  const Reals x = in.real(0);
  const std::size_t d = in.dim(0, 1);
  return each(x.size(), [&](std::size_t i) {
    const std::size_t b = i / d, row = rows.empty() ? b : static_cast<std::size_t>(rows[b]);
    return x[i] +
           in.c.attrs.real("sigma") * static_cast<double>(random_normal(key, row * d + i % d));
  });
}

// Flipped, then shifted into a larger field of zeros, as the header of the operator says it.
std::vector<Expected> augment(const Inputs& in) {
  const Attrs& a = in.c.attrs;
  const RandomKey key = augmentation(in);
  const Reals x = in.real(0);
  const Int channels = a.integer("channels"), h = a.integer("height"), w = a.integer("width");
  const Int shift = a.integer("shift", 0) + a.integer("crop", 0);
  const Int d = channels * h * w;
  const auto groups = static_cast<std::uint64_t>(1 + (d + 3) / 4);
  Reals y;
  for (std::uint64_t b = 0; b < in.dim(0, 0); ++b) {
    const PhiloxWords words = random_words(key, b * groups);
    const bool flipped = uniform_from_word(words[0]) <= static_cast<float>(a.real("flip", 0.0));
    const auto offset = [&](std::uint32_t word) {
      return static_cast<Int>(std::floor(std::ldexp(static_cast<double>(word), -32) *
                                         static_cast<double>(2 * shift + 1))) -
             shift;
    };
    const Int down = offset(words[1]), right = offset(words[2]);
    for (Int c = 0; c < channels; ++c)
      for (Int i = 0; i < h; ++i)
        for (Int j = 0; j < w; ++j) {
          const Int row = i - down, column = j - right;
          double value = 0;
          if (row >= 0 && row < h && column >= 0 && column < w) {
            const Int from = flipped ? w - 1 - column : column;
            value = x[b * static_cast<std::size_t>(d) +
                      static_cast<std::size_t>((c * h + row) * w + from)];
          }
          const auto at = static_cast<std::uint64_t>((c * h + i) * w + j);
          value += a.real("noise", 0.0) *
                   static_cast<double>(random_normal(key, 4 * (b * groups + 1) + at));
          if (a.integer("clamp", 0) != 0) value = std::clamp(value, 0.0, 1.0);
          y.push_back(value);
        }
  }
  return {expect(std::move(y))};
}

// As WeightedDraws was first written, in reals.
std::vector<Expected> weighted(const Inputs& in) {
  const Attrs& a = in.c.attrs;
  const std::vector<Int> at = in.integers(0), keep = in.integers(1), other = in.integers(2);
  const Int rows = a.integer("rows");
  Expected row, index;
  for (Int b = 0; b < a.integer("batch"); ++b) {
    const Int position = at[3] * a.integer("times", 1) + b;
    const PhiloxWords words = random_words({.seed = static_cast<std::uint64_t>(at[0]),
                                            .purpose = Purpose::resampling,
                                            .stream = 0,
                                            .step = static_cast<std::uint64_t>(at[2])},
                                           static_cast<std::uint64_t>(position));
    const long double unit =
        (static_cast<long double>(words[0]) + std::ldexp(static_cast<long double>(words[1]), -32)) *
        0x1p-32L;
    const auto column = static_cast<std::size_t>(unit * static_cast<long double>(rows));
    const double u =
        static_cast<double>((std::uint64_t{words[2]} << 21) | (words[3] >> 11)) * 0x1p-53;
    const bool own = u < std::ldexp(static_cast<double>(keep[column]), -53);
    index.integer.push_back(own ? static_cast<Int>(column) : other[column]);
    row.integer.push_back((a.integer("staged", 0) != 0 ? position : index.integer.back()) - at[4]);
  }
  return {row, index};
}

}  // namespace

std::vector<Case> batch_cases() {
  Builder b;
  b.samples();
  b.objectives();
  b.classes();
  b.noise();
  b.draws();
  return b.cases;
}

std::vector<Expected> batch_reference(const Case& c, const std::vector<Tensor>& inputs) {
  const Inputs in{c, inputs};
  const std::string& op = c.op;
  const Attrs& a = c.attrs;
  if (op == "batch_index" && in.has(1)) return weighted(in);
  if (op == "repeat_rows" || op == "segment_sum") return segments(in);
  if (op == "row_scale") {
    const Reals x = in.real(0), w = in.real(1);
    return each(x.size(), [&](std::size_t i) { return w[i / in.dim(0, 1)] * x[i]; });
  }
  if (op == "gaussian_kl_elements") {
    const Reals m = in.real(0), v = in.real(1);
    return each(m.size(),
                [&](std::size_t i) { return (m[i] * m[i] + (std::expm1(v[i]) - v[i])) / 2; });
  }
  if (op == "gaussian_kl_elements_grad") {
    const Reals d = in.real(0), m = in.real(1), v = in.real(2);
    auto outputs = each(m.size(), [&](std::size_t i) { return d[i] * m[i]; });
    outputs.push_back(
        each(m.size(), [&](std::size_t i) { return d[i] * std::expm1(v[i]) / 2; })[0]);
    return outputs;
  }
  if (op == "floor") {
    const Reals x = in.real(0);
    return each(x.size(), [&](std::size_t i) { return std::max(x[i], a.real("level")); });
  }
  if (op == "floor_grad") {
    const Reals dy = in.real(0), x = in.real(1);
    return each(x.size(), [&](std::size_t i) { return x[i] > a.real("level") ? dy[i] : 0; });
  }
  if (op == "capacity_gap")
    return each(1, [&](std::size_t) {
      return std::abs(in.real(0)[0] - in.real(1)[static_cast<std::size_t>(a.integer("slot"))]);
    });
  if (op == "capacity_gap_grad")
    return each(1, [&](std::size_t) {
      const double gap = in.real(1)[0] - in.real(2)[static_cast<std::size_t>(a.integer("slot"))];
      return gap > 0 ? in.real(0)[0] : gap < 0 ? -in.real(0)[0] : 0;
    });
  if (op == "softmax" || op == "log_softmax") return softmax(in);
  if (op == "softmax_grad" || op == "log_softmax_grad") return softmax_grad(in);
  if (op == "one_hot" || op == "one_hot_cycle" || op == "label_rows") return labels(in);
  if (op == "add_noise") return add_noise(in);
  if (op == "augment") return augment(in);
  if (op == "log1p") {
    const Reals x = in.real(0);
    return each(x.size(), [&](std::size_t i) { return std::log(1 + std::max(x[i], 0.0)); });
  }
  if (op == "log1p_grad") {
    const Reals dy = in.real(0), x = in.real(1);
    return each(x.size(), [&](std::size_t i) { return x[i] < 0 ? 0 : dy[i] / (1 + x[i]); });
  }
  return {};
}

}  // namespace cuvae::testing
