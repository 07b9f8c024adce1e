// Convolutions, transposed ones, and the gradient of their weights.

#include "ops/conv.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "ops/window.h"

namespace cuvae {
namespace {

// The attributes that a convolution's gradients take over.
Attrs geometry(const Attrs& attrs) {
  return select(attrs, {"stride", "padding", "dilation", "groups"});
}

void expect_one_group(const InferContext& c) {
  if (const std::int64_t groups = c.attrs().integer("groups", 1); groups != 1)
    c.fail(fmt::format("groups = {}: convolutions have one group", groups), "leave `groups` out");
}

// Taps with their dilation.
std::int64_t extent(std::int64_t kernel, std::int64_t dilation) {
  return dilation * (kernel - 1) + 1;
}

void expect_weight(const InferContext& c, std::string_view meaning) {
  c.expect(0, DType::f32);
  c.rank(0, 4, "[B, C, H, W]");
  c.expect(1, DType::f32);
  c.rank(1, 4, meaning);
  if (c.shape(1)[2] < 1 || c.shape(1)[3] < 1)
    c.fail(fmt::format("a kernel of {} x {}", c.shape(1)[2], c.shape(1)[3]));
  expect_one_group(c);
}

void expect_bias(const InferContext& c, std::int64_t channels) {
  if (!c.has(2)) return;
  c.expect(2, DType::f32);
  c.shape(2, Shape{channels}, "[out]");
}

std::vector<OutputSpec> conv2d_infer(const InferContext& c) {
  c.inputs(2, 3);
  expect_weight(c, "[out, in, kh, kw]");
  const Shape& x = c.shape(0);
  const Shape& w = c.shape(1);
  if (w[1] != x[1])
    c.fail(fmt::format("the weight {} does not fit the input {}", w.str(), x.str()),
           "[out, in, kh, kw] and [B, in, H, W] must agree in `in`");
  expect_bias(c, w[0]);
  const Padding pad = padding_of(c.attrs());
  const auto stride = pair_of(c.attrs(), "stride", 1, 1);
  const auto dilation = pair_of(c.attrs(), "dilation", 1, 1);
  return {
      {"", DType::f32,
       Shape{x[0], w[0],
             windows_in(c, x[2] + pad.top + pad.bottom, extent(w[2], dilation[0]), stride[0]),
             windows_in(c, x[3] + pad.left + pad.right, extent(w[3], dilation[1]), stride[1])}}};
}

std::vector<OutputSpec> conv_transpose2d_infer(const InferContext& c) {
  c.inputs(2, 3);
  expect_weight(c, "[in, out, kh, kw]");
  const Shape& x = c.shape(0);
  const Shape& w = c.shape(1);
  if (w[0] != x[1])
    c.fail(fmt::format("the weight {} does not fit the input {}", w.str(), x.str()),
           "[in, out, kh, kw] and [B, in, H, W] must agree in `in`");
  expect_bias(c, w[1]);
  const Padding pad = padding_of(c.attrs());
  const auto stride = pair_of(c.attrs(), "stride", 1, 1);
  const auto dilation = pair_of(c.attrs(), "dilation", 1, 1);
  const auto more = pair_of(c.attrs(), "output_padding", 0, 0);
  std::int64_t size[2];
  for (int axis = 0; axis < 2; ++axis) {
    if (more[axis] >= stride[axis])
      c.fail(fmt::format("output_padding = {} with stride {}", more[axis], stride[axis]),
             "output_padding must be smaller than the stride");
    const std::int64_t in = x[2 + axis];
    const std::int64_t padded = axis == 0 ? pad.top + pad.bottom : pad.left + pad.right;
    size[axis] =
        (in - 1) * stride[axis] + extent(w[2 + axis], dilation[axis]) + more[axis] - padded;
    if (in < 1 || size[axis] < 1)
      c.fail(fmt::format("an output of {} rows or columns", size[axis]),
             "use a larger kernel or less padding");
  }
  return {{"", DType::f32, Shape{x[0], w[1], size[0], size[1]}}};
}

// dy [B, out, OH, OW], x [B, in, H, W]
std::vector<OutputSpec> conv2d_wgrad_infer(const InferContext& c) {
  c.inputs(2);
  c.expect(0, DType::f32);
  c.rank(0, 4, "[B, out, OH, OW]");
  c.expect(1, DType::f32);
  c.rank(1, 4, "[B, in, H, W]");
  expect_one_group(c);
  const Shape& dy = c.shape(0);
  const Shape& x = c.shape(1);
  const auto kernel = pair_of(c.attrs(), "kernel", 0, 1);
  const auto stride = pair_of(c.attrs(), "stride", 1, 1);
  const auto dilation = pair_of(c.attrs(), "dilation", 1, 1);
  const Padding pad = padding_of(c.attrs());
  if (kernel[0] < 1) c.fail("attribute `kernel` is missing", "give \"kh,kw\"");
  if (dy[0] != x[0])
    c.fail(fmt::format("the gradient {} does not fit the input {}", dy.str(), x.str()),
           "both must have the same batch");
  for (int axis = 0; axis < 2; ++axis) {
    const std::int64_t padded = axis == 0 ? pad.top + pad.bottom : pad.left + pad.right;
    const std::int64_t windows =
        windows_in(c, x[2 + axis] + padded, extent(kernel[axis], dilation[axis]), stride[axis]);
    if (windows != dy[2 + axis])
      c.fail(fmt::format("the gradient {} does not fit the input {}: {} windows along an axis",
                         dy.str(), x.str(), windows));
  }
  return {{"", DType::f32, Shape{dy[1], x[1], kernel[0], kernel[1]}}};
}

std::string pair_text(std::int64_t h, std::int64_t w) {
  return fmt::format("{},{}", h, w);
}

// dw of a convolution of x with the result's gradient dy.
Value weight_gradient(GradientContext& g, Value dy, Value x) {
  const Shape& w = g.graph[g.in(1)].shape;
  Attrs attrs = geometry(g.node.attrs);
  attrs.set("kernel", pair_text(w[2], w[3]));
  return g.graph.apply("conv2d_wgrad", g.name("wgrad"), {dy, x}, attrs);
}

void conv2d_gradient(GradientContext& g) {
  const Value dy = g.grad_out(0);
  if (g.needs(0)) {
    const Shape x = g.graph[g.in(0)].shape;
    const Shape y = g.graph[g.out(0)].shape;
    const Shape w = g.graph[g.in(1)].shape;
    Attrs attrs = geometry(g.node.attrs);
    // What the last window leaves over.
    const Padding pad = padding_of(attrs);
    const auto stride = pair_of(attrs, "stride", 1, 1);
    const auto dilation = pair_of(attrs, "dilation", 1, 1);
    const auto rest = [&](int axis, std::int64_t padded) {
      return x[2 + axis] + padded - (y[2 + axis] - 1) * stride[axis] -
             extent(w[2 + axis], dilation[axis]);
    };
    attrs.set("output_padding",
              pair_text(rest(0, pad.top + pad.bottom), rest(1, pad.left + pad.right)));
    g.set(0, g.graph.apply("conv_transpose2d", g.name("dgrad"), {dy, g.in(1)}, attrs));
  }
  if (g.needs(1)) g.set(1, weight_gradient(g, dy, g.in(0)));
  if (g.needs(2)) g.set(2, g.graph.apply("channel_sum", g.name("bgrad"), {dy}));
}

// The same with the roles of input and output swapped.
void conv_transpose2d_gradient(GradientContext& g) {
  const Value dy = g.grad_out(0);
  if (g.needs(0))
    g.set(0, g.graph.apply("conv2d", g.name("dgrad"), {dy, g.in(1)}, geometry(g.node.attrs)));
  if (g.needs(1)) g.set(1, weight_gradient(g, g.in(0), dy));
  if (g.needs(2)) g.set(2, g.graph.apply("channel_sum", g.name("bgrad"), {dy}));
}

std::vector<OutputSpec> channel_sum_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  c.rank(0, 4, "[B, C, H, W]");
  return {{"", DType::f32, Shape{c.shape(0)[1]}}};
}

Cost conv_cost(const Graph& graph, const Node& node) {
  const Conv2d s = conv_of(graph, node);
  const auto real = [](std::int64_t n) { return static_cast<double>(n); };
  return {.flops = 2.0 * real(s.batch) * real(s.in) * real(s.out) * real(s.taps()) * real(s.h.out) *
                   real(s.w.out),
          .bytes = traffic(graph, node)};
}

}  // namespace

