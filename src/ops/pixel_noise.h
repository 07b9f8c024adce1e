#pragma once
// Random pixels, and coarser ones: binarise, dequantise and quantise, of x in [0, 1] [B, D].
//
// How a model uses them: between gather and what reads the pixels, encoder and target alike.
//   binarise(x, clock, key), `mode`:
//     threshold  x > 1/2; neither clock nor key
//     static     u <= x with the same u for a data set's row at every step, epoch and evaluation:
//                the key (batch_index's `index`) is wanted
//     dynamic    u <= x with new u at each read: of the step and the place in the global batch, or,
//                given a key, of the step that the clock says and the data set's row (evaluation)
//   dequantise(x, clock, key), `mode` dynamic (where it is not given) or static:
//     (k + u) / 256 with k = 255 x rounded, u in [0, 1); draws as those of binarise
//   quantise(x), `levels` from 2 to 256: floor(k levels / 256) / (levels - 1); nothing is drawn
// u is uniform of the node's stream (cuvae/rng.h), purpose binarisation; dequantise: augmentation.
// x is rounded to float before the comparison, in double runs too, so that all backends agree.

#include "cuvae/rng.h"
#include "ops/rules.h"

namespace cuvae {

enum class Binarise : std::uint8_t { threshold, fixed, dynamic };

// All throw Error(usage).
Binarise binarise_mode(const Attrs& attrs);
Binarise dequantise_mode(const Attrs& attrs);  // fixed or dynamic
std::int64_t levels_of(const Attrs& attrs);

}  // namespace cuvae
