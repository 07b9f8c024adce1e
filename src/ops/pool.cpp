// Pools, nearest upsampling, and their gradients.

#include "ops/pool.h"

#include <fmt/format.h>

#include "ops/window.h"

namespace cuvae {
namespace {

Attrs geometry(const Attrs& attrs) {
  return select(attrs, {"kernel", "stride", "padding", "factor"});
}

std::array<std::int64_t, 2> kernel_of(const Attrs& attrs) {
  return pair_of(attrs, attrs.has("factor") ? "factor" : "kernel", 0, 1);
}

std::array<std::int64_t, 2> stride_of(const Attrs& attrs) {
  const auto kernel = kernel_of(attrs);
  return attrs.has("stride") ? pair_of(attrs, "stride", 1, 1) : kernel;
}

// The result of a pool of x.
Shape pooled(const InferContext& c, const Shape& x) {
  const auto kernel = kernel_of(c.attrs());
  const auto stride = stride_of(c.attrs());
  const Padding pad = padding_of(c.attrs());
  if (kernel[0] < 1) c.fail("attribute `kernel` is missing", "give \"2\" or \"h,w\"");
  const std::int64_t sides[2][2] = {{pad.top, pad.bottom}, {pad.left, pad.right}};
  std::int64_t size[2];
  for (int axis = 0; axis < 2; ++axis) {
    for (const std::int64_t side : sides[axis])
      if (2 * side > kernel[axis])
        c.fail(fmt::format("padding = {} with a kernel of {}", side, kernel[axis]),
               "the padding of a pool is at most half its kernel");
    size[axis] =
        windows_in(c, x[2 + axis] + sides[axis][0] + sides[axis][1], kernel[axis], stride[axis]);
    // The last window begins in the image or in the padding before it.
    if (x[2 + axis] == 0) c.fail(fmt::format("nothing to pool in {}", x.str()));
  }
  return Shape{x[0], x[1], size[0], size[1]};
}

void expect_image(const InferContext& c, int i) {
  c.expect(i, DType::f32);
  c.rank(i, 4, "[B, C, H, W]");
}

std::vector<OutputSpec> pool_infer(const InferContext& c) {
  c.inputs(1);
  expect_image(c, 0);
  return {{"", DType::f32, pooled(c, c.shape(0))}};
}

// dy, x
std::vector<OutputSpec> max_pool2d_grad_infer(const InferContext& c) {
  c.inputs(2);
  expect_image(c, 0);
  expect_image(c, 1);
  c.shape(0, pooled(c, c.shape(1)), "the pool of input 1");
  return {{"", DType::f32, c.shape(1)}};
}

// dy, with x's plane as the attribute `size`
std::vector<OutputSpec> avg_pool2d_grad_infer(const InferContext& c) {
  c.inputs(1);
  expect_image(c, 0);
  const auto size = pair_of(c.attrs(), "size", 0, 1);
  const Shape x{c.shape(0)[0], c.shape(0)[1], size[0], size[1]};
  c.shape(0, pooled(c, x), fmt::format("the pool of {}", x.str()));
  return {{"", DType::f32, x}};
}

std::vector<OutputSpec> upsample2d_infer(const InferContext& c) {
  c.inputs(1);
  expect_image(c, 0);
  const auto factor = pair_of(c.attrs(), "factor", 0, 1);
  if (factor[0] < 1) c.fail("attribute `factor` is missing", "give \"2\" or \"h,w\"");
  const Shape& x = c.shape(0);
  return {{"", DType::f32, Shape{x[0], x[1], x[2] * factor[0], x[3] * factor[1]}}};
}

std::vector<OutputSpec> upsample2d_grad_infer(const InferContext& c) {
  c.inputs(1);
  expect_image(c, 0);
  const auto factor = pair_of(c.attrs(), "factor", 0, 1);
  const Shape& dy = c.shape(0);
  if (factor[0] < 1 || dy[2] % factor[0] != 0 || dy[3] % factor[1] != 0)
    c.fail(fmt::format("{} is no upsampling by {} x {}", dy.str(), factor[0], factor[1]));
  return {{"", DType::f32, Shape{dy[0], dy[1], dy[2] / factor[0], dy[3] / factor[1]}}};
}

void max_pool2d_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("max_pool2d_grad", g.name("dx"), {g.grad_out(0), g.in(0)},
                         geometry(g.node.attrs)));
}

