// eval's figures of latents, information and samples, and the command probe.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "cli/small_model.h"
#include "support/synthetic.h"

namespace cuvae::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Args = std::vector<std::string>;

class EvaluationCommands : public ::testing::Test {
 protected:
  // A run on blobs of size x size.
  void train(std::int64_t size) {
    write_blob_folder(folder_ / "data", 256, 64, size);
    std::ofstream(folder_ / "small.toml") << small_model_toml;
    const ProcessResult result = in_folder({"train", "small.toml", "--out", "run", "--quiet"});
    ASSERT_EQ(result.status, 0) << result.err;
  }
  ProcessResult in_folder(const Args& args) const {
    return run(args, {.folder = folder_.path().string()});
  }
  Json json_of(Args args) const {
    args.emplace_back("--json");
    const ProcessResult result = in_folder(args);
    EXPECT_EQ(result.status, 0) << result.err;
    Json json = Json::parse(result.out, nullptr, false);
    EXPECT_TRUE(json.is_object()) << result.out;
    return json;
  }
  void expect_refused(const Args& args, int status, const std::string& part) const {
    const ProcessResult result = in_folder(args);
    EXPECT_EQ(result.status, status) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_NE(result.err.find("cuvae: error: "), std::string::npos);
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  }

  TemporaryFolder folder_;
};

