#pragma once
// weight_ema: an exponential moving average of a weight, in place: s = d s + (1 - d) w.
// Inputs s (a state of w's shape), w (the new version, after its update), clock, commit; output:
// the next version of s. Attribute `decay` in [0, 1), 0.999 by default, and `start`:
//
//   corrected  d = decay (1 - decay^(t-1)) / (1 - decay^t): s is at every step the average with
//              Adam's bias correction, so that nothing is left to correct where it is read
//   warmup     d = min(decay, (1 + t) / (10 + t)) (tf.train.ExponentialMovingAverage, num_updates)
//   plain      d = decay (torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn)
//
// t = clock.step + unrolled step + 1. In step 1 s becomes w, whatever it was. Give it the host's
// commit flag, not clip_norm's: a step that was skipped then averages the weights as they stayed,
// and step 1 is never missed.

#include <cmath>

#include "base/host_device.h"
#include "ops/rules.h"

namespace cuvae {

enum class EmaStart : std::uint8_t { corrected, warmup, plain };

struct EmaAttrs {
  double decay = 0.999;
  EmaStart start = EmaStart::corrected;
};
EmaAttrs ema_of(const Attrs& attrs);

// 1 - d of step t.
CUVAE_HOST_DEVICE inline double ema_gain(const EmaAttrs& ema, double t) {
  if (t <= 1) return 1;
  if (ema.start == EmaStart::corrected) return (1 - ema.decay) / (1 - std::pow(ema.decay, t));
  const double warm = (1 + t) / (10 + t);
  return 1 - (ema.start == EmaStart::warmup && warm < ema.decay ? warm : ema.decay);
}

template <class T>
CUVAE_HOST_DEVICE inline T ema_update(T gain, T s, T w) {
  return gain == 1 ? w : s + gain * (w - s);  // s stays where w is s
}

}  // namespace cuvae
