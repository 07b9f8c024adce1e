#include "ops/parity_images.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "cuvae/rng.h"

namespace cuvae::testing {
namespace {

using Int = std::int64_t;

CaseInput real(Shape shape, Fill fill = Fill::normal) {
  return {.shape = shape, .fill = fill};
}

std::string text(Int n) {
  return std::to_string(n);
}

struct Convolution {
  const char* what;
  Int b, in, h, w, out, kh, kw;
  const char* stride = "1";
  const char* padding = "0";
  const char* dilation = "1";
};

// One of everything, kernels larger than the image, strides that do not divide, primes, phases
// without a tap, more phases than one launch takes, several tiles, images and shares.
constexpr Convolution convolutions[] = {
    {"nothing", 0, 2, 5, 5, 3, 3, 3},
    {"one", 1, 1, 1, 1, 1, 1, 1},
    {"pointwise", 3, 5, 4, 7, 6, 1, 1},
    {"kernel_beyond_image", 2, 3, 2, 3, 5, 4, 5, "1", "2"},
    {"stride_2_rest", 3, 5, 7, 9, 7, 3, 3, "2", "0"},
    {"stride_2_rest_padded", 3, 5, 8, 6, 7, 3, 3, "2", "1"},
    {"primes", 2, 7, 11, 13, 5, 3, 3, "1", "1"},
    {"down", 3, 6, 8, 8, 10, 4, 4, "2", "1"},
    {"one_sided", 2, 2, 5, 6, 3, 2, 2, "1", "0,1,0,1"},
    {"all_sides", 2, 2, 5, 6, 3, 3, 2, "2,1", "2,1,0,3"},
    {"dilated", 2, 2, 9, 9, 3, 3, 3, "1", "2", "2"},
    {"stride_2_dilated_2", 2, 3, 11, 10, 2, 3, 3, "2", "1", "2"},
    {"stride_3_dilated_2", 2, 3, 12, 13, 2, 3, 2, "3", "1", "2"},
    {"stride_beyond_kernel", 2, 3, 10, 11, 4, 2, 1, "3", "1"},
    {"many_phases", 2, 2, 13, 12, 3, 3, 3, "5", "1"},
    {"wide_stride", 1, 2, 4, 24, 3, 1, 2, "1,9", "0"},
    {"line", 2, 3, 1, 40, 4, 1, 5, "1", "0,2"},
    {"many_channels", 2, 3, 6, 6, 70, 3, 3, "1", "1"},
    {"from_many_channels", 2, 70, 6, 5, 3, 3, 3, "1", "1"},
    {"many_both", 1, 67, 4, 4, 66, 2, 2, "2", "0"},
    {"shares", 4, 2, 17, 17, 3, 3, 3, "1", "1"},
    {"images_in_a_tile", 41, 5, 5, 4, 9, 3, 3, "1", "1"},
    {"many_positions", 1, 1, 301, 299, 1, 1, 2},
    {"tiles", 4, 32, 28, 28, 32, 3, 3, "1", "1"},
    {"down_tiles", 8, 32, 16, 16, 64, 4, 4, "2", "1"},
};

// The shape of a convolution's result, by its operator's own rule, which shape tests check.
Shape result_of(const Convolution& s, const Attrs& attrs) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{s.b, s.in, s.h, s.w});
  const Value w = g.input("w", DType::f32, Shape{s.out, s.in, s.kh, s.kw});
  return g[g.apply("conv2d", "y", {x, w}, attrs)].shape;
}

bool small(const Case& c) {
  Int elements = 0;
  for (const CaseInput& input : c.inputs) elements += input.shape.elements();
  return elements > 0 && elements <= 6000;
}

class Table {
 public:
  std::vector<Case> cases;

  void add(std::string op, std::string what, std::vector<CaseInput> inputs, Attrs attrs = {},
           Int reduction = 1, bool differentiable = false) {
    Case c{std::move(op), std::move(what), std::move(inputs), std::move(attrs), reduction, false};
    c.differentiable = differentiable && small(c);
    cases.push_back(std::move(c));
  }