Conv2d conv_of(const Graph& graph, const Node& node) {
  const Shape& first = graph[node.inputs[0]].shape;
  const Shape& second = graph[node.inputs[1]].shape;
  const Shape& result = graph[node.outputs[0]].shape;
  const bool transposed = node.op == Op::conv_transpose2d;
  const bool wgrad = node.op == Op::conv2d_wgrad;
  const Shape& w = wgrad ? result : second;
  const Shape& x = wgrad ? second : transposed ? result : first;
  const Shape& y = wgrad || transposed ? first : result;
  const auto stride = pair_of(node.attrs, "stride", 1, 1);
  const auto dilation = pair_of(node.attrs, "dilation", 1, 1);
  const Padding pad = padding_of(node.attrs);
  return {.batch = x[0],
          .in = w[1],
          .out = w[0],
          .h = {x[2], y[2], w[2], stride[0], pad.top, dilation[0]},
          .w = {x[3], y[3], w[3], stride[1], pad.left, dilation[1]}};
}

ConvPhaseAxis forward_phase(const ConvAxis& axis) {
  return {.positions = axis.out,
          .taps = axis.kernel,
          .source = axis.in,
          .stride = axis.stride,
          .start = -axis.before,
          .step = axis.dilation};
}

std::vector<ConvPhaseAxis> transposed_phases(const ConvAxis& axis) {
  std::vector<ConvPhaseAxis> phases;
  const std::int64_t every = axis.stride / std::gcd(axis.stride, axis.dilation);
  for (std::int64_t row = 0; row < std::min(axis.stride, axis.in); ++row) {
    ConvPhaseAxis phase{.positions = (axis.in - row - 1) / axis.stride + 1,
                        .source = axis.out,
                        .step = -(every * axis.dilation / axis.stride),
                        .first_row = row,
                        .every_row = axis.stride,
                        .every_tap = every};
    // Tap t of the convolution brings row i to (i + before - t * dilation) / stride, if that is
    // a whole number.
    for (std::int64_t tap = 0; tap < std::min(every, axis.kernel); ++tap) {
      const std::int64_t from = row + axis.before - tap * axis.dilation;
      if (from % axis.stride != 0) continue;
      phase.first_tap = tap;
      phase.taps = (axis.kernel - 1 - tap) / every + 1;
      phase.start = from / axis.stride;
      break;
    }
    phases.push_back(phase);
  }
  return phases;
}