TEST_F(EvaluationCommands, EvalTellsOfLatentsAndInformation) {
  train(8);
  const Json json = json_of({"eval", "run", "--iw-samples", "20", "--mi-rows", "30"});
  const Json& latents = json.at("latents");
  EXPECT_EQ(latents.at("samples"), 64);
  EXPECT_EQ(latents.at("threshold"), 0.01);
  EXPECT_EQ(latents.at("variance").size(), 4U);
  double kl = 0;
  for (const double value : latents.at("kl")) kl += value;
  EXPECT_NEAR(kl, json.at("kl").get<double>(), 1e-4);
  const Json& information = json.at("mutual_information");
  EXPECT_EQ(information.at("samples"), 30);
  EXPECT_NEAR(information.at("cap").get<double>(), std::log(30.0), 1e-12);
  EXPECT_GE(information.at("value"), 0);
  EXPECT_LE(information.at("value"), information.at("cap"));
  EXPECT_TRUE(information.at("at_cap").is_boolean());
  const Json& effective = json.at("effective_samples");
  EXPECT_GE(effective.at("min"), 1);
  EXPECT_LE(effective.at("tenth"), effective.at("median"));
  EXPECT_LE(effective.at("mean"), 20);
  EXPECT_TRUE(json.at("kid_mnist_v1").is_null());

  const Json bare = json_of({"eval", "run", "--mi-rows", "0"});
  EXPECT_TRUE(bare.at("mutual_information").is_null());
  EXPECT_TRUE(bare.at("effective_samples").is_null());
  EXPECT_TRUE(bare.at("log_likelihood").is_null());
  EXPECT_TRUE(bare.at("mean_squared_error").is_null());  // of a Gaussian
  EXPECT_EQ(bare.at("latents").at("bounded"), 0);

  const std::string text = in_folder({"eval", "run", "--iw-samples", "20", "--latents"}).out;
  for (const char* part :
       {"active units    ", "64 of test)", "kl per latent   ", "mutual inform.  ", "cap",
        "effective       ", "samples of 20", "latent  kl to N(0, 1)  variance of the mean"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << text;
  }
}

// The table is of N(0, 1) whatever the prior is, and says so.
TEST_F(EvaluationCommands, LatentsAreSaidToBeAgainstTheNormal) {
  train(8);
  EXPECT_EQ(in_folder({"eval", "run"}).out.find("against"), std::string::npos);
  for (const char* prior : {"mixture", "vamp"}) {
    ASSERT_EQ(in_folder({"train", "small.toml", "--out", prior, "--quiet", "--set",
                         std::string("model.latent={size=4,prior=\"") + prior + "\",components=3}"})
                  .status,
              0);
    const std::string text = in_folder({"eval", prior, "--latents"}).out;
    EXPECT_NE(text.find("; against N(0, 1), not the " + std::string(prior) + " prior\n"),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("latent  kl to N(0, 1)  variance"), std::string::npos) << text;
  }
}

TEST_F(EvaluationCommands, SamplesOf28By28AreJudged) {
  train(28);
  const Json judged = json_of({"eval", "run", "--kid"}).at("kid_mnist_v1");
  EXPECT_EQ(judged.at("samples"), 64);
  EXPECT_EQ(judged.at("subsets"), 100);
  EXPECT_EQ(judged.at("subset_size"), 32);
  EXPECT_EQ(judged.at("k"), 3);
  for (const char* share : {"precision", "recall"}) {
    EXPECT_GE(judged.at(share), 0);
    EXPECT_LE(judged.at(share), 1);
  }
  EXPECT_TRUE(judged.at("kid").is_number());
  EXPECT_GT(judged.at("classifier_accuracy"), 0.985);
  EXPECT_EQ(judged.at("classifier_sha256").get<std::string>().size(), 64U);
  EXPECT_EQ(
      json_of({"eval", "run", "--kid", "--kid-samples", "16"}).at("kid_mnist_v1").at("samples"),
      16);
  const std::string text = in_folder({"eval", "run", "--kid"}).out;
  EXPECT_NE(text.find("kid_mnist_v1    KID "), std::string::npos) << text;
  EXPECT_NE(text.find("subsets of 32 rows instead of 1,000: no figures to compare with others"),
            std::string::npos)
      << text;
  expect_refused({"eval", "run", "--kid", "--kid-samples", "3"}, 2, "--kid-samples");
}

TEST_F(EvaluationCommands, OtherImagesAreNotJudged) {
  train(8);
  expect_refused({"eval", "run", "--kid"}, 2,
                 "kid_mnist_v1 judges images of 1 x 28 x 28, the model's are 1 x 8 x 8");
}

TEST_F(EvaluationCommands, ProbeTellsItsThreeFigures) {
  train(8);
  const Json json = json_of({"probe", "run", "--k", "3"});
  EXPECT_EQ(json.at("train_samples"), 256);
  EXPECT_EQ(json.at("test_samples"), 64);
  EXPECT_EQ(json.at("classes"), 10);
  EXPECT_EQ(json.at("latent"), 4);
  EXPECT_EQ(json.at("knn").at("k"), 3);
  EXPECT_EQ(json.at("linear").at("converged"), true);
  EXPECT_EQ(json.at("kmeans").at("clusters"), 10);
  EXPECT_EQ(json.at("kmeans").at("mapping"), "hungarian");
  for (const Json* accuracy : {&json.at("knn").at("accuracy"), &json.at("linear").at("accuracy"),
                               &json.at("kmeans").at("accuracy"), &json.at("kmeans").at("nmi")}) {
    EXPECT_GE(*accuracy, 0);
    EXPECT_LE(*accuracy, 1);
  }
  EXPECT_EQ(json_of({"probe", "run", "--k", "3", "--threads", "3"}), json);
  const std::string text = in_folder({"probe", "run"}).out;
  for (const char* part : {"5 nearest ", "linear ", "k-means ", "Hungarian"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST_F(EvaluationCommands, ProbeRefusesWhatItCannotTell) {
  train(8);
  expect_refused({"probe"}, 2, "RUN");
  expect_refused({"probe", "nowhere"}, 3, "no such run");
  expect_refused({"probe", "run", "--k", "0"}, 2, "--k");
  expect_refused({"probe", "run", "--k", "257"}, 2, "choose from 1 to 256");
  expect_refused({"probe", "run", "--data", "data/train-images-idx3-ubyte"}, 2, "no test split");
  fs::remove(folder_ / "data/t10k-labels-idx1-ubyte");
  expect_refused({"probe", "run"}, 3, "no labels of the test split");
}

}  // namespace
}  // namespace cuvae::test
