#pragma once
// Adagrad (Duchi, Hazan and Singer, 2011) as torch.optim.Adagrad computes it:
//   v += g^2;  w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps)
// with v from `initial_accumulator`.

#include "ops/optimizer.h"

namespace cuvae {

struct Adagrad {
  static constexpr std::string_view name = "adagrad";
  static constexpr std::string_view doc = "one step of Adagrad in place";
  static constexpr int flops = 9;
  static constexpr int state_count = 1;
  static constexpr std::string_view state_names[state_count] = {"sum"};

  double lr_decay = 0;
  double initial_accumulator = 0;
  double eps = 1e-10;

  static Adagrad of(const Attrs& attrs) {
    return {.lr_decay = size_of(attrs, name, "lr_decay", 0),
            .initial_accumulator = size_of(attrs, name, "initial_accumulator", 0),
            .eps = size_of(attrs, name, "eps", 1e-10)};
  }
  [[nodiscard]] static bool keeps(int) { return true; }
  [[nodiscard]] double initial(int) const { return initial_accumulator; }

  template <class T>
  struct Step {
    T lr, eps;
  };
  template <class T>
  CUVAE_HOST_DEVICE Step<T> step(double lr, double t) const {
    return {static_cast<T>(lr / (1 + (t - 1) * lr_decay)), static_cast<T>(eps)};
  }
  template <class M, class T>
  CUVAE_HOST_DEVICE static void update(const Step<T>& step, T g, T& w, T (&s)[state_count]) {
    s[0] = M::fma(g, g, s[0]);
    w = M::fma(-step.lr, g / (M::sqrt(s[0]) + step.eps), w);
  }
};

}  // namespace cuvae
