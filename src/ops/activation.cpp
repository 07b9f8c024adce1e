#include "ops/activation.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <vector>

#include "base/text.h"
#include "cuvae/error.h"
#include "ops/rules.h"

namespace cuvae {
namespace {

constexpr std::array kinds = {
    ActivationKind::relu,    ActivationKind::leaky_relu, ActivationKind::elu,
    ActivationKind::gelu,    ActivationKind::silu,       ActivationKind::tanh,
    ActivationKind::sigmoid, ActivationKind::softplus,   ActivationKind::bound_logvar};

}  // namespace

std::span<const ActivationKind> all_activations() {
  return kinds;
}

std::string_view name_of(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::relu: return "relu";
    case ActivationKind::leaky_relu: return "leaky_relu";
    case ActivationKind::elu: return "elu";
    case ActivationKind::gelu: return "gelu";
    case ActivationKind::silu: return "silu";
    case ActivationKind::tanh: return "tanh";
    case ActivationKind::sigmoid: return "sigmoid";
    case ActivationKind::softplus: return "softplus";
    case ActivationKind::bound_logvar: return "bound_logvar";
  }
  return "?";
}

ActivationKind parse_activation(std::string_view name) {
  std::vector<std::string> names;
  for (const ActivationKind kind : kinds) {
    if (name_of(kind) == name) return kind;
    names.emplace_back(name_of(kind));
  }
  const std::string near = closest(name, names);
  throw Error(Status::usage, fmt::format("there is no activation \"{}\"", name), {},
              near.empty() ? fmt::format("use one of {}", fmt::join(names, ", "))
                           : fmt::format("did you mean \"{}\"?", near));
}

double default_alpha(ActivationKind kind) {
  if (kind == ActivationKind::leaky_relu) return 0.01;
  return kind == ActivationKind::elu ? 1.0 : 0.0;
}

Activation activation_of(const Attrs& attrs) {
  const ActivationKind kind = parse_activation(attrs.text("kind"));
  const double alpha = attrs.real("alpha", default_alpha(kind));
  // The derivative is taken from the sign of the output, which alpha must keep.
  if (!(alpha >= 0 && alpha < 1e30))
    throw Error(Status::usage, fmt::format("alpha = {} is negative or not finite", alpha));
  return {kind, alpha};
}

bool saves_output(ActivationKind kind) {
  return kind != ActivationKind::gelu && kind != ActivationKind::silu;
}

namespace {

std::vector<OutputSpec> activation_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  activation_of(c.attrs());
  return {{"", DType::f32, c.shape(0)}};
}

void activation_gradient(GradientContext& g) {
  const Value saved = saves_output(activation_of(g.node.attrs).kind) ? g.out(0) : g.in(0);
  g.set(0, g.graph.apply("activation_grad", g.name("dx"), {g.grad_out(0), saved},
                         select(g.node.attrs, {"kind", "alpha"})));
}

bool activation_saves_input(const Attrs& attrs) {
  return !saves_output(activation_of(attrs).kind);
}

std::vector<OutputSpec> activation_grad_infer(const InferContext& c) {
  c.inputs(2);
  same_shape(c, 0, 1);
  activation_of(c.attrs());
  return {{"", DType::f32, c.shape(0)}};
}

constexpr Slots alias_0[] = {{0, 0}};
constexpr Slots alias_01[] = {{0, 0}, {0, 1}};

}  // namespace

constinit const OpDef op_activation = {.op = Op::activation,
                                       .name = "activation",
                                       .doc = "y = f(x), f given by `kind`",
                                       .infer = activation_infer,
                                       .gradient = activation_gradient,
                                       .cost = elementwise<10>,
                                       .may_alias = alias_0,
                                       .saves_input = activation_saves_input};
constinit const OpDef op_activation_grad = {.op = Op::activation_grad,
                                            .name = "activation_grad",
                                            .doc = "dx = dy f'(x), from the saved output or input",
                                            .infer = activation_grad_infer,
                                            .cost = elementwise<10>,
                                            .may_alias = alias_01};

}  // namespace cuvae
