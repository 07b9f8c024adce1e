// The parity table on the SIMT runner: every operator's kernels, in every kind of arithmetic and in
// every order, against plain double loops. One test for each operator and backend.

#include <gtest/gtest.h>

#include <cctype>
#include <set>

#include "kernels/simt_backends.h"

namespace cuvae::testing {
namespace {

bool affordable(const Case& c, std::int64_t elements) {
  std::int64_t all = 0;
  for (const CaseInput& input : c.inputs) all += input.shape.elements();
  return all <= elements;
}

struct OpOnBackend {
  std::string op;
  std::size_t backend;
};

std::vector<OpOnBackend> combinations() {
  std::vector<OpOnBackend> all;
  for (const OpDef* def : all_ops()) {
    const bool product = def->name.starts_with("linear");
    // Only products differ by arithmetic and chip.
    for (std::size_t b = 0; b < (product ? simt_backends().size() : 1); ++b)
      all.push_back({std::string(def->name), b});
  }
  return all;
}

std::string test_name(const ::testing::TestParamInfo<OpOnBackend>& info) {
  std::string name = info.param.op + "_on_" + simt_backends()[info.param.backend].name;
  for (char& ch : name)
    if (std::isalnum(static_cast<unsigned char>(ch)) == 0) ch = '_';
  return name;
}

class SimtParity : public ::testing::TestWithParam<OpOnBackend> {
 protected:
  [[nodiscard]] const SimtBackend& backend() const { return simt_backends()[GetParam().backend]; }
  [[nodiscard]] std::vector<Case> cases(std::int64_t elements) const {
    std::vector<Case> chosen;
    for (const Case& c : parity_table())
      if (c.op == GetParam().op && affordable(c, elements)) chosen.push_back(c);
    return chosen;
  }
};

TEST_P(SimtParity, ValuesMatchAPlainDoubleLoop) {
  for (const Case& c : cases(backend().affordable)) check_values(backend(), c);
}

TEST_P(SimtParity, EveryOrderGivesTheSameBits) {
  for (const Case& c : cases(8'000)) check_variants(backend(), c);
}

INSTANTIATE_TEST_SUITE_P(Table, SimtParity, ::testing::ValuesIn(combinations()), test_name);

class SimtFused : public SimtParity {};

TEST_P(SimtFused, MatchesItsComposedDefinition) {
  for (const Case& c : cases(12'000)) check_fused(backend(), c);
}

std::vector<OpOnBackend> fused_combinations() {
  std::vector<OpOnBackend> all;
  for (const OpOnBackend& one : combinations())
    if (op_def(one.op).compose) all.push_back(one);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Table, SimtFused, ::testing::ValuesIn(fused_combinations()), test_name);

// Runs the whole table once in this process, and lists what no case launches.
TEST(SimtKernels, EachIsLaunchedByACaseOfTheTable) {
  for (const SimtBackend& backend : simt_backends())
    for (const Case& c : parity_table()) {
      if (&backend != &simt_backends().front() && !c.op.starts_with("linear")) continue;
      if (affordable(c, backend.affordable)) check_values(backend, c);
    }
  std::set<std::string_view> never;
  for (const simt::KernelEntry* entry : simt::all_kernels())
    if (entry->launches == 0) never.insert(entry->name);
  for (const std::string_view name : never) ADD_FAILURE() << name << " is launched by no case";
  EXPECT_LE(simt::all_kernels().size(), 120U) << "instantiations of kernels";
}

}  // namespace
}  // namespace cuvae::testing
