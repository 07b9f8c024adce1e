#pragma once
// Gradient descent as torch.optim.SGD computes it:
//   b = momentum b + (1 - dampening) g, but b = g in step 1;  w -= lr b
//   Nesterov: w -= lr (g + momentum b)
// Keras' SGD keeps v = -lr b instead: the same weights while the learning rate stays the same, and
// its Nesterov is this one. Where the rate changes, Keras' velocity still has the old rate in it.

#include "cuvae/error.h"
#include "ops/optimizer.h"

namespace cuvae {

struct Sgd {
  static constexpr std::string_view name = "sgd";
  static constexpr std::string_view doc = "one step of gradient descent with momentum, in place";
  static constexpr int flops = 8;
  static constexpr int state_count = 1;
  static constexpr std::string_view state_names[state_count] = {"momentum"};

  double momentum = 0;
  double dampening = 0;
  bool nesterov = false;

  static Sgd of(const Attrs& attrs) {
    const Sgd sgd{.momentum = fraction_of(attrs, name, "momentum", 0),
                  .dampening = size_of(attrs, name, "dampening", 0),
                  .nesterov = attrs.integer("nesterov", 0) != 0};
    if (sgd.nesterov && !(sgd.momentum > 0 && sgd.dampening == 0))
      throw Error(Status::usage, "Nesterov's step without momentum, or with dampening", {},
                  "set momentum above 0 and dampening to 0");
    return sgd;
  }
  [[nodiscard]] bool keeps(int) const { return momentum != 0; }
  [[nodiscard]] static double initial(int) { return 0; }

  template <class T>
  struct Step {
    T lr, momentum, gain;
    bool keeps, nesterov;
  };
  template <class T>
  CUVAE_HOST_DEVICE Step<T> step(double lr, double t) const {
    return {static_cast<T>(lr), static_cast<T>(momentum),
            static_cast<T>(t <= 1 ? 1.0 : 1 - dampening), momentum != 0, nesterov};
  }
  template <class M, class T>
  CUVAE_HOST_DEVICE static void update(const Step<T>& step, T g, T& w, T (&s)[state_count]) {
    s[0] = M::fma(step.momentum, s[0], step.gain * g);
    const T ahead = step.nesterov ? M::fma(step.momentum, s[0], g) : s[0];
    w = M::fma(-step.lr, step.keeps ? ahead : g, w);
  }
};

}  // namespace cuvae
