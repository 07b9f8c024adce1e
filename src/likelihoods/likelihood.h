#pragma once
// What a likelihood is: its description, and what its formulas see and give. The formulas stand in
// one header each, for host and device, in float and double:
//
//   struct poisson {
//     static constexpr LikelihoodInfo info;
//     static constexpr int parameters;
//     term<with_grad>(raw, x, offset, constants);      // -log p(x | raw) in nats, and its slopes
//     expectation(raw, offset, constants);             // E[x | raw], in the units of the target
//   };
//
// `raw` are the decoder's outputs as they come out of a linear layer, any real number: what keeps
// scales and rates within bounds is part of the formula, so that training, decoding and export
// agree. A term is finite for raw numbers of +-1000 and targets that the likelihood takes.

#include <array>
#include <cstdint>
#include <string_view>

#include "base/host_device.h"

namespace cuvae {

// What targets a likelihood takes.
enum class LikelihoodTarget : std::uint8_t {
  reals,   // any
  unit,    // [0, 1]
  levels,  // k / trials, k = 0 .. trials: bytes as k / 255. Rounded to the nearest k.
  counts,  // whole numbers from 0 on
  labels,  // whole numbers from 0 to below the number of classes
};

// Whether nats of 8-bit data make bits per dimension.
enum class LikelihoodBits : std::uint8_t {
  none,        // no distribution of bytes: null
  discrete,    // a probability of each byte, with trials = 255 (categorical: 256 classes)
  continuous,  // a density on [0, 1]: only after dequantisation, with 8 bits added
};

struct LikelihoodInfo {
  std::string_view name;
  std::string_view op = "nll";  // the operator that makes it; its gradient is <op>_grad
  int parameters = 1;           // planes of raw numbers
  // Of the planes, in order: the heads decoder.out_<name>.
  std::array<std::string_view, 3> names = {};
  LikelihoodTarget target = LikelihoodTarget::reals;
  LikelihoodBits bits = LikelihoodBits::none;
  bool offset = false;       // takes log library sizes [B], added to the first parameter
  bool fixed_scale = false;  // `scale` may be given in place of the last parameter
  bool trials = false;       // has the attribute `trials`
};

// A term of the negative log-likelihood in nats, and its derivatives by the raw parameters.
template <class T, int P>
struct LikelihoodTerm {
  T nll;
  T grad[P];
};

// A node's constants, made from its attributes on the host.
template <class T>
struct LikelihoodConstants {
  T trials = 255;
  bool fixed = false;  // the scale is these two
  T log_scale = 0;
  T inverse_scale = 1;
};

}  // namespace cuvae
