#pragma once
// What every optimiser but adam is made of. An optimiser is a struct in
// src/ops/optimizers/<name>.h, the include of it in ops/optimizers.h, and a row of
// ops/optimizers.def, from which come its operator (ops/optimizers.cpp), the CPU's loops
// (cpu/loops_impl.h, cpu/optimizers.cpp) and the GPU's kernel (kernels/optimizers.cu). The struct
// has its attributes as numbers, and
//
//   name, doc, flops                  of the operator; flops of one element
//   state_count, state_names          states that a node may keep, each of the weight's shape
//   of(attrs)                         reads and checks the attributes; throws Error(usage)
//   keeps(k), initial(k)              whether a node keeps state k, and the value it starts from
//   Step<T>, step<T>(lr, t)           the constants of step t = 1, 2, ..., made in double
//   update<M>(step, g, w, s)          one element; M has fma, sqrt, abs and max. s[k] of a state
//                                     that is not kept is 0 and forgotten.
//
// How a graph uses it: add_update() of cuvae/graph.h, which makes the states. The operator's inputs
// are w, g, hyper, clock, commit and then the states that are kept, in order; its outputs are the
// next versions of w and of those states. The learning rate is hyper's at the unrolled step,
// t = clock.step + unrolled step + 1; a step without the commit flag writes nothing, but counts.
//
// All of them take
//   weight_decay   0 by default
//   decoupled      0: g + weight_decay w stands for g (PyTorch's weight_decay, L2 of half of it)
//                  1: w is first multiplied by 1 - lr weight_decay (PyTorch's AdamW, Keras)

#include <cmath>
#include <cstdint>
#include <string_view>

#include "base/host_device.h"
#include "graph/op.h"

namespace cuvae {

namespace optimizer_input {
inline constexpr int w = 0, g = 1, hyper = 2, clock = 3, commit = 4, states = 5;
}
inline constexpr int most_states = 3;

// Readers of attributes; Error(usage) names the optimiser and the attribute. In [0, 1) and in
// [0, 1e30).
double fraction_of(const Attrs& attrs, std::string_view optimizer, std::string_view name,
                   double otherwise);
double size_of(const Attrs& attrs, std::string_view optimizer, std::string_view name,
               double otherwise);

struct WeightDecay {
  double rate = 0;
  bool decoupled = false;
};
WeightDecay weight_decay_of(const Attrs& attrs, std::string_view optimizer);

// 1 - beta^t from log(beta), without cancellation; beta = 0 gives 1 through e^-inf.
CUVAE_HOST_DEVICE inline double one_minus_power(double log_beta, double t) {
  return -std::expm1(t * log_beta);
}

// The arithmetic of an update where there is no vector loop.
struct PlainMath {
  CUVAE_HOST_DEVICE static float fma(float a, float b, float c) { return std::fma(a, b, c); }
  CUVAE_HOST_DEVICE static double fma(double a, double b, double c) { return std::fma(a, b, c); }
  CUVAE_HOST_DEVICE static float sqrt(float x) { return std::sqrt(x); }
  CUVAE_HOST_DEVICE static double sqrt(double x) { return std::sqrt(x); }
  template <class T>
  CUVAE_HOST_DEVICE static T abs(T x) {
    return x < 0 ? -x : x;
  }
  // NaN in the second stays.
  template <class T>
  CUVAE_HOST_DEVICE static T max(T a, T b) {
    return a > b ? a : b;
  }
};

// What one step of O multiplies with.
template <class O, class T>
struct OptimizerStep {
  typename O::template Step<T> own;
  T coupled;  // of w, added to g
  T kept;     // of w
};

// O with what all of them have; known when a node is prepared.
template <class O>
struct OptimizerSetting {
  O own;
  WeightDecay decay;

  template <class T>
  CUVAE_HOST_DEVICE OptimizerStep<O, T> step(double lr, double t) const {
    return {own.template step<T>(lr, t), static_cast<T>(decay.decoupled ? 0.0 : decay.rate),
            static_cast<T>(decay.decoupled ? 1 - lr * decay.rate : 1.0)};
  }
};

template <class O>
OptimizerSetting<O> optimizer_of(const Attrs& attrs) {
  return {O::of(attrs), weight_decay_of(attrs, O::name)};
}

template <class M, class O, class T>
CUVAE_HOST_DEVICE inline void apply_update(const OptimizerStep<O, T>& step, T g, T& w,
                                           T (&s)[O::state_count]) {
  const T gradient = M::fma(step.coupled, w, g);
  w = step.kept * w;
  O::template update<M>(step.own, gradient, w, s);
}

}  // namespace cuvae