  void convolve() {
    for (const Convolution& s : convolutions) {
      const std::string what = s.what;
      Attrs attrs = {{"stride", std::string(s.stride)},
                     {"padding", std::string(s.padding)},
                     {"dilation", std::string(s.dilation)}};
      const Shape x{s.b, s.in, s.h, s.w};
      const Shape w{s.out, s.in, s.kh, s.kw};
      const Shape y = result_of(s, attrs);
      const Int taps = s.kh * s.kw;
      add("conv2d", what, {real(x), real(w), real(Shape{s.out})}, attrs, s.in * taps, true);
      add("conv2d", what + "_no_bias", {real(x), real(w)}, attrs, s.in * taps, true);
      add("channel_sum", what, {real(y)}, {}, y[0] * y[2] * y[3]);
      Attrs weights = attrs;
      weights.set("kernel", text(s.kh) + "," + text(s.kw));
      add("conv2d_wgrad", what, {real(y), real(x)}, weights, y[0] * y[2] * y[3]);
      add("conv_transpose2d", what, {real(y), real(w), real(Shape{s.in})}, attrs, s.out * taps,
          true);
      // The rest that brings back the size of x.
      Graph g;
      const Value dy = g.input("dy", DType::f32, y);
      const Value weight = g.input("w", DType::f32, w);
      const Shape back = g[g.apply("conv_transpose2d", "x", {dy, weight}, attrs)].shape;
      if (back == x || s.b == 0) continue;
      Attrs padded = attrs;
      padded.set("output_padding", text(x[2] - back[2]) + "," + text(x[3] - back[3]));
      add("conv_transpose2d", what + "_padded", {real(y), real(w)}, padded, s.out * taps, true);
    }
    Attrs integers = {{"stride", Int{2}}, {"padding", Int{1}}};
    add("conv2d", "integers", {real(Shape{1, 2, 5, 5}), real(Shape{3, 2, 3, 3})}, integers, 18);
  }

  void pool() {
    struct Pool {
      const char* what;
      Shape x;
      Attrs attrs;
    };
    const auto attrs = [](const char* kernel, const char* stride, const char* padding) {
      Attrs a = {{"kernel", std::string(kernel)}};
      if (*stride != '\0') a.set("stride", std::string(stride));
      if (*padding != '\0') a.set("padding", std::string(padding));
      return a;
    };
    const std::vector<Pool> pools = {
        {"nothing", Shape{0, 3, 4, 4}, attrs("2", "", "")},
        {"one", Shape{1, 1, 1, 1}, attrs("1", "", "")},
        {"half", Shape{3, 5, 8, 6}, attrs("2", "", "")},
        {"rest", Shape{2, 3, 7, 9}, attrs("2", "", "")},
        {"overlapping", Shape{2, 7, 11, 13}, attrs("3", "2", "1")},
        {"dense", Shape{1, 3, 6, 5}, attrs("3", "1", "1")},
        {"gaps", Shape{2, 2, 9, 10}, attrs("2", "3", "1")},
        {"sides", Shape{2, 2, 5, 8}, attrs("4,3", "2,1", "2,0,1,0")},
        {"kernel_beyond_image", Shape{2, 3, 2, 3}, attrs("4,5", "2", "2")},
        {"planes", Shape{4, 31, 14, 14}, attrs("2", "", "")},
    };
    for (const Pool& p : pools) {
      Graph g;
      const Value x = g.input("x", DType::f32, p.x);
      const Shape y = g[g.apply("avg_pool2d", "y", {x}, p.attrs)].shape;
      Attrs back = p.attrs;
      back.set("size", text(p.x[2]) + "," + text(p.x[3]));
      add("max_pool2d", p.what, {real(p.x)}, p.attrs, 1, true);
      add("max_pool2d_grad", p.what, {real(y), real(p.x)}, p.attrs, 9);
      add("avg_pool2d", p.what, {real(p.x)}, p.attrs, 9, true);
      add("avg_pool2d_grad", p.what, {real(y)}, back, 9);
    }
    // Equal values: the first of them gets the gradient.
    const Shape ties{1, 2, 6, 6};
    add("max_pool2d", "ties", {real(ties, Fill::commit)}, attrs("3", "1", "1"));
    add("max_pool2d_grad", "ties", {real(ties), real(ties, Fill::commit)}, attrs("3", "1", "1"), 9);
    for (const Shape& x :
         {Shape{0, 2, 3, 3}, Shape{1, 1, 1, 1}, Shape{3, 5, 7, 7}, Shape{2, 31, 14, 13}})
      for (const char* factor : {"1", "2", "3,5"}) {
        const Attrs by = {{"factor", std::string(factor)}};
        Graph g;
        const Shape y = g[g.apply("upsample2d", "y", {g.input("x", DType::f32, x)}, by)].shape;
        const std::string what = text(x.elements()) + "_by_" + (factor[1] == '\0' ? factor : "3x5");
        add("upsample2d", what, {real(x)}, by, 1, true);
        add("upsample2d_grad", what, {real(y)}, by, 15);
      }
    add("reshape", "flatten", {real(Shape{3, 5, 2, 4})}, {{"shape", std::string("3,40")}}, 1, true);
    add("reshape", "unflatten", {real(Shape{3, 40})}, {{"shape", std::string("3,5,2,4")}}, 1, true);
    add("reshape", "nothing", {real(Shape{0, 40})}, {{"shape", std::string("0,5,8")}});
    add("reshape", "long", {real(Shape{64, 1009})}, {{"shape", std::string("64576")}});
  }

