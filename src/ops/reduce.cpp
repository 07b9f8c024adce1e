// Sums and means, and their gradient.

#include <fmt/format.h>

#include "cuvae/error.h"
#include "ops/rules.h"

namespace cuvae {
namespace {

bool is_mean(const Attrs& attrs) {
  const std::string& op = attrs.text("op");
  if (op != "sum" && op != "mean")
    throw Error(Status::usage, fmt::format("there is no reduction \"{}\"", op), {},
                "use sum or mean");
  return op == "mean";
}

// What `axis` leaves of `full`.
Shape reduced(Axis axis, const Shape& full) {
  if (axis == Axis::all) return Shape{};
  return Shape{full[axis == Axis::rows ? 1 : 0]};
}

std::int64_t terms(Axis axis, const Shape& full) {
  if (axis == Axis::all) return full.elements();
  return full[axis == Axis::rows ? 0 : 1];
}

std::vector<OutputSpec> reduce_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  const Axis axis = axis_of(c.attrs());
  const Shape& x = c.shape(0);
  if (x.rank() != 2 && !(x.rank() > 0 && axis == Axis::all))
    c.fail(fmt::format("cannot reduce {} over \"{}\"", x.str(), c.attrs().text("axis")),
           "a matrix reduces over all, rows or cols, other shapes over all");
  if (is_mean(c.attrs()) && terms(axis, x) == 0)
    c.fail(fmt::format("the mean of nothing: {} over \"{}\"", x.str(), c.attrs().text("axis")));
  return {{"", DType::f32, reduced(axis, x)}};
}

void reduce_gradient(GradientContext& g) {
  const Shape& x = g.graph[g.in(0)].shape;
  const Axis axis = axis_of(g.node.attrs);
  const double factor = is_mean(g.node.attrs) ? 1.0 / static_cast<double>(terms(axis, x)) : 1.0;
  g.set(0,
        g.graph.apply(
            "broadcast", g.name("dx"), {g.grad_out(0)},
            {{"shape", shape_text(x)}, {"axis", g.node.attrs.text("axis")}, {"factor", factor}}));
}

std::vector<OutputSpec> broadcast_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  const Axis axis = axis_of(c.attrs());
  const Shape full = shape_of(c.attrs());
  static_cast<void>(c.attrs().real("factor", 1.0));
  if (full.rank() != 2 && !(full.rank() > 0 && axis == Axis::all))
    c.fail(fmt::format("cannot broadcast to {} over \"{}\"", full.str(), c.attrs().text("axis")),
           "a matrix is filled over all, rows or cols, other shapes over all");
  c.shape(0, reduced(axis, full),
          fmt::format("what \"{}\" leaves of {}", c.attrs().text("axis"), full.str()));
  return {{"", DType::f32, full}};
}

void broadcast_gradient(GradientContext& g) {
  const Value sum =
      g.graph.apply("reduce", g.name("sum"), {g.grad_out(0)},
                    {{"axis", g.node.attrs.text("axis")}, {"op", std::string("sum")}});
  const double factor = g.node.attrs.real("factor", 1.0);
  g.set(0, g.graph.apply("scale", g.name("dx"), {sum}, {{"factor", factor}}));
}

}  // namespace

constinit const OpDef op_reduce = {.op = Op::reduce,
                                   .name = "reduce",
                                   .doc = "sum or mean over all, rows or cols",
                                   .infer = reduce_infer,
                                   .gradient = reduce_gradient,
                                   .cost = per_input<1>};
constinit const OpDef op_broadcast = {.op = Op::broadcast,
                                      .name = "broadcast",
                                      .doc = "x * factor for every element reduced to it",
                                      .infer = broadcast_infer,
                                      .gradient = broadcast_gradient,
                                      .cost = elementwise<1>};

}  // namespace cuvae
