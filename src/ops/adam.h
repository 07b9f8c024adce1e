#pragma once

// The attributes of adam and of what it is fused into; the defaults are PyTorch's:
//   beta1 0.9, beta2 0.999, eps 1e-8
//   eps_hat        0: eps is added to the corrected root, sqrt(v / (1 - beta2^t)) + eps (PyTorch)
//                  1: to the root itself, with lr sqrt(1 - beta2^t) / (1 - beta1^t) as the step
//                  size: "epsilon hat" of Kingma and Ba, section 2 (Keras, and the IWAE paper's
//                  code)
//   weight_decay   0
//   decoupled      0: g + weight_decay w stands for g; 1: w is first multiplied by
//                  1 - lr weight_decay (AdamW: Loshchilov and Hutter 2019, torch.optim.AdamW)
//   v0             what v starts from: 0; 1 in the IWAE paper's code

#include "ops/rules.h"

namespace cuvae {

struct AdamAttrs {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  bool decoupled = false;
  bool eps_hat = false;
  double v0 = 0;

  [[nodiscard]] double coupled() const { return decoupled ? 0 : weight_decay; }
};

// Throws Error(usage) for what makes no sense.
AdamAttrs adam_of(const Attrs& attrs);

}  // namespace cuvae