  void norm() {
    struct Norm {
      const char* what;
      Shape x;
      Int groups;
    };
    const std::vector<Norm> norms = {{"two", Shape{2, 1}, 1},
                                     {"row", Shape{33, 65}, 5},
                                     {"wide", Shape{3, 1009}, 1},
                                     {"tall", Shape{1009, 3}, 3},
                                     {"small", Shape{2, 6, 1, 1}, 2},
                                     {"image", Shape{3, 6, 5, 7}, 3},
                                     {"primes", Shape{2, 7, 11, 13}, 7},
                                     {"one_image", Shape{1, 4, 3, 3}, 2},
                                     {"narrow", Shape{5, 34, 1, 3}, 17},
                                     {"planes", Shape{8, 16, 7, 7}, 4}};
    for (const Norm& n : norms)
      for (const char* kind : {"batch", "layer", "group"})
        for (const bool affine : {true, false}) {
          Attrs attrs = {{"kind", std::string(kind)}, {"eps", 1e-3}};
          if (*kind == 'g') attrs.set("groups", n.groups);
          const std::string what = std::string(kind) + "_" + n.what + (affine ? "" : "_plain");
          const Int plane = n.x.rank() == 4 ? n.x[2] * n.x[3] : 1;
          const bool layer = *kind == 'l';
          const Int channels = layer ? n.x[1] * plane : n.x[1];
          const Int groups = layer ? n.x[0] : *kind == 'b' ? n.x[1] : n.x[0] * n.groups;
          const Int terms = n.x.elements() / groups;
          std::vector<CaseInput> inputs = {real(n.x)};
          if (affine) inputs.insert(inputs.end(), 2, real(Shape{channels}));
          // A variance of two close values has no third derivative to speak of a bound for.
          add("norm", what, inputs, attrs, terms, terms > 8);
          cases.back().flowing = 1;
          inputs = {real(n.x), real(n.x), real(Shape{groups}), real(Shape{groups}, Fill::positive)};
          if (affine) inputs.push_back(real(Shape{channels}));
          add("norm_grad", what, inputs, attrs, std::max(terms, n.x.elements() / channels));
          if (*kind != 'b') continue;
          inputs = {real(n.x), real(Shape{channels}), real(Shape{channels}, Fill::positive)};
          if (affine) inputs.insert(inputs.end(), 2, real(Shape{channels}));
          add("batch_norm_eval", what, inputs, {{"eps", 1e-3}}, 1, true);
        }
    // Large activations, all alike and not: within what their rounding leaves.
    for (const char* kind : {"batch", "layer", "group"}) {
      Attrs attrs = {{"kind", std::string(kind)}};
      if (*kind == 'g') attrs.set("groups", Int{2});
      const Int channels = *kind == 'l' ? 4 * 25 : 4;
      add("norm", std::string(kind) + "_thousands",
          {real(Shape{8, 4, 5, 5}, Fill::thousands), real(Shape{channels}), real(Shape{channels})},
          attrs, 200);
    }
    for (const bool on : {true, false})
      for (const Int c : {Int{1}, Int{31}, Int{300}}) {
        const auto state = [&](Fill fill) {
          return CaseInput{.shape = Shape{c}, .fill = fill, .storage = Storage::state};
        };
        add("running_stats", text(c) + (on ? "" : "_no_commit"),
            {state(Fill::normal),
             state(Fill::positive),
             {.shape = Shape{},
              .fill = Fill::commit,
              .dtype = DType::i64,
              .storage = Storage::state},
             real(Shape{c}),
             real(Shape{c}, Fill::positive),
             {.shape = Shape{1}, .fill = on ? Fill::commit : Fill::no_commit, .dtype = DType::i64}},
            {{"momentum", 0.3}, {"count", Int{5}}});
      }
  }

