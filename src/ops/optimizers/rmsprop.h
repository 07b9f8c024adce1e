#pragma once
// RMSprop (Tieleman and Hinton, "Lecture 6.5", 2012) in the two conventions that differ in their
// results, named by the attribute `convention`:
//
//   torch  rho 0.99, eps 1e-8 added to the root, momentum on the quotient (torch.optim.RMSprop)
//            b = momentum b + g / (sqrt(v) + eps);  w -= lr b
//   keras  rho 0.9, eps 1e-7 under the root, momentum on the step (keras/src/optimizers/rmsprop.py
//          of Keras 3; its own text calls that eps the "epsilon hat" of Kingma and Ba)
//            b = momentum b + lr g / sqrt(v + eps);  w -= b
//
// v = rho v + (1 - rho) g^2; `centered`: the variance v - m^2 in place of v, with m the same
// average of g. Where rounding takes the variance below 0 it counts as 0.

#include <string>

#include "cuvae/error.h"
#include "ops/optimizer.h"

namespace cuvae {

struct RmsProp {
  static constexpr std::string_view name = "rmsprop";
  static constexpr std::string_view doc = "one step of RMSprop in place";
  static constexpr int flops = 16;
  static constexpr int state_count = 3;
  static constexpr std::string_view state_names[state_count] = {"square", "mean", "momentum"};

  double rho = 0.99;
  double eps = 1e-8;
  double momentum = 0;
  bool centered = false;
  bool keras = false;

  static RmsProp of(const Attrs& attrs) {
    RmsProp rms;
    const std::string convention = attrs.text("convention", "torch");
    if (convention != "torch" && convention != "keras")
      throw Error(Status::usage, "there is no convention \"" + convention + "\" of RMSprop", {},
                  "use torch or keras");
    rms.keras = convention == "keras";
    rms.rho = fraction_of(attrs, name, "rho", rms.keras ? 0.9 : 0.99);
    rms.eps = size_of(attrs, name, "eps", rms.keras ? 1e-7 : 1e-8);
    rms.momentum = fraction_of(attrs, name, "momentum", 0);
    rms.centered = attrs.integer("centered", 0) != 0;
    return rms;
  }
  [[nodiscard]] bool keeps(int k) const { return k == 0 || (k == 1 ? centered : momentum != 0); }
  [[nodiscard]] static double initial(int) { return 0; }

  template <class T>
  struct Step {
    T rho, one_minus_rho;
    T inside, outside;  // eps, under the root and added to it
    T momentum;
    T gradient, moved;  // the learning rate, where it stands
    T mean;             // 1: centered
  };
  template <class T>
  CUVAE_HOST_DEVICE Step<T> step(double lr, double) const {
    return {static_cast<T>(rho),
            static_cast<T>(1 - rho),
            static_cast<T>(keras ? eps : 0),
            static_cast<T>(keras ? 0 : eps),
            static_cast<T>(momentum),
            static_cast<T>(keras ? lr : 1),
            static_cast<T>(keras ? 1 : lr),
            static_cast<T>(centered ? 1 : 0)};
  }
  template <class M, class T>
  CUVAE_HOST_DEVICE static void update(const Step<T>& step, T g, T& w, T (&s)[state_count]) {
    s[0] = M::fma(step.rho, s[0], step.one_minus_rho * (g * g));
    s[1] = M::fma(step.rho, s[1], step.one_minus_rho * g);
    // One fma: a square of the mean that would overflow does not meet an infinite v.
    const T mean = step.mean * s[1];
    const T variance = M::max(M::fma(-mean, mean, s[0]), T(0));
    const T root = M::sqrt(variance + step.inside) + step.outside;
    s[2] = M::fma(step.momentum, s[2], step.gradient * g / root);
    w = M::fma(-step.moved, s[2], w);
  }
};

}  // namespace cuvae
