// `cuvae train --replicas`, as a user runs it.

#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/expect.h"
#include "cli/process.h"
#include "cli/small_model.h"
#include "cuvae/run.h"
#include "cuvae/safetensors.h"
#include "support/synthetic.h"

namespace cuvae::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Args = std::vector<std::string>;

class ReplicasCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    write_blob_folder(folder_ / "data", 128, 32);
    std::ofstream(folder_ / "small.toml") << small_model_toml;
  }
  [[nodiscard]] ProcessOptions here() const {
    ProcessOptions options;
    options.folder = folder_.path().string();
    return options;
  }
  [[nodiscard]] ProcessResult train(Args more) const {
    Args args = {"train", "small.toml"};
    args.insert(args.end(), more.begin(), more.end());
    return run(args, here());
  }
  [[nodiscard]] std::string bytes(const std::string& path) const {
    return file_bytes(folder_ / path);
  }
  // The last line, an error of that status.
  static void expect_refused(const ProcessResult& result, int status, const std::string& part) {
    EXPECT_EQ(result.status, status) << result.err;
    const auto start = result.err.find("cuvae: error: ");
    ASSERT_NE(start, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find('\n', start), result.err.size() - 1) << result.err;
    expect_contains(result.err.substr(start), part);
  }

  TemporaryFolder folder_;
};

TEST_F(ReplicasCommand, TrainsSeedsThatStandForThemselves) {
  const ProcessResult result =
      train({"--replicas", "3", "--seed", "4", "--out", "all", "--threads", "1"});
  ASSERT_EQ(result.status, 0) << result.err;
  expect_contains(result.err, "3 replicas side by side, seeds 4 to 6\n");
  expect_contains(result.err, "mean of 3");
  expect_contains(result.out, "all/seed-5\n");
  expect_contains(result.out, " (mean +- standard deviation of 3 seeds)\n");
  expect_contains(result.out, "test neg_elbo ");
  expect_contains(result.out, "run: all\n");
  ASSERT_EQ(train({"--seed", "5", "--out", "one", "--threads", "1", "--quiet"}).status, 0);
  for (const char* name : {"model.safetensors", "checkpoints/last.safetensors", "samples.png",
                           "reconstructions.png"}) {
    EXPECT_FALSE(bytes(std::string("one/") + name).empty()) << name;
    EXPECT_TRUE(bytes(std::string("one/") + name) == bytes(std::string("all/seed-5/") + name))
        << name;
  }
  for (const Args& args :
       {Args{"eval", "all/seed-6"}, Args{"sample", "all/seed-4", "--out", "s.png"},
        Args{"info", "all/seed-5"},
        Args{"train", "--resume", "--out", "all/seed-4", "--epochs", "3"}}) {
    EXPECT_EQ(run(args, here()).status, 0) << args[0];
  }
  expect_refused(run({"eval", "all"}, here()), 3, "such as all/seed-4");
}

