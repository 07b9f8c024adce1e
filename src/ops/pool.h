#pragma once
// Pools: windows over the planes of [B, C, H, W], and the nearest upsampling, whose windows do not
// overlap. Attributes: kernel ("2" or "h,w"), stride (the kernel where not given), padding (at most
// half the kernel; 0 where not given), as PyTorch's MaxPool2d and AvgPool2d (which counts the
// padding); upsample2d: factor ("2" or "h,w").

#include "ops/rules.h"

namespace cuvae {

// Of [planes, in_h, in_w] to [planes, out_h, out_w], rows and columns alike.
struct PoolAxis {
  std::int64_t in = 0, out = 0;
  std::int64_t kernel = 1, stride = 1, before = 0;
};
struct Pool2d {
  std::int64_t planes = 0;
  PoolAxis h, w;
};

// Of a checked node: a pool or its gradient, between the larger and the smaller of its tensors.
// upsample2d_grad is the sum over windows as a pool's mean is, and upsample2d its gradient.
Pool2d pool_of(const Graph& graph, const Node& node);

}  // namespace cuvae
