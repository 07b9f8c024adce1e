// The parity table on the real GPU: every operator's kernels in every kind of arithmetic against
// plain double loops. One test for each operator and backend, as on the SIMT runner.

#include <gtest/gtest.h>

#include <cctype>

#include "cuda/gpu_backends.h"

namespace cuvae::testing {
namespace {

struct OpOnGpu {
  std::string op;
  std::size_t backend;
};
void PrintTo(const OpOnGpu& test, std::ostream* out) {
  *out << test.op << " on " << gpu_backends()[test.backend].name;
}

std::vector<OpOnGpu> combinations(bool fused) {
  std::vector<OpOnGpu> all;
  for (const OpDef* def : all_ops()) {
    if (fused && !def->compose) continue;
    // Only products differ by arithmetic.
    const std::size_t backends = def->name.starts_with("linear") ? gpu_backends().size() : 1;
    for (std::size_t b = 0; b < backends; ++b) all.push_back({std::string(def->name), b});
  }
  return all;
}

std::string test_name(const ::testing::TestParamInfo<OpOnGpu>& info) {
  std::string name = info.param.op + "_on_" + gpu_backends()[info.param.backend].name;
  for (char& ch : name)
    if (std::isalnum(static_cast<unsigned char>(ch)) == 0) ch = '_';
  return name;
}

class GpuParity : public ::testing::TestWithParam<OpOnGpu> {
 protected:
  void SetUp() override {
    if (!no_gpu().empty()) GTEST_SKIP() << "no GPU: " << no_gpu();
  }
  // Calls check(backend, case) for the operator's cases.
  template <class Check>
  void each(Check check) const {
    int checked = 0;
    for (const Case& c : parity_table()) {
      if (c.op != GetParam().op) continue;
      std::int64_t elements = 0;
      for (const CaseInput& input : c.inputs) elements += input.shape.elements();
      if (elements > most_elements()) continue;
      check(gpu_backends()[GetParam().backend], c);
      ++checked;
    }
    EXPECT_GT(checked, 0) << "the table has no case of it, or CUVAE_TEST_ELEMENTS is too small";
  }
};

TEST_P(GpuParity, ValuesMatchAPlainDoubleLoop) {
  each(check_values);
}

TEST_P(GpuParity, EveryLaunchOrderGivesTheSameBits) {
  each(check_variants);
}

INSTANTIATE_TEST_SUITE_P(Table, GpuParity, ::testing::ValuesIn(combinations(false)), test_name);

class GpuFused : public GpuParity {};

TEST_P(GpuFused, MatchesItsComposedDefinition) {
  each(check_fused);
}

INSTANTIATE_TEST_SUITE_P(Table, GpuFused, ::testing::ValuesIn(combinations(true)), test_name);

// scripts/gpu-check runs the table under compute-sanitizer with CUVAE_TEST_ELEMENTS=3000.
TEST(GpuCases, EveryOperatorHasSmallOnes) {
  for (const OpDef* def : all_ops()) {
    bool small = false;
    for (const Case& c : parity_table()) {
      std::int64_t elements = 0;
      for (const CaseInput& input : c.inputs) elements += input.shape.elements();
      small = small || (c.op == def->name && elements <= 3000);
    }
    EXPECT_TRUE(small) << def->name;
  }
}

}  // namespace
}  // namespace cuvae::testing