  void dropout() {
    const CaseInput clock{.shape = Shape{5}, .fill = Fill::clock, .dtype = DType::i64};
    for (const Shape& x :
         {Shape{0, 7}, Shape{1, 1}, Shape{3, 7}, Shape{31, 33}, Shape{3, 5, 7, 9}, Shape{2, 1009}})
      for (const double p : {0.0, 0.3, 0.9}) {
        const Attrs attrs = {{"p", p}, {"purpose", Int{4}}, {"stream", Int{5}}};
        const std::string what = text(x.elements()) + "_" + text(static_cast<Int>(10 * p));
        add("dropout", what, {real(x), clock}, attrs, 1, true);
        add("dropout", what + "_keyed",
            {real(x),
             clock,
             {.shape = Shape{x[0]}, .fill = Fill::rows, .dtype = DType::i64, .limit = 100000}},
            attrs, 1, true);
      }
  }

  // What residual blocks and activations of images are made of.
  void pointwise() {
    const Shape x{2, 3, 5, 7};
    add("activation", "image", {real(x, Fill::away_from_zero)}, {{"kind", std::string("relu")}}, 1,
        true);
    add("activation_grad", "image", {real(x), real(x, Fill::saved)},
        {{"kind", std::string("silu")}});
    add("add", "image", {real(x), real(x)}, {}, 1, true);
    add("reduce", "image", {real(x)}, {{"axis", std::string("all")}, {"op", std::string("mean")}},
        210, true);
    add("broadcast", "image", {real(Shape{})},
        {{"axis", std::string("all")}, {"shape", std::string("2,3,5,7")}}, 1, true);
  }
};

using Reals = std::vector<double>;

// The tensors of a case, as reals.
struct Operands {
  const Case& c;
  const std::vector<Tensor>& tensors;
  Rounding rounding;

  [[nodiscard]] bool has(std::size_t i) const { return i < c.inputs.size() && !c.inputs[i].absent; }
  [[nodiscard]] Reals real(std::size_t i) const {
    const auto values = tensors[i].as<float>();
    return {values.begin(), values.end()};
  }
  // An operand of a product, as the backend rounds it.
  [[nodiscard]] Reals factor(std::size_t i) const {
    Reals values = real(i);
    if (rounding != nullptr)
      for (double& v : values) v = rounding(v);
    return values;
  }
  [[nodiscard]] const Shape& shape(std::size_t i) const { return tensors[i].shape(); }
};

Expected expect(Reals values, double least_scale = 1) {
  double scale = least_scale;
  for (const double v : values) scale = std::max(scale, std::abs(v));
  return {std::move(values), {}, scale, 0};
}

std::size_t at(const Shape& s, Int a, Int b, Int c, Int d) {
  return static_cast<std::size_t>(((a * s[1] + b) * s[2] + c) * s[3] + d);
}

// The numbers of an attribute that is an integer or a list: at least two.
std::vector<Int> numbers_of(const Attrs& a, const char* name, Int otherwise) {
  std::vector<Int> found;
  for (const auto& [key, attr] : a.entries()) {
    if (key != name) continue;
    if (std::holds_alternative<Int>(attr)) return {std::get<Int>(attr), std::get<Int>(attr)};
    std::string rest = std::get<std::string>(attr);
    for (;;) {
      found.push_back(std::stoll(rest));
      const std::size_t comma = rest.find(',');
      if (comma == std::string::npos) break;
      rest = rest.substr(comma + 1);
    }
  }
  if (found.empty()) found = {otherwise};
  if (found.size() == 1) found.push_back(found[0]);
  return found;
}

