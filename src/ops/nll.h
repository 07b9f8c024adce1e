#pragma once
// The attributes of nll, nll_grad and expectation.
//
// How a model uses them: the decoder's last linear layer has a head of width D for each of the
// likelihood's parameters (LikelihoodInfo::names, as decoder.out_<name>); those are the planes
// [B, D], raw. A parameter of one number for all elements (likelihood.log_sigma) is broadcast to
// [B, D] by the model, whose gradient sums it up again.
//   nll(target [B, D], offset [B] or none, plane.. [B, D]) -> [B], nats summed over the row
//   nll_grad(dnll [B], target, offset, plane..) -> the derivative of each plane
//   expectation(offset, plane..) -> E[x] [B, D], in the target's units: what decoding shows
// Attributes: `likelihood`, a name of src/likelihoods/likelihoods.def; `trials`, of those that have
// them (255); `scale` > 0, which fixes the scale of gaussian, laplace or discretised_logistic,
// whose last plane is then left out. The offset, log library sizes, is of counts only. Of the
// target and the offset there are no gradients.

#include "likelihoods/likelihoods.h"
#include "ops/rules.h"

namespace cuvae {

inline constexpr int most_planes = 3;

struct NllAttrs {
  LikelihoodKind kind = {};
  int planes = 1;
  LikelihoodConstants<double> constants = {};

  [[nodiscard]] const LikelihoodInfo& info() const { return likelihood_info(kind); }
  template <class T>
  [[nodiscard]] LikelihoodConstants<T> constants_as() const {
    return {static_cast<T>(constants.trials), constants.fixed, static_cast<T>(constants.log_scale),
            static_cast<T>(constants.inverse_scale)};
  }
};

// Throws Error(usage).
NllAttrs nll_attrs(const Attrs& attrs);

}  // namespace cuvae
