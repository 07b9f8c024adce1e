// K samples, objectives and classes against PyTorch: values and gradients
// (tests/golden/make_batch_ops.py makes the file).

#include <gtest/gtest.h>

#include "ops/golden_cases.h"

namespace cuvae::testing {
namespace {

TEST(GoldenBatch, ValuesAndGradientsArePyTorchs) {
  check_golden_cases(golden_file("batch_ops.json"), 21, 21,
                     [](const nlohmann::json&, const Backend& backend) {
                       return GoldenLimit{.limit = backend.real == DType::f64 ? 1e-13 : 1e-6};
                     });
}

}  // namespace
}  // namespace cuvae::testing