// f(place in x [B, C, H, W], place in w [O, C, kh, kw], place in y [B, O, OH, OW]) for every
// product of a convolution, in attributes' own words.
template <class F>
void each_product(const Attrs& a, const Shape& x, const Shape& w, const Shape& y, F f) {
  const auto stride = numbers_of(a, "stride", 1), dilation = numbers_of(a, "dilation", 1),
             padding = numbers_of(a, "padding", 0);
  const Int top = padding[0], left = padding.size() == 4 ? padding[2] : padding[1];
  for (Int b = 0; b < x[0]; ++b)
    for (Int o = 0; o < w[0]; ++o)
      for (Int c = 0; c < w[1]; ++c)
        for (Int oh = 0; oh < y[2]; ++oh)
          for (Int ow = 0; ow < y[3]; ++ow)
            for (Int i = 0; i < w[2]; ++i)
              for (Int j = 0; j < w[3]; ++j) {
                const Int h = oh * stride[0] - top + i * dilation[0];
                const Int v = ow * stride[1] - left + j * dilation[1];
                if (h < 0 || h >= x[2] || v < 0 || v >= x[3]) continue;
                f(at(x, b, c, h, v), at(w, o, c, i, j), at(y, b, o, oh, ow));
              }
}

std::vector<Expected> convolution(const Operands& o) {
  const CaseGraph g = case_graph(o.c);
  const Shape& result = g.graph[g.outputs[0]].shape;
  const Reals first = o.factor(0), second = o.factor(1);
  Reals y(static_cast<std::size_t>(result.elements()));
  if (o.c.op == "conv2d")
    each_product(
        o.c.attrs, o.shape(0), o.shape(1), result,
        [&](std::size_t x, std::size_t w, std::size_t to) { y[to] += first[x] * second[w]; });
  else if (o.c.op == "conv_transpose2d")
    each_product(
        o.c.attrs, result, o.shape(1), o.shape(0),
        [&](std::size_t to, std::size_t w, std::size_t x) { y[to] += first[x] * second[w]; });
  else
    each_product(
        o.c.attrs, o.shape(1), result, o.shape(0),
        [&](std::size_t x, std::size_t to, std::size_t dy) { y[to] += first[dy] * second[x]; });
  if (o.has(2)) {
    const Reals bias = o.real(2);
    const Int plane = result[2] * result[3];
    for (Int i = 0; i < result.elements(); ++i)
      y[static_cast<std::size_t>(i)] += bias[static_cast<std::size_t>(i / plane % result[1])];
  }
  return {expect(std::move(y))};
}

std::vector<Expected> channel_sum(const Operands& o) {
  const Shape& s = o.shape(0);
  const Reals x = o.real(0);
  Reals y(static_cast<std::size_t>(s[1]));
  for (Int i = 0; i < s.elements(); ++i)
    y[static_cast<std::size_t>(i / (s[2] * s[3]) % s[1])] += x[static_cast<std::size_t>(i)];
  return {expect(std::move(y))};
}

// f(place in x, place in y) for all that the windows of a pool cover, row by row.
template <class F>
void each_covered(const Attrs& a, const Shape& x, const Shape& y, F f) {
  const char* size = a.has("factor") ? "factor" : "kernel";
  const auto kernel = numbers_of(a, size, 1), padding = numbers_of(a, "padding", 0);
  const auto stride = a.has("stride") ? numbers_of(a, "stride", 1) : kernel;
  const Int top = padding[0], left = padding.size() == 4 ? padding[2] : padding[1];
  for (Int plane = 0; plane < x[0] * x[1]; ++plane)
    for (Int oh = 0; oh < y[2]; ++oh)
      for (Int ow = 0; ow < y[3]; ++ow)
        for (Int i = 0; i < kernel[0]; ++i)
          for (Int j = 0; j < kernel[1]; ++j) {
            const Int h = oh * stride[0] - top + i, w = ow * stride[1] - left + j;
            if (h >= 0 && h < x[2] && w >= 0 && w < x[3])
              f(static_cast<std::size_t>((plane * x[2] + h) * x[3] + w),
                static_cast<std::size_t>((plane * y[2] + oh) * y[3] + ow));
          }
}

