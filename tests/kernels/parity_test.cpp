// The parity table on the SIMT runner: every operator's kernels, in every kind of arithmetic and in
// every order, against plain double loops. One test for each operator and backend.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "cuda/mixed_case.h"
#include "cuda/training_case.h"
#include "cuvae/error.h"
#include "graph/passes.h"
#include "kernels/simt_backends.h"
#include "simt/sanitizer.h"

namespace cuvae::testing {
namespace {

std::int64_t elements(const Case& c) {
  std::int64_t all = 0;
  for (const CaseInput& input : c.inputs) all += input.shape.elements();
  return all;
}

// The cases of an operator of at most so many elements. Sanitizers make the runner slower: under
// AddressSanitizer smaller ones, under ThreadSanitizer (half a millisecond and 90 KB, for good, for
// each CUDA thread) a few of some hundred elements, and none of so many rows that each has a block.
std::vector<Case> chosen_cases(const std::string& op, std::int64_t most,
                               bool address = simt::with_asan, bool thread = simt::with_tsan) {
  if (address) most = std::min<std::int64_t>(most, 8'000);
  // A warp makes one element of the gradient of a kernel's mean.
  if (thread) most = std::min<std::int64_t>(most, op == "kernel_mean_grad" ? 1'000 : 4'000);
  std::vector<Case> chosen;
  const auto tall = [](const CaseInput& input) {
    return input.shape.rank() > 1 && input.shape[0] > 100;
  };
  for (const Case& c : parity_table())
    if (c.op == op && elements(c) <= most && !(thread && std::ranges::any_of(c.inputs, tall)))
      chosen.push_back(c);
  if (!thread || chosen.size() <= 3) return chosen;
  std::sort(chosen.begin(), chosen.end(),
            [](const Case& x, const Case& y) { return elements(x) > elements(y); });
  return {chosen[0], chosen[1], chosen[chosen.size() / 2]};
}

struct OpOnBackend {
  std::string op;
  std::size_t backend;
};

// GoogleTest and ctest print it.
void PrintTo(const OpOnBackend& one, std::ostream* out) {
  *out << one.op << " on " << simt_backends()[one.backend].name;
}

std::vector<OpOnBackend> combinations() {
  std::vector<OpOnBackend> all;
  for (const OpDef* def : all_ops()) {
    const bool product = is_product(def->name);
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
  [[nodiscard]] std::vector<Case> cases(std::int64_t most) const {
    return chosen_cases(GetParam().op, most);
  }
};

TEST_P(SimtParity, ValuesMatchAPlainDoubleLoop) {
  for (const Case& c : cases(backend().affordable)) check_values(backend(), c);
}

TEST_P(SimtParity, EveryOrderGivesTheSameBits) {
  if (simt::with_asan || simt::with_tsan) GTEST_SKIP() << "the plain build says it";
  for (const Case& c : cases(8'000)) check_variants(backend(), c);
}

INSTANTIATE_TEST_SUITE_P(Table, SimtParity, ::testing::ValuesIn(combinations()), test_name);

// No build passes an operator by without a case.
TEST(SimtCases, EveryOperatorHasSomeInEveryBuild) {
  for (const OpOnBackend& one : combinations())
    for (const bool address : {false, true})
      for (const bool thread : {false, true})
        EXPECT_FALSE(
            chosen_cases(one.op, simt_backends()[one.backend].affordable, address, thread).empty())
            << one.op << " on " << simt_backends()[one.backend].name << (address ? ", address" : "")
            << (thread ? ", thread" : "");
}

class SimtFused : public SimtParity {};

TEST_P(SimtFused, MatchesItsComposedDefinition) {
  if (simt::with_asan || simt::with_tsan) GTEST_SKIP() << "the plain build says it";
  for (const Case& c : cases(12'000)) check_fused(backend(), c);
}

std::vector<OpOnBackend> fused_combinations() {
  std::vector<OpOnBackend> all;
  for (const OpOnBackend& one : combinations())
    if (op_def(one.op).compose) all.push_back(one);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Table, SimtFused, ::testing::ValuesIn(fused_combinations()), test_name);

// Bytes become the floats that gather makes of them: whether a batch is written or not shows in no
// bit of any result, in any arithmetic.
TEST(SimtGather, GivesTheBitsOfAWrittenBatch) {
  if (simt::with_asan || simt::with_tsan) GTEST_SKIP() << "the plain build says it";
  int compared = 0;
  for (const SimtBackend& backend : simt_backends()) {
    if (backend.name.starts_with("simt of")) continue;
    const auto device = backend.make_device(0);
    for (const Case& c : parity_table()) {
      if (!c.op.starts_with("linear_gather_") || c.inputs[0].dtype != DType::u8) continue;
      if (elements(c) > 12'000 || c.inputs[1].shape.elements() < 30) continue;
      SCOPED_TRACE(c.id() + " on " + backend.name);
      const CaseGraph g = case_graph(c);
      const Rewritten parts = lower(g.graph, [](const Graph&, const Node& node) {
        return !op_def(node.op).name.starts_with("linear_gather_");
      });
      const std::vector<Tensor> inputs = case_inputs(c);
      const auto results = [&](const Graph& graph) {
        const auto store = device->make_store();
        for (std::size_t i = 0; i < g.inputs.size(); ++i)
          if (g.inputs[i]) store->write(g.graph[g.inputs[i]].name, inputs[i]);
        CompileOptions options = backend.options;
        options.fuse = false;
        const auto program = device->compile(graph, *store, options);
        program->run();
        std::vector<Tensor> all;
        for (const Value output : g.outputs) {
          const Value root = g.graph.root(output);
          all.push_back(root ? store->read(g.graph[root].name)
                             : program->read(g.graph[output].name));
        }
        return std::pair(std::move(all), program->graph().nodes().size());
      };
      const auto [gathered, one] = results(g.graph);
      const auto [written, two] = results(parts.graph);
      EXPECT_EQ(one, 1U);
      EXPECT_EQ(two, 2U);
      for (std::size_t i = 0; i < gathered.size(); ++i)
        EXPECT_TRUE(std::ranges::equal(gathered[i].bytes(), written[i].bytes())) << i;
      ++compared;
    }
  }
  EXPECT_GT(compared, 30);
}

// A row outside the window is told by whoever reads it, and by nobody who reads the others.
TEST(SimtGather, ARowOutsideTheWindowIsAFault) {
  const auto device = make_simt_device(simt_variant(0));
  for (const char* op :
       {"linear_gather_activation", "linear_gather_nll", "linear_gather_wgrad_adam"}) {
    const auto cases = parity_table();
    const auto c = std::ranges::find_if(cases, [&](const Case& one) {
      return one.op == op && one.inputs[0].dtype == DType::u8 && elements(one) <= 12'000 &&
             one.inputs[1].shape.elements() >= 33;
    });
    ASSERT_NE(c, cases.end());
    const CaseGraph g = case_graph(*c);
    std::vector<Tensor> inputs = case_inputs(*c);
    std::int64_t& last = inputs[1].as<std::int64_t>().back();
    const std::int64_t good = last;
    for (const std::int64_t row : {good, std::int64_t{8}, std::int64_t{-1}, INT64_MIN}) {
      SCOPED_TRACE(std::string(op) + ", row " + std::to_string(row));
      last = row;
      const auto store = device->make_store();
      for (std::size_t i = 0; i < g.inputs.size(); ++i)
        if (g.inputs[i]) store->write(g.graph[g.inputs[i]].name, inputs[i]);
      const auto program = device->compile(g.graph, *store, {});
      program->run();
      std::string said;
      try {
        static_cast<void>(store->read("in1"));
      } catch (const Error& error) {
        said = error.what();
      }
      if (row == good)
        EXPECT_EQ(said, "");
      else
        EXPECT_NE(said.find("a row outside a window of 8 rows (node `node` (" + std::string(op)),
                  said.npos)
            << said;
    }
  }
}

// In this process, so that the list does not depend on which tests ran before.
TEST(SimtKernels, EachIsLaunchedByACaseOfTheTable) {
  if (simt::with_asan || simt::with_tsan) GTEST_SKIP() << "the plain build says it";
  for (const SimtBackend& backend : simt_backends())
    for (const OpDef* def : all_ops()) {
      if (&backend != &simt_backends().front() && !is_product(def->name)) continue;
      // Of a product one case for each shape, the largest ones: they take every tile.
      std::vector<Case> cases = chosen_cases(std::string(def->name), backend.affordable);
      std::sort(cases.begin(), cases.end(),
                [](const Case& x, const Case& y) { return elements(x) > elements(y); });
      std::set<std::string> shapes;
      for (const Case& c : cases) {
        if (is_product(def->name)) {
          if (shapes.size() == 8) break;
          if (!shapes.insert(c.inputs[0].shape.str() + c.inputs[1].shape.str()).second) continue;
        }
        check_values(backend, c);
      }
    }
  // The persistent path is no operator.
  for (const char* precision : {"fp32", "tf32", "bf16"}) {
    const auto device = make_simt_device(simt_variant(0));
    EXPECT_FALSE(train(*device, {.exec = "persistent", .precision = precision}, 1).tensors.empty());
  }
  // Nor are operands stored as bf16, which stand between products of a library and ours.
  for (const MixedCase& how : mixed_cases) {
    const TrainingGraph model = mixed_model(how);
    const auto device = mixed_device(how);
    const auto store = device->make_store();
    fill(*store, model.graph);
    show_step(*store, 0);
    device->compile(model.graph, *store, {.precision = "bf16"})->run();
  }
  std::set<std::string_view> never;
  std::size_t all = 0;
  for (const simt::KernelEntry* entry : simt::all_kernels()) {
    if (entry->local) continue;  // a test's own
    ++all;
    if (entry->launches == 0) never.insert(entry->name);
  }
  for (const std::string_view name : never) ADD_FAILURE() << name << " is launched by no case";
  EXPECT_GT(all, 40U);
  // Compiling them all has to stay a matter of minutes.
  EXPECT_LE(all, 125U) << "instantiations of kernels";
}

}  // namespace
}  // namespace cuvae::testing
