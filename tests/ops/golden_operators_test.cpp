// Operators one by one against PyTorch, NumPy and SciPy: values and gradients, random draws and
// updates in place (tests/golden/make_operators.py makes the file); and which operators of the
// whole list some golden file has.

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "graph/op.h"
#include "ops/golden_cases.h"

namespace cuvae::testing {
namespace {

TEST(GoldenOperators, ValuesAndGradientsArePyTorchs) {
  check_golden_cases(
      golden_file("operators.json"), 129, 88, [](const nlohmann::json& c, const Backend& backend) {
        // Normals are made in float by an arithmetic of their own, in double too.
        // exp(x) - 1 of small x, as PyTorch derives it, has lost five digits of itself.
        const double of_f64 = c.contains("sharp") ? 1e-11 : 1e-12;
        const double limit = c.contains("drawn")          ? 1e-5
                             : backend.real == DType::f64 ? of_f64
                                                          : 2e-6;
        return GoldenLimit{
            .limit = limit, .sharp = c.contains("sharp"), .floor = 0, .told = !c.contains("loose")};
      });
}

// Every operator that is no fused form of others has a golden value, or is named here with the test
// that reads it from a file of another kind.
TEST(GoldenOperators, EveryOperatorHasAGoldenValue) {
  const std::map<std::string, std::string> elsewhere = {
      {"adam", "optimizers.json, Optimizers.AreThoseOfPyTorchAndKeras"},
      {"sgd", "optimizers.json"},
      {"rmsprop", "optimizers.json"},
      {"adagrad", "optimizers.json"},
      {"adamax", "optimizers.json"},
      {"iwae_adam", "optimizers.json"},
      {"batch_norm_eval", "layers.json, GoldenLayers.RunningStatisticsArePyTorchs"},
      {"running_stats", "layers.json, GoldenLayers.RunningStatisticsArePyTorchs"},
  };
  std::set<std::string> golden;
  for (const char* file : {"batch_ops.json", "densities.json", "layers.json", "operators.json"})
    golden.merge(golden_operators(golden_file(file)));
  for (const auto& [name, where] : elsewhere) {
    EXPECT_FALSE(golden.contains(name)) << name << " has a case, and need not stand in " << where;
    EXPECT_NO_THROW((void)op_def(name)) << name;
  }
  for (const OpDef* def : all_ops()) {
    const std::string name(def->name);
    EXPECT_TRUE(def->compose != nullptr || golden.contains(name) || elsewhere.contains(name))
        << name;
  }
}

}  // namespace
}  // namespace cuvae::testing