TEST_F(ReplicasCommand, JsonIsOneObject) {
  const ProcessResult result = train({"--replicas", "2", "--out", "all", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("schema"), 1);
  EXPECT_EQ(json.at("run"), "all");
  EXPECT_EQ(json.at("device"), "cpu");
  EXPECT_GT(json.at("samples_per_second").get<double>(), 0);
  EXPECT_EQ(json.at("interrupted"), false);
  ASSERT_EQ(json.at("results").size(), 2U);
  const double a = json.at("results")[0].at("test").at("neg_elbo").get<double>();
  const double b = json.at("results")[1].at("test").at("neg_elbo").get<double>();
  EXPECT_NEAR(json.at("mean").at("test").at("neg_elbo").get<double>(), (a + b) / 2, 1e-9);
  EXPECT_NEAR(json.at("sd").at("test").at("neg_elbo").get<double>(), std::abs(a - b) / std::sqrt(2),
              1e-9);
  const Json file = Json::parse(bytes("all/replicas.json"));
  EXPECT_EQ(file.at("state"), "done");
  EXPECT_EQ(file.at("total_seconds"), file.at("seconds"));
  Json same = json;
  same.erase("run");
  EXPECT_EQ(file, same);
}

TEST_F(ReplicasCommand, ResumeGoesOnWithAll) {
  ASSERT_EQ(train({"--replicas", "2", "--out", "whole", "--epochs", "4", "--quiet"}).status, 0);
  ASSERT_EQ(train({"--replicas", "2", "--out", "parts", "--epochs", "1", "--quiet"}).status, 0);
  ASSERT_EQ(run({"train", "--resume", "--replicas", "2", "--out", "parts", "--epochs", "2"}, here())
                .status,
            0);
  // There are as many as there are.
  ASSERT_EQ(run({"train", "--resume", "--out", "parts", "--epochs", "4"}, here()).status, 0);
  for (const char* name : {"seed-0/model.safetensors", "seed-1/model.safetensors"}) {
    EXPECT_TRUE(bytes(std::string("whole/") + name) == bytes(std::string("parts/") + name)) << name;
  }
  expect_refused(run({"train", "--resume", "--replicas", "1", "--out", "parts"}, here()), 2,
                 "1 replica, the run has 2");
  expect_refused(run({"train", "--resume", "--replicas", "3", "--out", "parts"}, here()), 2,
                 "3 replicas, the run has 2 (--replicas): go on with --replicas 2");
  expect_refused(run({"train", "--resume", "--out", "parts", "--seed", "1"}, here()), 2,
                 "`train.seed` is 1 now and was 0");
  ASSERT_EQ(train({"--out", "single", "--quiet"}).status, 0);
  expect_refused(run({"train", "--resume", "--replicas", "2", "--out", "single"}, here()), 2,
                 "no folder of replicas (single)");
  expect_refused(train({"--replicas", "2", "--out", "parts"}), 2, "not empty (parts)");
  expect_refused(train({"--replicas", "2", "--out", "single", "--overwrite"}), 2,
                 "one run, no replicas (single): leave --replicas out to replace it");
  expect_refused(train({"--out", "parts", "--overwrite"}), 2,
                 "replicas, not one run (parts): give --replicas to replace them");
}

TEST_F(ReplicasCommand, InterruptedAllHaveCheckpoints) {
  Process process({"train", "small.toml", "--replicas", "3", "--out", "all", "--epochs", "1000000"},
                  here());
  ASSERT_TRUE(process.wait_for("epoch 2/"));
  process.signal(SIGINT);
  const ProcessResult result = process.wait();
  expect_refused(result, 130, "go on with `cuvae train --resume --replicas 3 --out all`");
  for (const char* seed : {"0", "1", "2"}) {
    const fs::path run = folder_ / (std::string("all/seed-") + seed);
    EXPECT_TRUE(fs::exists(run / "checkpoints/last.safetensors"));
    EXPECT_FALSE(fs::exists(run / "samples.png"));
  }
  const auto done = summarise_run(folder_ / "all/seed-0");
  const std::int64_t epochs = done.steps_done / done.steps_per_epoch + 2;
  const ProcessResult resumed = run({"train", "--resume", "--replicas", "3", "--out", "all",
                                     "--epochs", std::to_string(epochs), "--json"},
                                    here());
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  for (const Json& entry : Json::parse(resumed.out).at("results")) {
    EXPECT_EQ(entry.at("epochs"), epochs);
  }
}

TEST_F(ReplicasCommand, OneThatDivergesIsStatusFiveAtTheEnd) {
  ASSERT_EQ(train({"--replicas", "3", "--out", "all", "--epochs", "1", "--quiet"}).status, 0);
  const fs::path path = folder_ / "all/seed-1/checkpoints/last.safetensors";
  TensorFile file = read_safetensors(path);
  for (NamedTensor& named : file.tensors) {
    if (named.name != "encoder.0.weight") continue;
    Tensor huge(DType::f32, named.tensor.shape());
    for (float& x : huge.as<float>()) x = 3e38F;
    named.tensor = std::move(huge);
  }
  write_safetensors(path, file);
  const ProcessResult result = run({"train", "--resume", "--out", "all", "--epochs", "2"}, here());
  expect_refused(result, 5, "1 of 3 replicas diverged: seed 1 (all): lower train.lr");
  expect_contains(result.err, "seed 1 diverged, the others go on: ");
  expect_contains(result.out, "standard deviation of 2 seeds");
  ASSERT_EQ(train({"--seed", "2", "--out", "one", "--epochs", "2", "--quiet"}).status, 0);
  EXPECT_TRUE(bytes("one/model.safetensors") == bytes("all/seed-2/model.safetensors"));
  const ProcessResult json =
      run({"train", "--resume", "--out", "all", "--epochs", "3", "--json"}, here());
  EXPECT_EQ(json.status, 5);
  EXPECT_TRUE(Json::parse(json.out).at("results")[1].at("diverged").is_string());
  EXPECT_TRUE(Json::parse(json.out).at("results")[1].at("test").is_null());
  EXPECT_EQ(Json::parse(json.out).at("results")[2].at("epochs"), 3);
}

TEST_F(ReplicasCommand, TooLargeTogetherIsStatusFour) {
  const ProcessResult result = train({"--replicas", "1024", "--out", "all", "--set",
                                      "model.encoder.layers=[{ type = \"linear\", out = 2000 }, "
                                      "{ type = \"linear\", out = 20000 }]"});
  if (result.status == 0) GTEST_SKIP() << "this machine has memory for it";
  expect_refused(result, 4, "too little memory for 1024 replicas: each takes ");
  EXPECT_FALSE(fs::exists(folder_ / "all"));
}

}  // namespace
}  // namespace cuvae::test
