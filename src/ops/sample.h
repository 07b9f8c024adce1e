#pragma once

#include "cuvae/rng.h"
#include "ops/rules.h"

namespace cuvae {

// Checks clock, optional key [B] and the attributes purpose and samples of a random operator whose
// draws are [B, d].
void expect_draw(const InferContext& c, int clock, int key, const Shape& draws);
// Likewise; gives what comes of the heads of `half` [B, d] each: mean, logvar, z, eps and kl.
std::vector<OutputSpec> expect_sample_kl(const InferContext& c, int clock, int key,
                                         const Shape& half);
Purpose purpose_of(const Attrs& attrs);

}  // namespace cuvae
