#pragma once

#include <cmath>

#include "cpu/kernel.h"
#include "ops/adam.h"

namespace cuvae {

// This step's constants: t = clock.step + s + 1, lr = hyper[s, 0].
template <class T>
AdamStep<T> adam_step(const CpuArgs<T>& args, const AdamAttrs& adam, int hyper, int clock) {
  const auto t =
      static_cast<double>(args.template in<std::int64_t>(clock)[clock_entry::step] + args.step + 1);
  const double lr = static_cast<double>(hyper_row(args, hyper)[0]);
  AdamStep<T> step;
  step.beta1 = static_cast<T>(adam.beta1);
  step.one_minus_beta1 = static_cast<T>(1 - adam.beta1);
  step.beta2 = static_cast<T>(adam.beta2);
  step.one_minus_beta2 = static_cast<T>(1 - adam.beta2);
  step.weight_decay = static_cast<T>(adam.coupled());
  step.kept = static_cast<T>(adam.decoupled ? 1 - lr * adam.weight_decay : 1.0);
  step.step_size = static_cast<T>(lr / (1 - std::pow(adam.beta1, t)));
  const double correction = std::sqrt(1 - std::pow(adam.beta2, t));
  step.root_corrected = static_cast<T>(1 / correction);
  step.eps = static_cast<T>(adam.eps_hat ? adam.eps / correction : adam.eps);
  return step;
}

// Updates write in place; without the commit flag nothing is written at all.
template <class T>
bool commits(const CpuArgs<T>& args, int commit) {
  return args.template in<std::int64_t>(commit)[0] != 0;
}

}  // namespace cuvae