std::vector<Expected> pools(const Operands& o) {
  const std::string& op = o.c.op;
  const CaseGraph g = case_graph(o.c);
  const Shape& result = g.graph[g.outputs[0]].shape;
  const bool back = op == "max_pool2d_grad" || op == "avg_pool2d_grad" || op == "upsample2d";
  const Shape& large = back ? result : o.shape(0);
  const Shape& few = back ? o.shape(0) : result;
  const Reals in = o.real(0);
  Reals y(static_cast<std::size_t>(result.elements()));
  if (op.starts_with("max")) {
    const Reals x = o.real(op == "max_pool2d" ? 0 : 1);
    std::vector<std::size_t> best(static_cast<std::size_t>(few.elements()), x.size());
    each_covered(o.c.attrs, large, few, [&](std::size_t from, std::size_t to) {
      if (best[to] == x.size() || x[from] > x[best[to]]) best[to] = from;
    });
    for (std::size_t i = 0; i < best.size(); ++i)
      if (op == "max_pool2d")
        y[i] = x[best[i]];
      else
        y[best[i]] += in[i];
    return {expect(std::move(y))};
  }
  const auto kernel = numbers_of(o.c.attrs, "kernel", 1);
  const double factor =
      op.starts_with("avg") ? 1.0 / static_cast<double>(kernel[0] * kernel[1]) : 1.0;
  each_covered(o.c.attrs, large, few, [&](std::size_t from, std::size_t to) {
    if (back)
      y[from] += factor * in[to];
    else
      y[to] += factor * in[from];
  });
  return {expect(std::move(y))};
}

// Which group and which channel element i of x is in.
struct Places {
  std::vector<std::size_t> group, channel;
  std::size_t groups = 0, channels = 0;
};
Places places_of(const std::string& kind, const Attrs& a, const Shape& x) {
  const Int plane = x.rank() == 4 ? x[2] * x[3] : 1;
  const Int per_group = kind == "group" ? x[1] / a.integer("groups") : 1;
  Places p;
  for (Int b = 0; b < x[0]; ++b)
    for (Int c = 0; c < x[1]; ++c)
      for (Int i = 0; i < plane; ++i) {
        const bool layer = kind == "layer";
        const Int group = layer ? b : kind == "batch" ? c : b * (x[1] / per_group) + c / per_group;
        p.group.push_back(static_cast<std::size_t>(group));
        p.channel.push_back(static_cast<std::size_t>(layer ? c * plane + i : c));
        p.groups = std::max(p.groups, p.group.back() + 1);
        p.channels = std::max(p.channels, p.channel.back() + 1);
      }
  return p;
}

std::vector<Expected> norms(const Operands& o) {
  const std::string& op = o.c.op;
  const Attrs& a = o.c.attrs;
  const bool eval = op == "batch_norm_eval", grad = op == "norm_grad";
  const double eps = a.real("eps", 1e-5);
  const Shape& shape = o.shape(grad ? 1 : 0);
  const Places p = places_of(eval ? "batch" : a.text("kind"), a, shape);
  const Reals x = o.real(grad ? 1 : 0);
  Reals mean(p.groups), var(p.groups), terms(p.groups);
  for (const std::size_t group : p.group) ++terms[group];
  if (eval || grad) {
    mean = o.real(grad ? 2 : 1);
    var = o.real(grad ? 3 : 2);
  } else {
    for (std::size_t i = 0; i < x.size(); ++i) mean[p.group[i]] += x[i] / terms[p.group[i]];
    for (std::size_t i = 0; i < x.size(); ++i)
      var[p.group[i]] += std::pow(x[i] - mean[p.group[i]], 2) / terms[p.group[i]];
  }
  const std::size_t weight_at = grad ? 4 : eval ? 3 : 1;
  const bool affine = o.has(weight_at);
  const Reals weight = affine ? o.real(weight_at) : Reals(p.channels, 1.0);
  Reals xhat(x.size());
  double size = 1;  // of what is subtracted: its rounding is left in the difference
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double inverse = 1 / std::sqrt(var[p.group[i]] + eps);
    xhat[i] = (x[i] - mean[p.group[i]]) * inverse;
    size = std::max(size, (std::abs(x[i]) + std::abs(mean[p.group[i]])) * inverse *
                              std::max(1.0, std::abs(weight[p.channel[i]])));
  }
  Reals y(x.size());
  if (!grad) {
    const Reals bias = affine ? o.real(weight_at + 1) : Reals(p.channels);
    for (std::size_t i = 0; i < y.size(); ++i)
      y[i] = xhat[i] * weight[p.channel[i]] + bias[p.channel[i]];
    if (eval) return {expect(std::move(y), size)};
    return {expect(std::move(y), size), expect(mean), expect(var)};
  }
  const Reals dy = o.real(0);
  Reals sum(p.groups), product(p.groups), dweight(p.channels), dbias(p.channels);
  Reals sizes(p.groups), weight_sizes(p.channels);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = dy[i] * weight[p.channel[i]];
    sum[p.group[i]] += d;
    product[p.group[i]] += d * xhat[i];
    dbias[p.channel[i]] += dy[i];
    dweight[p.channel[i]] += dy[i] * xhat[i];
    sizes[p.group[i]] += std::pow(d * xhat[i], 2);
    weight_sizes[p.channel[i]] += std::pow(dy[i] * xhat[i], 2);
  }
  double scale = 1;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t group = p.group[i];
    const double inverse = 1 / std::sqrt(var[group] + eps);
    const double d = dy[i] * weight[p.channel[i]];
    y[i] = inverse * (d - (sum[group] + xhat[i] * product[group]) / terms[group]);
    scale = std::max({scale, inverse * std::abs(d),
                      inverse * std::abs(xhat[i]) *
                          (std::abs(product[group]) + std::sqrt(sizes[group])) / terms[group]});
  }
  if (!affine) return {expect(std::move(y), scale)};
  const auto most = [](const Reals& squares) {
    return squares.empty() ? 1 : std::sqrt(*std::max_element(squares.begin(), squares.end()));
  };
  return {expect(std::move(y), scale), expect(dweight, most(weight_sizes)), expect(dbias)};
}

