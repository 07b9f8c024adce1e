// The default model on MNIST, run as a user runs it: repeatability under each set of OpenBLAS
// kernels, comparison with the double reference, and the learning curve.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/process.h"
#include "support/source_path.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

using test::file_bytes;

std::string mnist() {
  return test::source_path("data/mnist");
}
// One file is a training split of 10,000 images: 78 steps an epoch.
std::string ten_thousand() {
  return test::source_path("data/mnist/t10k-images-idx3-ubyte.gz");
}

bool cpu_has(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream flags(line);
    for (std::string word; flags >> word;) {
      if (word == flag) return true;
    }
    return false;
  }
  return false;
}

// The kernels' name and a flag of the CPUs that run them; "" is OpenBLAS's (and our) own choice.
class Repeatability : public testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  // Trains into folder_/name; the weights as bytes.
  std::string train(const std::string& name, std::vector<std::string> flags) {
    std::vector<std::string> arguments = {"train",        "--preset", "mnist-mlp",    "--data",
                                          ten_thousand(), "--out",    folder_ / name, "--quiet"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    test::ProcessOptions options;
    if (*GetParam().first) options.environment["OPENBLAS_CORETYPE"] = GetParam().first;
    const test::ProcessResult result = test::run(arguments, options);
    EXPECT_EQ(result.status, 0) << result.err;
    return file_bytes(folder_ / name / "model.safetensors");
  }
  test::TemporaryFolder folder_;
};

TEST_P(Repeatability, TwiceResumedAndOnMoreThreadsAreTheSameBytes) {
  const auto [name, flag] = GetParam();
  if (*flag && !cpu_has(flag)) GTEST_SKIP() << "this CPU has no " << flag << " for " << name;
  const std::string whole = train("whole", {"--epochs", "4", "--threads", "1"});
  ASSERT_GT(whole.size(), 853840U * 4);
  EXPECT_EQ(whole, train("again", {"--epochs", "4", "--threads", "1"}));
  EXPECT_EQ(whole, train("two", {"--epochs", "4", "--threads", "2"}));
  train("parts", {"--epochs", "2"});
  EXPECT_EQ(whole, train("parts", {"--epochs", "4", "--resume"}));
  EXPECT_NE(whole, train("other", {"--epochs", "4", "--seed", "1"}));
}

INSTANTIATE_TEST_SUITE_P(Kernels, Repeatability,
                         testing::Values(std::pair("", ""), std::pair("Haswell", "avx2"),
                                         std::pair("SkylakeX", "avx512f")),
                         [](const auto& spec) {
                           return *spec.param.first ? spec.param.first : "Default";
                         });

TEST(Mnist, FiftyStepsInFloatAgreeWithDouble) {
  const std::vector<std::string> compare = {"compare", "--preset",    "mnist-mlp", "--data",
                                            mnist(),   "--steps",     "50",        "--device",
                                            "cpu",     "--reference", "cpu64",     "--json"};
  const test::ProcessResult good = test::run(compare);
  EXPECT_EQ(good.status, 0) << good.err << good.out;
  const auto report = nlohmann::json::parse(good.out);
  EXPECT_TRUE(report.at("passed").get<bool>());
  EXPECT_EQ(report.at("steps"), 50);

  std::vector<std::string> broken = compare;
  broken.insert(broken.end(), {"--break-gradient", "encoder.0.weight"});
  const test::ProcessResult bad = test::run(broken);
  EXPECT_EQ(bad.status, 6) << bad.err;
}

TEST(Mnist, TheFirstEpochsAreOnTheLearningCurve) {
  // The shortened form of scripts/learning-curve: bounds on the test neg_elbo after epochs 1 and 5.
  const test::TemporaryFolder folder;
  for (const int seed : {0, 1, 2}) {
    const std::string run = folder / ("seed" + std::to_string(seed));
    const test::ProcessResult result =
        test::run({"train", "--preset", "mnist-mlp", "--data", mnist(), "--epochs",
                   seed == 0 ? "5" : "1", "--seed", std::to_string(seed), "--out", run, "--quiet"});
    ASSERT_EQ(result.status, 0) << result.err;
    std::ifstream lines(run + "/metrics.jsonl");
    int checked = 0;
    for (std::string line; std::getline(lines, line);) {
      const auto metrics = nlohmann::json::parse(line);
      if (metrics.at("split") != "test") continue;
      const double neg_elbo = metrics.at("neg_elbo");
      if (metrics.at("epoch") == 1) {
        EXPECT_TRUE(neg_elbo >= 125.5 && neg_elbo <= 129.5) << "seed " << seed << ": " << neg_elbo;
        ++checked;
      }
      if (metrics.at("epoch") == 5) {
        EXPECT_TRUE(neg_elbo >= 106.7 && neg_elbo <= 108.9) << "seed " << seed << ": " << neg_elbo;
        ++checked;
      }
    }
    EXPECT_EQ(checked, seed == 0 ? 2 : 1);
  }
}

}  // namespace
}  // namespace cuvae
