#pragma once
// Adam as the code of "Importance Weighted Autoencoders" (Burda, Grosse and Salakhutdinov 2016;
// optimizers.py of yburda/iwae) computes it. Its updates are simultaneous, so that the weights move
// by the moments as they were before this step's gradient, and the first step moves nothing:
//   w -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
// with m from 0, v from `v0`. The same with this step's moments is adam with eps_hat = 1 and v0.

#include "ops/optimizer.h"

namespace cuvae {

struct IwaeAdam {
  static constexpr std::string_view name = "iwae_adam";
  static constexpr std::string_view doc = "one step of Adam by the moments before it, in place";
  static constexpr int flops = 14;
  static constexpr int state_count = 2;
  static constexpr std::string_view state_names[state_count] = {"m", "v"};

  double beta1 = 0.99;
  double beta2 = 0.999;
  double eps = 1e-4;
  double v0 = 1;
  double log_beta1 = 0;
  double log_beta2 = 0;

  static IwaeAdam of(const Attrs& attrs) {
    IwaeAdam adam{.beta1 = fraction_of(attrs, name, "beta1", 0.99),
                  .beta2 = fraction_of(attrs, name, "beta2", 0.999),
                  .eps = size_of(attrs, name, "eps", 1e-4),
                  .v0 = size_of(attrs, name, "v0", 1)};
    adam.log_beta1 = std::log(adam.beta1);
    adam.log_beta2 = std::log(adam.beta2);
    return adam;
  }
  [[nodiscard]] static bool keeps(int) { return true; }
  [[nodiscard]] double initial(int k) const { return k == 1 ? v0 : 0; }

  template <class T>
  struct Step {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, eps;
    T step_size;  // lr sqrt(1 - beta2^t) / (1 - beta1^t)
  };
  template <class T>
  CUVAE_HOST_DEVICE Step<T> step(double lr, double t) const {
    return {static_cast<T>(beta1),
            static_cast<T>(1 - beta1),
            static_cast<T>(beta2),
            static_cast<T>(1 - beta2),
            static_cast<T>(eps),
            static_cast<T>(lr * std::sqrt(one_minus_power(log_beta2, t)) /
                           one_minus_power(log_beta1, t))};
  }
  template <class M, class T>
  CUVAE_HOST_DEVICE static void update(const Step<T>& step, T g, T& w, T (&s)[state_count]) {
    w = M::fma(-step.step_size, s[0] / (M::sqrt(s[1]) + step.eps), w);
    s[0] = M::fma(step.beta1, s[0], step.one_minus_beta1 * g);
    s[1] = M::fma(step.beta2, s[1], step.one_minus_beta2 * (g * g));
  }
};

}  // namespace cuvae