void avg_pool2d_gradient(GradientContext& g) {
  const Shape& x = g.graph[g.in(0)].shape;
  Attrs attrs = geometry(g.node.attrs);
  attrs.set("size", fmt::format("{},{}", x[2], x[3]));
  g.set(0, g.graph.apply("avg_pool2d_grad", g.name("dx"), {g.grad_out(0)}, attrs));
}

void upsample2d_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("upsample2d_grad", g.name("dx"), {g.grad_out(0)}, geometry(g.node.attrs)));
}

Cost pool_cost(const Graph& graph, const Node& node) {
  const Pool2d s = pool_of(graph, node);
  return {.flops = static_cast<double>(s.planes) * static_cast<double>(s.h.out * s.w.out) *
                   static_cast<double>(s.h.kernel * s.w.kernel),
          .bytes = traffic(graph, node)};
}

std::vector<OutputSpec> reshape_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  const Shape shape = shape_of(c.attrs());
  if (shape.elements() != c.shape(0).elements())
    c.fail(fmt::format("{} has {} elements and {} has {}", shape.str(), shape.elements(),
                       c.shape(0).str(), c.shape(0).elements()),
           "a reshape keeps the number of elements");
  return {{"", DType::f32, shape}};
}

void reshape_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("reshape", g.name("dx"), {g.grad_out(0)},
                         {{"shape", shape_text(g.graph[g.in(0)].shape)}}));
}

constexpr Slots in_place[] = {{0, 0}};

}  // namespace

Pool2d pool_of(const Graph& graph, const Node& node) {
  const auto kernel = kernel_of(node.attrs);
  const auto stride = stride_of(node.attrs);
  const Padding pad = padding_of(node.attrs);
  const Shape& from = graph[node.inputs[0]].shape;
  const Shape& to = graph[node.outputs[0]].shape;
  const bool spreads =
      node.op == Op::max_pool2d_grad || node.op == Op::avg_pool2d_grad || node.op == Op::upsample2d;
  const Shape& large = spreads ? to : from;
  const Shape& few = spreads ? from : to;
  return {.planes = from[0] * from[1],
          .h = {large[2], few[2], kernel[0], stride[0], pad.top},
          .w = {large[3], few[3], kernel[1], stride[1], pad.left}};
}

constinit const OpDef op_max_pool2d = {.op = Op::max_pool2d,
                                       .name = "max_pool2d",
                                       .doc = "the largest of each window",
                                       .infer = pool_infer,
                                       .gradient = max_pool2d_gradient,
                                       .cost = pool_cost};
constinit const OpDef op_max_pool2d_grad = {.op = Op::max_pool2d_grad,
                                            .name = "max_pool2d_grad",
                                            .doc = "dy to the first of the largest of each window",
                                            .infer = max_pool2d_grad_infer,
                                            .cost = pool_cost};
constinit const OpDef op_avg_pool2d = {.op = Op::avg_pool2d,
                                       .name = "avg_pool2d",
                                       .doc = "the mean of each window, padding counted",
                                       .infer = pool_infer,
                                       .gradient = avg_pool2d_gradient,
                                       .cost = pool_cost};
constinit const OpDef op_avg_pool2d_grad = {.op = Op::avg_pool2d_grad,
                                            .name = "avg_pool2d_grad",
                                            .doc = "dy / n to all of each window",
                                            .infer = avg_pool2d_grad_infer,
                                            .cost = pool_cost};
constinit const OpDef op_upsample2d = {.op = Op::upsample2d,
                                       .name = "upsample2d",
                                       .doc = "each pixel as factor x factor pixels (nearest)",
                                       .infer = upsample2d_infer,
                                       .gradient = upsample2d_gradient,
                                       .cost = pool_cost};
constinit const OpDef op_upsample2d_grad = {.op = Op::upsample2d_grad,
                                            .name = "upsample2d_grad",
                                            .doc = "sums of factor x factor pixels",
                                            .infer = upsample2d_grad_infer,
                                            .cost = pool_cost};
constinit const OpDef op_reshape = {.op = Op::reshape,
                                    .name = "reshape",
                                    .doc = "the same elements in another shape, in place if it can",
                                    .infer = reshape_infer,
                                    .gradient = reshape_gradient,
                                    .cost = elementwise<0>,
                                    .may_alias = in_place};

}  // namespace cuvae
