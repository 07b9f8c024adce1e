#include "ops/parity_table.h"

#include <algorithm>
#include <cmath>

#include "ops/activation.h"
#include "ops/parity_batch.h"
#include "ops/parity_densities.h"
#include "ops/parity_images.h"
#include "ops/parity_likelihoods.h"
#include "ops/reference.h"

namespace cuvae::testing {
namespace {

using Int = std::int64_t;

CaseInput real(Shape shape, Fill fill = Fill::normal) {
  return {.shape = shape, .fill = fill};
}
CaseInput held(Shape shape, Storage storage, Fill fill = Fill::normal) {
  return {.shape = shape, .fill = fill, .storage = storage};
}
CaseInput scaled(Shape shape, double scale) {
  return {.shape = shape, .scale = scale};
}
CaseInput none() {
  CaseInput input;
  input.absent = true;
  return input;
}
CaseInput clock() {
  return {.shape = Shape{5}, .fill = Fill::clock, .dtype = DType::i64};
}
CaseInput hyper() {
  return {.shape = Shape{3, 2}, .fill = Fill::hyper};
}
CaseInput commit(bool on) {
  return {.shape = Shape{1}, .fill = on ? Fill::commit : Fill::no_commit, .dtype = DType::i64};
}
CaseInput indices(Int n, Int limit) {
  return {.shape = Shape{n}, .fill = Fill::rows, .dtype = DType::i64, .limit = limit};
}

std::string text(Int n) {
  return std::to_string(n);
}
std::string text(Int a, Int b) {
  return text(a) + "x" + text(b);
}
std::string text(Int a, Int b, Int c) {
  return text(a, b) + "x" + text(c);
}

struct Dense {
  Int b, in, out;
};
// Nothing, one, around the widths of vectors and tiles, primes, a long row, the default model's.
constexpr Dense dense[] = {{0, 3, 4},     {3, 0, 4},     {3, 4, 0},      {1, 1, 1},
                           {1, 784, 512}, {2, 31, 32},   {31, 33, 65},   {32, 64, 63},
                           {64, 97, 127}, {65, 127, 31}, {128, 32, 512}, {3, 10007, 2},
                           {2, 3, 10007}, {97, 5, 64},   {128, 784, 64}, {300, 65, 257}};
constexpr Dense dense_large = {128, 784, 512};

struct Matrix {
  Int b, d;
};
constexpr Matrix matrices[] = {{0, 5},   {4, 0},   {1, 1},    {3, 7},     {1, 10007}, {31, 33},
                               {32, 32}, {65, 63}, {97, 127}, {128, 784}, {300, 64}};
constexpr Int lengths[] = {0, 1, 31, 32, 33, 63, 64, 65, 97, 127, 10007, 784 * 512};

bool small(const Case& c) {
  Int elements = 0;
  for (const CaseInput& input : c.inputs) elements += input.shape.elements();
  return elements > 0 && elements <= 12000;
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

  void data() {
    for (const Int batch : {Int{0}, Int{1}, Int{33}, Int{97}})
      for (const Int shuffle : {0, 1})
        for (const Int staged : {0, 1})
          add("batch_index",
              text(batch) + (shuffle ? "_shuffled" : "_in_order") + (staged ? "_staged" : ""),
              {clock()},
              {{"batch", batch}, {"rows", Int{1009}}, {"shuffle", shuffle}, {"staged", staged}});
    for (const Matrix m : matrices) {
      const CaseInput pixels{.shape = Shape{50, m.d}, .fill = Fill::pixels, .dtype = DType::u8};
      add("gather", "u8_" + text(m.b, m.d), {pixels, indices(m.b, 50)}, {{"scale", 1.0 / 255}});
      add("gather", "real_" + text(m.b, m.d), {real(Shape{50, m.d}), indices(m.b, 50)},
          {{"scale", 0.5}, {"shift", 0.25}});
    }
  }

  void latent_gradient(const Dense& s) {
    const Shape latents{s.b, s.in};
    add("linear_dgrad_sample_kl", text(s.b, s.in, s.out),
        {real(Shape{s.b, s.out}), real(Shape{s.out, s.in}), real(latents), real(latents),
         real(latents), real(Shape{s.b}, Fill::positive)},
        {}, s.out);
  }

  // Of h [B, in] to latents [B, d] to y [B, out], and back.
  void bottleneck(Int b, Int in, Int d, Int out) {
    const std::string what = text(b, in, d) + "x" + text(out);
    const CaseInput h = real(Shape{b, in});
    const CaseInput heads = scaled(Shape{2 * d, in}, 0.05);
    const CaseInput bias = real(Shape{2 * d});
    const CaseInput layer = scaled(Shape{out, d}, 0.1);
    const CaseInput layer_bias = real(Shape{out});
    const Int longest = in + d + out;
    add("linear_bottleneck", what, {h, heads, bias, layer, layer_bias, clock()},
        {{"purpose", Int{2}}, {"stream", Int{3}}, {"kind", std::string("relu")}}, longest);
    add("linear_bottleneck", what + "_keyed_gelu_saved",
        {h, heads, bias, layer, layer_bias, clock(), indices(b, 100000)},
        {{"purpose", Int{2}},
         {"stream", Int{3}},
         {"kind", std::string("gelu")},
         {"save_input", Int{1}}},
        longest);
    const CaseInput latents = real(Shape{b, d});
    for (const char* kind : {"relu", "tanh"})
      add("linear_dgrad_bottleneck", what + "_" + kind,
          {real(Shape{b, out}), layer, latents, latents, latents, real(Shape{b}, Fill::positive),
           scaled(Shape{2 * d, in}, 0.1), real(Shape{b, in}, Fill::saved)},
          {{"kind", std::string(kind)}}, longest);
  }

  void bottlenecks() {
    // Nothing, one, around 8 rows, 32 columns and 64 terms, long sums, the default model's, more
    // rows than the fused kernels take.
    const Int sizes[][4] = {{0, 3, 2, 4},
                            {3, 0, 2, 4},
                            {3, 4, 0, 5},
                            {3, 4, 2, 0},
                            {1, 1, 1, 1},
                            {7, 31, 3, 33},
                            {8, 32, 16, 32},
                            {14, 56, 37, 65},
                            {17, 129, 33, 97},
                            {2, 1100, 5, 40},
                            {3, 40, 6, 1030},
                            {5, 66, 70, 36},
                            {32, 68, 36, 300},
                            {33, 20, 129, 12},
                            {128, 512, 32, 512},
                            {600, 12, 3, 9},
                            // enough for the CPU's
                            {513, 33, 17, 31},
                            {545, 7, 40, 36}};
    for (const auto& [b, in, d, out] : sizes) bottleneck(b, in, d, out);
  }

  void products() {
    latent_gradient({600, 33, 40});  // tiles of 64 on few multiprocessors, with few elements
    std::vector<Dense> all(std::begin(dense), std::end(dense));
    all.push_back(dense_large);
    for (const Dense s : all) {
      const std::string what = text(s.b, s.in, s.out);
      const CaseInput x = real(Shape{s.b, s.in});
      const CaseInput w = real(Shape{s.out, s.in});
      const CaseInput bias = real(Shape{s.out});
      const CaseInput dy = real(Shape{s.b, s.out});
      add("linear", what, {x, w, bias}, {}, s.in, true);
      add("linear", what + "_no_bias", {x, w}, {}, s.in, true);
      add("linear_dgrad", what, {dy, w}, {}, s.out);
      add("linear_wgrad", what + "_bias", {dy, x}, {{"bias", Int{1}}}, s.b);
      add("linear_wgrad", what, {dy, x}, {}, s.b);
      add("linear_activation", what + "_relu", {x, w, bias}, {{"kind", std::string("relu")}}, s.in);
      add("linear_activation", what + "_gelu_saved", {x, w},
          {{"kind", std::string("gelu")}, {"save_input", Int{1}}}, s.in);
      add("linear_dgrad_activation", what + "_tanh", {dy, w, real(Shape{s.b, s.in}, Fill::saved)},
          {{"kind", std::string("tanh")}}, s.out);
      add("linear_dgrad_activation", what + "_relu", {dy, w, real(Shape{s.b, s.in}, Fill::saved)},
          {{"kind", std::string("relu")}}, s.out);
      add("linear_dgrad_activation", what + "_relu_bias",
          {dy, w, real(Shape{s.b, s.in}, Fill::saved)},
          {{"kind", std::string("relu")}, {"bias", Int{1}}}, s.out + s.b);
      latent_gradient(s);
      for (const char* likelihood : {"bernoulli", "gaussian"})
        add("linear_nll", what + "_" + likelihood,
            {x, scaled(Shape{s.out, s.in}, 0.05), bias, real(Shape{s.b, s.out}, Fill::unit),
             real(Shape{s.b}, Fill::positive)},
            {{"likelihood", std::string(likelihood)}, {"sigma", 0.7}}, s.in + s.out);
      if (s.out % 2 == 0) {
        const Attrs purpose = {{"purpose", Int{2}}, {"stream", Int{3}}};
        const CaseInput heads = scaled(Shape{s.out, s.in}, 0.05);
        add("linear_sample_kl", what, {x, heads, bias, clock()}, purpose, s.in + s.out);
        add("linear_sample_kl", what + "_keyed", {x, heads, bias, clock(), indices(s.b, 100000)},
            purpose, s.in + s.out);
      }
      for (const bool on : {true, false})
        for (const bool with_bias : {true, false}) {
          const auto moments = [&](Shape shape) {
            return std::vector<CaseInput>{held(shape, Storage::parameter),
                                          held(shape, Storage::state),
                                          held(shape, Storage::state, Fill::positive)};
          };
          std::vector<CaseInput> inputs = {dy, x};
          for (const CaseInput& i : moments(Shape{s.out, s.in})) inputs.push_back(i);
          if (with_bias)
            for (const CaseInput& i : moments(Shape{s.out})) inputs.push_back(i);
          else
            inputs.insert(inputs.end(), 3, none());
          for (const CaseInput& i : {hyper(), clock(), commit(on)}) inputs.push_back(i);
          add("linear_wgrad_adam", what + (on ? "" : "_no_commit") + (with_bias ? "" : "_no_bias"),
              inputs, {{"weight_decay", 0.01}}, s.b);
        }
    }
  }

  // Rows of a window of bytes as x [B, D] or as the target [B, D] of layers [in, D].
  void gathered(const Dense& s, bool more) {
    const Int rows = 8;
    const std::string what = text(s.b, s.in, s.out);
    const auto window = [&](Int d) {
      return CaseInput{.shape = Shape{rows, d}, .fill = Fill::pixels, .dtype = DType::u8};
    };
    const auto with = [](Attrs attrs, double scale, double shift) {
      attrs.set("scale", scale);
      if (shift != 0) attrs.set("shift", shift);
      return attrs;
    };
    const CaseInput row = indices(s.b, rows);
    const CaseInput w = real(Shape{s.out, s.in});
    const CaseInput bias = real(Shape{s.out});
    const Attrs relu = {{"kind", std::string("relu")}};
    const Attrs gelu = {{"kind", std::string("gelu")}, {"save_input", Int{1}}};
    add("linear_gather_activation", what, {window(s.in), row, w, bias}, with(relu, 1.0 / 255, 0),
        s.in);
    const CaseInput h = real(Shape{s.b, s.in});
    const CaseInput narrow = scaled(Shape{s.out, s.in}, 0.05);
    const CaseInput dnll = real(Shape{s.b}, Fill::positive);
    const auto nll = [&](const char* likelihood, const CaseInput& from, double scale, double shift,
                         const char* suffix) {
      add("linear_gather_nll", what + "_" + likelihood + suffix, {from, row, h, narrow, bias, dnll},
          with({{"likelihood", std::string(likelihood)}, {"sigma", 0.7}}, scale, shift),
          s.in + s.out);
    };
    nll("bernoulli", window(s.out), 1.0 / 255, 0, "");
    const auto update = [&](const char* suffix, const CaseInput& from, bool on, bool with_bias,
                            double shift) {
      std::vector<CaseInput> inputs = {from, row, real(Shape{s.b, s.out})};
      const auto moments = [&](Shape shape) {
        inputs.push_back(held(shape, Storage::parameter));
        inputs.push_back(held(shape, Storage::state));
        inputs.push_back(held(shape, Storage::state, Fill::positive));
      };
      moments(Shape{s.out, s.in});
      if (with_bias)
        moments(Shape{s.out});
      else
        inputs.insert(inputs.end(), 3, none());
      for (const CaseInput& i : {hyper(), clock(), commit(on)}) inputs.push_back(i);
      add("linear_gather_wgrad_adam", what + suffix, inputs,
          with({{"weight_decay", 0.01}}, 1.0 / 255, shift), s.b);
    };
    update("", window(s.in), true, true, 0);
    if (!more) return;
    add("linear_gather_activation", what + "_gelu_saved", {window(s.in), row, w},
        with(gelu, 1.0 / 128, 127.5), s.in);
    add("linear_gather_activation", what + "_linear", {window(s.in), row, w, bias},
        with({}, 1.0 / 255, 0), s.in);
    add("linear_gather_activation", what + "_real", {real(Shape{rows, s.in}), row, w, bias},
        with(relu, 0.5, 0.25), s.in);
    nll("gaussian", window(s.out), 1.0 / 128, 127.5, "");
    nll("bernoulli", real(Shape{rows, s.out}, Fill::unit), 1, 0, "_real");
    update("_no_commit", window(s.in), false, true, 0);
    update("_no_bias", window(s.in), true, false, 127.5);
    update("_real", real(Shape{rows, s.in}), true, true, 0.25);
  }

  void gathers() {
    for (const Dense& s : dense) gathered(s, s.b == 31 || s.b == 65);
    gathered(dense_large, false);
    // Of rows that can be copied by 16 and by 4 bytes: the largest of the tests of mutations, which
    // take several slabs; and medium tiles on few multiprocessors.
    for (const Dense& s : {Dense{33, 208, 40}, {33, 40, 208}, {140, 80, 24}, {40, 36, 44}})
      gathered(s, true);
    for (const Dense& s : {Dense{150, 112, 100}, {150, 100, 112}, {130, 160, 100}})
      gathered(s, false);
  }

  void layer_pairs() {
    struct Pair {
      Int b, in, hidden, out;
    };
    for (const Pair& s : {Pair{0, 3, 4, 5},
                          {1, 0, 4, 5},
                          {1, 3, 0, 5},
                          {1, 3, 4, 0},
                          {1, 1, 1, 1},
                          {1, 32, 512, 784},
                          {2, 7, 33, 9},
                          {3, 31, 65, 63},
                          {4, 33, 31, 17},
                          {4, 5, 10007, 3},
                          {5, 8, 16, 8}})
      for (const char* last : {"", "sigmoid", "leaky_relu"}) {
        Attrs attrs = {{"kind", std::string("relu")}};
        if (*last != '\0') attrs.set("out_kind", std::string(last));
        if (std::string(last) == "leaky_relu") attrs.set("out_alpha", 0.3);
        add("layer_pair",
            text(s.b) + "x" + text(s.in, s.hidden, s.out) + (*last != '\0' ? "_" : "") + last,
            {real(Shape{s.b, s.in}), scaled(Shape{s.hidden, s.in}, 0.3),
             scaled(Shape{s.out, s.hidden}, 0.3), real(Shape{s.hidden}), real(Shape{s.out})},
            attrs, s.in + s.hidden);
      }
  }

  void elementwise() {
    for (const ActivationKind kind : all_activations()) {
      const std::string name(name_of(kind));
      const Attrs attrs = {{"kind", name}};
      for (const Int n : lengths) {
        add("activation", name + "_" + text(n), {real(Shape{n}, Fill::away_from_zero)}, attrs, 1,
            n <= 127);
        add("activation_grad", name + "_" + text(n), {real(Shape{n}), real(Shape{n}, Fill::saved)},
            attrs);
      }
      add("activation", name + "_extreme", {real(Shape{40}, Fill::extreme)}, attrs);
      add("activation_grad", name + "_extreme",
          {real(Shape{40}), {.shape = Shape{40}, .fill = Fill::saved, .scale = 300}}, attrs);
    }
    add("activation", "bound_logvar_wide", {real(Shape{33, 9}, Fill::wide_logvar)},
        {{"kind", std::string("bound_logvar")}}, 1, true);
    for (const char* kind : {"leaky_relu", "elu"})
      add("activation", std::string(kind) + "_alpha", {real(Shape{65}, Fill::away_from_zero)},
          {{"kind", std::string(kind)}, {"alpha", 0.3}}, 1, true);
    for (const Int n : lengths) {
      for (const char* op : {"add", "mul"})
        add(op, text(n), {real(Shape{n}), real(Shape{n})}, {}, 1, true);
      add("scale", text(n), {real(Shape{n})}, {{"factor", -1.75}}, 1, true);
      add("scale", text(n) + "_hyper", {real(Shape{n}), hyper()},
          {{"factor", 2.0}, {"slot", Int{1}}}, 1, true);
      add("detach", text(n), {real(Shape{n})});
      add("log_count", text(n), {scaled(Shape{n}, 20)});
      add("fill", text(n), {}, {{"shape", text(n)}, {"value", 1.5}});
      add("fill", text(n) + "_hyper", {hyper()},
          {{"shape", text(n)}, {"value", 1.5}, {"slot", Int{1}}});
      for (const bool on : {true, false})
        add("adam", text(n) + (on ? "" : "_no_commit"),
            {held(Shape{n}, Storage::parameter), held(Shape{n}, Storage::state),
             held(Shape{n}, Storage::state, Fill::positive), real(Shape{n}), hyper(), clock(),
             commit(on)},
            {{"beta1", 0.8}, {"beta2", 0.99}, {"eps", 1e-7}, {"weight_decay", 0.05}});
      for (const bool on : {true, false})
        add("adam", text(n) + "_shadow" + (on ? "" : "_no_commit"),
            {held(Shape{n}, Storage::parameter), held(Shape{n}, Storage::state),
             held(Shape{n}, Storage::state, Fill::positive), real(Shape{n}), hyper(), clock(),
             commit(on), held(Shape{n}, Storage::state)});
    }
    add("fill", "scalar", {}, {{"shape", std::string()}, {"value", 1.0}});
  }

  // Optimisers beside adam, gradients on their way to them, averages of weights.
  void updates() {
    const auto flag = [](const char* name) {
      return std::pair<std::string, Attrs::Attr>{name, Int{1}};
    };
    const auto number = [](const char* name, double value) {
      return std::pair<std::string, Attrs::Attr>{name, value};
    };
    const std::pair<std::string, Attrs::Attr> keras{"convention", std::string("keras")};
    struct Variant {
      const char* op;
      const char* what;
      Attrs attrs;
    };
    const Variant variants[] = {
        {"sgd", "plain", {number("weight_decay", 0.05)}},
        {"sgd", "momentum", {number("momentum", 0.9), number("dampening", 0.2)}},
        {"sgd", "nesterov", {number("momentum", 0.8), flag("nesterov")}},
        {"rmsprop", "torch", {number("weight_decay", 0.05), flag("decoupled")}},
        {"rmsprop", "torch_all", {flag("centered"), number("momentum", 0.9)}},
        {"rmsprop", "keras", {keras}},
        {"rmsprop", "keras_all", {keras, flag("centered"), number("momentum", 0.9)}},
        {"rmsprop", "keras_momentum", {keras, number("momentum", 0.5), number("rho", 0.8)}},
        {"adagrad", "decay", {number("lr_decay", 0.01), number("weight_decay", 0.05)}},
        {"adamax", "defaults", {}},
        {"adamax", "betas", {number("beta1", 0.0), number("beta2", 0.9), number("eps", 1e-6)}},
        {"iwae_adam", "defaults", {number("weight_decay", 0.05), flag("decoupled")}}};
    for (const Variant& v : variants)
      for (const Int n : lengths)
        for (const bool on : {true, false}) {
          if (!on && n != 33) continue;
          std::vector<CaseInput> inputs = {held(Shape{n}, Storage::parameter), real(Shape{n}),
                                           hyper(), clock(), commit(on)};
          // An average of squares is positive, and larger than the square of the average.
          for (const StateSpec& state : optimizer_states(v.op, v.attrs)) {
            const bool positive = state.slot == "square" || state.slot == "sum" ||
                                  state.slot == "u" || state.slot == "v";
            inputs.push_back(
                held(Shape{n}, Storage::state, positive ? Fill::positive : Fill::normal));
            if (state.slot == "mean") inputs.back().scale = 0.02;
          }
          add(v.op, text(n) + "_" + v.what + (on ? "" : "_no_commit"), inputs, v.attrs);
        }
    for (const bool on : {true, false})
      for (const Int n : {Int{1}, Int{97}}) {
        const std::vector<CaseInput> inputs = {held(Shape{n}, Storage::parameter),
                                               held(Shape{n}, Storage::state),
                                               held(Shape{n}, Storage::state, Fill::positive),
                                               real(Shape{n}),
                                               hyper(),
                                               clock(),
                                               commit(on)};
        const std::string what = text(n) + (on ? "" : "_no_commit");
        add("adam", what + "_decoupled", inputs, {number("weight_decay", 0.05), flag("decoupled")});
        add("adam", what + "_eps_hat", inputs,
            {number("beta1", 0.99), number("eps", 1e-4), flag("eps_hat")});
      }
    for (const Int n : lengths) {
      add("add_penalty", text(n), {real(Shape{n}), real(Shape{n})}, {{"l1", 0.3}, {"l2", 0.2}});
      add("scale_by", text(n), {real(Shape{n}), real(Shape{})});
      for (const char* start : {"corrected", "warmup", "plain"})
        for (const bool on : {true, false}) {
          if (!on && n != 33) continue;
          add("weight_ema", text(n) + "_" + start + (on ? "" : "_no_commit"),
              {held(Shape{n}, Storage::state), real(Shape{n}), clock(), commit(on)},
              {{"decay", 0.97}, {"start", std::string(start)}});
        }
    }
    add("add_penalty", "signs", {real(Shape{40}), real(Shape{40}, Fill::extreme)}, {{"l1", 0.5}});
    const std::vector<std::vector<Int>> groups = {{0},
                                                  {1},
                                                  {0, 3, 0},
                                                  {33, 1, 97},
                                                  {8192, 8193, 5},
                                                  {784 * 512, 512, 127},
                                                  std::vector<Int>(60, 7)};
    for (const auto& sizes : groups)
      for (const bool on : {true, false})
        for (const double limit : {0.0, 0.25, 1e6}) {
          std::vector<CaseInput> inputs = {commit(on),
                                           {.shape = Shape{1},
                                            .fill = Fill::zero_state,
                                            .dtype = DType::i64,
                                            .storage = Storage::state}};
          Int terms = 0;
          for (const Int n : sizes) {
            inputs.push_back(n % 2 == 0 && n > 0 ? real(Shape{2, n / 2}) : real(Shape{n}));
            terms += n;
          }
          add("clip_norm",
              text(terms) + "_of_" + text(static_cast<Int>(sizes.size())) + "_to_" +
                  (limit == 0  ? "none"
                   : limit < 1 ? "quarter"
                               : "million") +
                  (on ? "" : "_no_commit"),
              inputs, {{"limit", limit}});
        }
  }

  void rows() {
    for (const Matrix m : matrices) {
      const Shape shape{m.b, m.d};
      const std::string what = text(m.b, m.d);
      const CaseInput x = real(shape);
      add("split", what, {x},
          {{"sizes", text(m.d / 3) + "," + text(m.d - m.d / 3 - m.d / 2) + "," + text(m.d / 2)}}, 1,
          true);
      add("concat", what, {x, real(Shape{m.b, 3}), real(Shape{m.b, 0}), real(Shape{m.b, 33})}, {},
          1, true);
      const struct {
        const char* axis;
        Int terms;
        Shape left;
      } axes[] = {
          {"all", m.b * m.d, Shape{}}, {"rows", m.b, Shape{m.d}}, {"cols", m.d, Shape{m.b}}};
      for (const auto& axis : axes) {
        for (const char* op : {"sum", "mean"}) {
          if (axis.terms == 0 && op == std::string("mean")) continue;  // an error, tested as one
          add("reduce", what + "_" + axis.axis + "_" + op, {x},
              {{"axis", std::string(axis.axis)}, {"op", std::string(op)}}, axis.terms, true);
        }
        add("broadcast", what + "_" + axis.axis, {real(axis.left)},
            {{"axis", std::string(axis.axis)},
             {"shape", text(m.b) + "," + text(m.d)},
             {"factor", 0.125}},
            1, true);
      }
      const Attrs purpose = {{"purpose", Int{2}}, {"stream", Int{7}}};
      add("sample", what, {x, x, clock()}, purpose, 1, true);
      add("sample", what + "_keyed", {x, x, clock(), indices(m.b, 100000)}, purpose, 1, true);
      add("sample_grad", what, {x, x, x});
      const CaseInput row = real(Shape{m.b});
      const CaseInput target = real(shape, Fill::unit);
      add("gaussian_kl", what, {x, x}, {}, m.d, true);
      add("gaussian_kl_grad", what, {row, x, x});
      add("bernoulli_nll", what, {x, target}, {}, m.d, true);
      add("bernoulli_nll_grad", what, {row, x, target});
      add("sample_kl_grad", what, {x, x, x, x, real(Shape{m.b}, Fill::positive)});
      const CaseInput heads = real(Shape{m.b, 2 * m.d});
      add("sample_kl", what, {heads, clock()}, purpose, m.d);
      add("sample_kl", what + "_keyed", {heads, clock(), indices(m.b, 100000)}, purpose, m.d);
      for (const char* likelihood : {"bernoulli", "gaussian"})
        add("nll_with_grad", what + "_" + likelihood, {x, target, row},
            {{"likelihood", std::string(likelihood)}, {"sigma", 0.7}}, m.d);
      const Attrs sigma = {{"sigma", 0.3}};
      add("gaussian_nll", what, {x, target}, sigma, m.d, true);
      add("gaussian_nll_grad", what, {row, x, target}, sigma);
    }
    const Shape shape{7, 40};
    const CaseInput logits = real(shape, Fill::extreme);
    const CaseInput wide = real(shape, Fill::wide_logvar);
    const CaseInput target = real(shape, Fill::unit);
    add("bernoulli_nll", "extreme", {logits, target}, {}, 40);
    add("bernoulli_nll_grad", "extreme", {real(Shape{7}), logits, target});
    add("gaussian_nll", "extreme", {logits, target}, {}, 40);
    add("nll_with_grad", "extreme", {logits, target, real(Shape{7})},
        {{"likelihood", std::string("bernoulli")}}, 40);
    // From about 88 on float's exp(logvar) is infinite, which bound_logvar keeps away; 80 and less.
    const CaseInput logvar = scaled(shape, 20);
    add("gaussian_kl", "wide", {real(shape), logvar}, {}, 40);
    add("gaussian_kl_grad", "wide", {real(Shape{7}), real(shape), logvar});
    add("sample", "wide", {real(shape), wide, clock()}, {{"purpose", Int{2}}, {"stream", Int{0}}});
    add("sample_grad", "wide", {real(shape), real(shape), wide});
    add("reduce", "vector_10007", {real(Shape{10007})},
        {{"axis", std::string("all")}, {"op", std::string("mean")}}, 10007, true);
    for (const Int n : {Int{1}, Int{31}, Int{33}, Int{128}, Int{10007}, Int{20011}})
      add("elbo", text(n), {real(Shape{n}, Fill::positive), real(Shape{n}), hyper()},
          {{"factor", 0.5}, {"slot", Int{1}}}, n);
    add("broadcast", "vector_97", {real(Shape{})},
        {{"axis", std::string("all")}, {"shape", std::string("97")}}, 1, true);
  }
};

// A small generator of its own, so that the table depends on nothing it tests.
class Noise {
 public:
  explicit Noise(const std::string& seed) {
    for (const char c : seed) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  }
  double uniform() {  // [0, 1)
    state_ += 0x9e3779b97f4a7c15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
  double normal() { return (uniform() + uniform() + uniform() + uniform() - 2) * std::sqrt(3.0); }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325ULL;
};

double value_of(const CaseInput& input, const Case& c, std::size_t i, Noise& noise) {
  constexpr double wide_counts[] = {0, 1, 2, 30, 255, 4096, 1e6};
  constexpr double extremes[] = {0, 1e-30, 1e-4, 1, 10, 11, 50, 88, 100, 1000};
  switch (input.fill) {
    case Fill::normal: return input.scale * noise.normal();
    case Fill::away_from_zero: {
      const double x = noise.normal();
      return x + (x < 0 ? -0.05 : 0.05);
    }
    case Fill::unit: return noise.uniform();
    case Fill::positive: return 0.01 + 0.99 * noise.uniform();
    case Fill::extreme: return extremes[i % 10] * (i / 10 % 2 == 0 ? 1 : -1);
    case Fill::wide_logvar: return 200 * noise.uniform() - 100;
    case Fill::thousands: return 1000 + noise.normal();
    case Fill::commit: return 1;  // all equal
    case Fill::saved: {
      const Activation f = activation_of(c.attrs);
      const double x = 2 * input.scale * noise.normal();
      return saves_output(f.kind) ? plain_activation(f, x) : x;
    }
    case Fill::levels: return std::floor(noise.uniform() * 256) / 255;
    case Fill::counts: return std::floor(std::exp(4 * noise.uniform()) - 1);
    case Fill::wide_counts: return wide_counts[i % 7];
    case Fill::labels: return std::floor(noise.uniform() * static_cast<double>(input.limit));
    case Fill::gaps: return i < 10 || i % 3 == 0 ? -HUGE_VAL : input.scale * noise.normal();
    case Fill::hyper: return i % 2 == 0 ? 0.01 / static_cast<double>(i + 1) : 0.5;
    default: return 0;
  }
}

}  // namespace

const std::vector<Case>& parity_table() {
  static const std::vector<Case> table = [] {
    Table t;
    t.data();
    t.products();
    t.bottlenecks();
    t.gathers();
    t.layer_pairs();
    t.elementwise();
    t.rows();
    t.updates();
    for (Case& c : image_cases()) t.cases.push_back(std::move(c));
    for (Case& c : likelihood_cases()) t.cases.push_back(std::move(c));
    for (Case& c : batch_cases()) t.cases.push_back(std::move(c));
    for (Case& c : density_cases()) t.cases.push_back(std::move(c));
    return t.cases;
  }();
  return table;
}

std::vector<Tensor> case_inputs(const Case& c) {
  std::vector<Tensor> tensors;
  for (std::size_t place = 0; place < c.inputs.size(); ++place) {
    const CaseInput& input = c.inputs[place];
    Noise noise(c.id() + "#" + std::to_string(place));
    Tensor tensor(input.dtype, input.shape);
    const auto n = static_cast<std::size_t>(tensor.elements());
    for (std::size_t i = 0; i < n && !input.absent; ++i) {
      if (input.dtype == DType::f32) {
        tensor.as<float>()[i] = static_cast<float>(value_of(input, c, i, noise));
      } else if (input.dtype == DType::u8) {
        const double limit = input.limit > 0 ? static_cast<double>(input.limit) : 256;
        tensor.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(noise.uniform() * limit);
      } else {
        constexpr Int clock_values[] = {0x123456789abcdef, 41, 3, 100, 0};
        Int& x = tensor.as<Int>()[i];
        if (input.fill == Fill::clock) x = clock_values[i];
        if (input.fill == Fill::commit) x = 1;
        if (input.fill == Fill::rows)
          x = static_cast<Int>(noise.uniform() * static_cast<double>(input.limit));
      }
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

CaseGraph case_graph(const Case& c) {
  CaseGraph result;
  Graph& g = result.graph;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const CaseInput& input = c.inputs[i];
    const std::string name = "in" + std::to_string(i);
    if (input.absent)
      result.inputs.push_back({});
    else if (input.storage == Storage::parameter)
      result.inputs.push_back(g.parameter(name, input.shape));
    else if (input.storage == Storage::state)
      result.inputs.push_back(g.state(name, input.dtype, input.shape));
    else
      result.inputs.push_back(g.input(name, input.dtype, input.shape));
  }
  result.outputs = g.add(c.op, "node", result.inputs, c.attrs);
  for (const Value output : result.outputs)
    if (!g.root(output)) g.output(output);
  return result;
}

}  // namespace cuvae::testing
