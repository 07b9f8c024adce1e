#pragma once
// BatchNorm (Ioffe and Szegedy 2015), LayerNorm (Ba, Kiros and Hinton 2016) and GroupNorm (Wu and
// He 2018), of [B, F] or [B, C, H, W], as PyTorch computes them:
//   y = (x - mean) / sqrt(var + eps) * weight + bias
// with the biased variance of a class of elements: of a channel over the batch (kind "batch"), of a
// sample (kind "layer"; weight and bias have an element for each of the sample's), or of some
// channels of a sample (kind "group", attribute `groups`; weight and bias by channel).
//
// A model builds `norm`, whose outputs are y, mean and var; for kind "batch" it adds, in training,
//   running_stats(running_mean, running_var, num_batches_tracked, mean, var, commit)
// with `count` (elements of a channel in a batch) and `momentum`, which updates the three states,
// and in evaluation uses batch_norm_eval(x, running_mean, running_var, weight, bias) instead. A
// layer that is frozen in training does so, too: a gradient passes through to x alone, as weight,
// bias and statistics are constants there.

#include "ops/rules.h"

namespace cuvae {

enum class NormKind : std::uint8_t { batch, layer, group };

// Which class each element of a tensor is in: the elements i with i / inner % count = the class,
// in `outer` segments of `inner` elements that lie together.
struct Classes {
  std::int64_t inner = 1;
  std::int64_t count = 0;
  std::int64_t outer = 0;
  [[nodiscard]] std::int64_t elements() const { return outer * inner; }  // of one class
};

struct Norm {
  NormKind kind = NormKind::batch;
  double eps = 1e-5;
  Classes groups;    // what is normalised together
  Classes channels;  // of weight and bias
};

// Of attributes and the shape of x. Throws Error(usage).
Norm norm_of(const Attrs& attrs, const Shape& x);

}  // namespace cuvae
