#pragma once
// Gradients on their way to an optimiser. How a model uses them, for each parameter w with gradient
// g, in this order:
//
//   g = add_penalty(g, w; l1, l2)                          where there is a penalty
//   norm, factor, commit2, skipped = clip_norm(commit, skipped, all g; limit)
//   g = scale_by(g, factor)                                where limit > 0
//   add_update(..., g, ..., commit2, ...)
//
// so that a step whose gradient is not finite changes neither weights nor moments and is counted
// in the state `skipped` i64[1]. Optimisers count it as a step all the same (t goes on).
// clip_norm reads every gradient whole: a product that makes one then fuses with no update.

#include "base/host_device.h"
#include "ops/rules.h"

namespace cuvae {

// add_penalty: y = g + l2 w + l1 sign(w), the gradient of  l2 / 2 sum w^2 + l1 sum |w|, with
// sign(0) = 0. l2 is PyTorch's coupled weight_decay, and twice Keras' L2(l2).
struct PenaltyAttrs {
  double l1 = 0;
  double l2 = 0;
};
PenaltyAttrs penalty_of(const Attrs& attrs);

// clip_norm: inputs commit i64[1], skipped i64[1] (a state), and the gradients, one at least, of
// any shapes. Outputs:
//   norm f32[]      the square root of the sum of all squares, which are added in double
//   factor f32[]    min(1, limit / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 where limit
//                   is 0 (no clipping), 0 where the norm is not finite
//   commit i64[1]   1 where commit is not 0 and the norm is finite, else 0
//   skipped i64[1]  the state, one more where commit is not 0 and the norm is not finite
// A gradient of finite floats has a finite norm in double; where that exceeds the largest float,
// `norm` is infinite, but the step is clipped and taken.
struct ClipAttrs {
  double limit = 0;
};
ClipAttrs clip_of(const Attrs& attrs);

namespace clip_input {
inline constexpr int commit = 0, skipped = 1, first = 2;
}

struct Clipping {
  double factor;
  bool finite;
};
CUVAE_HOST_DEVICE inline Clipping clipping(double norm, double limit) {
  const bool finite = norm - norm == 0;
  const double within = limit / (norm + 1e-6);
  return {!finite ? 0.0 : limit == 0 || !(within < 1) ? 1.0 : within, finite};
}

}  // namespace cuvae
