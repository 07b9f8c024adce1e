// Log-densities, logsumexps and kernel means against PyTorch and SciPy: values and gradients
// (tests/golden/make_densities.py makes the file), extremes among them.

#include <gtest/gtest.h>

#include "ops/golden_cases.h"

namespace cuvae::testing {
namespace {

TEST(GoldenDensities, ValuesAndGradientsArePyTorchsAndSciPys) {
  check_golden_cases(golden_file("densities.json"), 33, 33,
                     [](const nlohmann::json& c, const Backend& backend) {
                       return GoldenLimit{.limit = backend.real == DType::f64 ? 1e-10 : 5e-6,
                                          .sharp = c.at("sharp").get<bool>()};
                     });
}

}  // namespace
}  // namespace cuvae::testing
