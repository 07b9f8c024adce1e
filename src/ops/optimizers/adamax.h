#pragma once
// Adamax (Kingma and Ba 2015, section 7.1) as torch.optim.Adamax computes it:
//   m = beta1 m + (1 - beta1) g;  u = max(beta2 u, |g| + eps);  w -= lr / (1 - beta1^t) m / u

#include "ops/optimizer.h"

namespace cuvae {

struct Adamax {
  static constexpr std::string_view name = "adamax";
  static constexpr std::string_view doc = "one step of Adamax in place";
  static constexpr int flops = 11;
  static constexpr int state_count = 2;
  static constexpr std::string_view state_names[state_count] = {"m", "u"};

  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double log_beta1 = 0;

  static Adamax of(const Attrs& attrs) {
    Adamax adamax{.beta1 = fraction_of(attrs, name, "beta1", 0.9),
                  .beta2 = fraction_of(attrs, name, "beta2", 0.999),
                  .eps = size_of(attrs, name, "eps", 1e-8)};
    adamax.log_beta1 = std::log(adamax.beta1);
    return adamax;
  }
  [[nodiscard]] static bool keeps(int) { return true; }
  [[nodiscard]] static double initial(int) { return 0; }

  template <class T>
  struct Step {
    T beta1, one_minus_beta1, beta2, eps;
    T step_size;  // lr / (1 - beta1^t)
  };
  template <class T>
  CUVAE_HOST_DEVICE Step<T> step(double lr, double t) const {
    return {static_cast<T>(beta1), static_cast<T>(1 - beta1), static_cast<T>(beta2),
            static_cast<T>(eps), static_cast<T>(lr / one_minus_power(log_beta1, t))};
  }
  template <class M, class T>
  CUVAE_HOST_DEVICE static void update(const Step<T>& step, T g, T& w, T (&s)[state_count]) {
    s[0] = M::fma(step.beta1, s[0], step.one_minus_beta1 * g);
    s[1] = M::max(step.beta2 * s[1], M::abs(g) + step.eps);
    w = M::fma(-step.step_size, s[0] / s[1], w);
  }
};

}  // namespace cuvae
