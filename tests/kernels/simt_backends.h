#pragma once
// The CUDA backend on the SIMT runner, as tests of kernels use it.

#include <memory>
#include <string>
#include <vector>

#include "ops/parity_check.h"
#include "simt/runtime.h"

namespace cuvae::testing {

// The runner's choices, by number: variant 0 is sequential and immediate; the others have other
// thread orders, copies in flight and stream orders. A kernel may give no other bit in any.
[[nodiscard]] simt::SimtOptions simt_variant(int variant);
inline constexpr int simt_variants = 5;

[[nodiscard]] std::unique_ptr<Device> make_simt_device(const simt::SimtOptions& options);

// A backend and the largest case that is run on it, in elements of all inputs: a thread of the
// runner is a fiber, not a core.
struct SimtBackend : Backend {
  std::int64_t affordable = 0;
};
// One for each kind of arithmetic, and for chips with so few multiprocessors that products take
// larger tiles: with eight of them mostly medium ones, with one always the largest.
const std::vector<SimtBackend>& simt_backends();

}  // namespace cuvae::testing
