#pragma once
// Two-dimensional convolutions as the products that every backend computes.
//
// A model builds an encoder's layer as conv2d (x [B, C, H, W], weight [O, C, kh, kw], bias [O] or
// none) and a decoder's as conv_transpose2d (x [B, C, H, W], weight [C, O, kh, kw], bias [O] or
// none), both as PyTorch's Conv2d and ConvTranspose2d name and order things; flatten and reshape
// are `reshape`. "Same" padding is resolved by the model, and may be asymmetric. Attributes:
//   stride, dilation: "2" or "h,w", or an integer (1 where not given)
//   padding: an integer, "h,w" or "top,bottom,left,right" (0 where not given)
//   output_padding (conv_transpose2d): an integer or "h,w", less than the stride
//   groups: 1, the only number there is
//
// Both are sums over taps of a source [B, C, H, W] that is read through a window. Along an axis,
// with position p and tap t, the source's row is p * stride + start + t * step, and zero beyond the
// edge. The data gradient of a convolution with stride s (which is conv_transpose2d) falls apart
// into s phases along each axis: rows of the result that are s apart meet the same taps.

#include <vector>

#include "ops/rules.h"

namespace cuvae {

// Along one axis, of the convolution (whose data gradient conv_transpose2d computes).
struct ConvAxis {
  std::int64_t in = 0;      // of the convolution's input
  std::int64_t out = 0;     // of its output
  std::int64_t kernel = 0;  // taps
  std::int64_t stride = 1;
  std::int64_t before = 0;  // padding
  std::int64_t dilation = 1;
};

struct Conv2d {
  std::int64_t batch = 0;
  std::int64_t in = 0;   // channels of the convolution's input
  std::int64_t out = 0;  // of its output
  ConvAxis h, w;
  [[nodiscard]] std::int64_t taps() const { return h.kernel * w.kernel; }
};

// Of a checked node: conv2d, conv_transpose2d (in and out are those of the convolution whose data
// gradient it is) or conv2d_wgrad.
Conv2d conv_of(const Graph& graph, const Node& node);

// One phase along one axis.
struct ConvPhaseAxis {
  std::int64_t positions = 0;  // of the result
  std::int64_t taps = 0;
  std::int64_t source = 0;  // rows of the source
  std::int64_t stride = 1;
  std::int64_t start = 0;
  std::int64_t step = 1;
  // Which of the result's rows and of the kernel's taps these are: first + i * every.
  std::int64_t first_row = 0, every_row = 1;
  std::int64_t first_tap = 0, every_tap = 1;
};

// The one phase of a convolution, and those of its data gradient that have positions.
ConvPhaseAxis forward_phase(const ConvAxis& axis);
std::vector<ConvPhaseAxis> transposed_phases(const ConvAxis& axis);

struct ConvPhase {
  ConvPhaseAxis h, w;
};
// What conv2d and conv2d_wgrad have (one), or conv_transpose2d.
std::vector<ConvPhase> conv_phases(const Conv2d& conv, bool transposed);

}  // namespace cuvae
