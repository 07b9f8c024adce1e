#pragma once
// The activation functions: one list for operators, configuration, model and backends.

#include <cstdint>
#include <span>
#include <string_view>

#include "cuvae/graph.h"

namespace cuvae {

enum class ActivationKind : std::uint8_t {
  relu,          // max(x, 0); derivative 0 at 0
  leaky_relu,    // x > 0 ? x : alpha x
  elu,           // x > 0 ? x : alpha (exp(x) - 1)
  gelu,          // x Phi(x), exact (erf)
  silu,          // x sigmoid(x)
  tanh,          //
  sigmoid,       // 1 / (1 + exp(-x))
  softplus,      // max(x, 0) + log1p(exp(-|x|))
  bound_logvar,  // x on [-10, 10], else sign(x) (10 + 10 tanh((|x| - 10) / 10))
};

struct Activation {
  ActivationKind kind = ActivationKind::relu;
  double alpha = 0;  // leaky_relu: the negative side's slope; elu: its limit
};

std::span<const ActivationKind> all_activations();
std::string_view name_of(ActivationKind kind);
// Throws Error(usage) with a "did you mean".
ActivationKind parse_activation(std::string_view name);
// What alpha is where it is not given: leaky_relu 0.01, elu 1, else 0 (not used).
double default_alpha(ActivationKind kind);
// From the attributes `kind` and `alpha`. Throws Error(usage).
Activation activation_of(const Attrs& attrs);
// Whether the derivative is computed from the output (else from the input).
bool saves_output(ActivationKind kind);

}  // namespace cuvae