std::vector<Expected> running_stats(const Operands& o) {
  Reals mean = o.real(0), var = o.real(1);
  const Reals new_mean = o.real(3), new_var = o.real(4);
  Int tracked = o.tensors[2].as<Int>()[0];
  if (o.tensors[5].as<Int>()[0] != 0) {
    const double momentum = o.c.attrs.real("momentum", 0.1);
    const double count = static_cast<double>(o.c.attrs.integer("count"));
    for (std::size_t i = 0; i < mean.size(); ++i) {
      mean[i] = (1 - momentum) * mean[i] + momentum * new_mean[i];
      var[i] = (1 - momentum) * var[i] + momentum * new_var[i] * count / (count - 1);
    }
    ++tracked;
  }
  Expected counted;
  counted.integer = {tracked};
  return {expect(mean), expect(var), counted};
}

std::vector<Expected> dropout(const Operands& o) {
  const auto clock = o.tensors[1].as<Int>();
  const Attrs& a = o.c.attrs;
  const RandomKey key{.seed = static_cast<std::uint64_t>(clock[0]),
                      .purpose = static_cast<Purpose>(a.integer("purpose")),
                      .stream = static_cast<std::uint16_t>(a.integer("stream")),
                      .step = static_cast<std::uint64_t>(clock[1])};
  Reals y = o.real(0);
  const Shape& shape = o.shape(0);
  const auto d = static_cast<std::uint64_t>(shape[0] > 0 ? shape.elements() / shape[0] : 1);
  const double p = a.real("p");
  for (std::size_t i = 0; i < y.size(); ++i) {
    std::uint64_t number = i;
    if (o.has(2)) number = static_cast<std::uint64_t>(o.tensors[2].as<Int>()[i / d]) * d + i % d;
    y[i] = random_uniform(key, number) > static_cast<float>(p) ? y[i] / (1 - p) : 0;
  }
  return {expect(std::move(y))};
}

}  // namespace

std::vector<Case> image_cases() {
  Table t;
  t.convolve();
  t.pool();
  t.norm();
  t.dropout();
  t.pointwise();
  return t.cases;
}

std::vector<Expected> image_reference(const Case& c, const std::vector<Tensor>& inputs,
                                      Rounding rounding) {
  const Operands o{c, inputs, rounding};
  if (c.op == "conv2d" || c.op == "conv_transpose2d" || c.op == "conv2d_wgrad")
    return convolution(o);
  if (c.op == "channel_sum") return channel_sum(o);
  if (c.op.find("pool2d") != std::string::npos || c.op.starts_with("upsample2d")) return pools(o);
  if (c.op == "reshape") return {expect(o.real(0))};
  if (c.op == "norm" || c.op == "norm_grad" || c.op == "batch_norm_eval") return norms(o);
  if (c.op == "running_stats") return running_stats(o);
  if (c.op == "dropout") return dropout(o);
  return {};
}

}  // namespace cuvae::testing