std::vector<ConvPhase> conv_phases(const Conv2d& conv, bool transposed) {
  if (!transposed) return {{forward_phase(conv.h), forward_phase(conv.w)}};
  std::vector<ConvPhase> phases;
  const auto columns = transposed_phases(conv.w);
  for (const ConvPhaseAxis& h : transposed_phases(conv.h))
    for (const ConvPhaseAxis& w : columns) phases.push_back({h, w});
  return phases;
}

constinit const OpDef op_conv2d = {.op = Op::conv2d,
                                   .name = "conv2d",
                                   .doc = "y = x * w + b: cross-correlation of [B, C, H, W]",
                                   .infer = conv2d_infer,
                                   .gradient = conv2d_gradient,
                                   .cost = conv_cost};
constinit const OpDef op_conv_transpose2d = {
    .op = Op::conv_transpose2d,
    .name = "conv_transpose2d",
    .doc = "the data gradient of conv2d as a layer, plus b",
    .infer = conv_transpose2d_infer,
    .gradient = conv_transpose2d_gradient,
    .cost = conv_cost};
constinit const OpDef op_conv2d_wgrad = {.op = Op::conv2d_wgrad,
                                         .name = "conv2d_wgrad",
                                         .doc = "dw = sum over positions of dy x",
                                         .infer = conv2d_wgrad_infer,
                                         .cost = conv_cost};
constinit const OpDef op_channel_sum = {.op = Op::channel_sum,
                                        .name = "channel_sum",
                                        .doc = "y[c] = sum over b, h, w of x[b, c, h, w]",
                                        .infer = channel_sum_infer,
                                        .cost = per_input<1>};

}  // namespace cuvae
