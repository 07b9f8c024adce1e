#pragma once
// Adam as torch.optim.Adam computes it (Kingma and Ba, "Adam", 2015).

#include <cmath>

#include "kernels/hyper.cuh"
#include "ops/adam.h"

namespace CUVAE_KERNELS {

// What is known when a node is prepared, and where a step finds the rest.
struct Adam {
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float weight_decay;  // of w, added to g
  double eps, decoupled;
  bool eps_hat;
  double log_beta1, log_beta2;
  int step = 0;                  // unrolled step
  const float* hyper = nullptr;  // its {lr, beta}
  const std::int64_t* clock = nullptr;
  const std::int64_t* commit = nullptr;
};

// The constants of one step.
struct AdamStep {
  float step_size;       // lr / (1 - beta1^t)
  float root_corrected;  // 1 / sqrt(1 - beta2^t)
  float eps;             // added to the corrected root
  float kept;            // of w, before the step: 1 - lr * decoupled weight decay
};

inline Adam prepare_adam(const AdamAttrs& attrs) {
  return {.beta1 = static_cast<float>(attrs.beta1),
          .one_minus_beta1 = static_cast<float>(1 - attrs.beta1),
          .beta2 = static_cast<float>(attrs.beta2),
          .one_minus_beta2 = static_cast<float>(1 - attrs.beta2),
          .weight_decay = static_cast<float>(attrs.coupled()),
          .eps = attrs.eps,
          .decoupled = attrs.decoupled ? attrs.weight_decay : 0.0,
          .eps_hat = attrs.eps_hat,
          .log_beta1 = std::log(attrs.beta1),
          .log_beta2 = std::log(attrs.beta2)};
}

inline Adam bind_adam(Adam adam, const CudaArgs& args, int hyper, int clock, int commit) {
  adam.step = args.step;
  adam.hyper = hyper_row(args, hyper);
  adam.clock = args.in<std::int64_t>(clock);
  adam.commit = args.in<std::int64_t>(commit);
  return adam;
}

// In double, for one thread of a block. t = clock.step + s + 1; beta^t = e^(t log beta), with
// beta = 0 giving 0 through e^-inf.
__device__ __forceinline__ AdamStep adam_step(const Adam& adam) {
  const auto t = static_cast<double>(adam.clock[clock_step] + adam.step + 1);
  const double lr = static_cast<double>(adam.hyper[0]);
  const double correction = sqrt(-expm1(t * adam.log_beta2));
  return {static_cast<float>(lr / -expm1(t * adam.log_beta1)), static_cast<float>(1.0 / correction),
          static_cast<float>(adam.eps_hat ? adam.eps / correction : adam.eps),
          static_cast<float>(1.0 - lr * adam.decoupled)};
}

struct ExactRoots {
  __device__ static __forceinline__ float divide(float a, float b) { return a / b; }
  __device__ static __forceinline__ float root(float x) { return sqrtf(x); }
};
// Within 2 units in the last place, in a third of the instructions: for kernels in which a thread
// updates many weights on the critical path.
struct FastRoots {
  __device__ static __forceinline__ float divide(float a, float b) {
    return device::fast_divide(a, b);
  }
  __device__ static __forceinline__ float root(float x) { return device::fast_sqrt(x); }
};

template <class Roots = ExactRoots>
__device__ __forceinline__ void adam_update(const Adam& adam, const AdamStep& step, float g,
                                            float& w, float& m, float& v) {
  const float gradient = fmaf(adam.weight_decay, w, g);
  const float first = fmaf(adam.beta1, m, adam.one_minus_beta1 * gradient);
  const float second = fmaf(adam.beta2, v, adam.one_minus_beta2 * (gradient * gradient));
  m = first;
  v = second;
  w = fmaf(step.kept, w,
           -Roots::divide(step.step_size * first,
                          fmaf(Roots::root(second), step.root_corrected, step.eps)));
}

}  // namespace CUVAE_KERNELS
