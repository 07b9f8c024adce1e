// The operators of ops/optimizers.def: shape rules, costs, states and meaning in double.

#include "ops/optimizers.h"

#include <fmt/format.h>

#include "cuvae/error.h"
#include "ops/rules.h"

namespace cuvae {

double fraction_of(const Attrs& attrs, std::string_view optimizer, std::string_view name,
                   double otherwise) {
  const double value = attrs.real(name, otherwise);
  if (!(value >= 0 && value < 1))
    throw Error(Status::usage, fmt::format("{} = {} of {}", name, value, optimizer), {},
                fmt::format("{} lies in [0, 1)", name));
  return value;
}

double size_of(const Attrs& attrs, std::string_view optimizer, std::string_view name,
               double otherwise) {
  const double value = attrs.real(name, otherwise);
  if (!(value >= 0 && value < 1e30))
    throw Error(Status::usage, fmt::format("{} = {} of {}", name, value, optimizer), {},
                fmt::format("{} may not be negative or not finite", name));
  return value;
}

WeightDecay weight_decay_of(const Attrs& attrs, std::string_view optimizer) {
  return {.rate = size_of(attrs, optimizer, "weight_decay", 0),
          .decoupled = flag_of(attrs, "decoupled")};
}

namespace {

namespace in = optimizer_input;

template <class O>
std::vector<StateSpec> states_of(const Attrs& attrs) {
  const O own = O::of(attrs);
  std::vector<StateSpec> kept;
  for (int k = 0; k < O::state_count; ++k)
    if (own.keeps(k)) kept.push_back({std::string(O::state_names[k]), own.initial(k)});
  return kept;
}

template <class O>
std::vector<OutputSpec> infer(const InferContext& c) {
  const std::vector<StateSpec> kept = states_of<O>(c.attrs());
  static_cast<void>(weight_decay_of(c.attrs(), O::name));
  c.inputs(in::states + static_cast<int>(kept.size()));
  same_shape(c, in::w, in::g);
  expect_hyper(c, in::hyper);
  expect_clock(c, in::clock);
  expect_commit(c, in::commit);
  std::vector<OutputSpec> outputs = {{"w", DType::f32, c.shape(in::w)}};
  for (std::size_t k = 0; k < kept.size(); ++k) {
    const int i = in::states + static_cast<int>(k);
    c.expect(i, DType::f32);
    c.shape(i, c.shape(in::w), "that of the weight");
    outputs.push_back({kept[k].slot, DType::f32, c.shape(in::w)});
  }
  return outputs;
}

template <class O>
void meaning(const Attrs& attrs, double lr, double t, double g, double& w, double* states) {
  const OptimizerSetting<O> setting = optimizer_of<O>(attrs);
  double s[O::state_count] = {};
  double* from = states;
  for (int k = 0; k < O::state_count; ++k)
    if (setting.own.keeps(k)) s[k] = *from++;
  apply_update<PlainMath, O, double>(setting.template step<double>(lr, t), g, w, s);
  for (int k = 0; k < O::state_count; ++k)
    if (setting.own.keeps(k)) *states++ = s[k];
}

static_assert(most_states == 3);
constexpr Slots updates[] = {{0, in::w}, {1, in::states}, {2, in::states + 1}, {3, in::states + 2}};
constexpr Slots alias[] = {{0, in::g}, {1, in::g}, {2, in::g}, {3, in::g}};  // elementwise

template <class O>
constexpr OpDef optimizer(Op op) {
  static_assert(O::state_count <= most_states);
  return {.op = op,
          .name = O::name,
          .doc = O::doc,
          .infer = infer<O>,
          .cost = elementwise<O::flops>,
          .updates = updates,
          .may_alias = alias,
          .hyper_input = in::hyper,
          .states = states_of<O>,
          .update = meaning<O>};
}

}  // namespace

#define CUVAE_OPTIMIZER(name, Type) constinit const OpDef op_##name = optimizer<Type>(Op::name);
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER

}  // namespace cuvae
