// The commands that compute, on small images: what they print, write and refuse.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "cli/expect.h"
#include "cli/process.h"
#include "cli/small_model.h"
#include "cuvae/image.h"
#include "cuvae/npy.h"
#include "support/synthetic.h"

namespace cuvae::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Args = std::vector<std::string>;

void expect_refused(const ProcessResult& result, int status, const std::string& part) {
  EXPECT_EQ(result.status, status) << result.err;
  EXPECT_EQ(result.out, "");
  const auto start = result.err.find("cuvae: error: ");
  ASSERT_NE(start, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find('\n', start), result.err.size() - 1) << result.err;
  expect_contains(result.err.substr(start), part);
}

int lines_with(const std::string& text, const std::string& part) {
  std::istringstream stream(text);
  int count = 0;
  for (std::string line; std::getline(stream, line);) {
    if (line.find(part) != std::string::npos) ++count;
  }
  return count;
}

// A folder with data of 8 x 8 pixels, a small model, and a run trained for two epochs.
class Commands : public ::testing::Test {
 protected:
  static constexpr int test_rows = 64;

  void SetUp() override {
    write_blob_folder(folder_ / "data", 256, test_rows);
    std::ofstream(folder_ / "small.toml") << small_model_toml;
  }

  ProcessResult in_folder(const Args& args, ProcessOptions options = {}) const {
    options.folder = folder_.path().string();
    return run(args, options);
  }
  Json json_of(Args args) const {
    args.emplace_back("--json");
    const ProcessResult result = in_folder(args);
    EXPECT_EQ(result.status, 0) << result.err;
    Json json = Json::parse(result.out, nullptr, false);
    EXPECT_TRUE(json.is_object()) << result.out;
    EXPECT_EQ(json.value("schema", 0), 1);
    return json;
  }
  ProcessResult train(const std::string& out, Args more = {}) const {
    Args args = {"train", "small.toml", "--out", out};
    args.insert(args.end(), more.begin(), more.end());
    return in_folder(args);
  }

  TemporaryFolder folder_;
};

TEST_F(Commands, TrainTellsWhatItDid) {
  const ProcessResult result = train("run");
  ASSERT_EQ(result.status, 0) << result.err;
  expect_contains(result.out, "test neg_elbo ");
  expect_contains(result.out, "run: run\n");
  expect_contains(result.out, "samples.png");
  expect_contains(result.out, "reconstructions.png");
  // No terminal: the log and one line per evaluation, no control codes.
  EXPECT_EQ(lines_with(result.err, "train neg_elbo"), 2) << result.err;
  EXPECT_EQ(result.err.find('\x1b'), std::string::npos);
  EXPECT_EQ(result.err.find('\r'), std::string::npos);
  for (const char* name : {"config.toml", "env.json", "model.safetensors", "metrics.jsonl",
                           "samples.png", "reconstructions.png"}) {
    EXPECT_TRUE(fs::is_regular_file(folder_.path() / "run" / name)) << name;
  }
}

// There is nothing to be timed on a CPU; the run keeps what was asked for.
TEST_F(Commands, AutotuneIsPartOfTheRun) {
  const ProcessResult result = train("run", {"--autotune", "--epochs", "1"});
  ASSERT_EQ(result.status, 0) << result.err;
  expect_contains(file_bytes(folder_ / "run/config.toml"), "autotune = true");
  const ProcessResult more = in_folder({"train", "--resume", "--out", "run", "--epochs", "2"});
  EXPECT_EQ(more.status, 0) << more.err;
  expect_contains(file_bytes(folder_ / "run/config.toml"), "autotune = true");
  expect_refused(train("other", {"--set", "run.autotune=yes"}), 2, "`run.autotune`");
}

TEST_F(Commands, QuietTrainSaysNothingOnStandardError) {
  const ProcessResult result = train("run", {"--quiet"});
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.err, "");
  expect_contains(result.out, "test neg_elbo ");
}

TEST_F(Commands, TrainJsonHasItsFields) {
  const Json json = json_of({"train", "small.toml", "--out", "run"});
  EXPECT_EQ(json.at("epochs"), 2);
  EXPECT_EQ(json.at("steps"), 16);
  EXPECT_EQ(json.at("device"), "cpu");
  EXPECT_TRUE(json.at("exec").is_string());
  EXPECT_GT(json.at("seconds").get<double>(), 0.0);
  EXPECT_GT(json.at("samples_per_second").get<double>(), 0.0);
  for (const char* split : {"train", "test"}) {
    const Json& m = json.at(split);
    EXPECT_NEAR(m.at("neg_elbo").get<double>(),
                m.at("reconstruction").get<double>() + m.at("kl").get<double>(), 1e-9);
  }
  EXPECT_EQ(json.at("interrupted"), false);
}

TEST_F(Commands, TrainWithoutATestSplitReportsNull) {
  fs::remove(folder_.path() / "data" / "t10k-images-idx3-ubyte");
  fs::remove(folder_.path() / "data" / "t10k-labels-idx1-ubyte");
  EXPECT_TRUE(json_of({"train", "small.toml", "--out", "run"}).at("test").is_null());
}

TEST_F(Commands, RunsAreNumberedWithoutOut) {
  ASSERT_EQ(in_folder({"train", "small.toml", "--quiet"}).status, 0);
  const ProcessResult second = in_folder({"train", "small.toml", "--quiet"});
  EXPECT_TRUE(fs::is_directory(folder_.path() / "runs/small-1"));
  expect_contains(second.out, "runs/small-2");
}

TEST_F(Commands, ARunFolderIsNotOverwrittenUnasked) {
  ASSERT_EQ(train("run").status, 0);
  const std::string before = file_bytes(folder_ / "run/model.safetensors");
  expect_refused(train("run"), 2, "run");
  EXPECT_EQ(file_bytes(folder_ / "run/model.safetensors"), before);
  EXPECT_EQ(train("run", {"--overwrite", "--seed", "1"}).status, 0);
  EXPECT_NE(file_bytes(folder_ / "run/model.safetensors"), before);
}

TEST_F(Commands, ResumeEqualsTrainingAtOnce) {
  ASSERT_EQ(train("whole", {"--epochs", "4"}).status, 0);
  ASSERT_EQ(train("parts", {"--epochs", "2"}).status, 0);
  // From the run's own configuration, from another current folder as well.
  const ProcessResult resumed =
      run({"train", "--resume", "--out", (folder_ / "parts").string(), "--epochs", "4", "--json"});
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  const Json report = Json::parse(resumed.out);
  EXPECT_GT(report.at("seconds").get<double>(), 0);
  EXPECT_GT(report.at("total_seconds").get<double>(), report.at("seconds").get<double>());
  const std::string whole = file_bytes(folder_ / "whole/model.safetensors");
  EXPECT_FALSE(whole.empty());
  EXPECT_EQ(file_bytes(folder_ / "parts/model.safetensors"), whole);
}

TEST_F(Commands, EnvironmentSetsKeys) {
  const ProcessResult result = in_folder({"train", "small.toml", "--out", "run", "--json"},
                                         {.environment = {{"CUVAE_TRAIN_EPOCHS", "1"}}});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(Json::parse(result.out).at("epochs"), 1);
}

TEST_F(Commands, WhatHasNoEffectIsSaid) {
  const ProcessResult result =
      in_folder({"train", "small.toml", "--out", "run", "--epochs", "1", "--streams", "3"},
                {.environment = {{"CUVAE_EPOCHS", "9"}, {"CUVAE_SEED", ""}}});
  ASSERT_EQ(result.status, 0) << result.err;
  expect_contains(result.err,
                  "cuvae: warning: `CUVAE_EPOCHS` has no effect (environment): did you mean "
                  "`CUVAE_TRAIN_EPOCHS`?\n");
  EXPECT_EQ(lines_with(result.err, "warning"), 1) << result.err;
  EXPECT_EQ(lines_with(result.err, "--streams is without effect"), 1) << result.err;
  // Why it is not on a GPU.
  if (result.err.find("device cpu: ") != std::string::npos) {
    EXPECT_EQ(lines_with(result.err, "(no GPU: "), 1) << result.err;
  }
  const ProcessResult quiet = in_folder({"train", "small.toml", "--out", "run2", "--quiet"},
                                        {.environment = {{"CUVAE_EPOCHS", "9"}}});
  EXPECT_EQ(quiet.err, "");
}

TEST_F(Commands, TrainRefusesWhatCannotWork) {
  expect_refused(train("run", {"--batch-size", "257"}), 2, "batch");
  expect_refused(train("run", {"--data", "nowhere"}), 3, "nowhere");
  expect_refused(train("run", {"--device", "cuda:99"}), 4, "cuda");
  expect_refused(train("run", {"--set",
                               "model.encoder.layers=[{ out = 1048576 }, "
                               "{ out = 1048576 }]"}),
                 4, "memory");
  EXPECT_FALSE(fs::exists(folder_.path() / "run"));
  expect_refused(train("run", {"--lr", "1e20"}), 5, "");
}

TEST_F(Commands, InterruptWritesACheckpointThatResumes) {
  ProcessOptions options;
  options.folder = folder_.path().string();
  Process process({"train", "small.toml", "--out", "run", "--epochs", "100000000"}, options);
  ASSERT_TRUE(process.wait_for("epoch 3/"));
  process.signal(SIGINT);
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.status, 130);
  expect_contains(result.err,
                  "cuvae: error: interrupted, a checkpoint is written (run): go on "
                  "with `cuvae train --resume --out run`\n");
  const std::int64_t done = json_of({"info", "run"}).at("epochs").get<std::int64_t>();
  EXPECT_GE(done, 3);
  const Json resumed =
      json_of({"train", "--resume", "--out", "run", "--epochs", std::to_string(done + 2)});
  EXPECT_EQ(resumed.at("epochs"), done + 2);
}

TEST_F(Commands, TheSecondInterruptEndsAtOnce) {
  ASSERT_EQ(train("run").status, 0);
  const std::string before = file_bytes(folder_ / "run/model.safetensors");
  // A pipe that nobody reads keeps the program from its next step, where it would stop.
  fs::remove(folder_ / "run/env.json");
  ASSERT_EQ(mkfifo((folder_ / "run/env.json").c_str(), 0600), 0);
  ProcessOptions options;
  options.folder = folder_.path().string();
  Process process({"train", "--resume", "--out", "run", "--epochs", "100000000"}, options);
  ASSERT_TRUE(process.wait_for("run folder"));
  process.signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ASSERT_TRUE(process.running()) << process.wait().err;
  process.signal(SIGINT);
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.status, 130);
  EXPECT_EQ(result.err.find("a checkpoint is written"), std::string::npos) << result.err;
  EXPECT_EQ(file_bytes(folder_ / "run/model.safetensors"), before);
}

TEST_F(Commands, TwoQuickInterruptsCountAsOne) {
  ASSERT_EQ(train("run").status, 0);
  // A pipe that nobody reads holds the program; once it is read, the program goes on.
  const std::string pipe = (folder_ / "run/env.json").string();
  fs::remove(pipe);
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ProcessOptions options;
  options.folder = folder_.path().string();
  Process process({"train", "--resume", "--out", "run", "--epochs", "100000000"}, options);
  ASSERT_TRUE(process.wait_for("run folder"));
  const std::string said =
      "cuvae: interrupted: ends after the steps under way with a checkpoint; once more ends at "
      "once\n";
  process.signal(SIGINT);
  ASSERT_TRUE(process.wait_for(said));
  process.signal(SIGTERM);  // meant once, as schedulers send them
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ASSERT_TRUE(process.running()) << process.wait().err;
  std::ifstream reader(pipe);
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.status, 130);
  expect_contains(result.err, "interrupted, a checkpoint is written (run)");
  EXPECT_EQ(result.err.find(said), result.err.rfind(said)) << result.err;
}

TEST_F(Commands, AnInterruptedRunHasACheckpointButNoLastEvaluationAndNoPictures) {
  ProcessOptions options;
  options.folder = folder_.path().string();
  Process process({"train", "small.toml", "--out", "run", "--epochs", "100000000", "--eval-every",
                   "100000000", "--save-every", "100000000", "--json"},
                  options);
  ASSERT_TRUE(process.wait_for("run folder"));
  process.signal(SIGTERM);
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.status, 130) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("interrupted"), true);
  EXPECT_GT(json.at("steps").get<int>(), 0);
  EXPECT_TRUE(json.at("test").is_null());
  EXPECT_EQ(file_bytes(folder_ / "run/metrics.jsonl"), "");
  EXPECT_TRUE(fs::exists(folder_ / "run/checkpoints/last.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "run/model.safetensors"));
  for (const char* picture : {"samples.png", "reconstructions.png"}) {
    EXPECT_FALSE(fs::exists(folder_.path() / "run" / picture)) << picture;
  }
}

TEST_F(Commands, ProgressIsDrawnOnATerminalOnly) {
  if (!has_terminals()) GTEST_SKIP() << "this machine gives no pseudo terminals (/dev/pts)";
  const ProcessResult result = in_folder({"train", "small.toml", "--out", "run", "--epochs", "300"},
                                         {.environment = {{"TERM", "xterm"}}, .terminal = true});
  EXPECT_EQ(result.status, 0);
  expect_contains(result.err, "\repoch ");
  expect_contains(result.err, " samples/s");
  expect_contains(result.err, "\x1b[K");
  const ProcessResult quiet = in_folder({"train", "small.toml", "--out", "run2", "--quiet"},
                                        {.environment = {{"TERM", "xterm"}}, .terminal = true});
  EXPECT_EQ(quiet.err, "");
}

TEST_F(Commands, EvalAgreesWithTraining) {
  const Json trained = json_of({"train", "small.toml", "--out", "run"});
  const Json json = json_of({"eval", "run"});
  EXPECT_EQ(json.at("samples"), test_rows);
  EXPECT_EQ(json.at("device"), "cpu");
  EXPECT_TRUE(json.at("bits_per_dim").is_null());
  EXPECT_EQ(json.at("likelihood"), "bernoulli (grey)");
  for (const char* term : {"neg_elbo", "reconstruction", "kl"}) {
    EXPECT_NEAR(json.at(term).get<double>(), trained.at("test").at(term).get<double>(), 1e-9);
  }
  EXPECT_GE(json.at("active_units").get<int>(), 0);
  EXPECT_LE(json.at("active_units").get<int>(), 4);
  expect_contains(in_folder({"eval", "run"}).out, "neg_elbo        ");
  EXPECT_EQ(json_of({"eval", "run", "--split", "train"}).at("samples"), 256);
  EXPECT_EQ(json_of({"eval", "run", "--z-samples", "3"}).at("z_samples"), 3);
  EXPECT_EQ(json_of({"eval", "run", "--data", "data"}).at("neg_elbo"), json.at("neg_elbo"));
  expect_refused(in_folder({"eval", "run", "--split", "tset"}), 2, "did you mean `test`?");
  write_blob_folder(folder_ / "larger", 8, 8, 9);
  expect_refused(in_folder({"eval", "run", "--data", "larger"}), 3, "larger");
}

TEST_F(Commands, SamplesArePicturesOrArrays) {
  ASSERT_EQ(train("run").status, 0);
  EXPECT_EQ(json_of({"sample", "run", "--count", "9", "--out", "s.npy"}).at("count"), 9);
  const Tensor samples = read_npy(folder_ / "s.npy");
  EXPECT_EQ(samples.shape(), Shape({9, 8, 8}));
  for (const float v : samples.as<float>()) EXPECT_TRUE(v >= 0.0F && v <= 1.0F) << v;
  ASSERT_EQ(in_folder({"sample", "run", "--count", "9", "--out", "again.npy"}).status, 0);
  EXPECT_EQ(file_bytes(folder_ / "again.npy"), file_bytes(folder_ / "s.npy"));
  ASSERT_EQ(
      in_folder({"sample", "run", "--count", "9", "--seed", "1", "--out", "other.npy"}).status, 0);
  EXPECT_NE(file_bytes(folder_ / "other.npy"), file_bytes(folder_ / "s.npy"));
  ASSERT_EQ(in_folder({"sample", "run", "--out", "s.png"}).status, 0);
  EXPECT_GE(read_png(folder_ / "s.png").width, 8 * 8);
  expect_refused(in_folder({"sample", "run", "--out", "no/such/folder/s.png"}), 1, "no/such");
  // Before any work: not even the run is looked at.
  for (const Args& args :
       {Args{"sample", "nowhere", "--out", "no/such/s.png"},
        Args{"reconstruct", "nowhere", "--out", "no/such/r.png"},
        Args{"encode", "nowhere", "--out", "no/such/z.npy"},
        Args{"decode", "nowhere", "--latents", "z.npy", "--out", "no/such/x.npy"},
        Args{"score", "nowhere", "--out", "no/such/s.csv"},
        Args{"info", "--config", "nowhere", "--dump-plan", "no/such/p.dot"}})
    expect_refused(in_folder(args), 1, "no/such");
}

TEST_F(Commands, SamplesOfAFittedPrior) {
  ASSERT_EQ(train("run").status, 0);
  ASSERT_EQ(in_folder({"sample", "run", "--count", "9", "--out", "prior.npy"}).status, 0);
  for (const char* kind : {"gaussian", "gmm"}) {
    const std::string out = std::string(kind) + ".npy";
    EXPECT_EQ(json_of({"sample", "run", "--count", "9", "--fit-prior", kind, "--out", out})
                  .at("fitted_prior")
                  .at("kind"),
              kind);
    EXPECT_NE(file_bytes(folder_ / out), file_bytes(folder_ / "prior.npy"));
  }
  for (const std::vector<std::string>& more :
       std::vector<std::vector<std::string>>{{"--components", "3"},
                                             {"--data", "data"},
                                             {"--fit-prior", "gaussian", "--components", "3"}}) {
    std::vector<std::string> args = {"sample", "run", "--out", "x.npy"};
    args.insert(args.end(), more.begin(), more.end());
    expect_refused(in_folder(args), 2, "without what it is for");
  }
  expect_refused(in_folder({"sample", "run", "--fit-prior", "cauchy", "--out", "x.npy"}), 2,
                 "gaussian or gmm");
  expect_refused(in_folder({"sample", "run", "--label", "3", "--out", "x.npy"}), 2, "--label");
}

TEST_F(Commands, AnAutoencoderHasNoBoundToShow) {
  const ProcessResult result = train("run", {"--set", "objective.type=autoencoder"});
  ASSERT_EQ(result.status, 0) << result.err;
  expect_contains(result.out, "test reconstruction ");
  expect_contains(result.err, "epoch 1/2  train reconstruction ");
  const ProcessResult eval = in_folder({"eval", "run"});
  expect_contains(eval.out, "an autoencoder gives no likelihood");
  const ProcessResult info = in_folder({"info", "run"});
  const ProcessResult two =
      train("two", {"--set", "objective.type=autoencoder", "--replicas", "2"});
  expect_contains(two.out, "test reconstruction ");
  for (const ProcessResult* each : {&result, &eval, &info, &two}) {
    EXPECT_EQ(each->status, 0) << each->err;
    for (const char* word : {"neg_elbo", "kl "})
      EXPECT_EQ((each->out + each->err).find(word), std::string::npos) << each->out << each->err;
  }
  const Json both = Json::parse(file_bytes(folder_ / "two/replicas.json"));
  for (const char* part : {"mean", "sd"}) {
    const Json& test = both.at(part).at("test");
    EXPECT_TRUE(test.at("neg_elbo").is_null() && test.at("kl").is_null()) << part << test;
    EXPECT_TRUE(test.at("reconstruction").is_number());
  }
  const Json json = json_of({"eval", "run"});
  EXPECT_TRUE(json.at("neg_elbo").is_null() && json.at("kl").is_null()) << json;
  EXPECT_TRUE(json.at("latents").at("kl").is_null());
  EXPECT_TRUE(json.at("reconstruction").is_number());
  EXPECT_TRUE(json_of({"info", "run"}).at("test").at("neg_elbo").is_null());
  ASSERT_EQ(in_folder({"score", "run", "--out", "scores.csv"}).status, 0);
  const std::string scores = file_bytes(folder_ / "scores.csv");
  ASSERT_TRUE(scores.starts_with("index,neg_elbo,reconstruction,kl\n0,,")) << scores.substr(0, 80);
  EXPECT_EQ(scores.substr(0, scores.find('\n', 35)).back(), ',');
  // What is read back of its metrics goes on.
  EXPECT_EQ(in_folder({"train", "--resume", "--out", "run", "--epochs", "3"}).status, 0);
}

// A training of other data is compared by its SHA-256, also where the rows are as many.
TEST_F(Commands, OtherDataThanThoseOfTheTrainingAreNoted) {
  ASSERT_EQ(train("run", {"--quiet"}).status, 0);
  EXPECT_EQ(in_folder({"eval", "run"}).err.find("note: "), std::string::npos);
  std::string images = file_bytes(folder_ / "data/train-images-idx3-ubyte");
  images.back() = static_cast<char>(images.back() ^ 1);
  std::ofstream(folder_ / "data/train-images-idx3-ubyte", std::ios::binary) << images;
  const ProcessResult other = in_folder({"eval", "run"});
  EXPECT_EQ(other.status, 0) << other.err;
  expect_contains(other.err, "are not those of the training (SHA-256 ");
  expect_refused(in_folder({"train", "--resume", "--out", "run", "--epochs", "3"}), 3,
                 "was made with other data (SHA-256 ");
}

TEST_F(Commands, BitsThatAreNotToldHaveTheirReason) {
  const auto told = [&](const std::string& data, const std::string& likelihood) {
    const std::string out = "run_" + likelihood;
    EXPECT_EQ(train(out, {"--quiet", "--data", data, "--epochs", "1", "--set", "data.scale=none",
                          "--set", "model.likelihood.type=" + likelihood})
                  .status,
              0);
    return in_folder({"eval", out}).out;
  };
  expect_contains(told("synthetic:counts?n=300", "negative_binomial"),
                  "bits/dim        - (not told of counts)\n");
  expect_contains(told("synthetic:counts?n=300", "multinomial"), "- (not told of counts)\n");
  expect_contains(told("synthetic:dense-100?n=300", "gaussian"),
                  "- (a density of reals has none)\n");
}

TEST_F(Commands, InfoTellsOfAllThatAModelIsMadeOf) {
  const auto told = [&](const Args& settings) {
    Args args = {"info", "--data", "data"};
    for (const std::string& setting : settings) args.insert(args.end(), {"--set", setting});
    const ProcessResult result = in_folder(args);
    EXPECT_EQ(result.status, 0) << result.err;
    return result.out;
  };
  const std::string built = told({"objective.type=beta_tc", "objective.beta=6"});
  expect_contains(built,
                  "objective: beta_tc, alpha 1.0, gamma 1.0, estimator \"mws\", dataset 0, "
                  "beta 6\n");
  expect_contains(built, "\nlikelihood: bernoulli\n");
  expect_contains(built, "\noptimizer: adam, lr 0.001, betas [0.9, 0.999]");
  expect_contains(told({"model.latent.prior=mixture"}),
                  "\nlatents: 32, prior mixture, components 10\n");
  expect_contains(told({"objective.free_bits=1"}), "objective: elbo, free_bits 1.0, beta 1\n");
  ASSERT_EQ(train("run", {"--quiet"}).status, 0);
  expect_refused(in_folder({"info", "run", "--set", "train.lr=1"}), 2,
                 "a run and a configuration at once");
  // Where it runs is no configuration of a model; data that are named have to be there.
  EXPECT_TRUE(in_folder({"info", "--set", "run.threads=1"}).out.starts_with("cuvae "));
  EXPECT_EQ(in_folder({"info", "run", "--set", "run.threads=1"}).status, 0);
  expect_refused(in_folder({"info", "--data", "nowhere"}), 3, "nowhere");
}

// What the mend says can be typed.
TEST_F(Commands, CountsAreTrainedAsTheMendSays) {
  const Args begin = {"train", "--preset", "mnist-mlp", "--data", "synthetic:counts?n=300",
                      "--out", "run",      "--epochs",  "1",      "--quiet"};
  const ProcessResult refused = in_folder(begin);
  expect_refused(refused, 3,
                 "of counts use `data.scale` = \"none\", `model.likelihood.type` = "
                 "\"negative_binomial\" and `data.encoder_transform` = [\"log1p\"]; pixels are to "
                 "be bytes, array.astype('uint8')");
  Args mended = begin;
  for (const char* set : {"data.scale=none", "model.likelihood.type=negative_binomial",
                          "data.encoder_transform=[\"log1p\"]"})
    mended.insert(mended.end(), {"--set", set});
  EXPECT_EQ(in_folder(mended).status, 0);
}

// Classes are 0 to 9, and a model may know of more.
TEST_F(Commands, ALabelThatNoRowHadIsNoted) {
  ASSERT_EQ(train("run", {"--quiet", "--set", "model.condition.on=label", "--set",
                          "model.condition.classes=12"})
                .status,
            0);
  const std::string note = "note: no training row has the label 11";
  const ProcessResult unseen =
      in_folder({"sample", "run", "--count", "2", "--label", "11", "--out", "s.npy"});
  EXPECT_EQ(unseen.status, 0) << unseen.err;
  EXPECT_EQ(lines_with(unseen.err, note), 1) << unseen.err;
  const ProcessResult seen =
      in_folder({"sample", "run", "--count", "2", "--label", "9", "--out", "s.npy"});
  EXPECT_EQ(seen.status, 0);
  EXPECT_EQ(lines_with(seen.err, "note: "), 0) << seen.err;
  ASSERT_EQ(in_folder({"encode", "run", "--out", "z.npy"}).status, 0);
  const ProcessResult decoded =
      in_folder({"decode", "run", "--latents", "z.npy", "--label", "11", "--out", "x.npy"});
  EXPECT_EQ(lines_with(decoded.err, note), 1) << decoded.err;
  const ProcessResult none = in_folder({"sample", "run", "--label", "12", "--out", "s.npy"});
  expect_refused(none, 2, "no label 12");
  EXPECT_EQ(none.err.find("note: "), std::string::npos) << none.err;
}

TEST_F(Commands, BitsAreToldOfLevelsAndDequantisedBytes) {
  ASSERT_EQ(
      train("levels", {"--quiet", "--set", "model.likelihood={type=\"categorical\",classes=16}"})
          .status,
      0);
  const ProcessResult levels = in_folder({"eval", "levels"});
  expect_contains(levels.out, "likelihood      categorical (16 levels)\n");
  expect_contains(levels.out, " (of the 16 values, not of bytes)\n");
  EXPECT_TRUE(json_of({"eval", "levels"}).at("bits_per_dim").is_number());
  const Args gaussian = {"--quiet", "--set", "model.likelihood.type=gaussian"};
  ASSERT_EQ(train("plain", gaussian).status, 0);
  expect_contains(in_folder({"eval", "plain"}).out, "data.dequantise = true");
  Args more = gaussian;
  more.insert(more.end(), {"--set", "data.dequantise=true"});
  ASSERT_EQ(train("filled", more).status, 0);
  const Json json = json_of({"eval", "filled"});
  EXPECT_NEAR(json.at("bits_per_dim").get<double>(),
              8 + json.at("neg_elbo").get<double>() / (64 * std::log(2.0)), 1e-9);
  const ProcessResult info = in_folder({"info", "--config", "small.toml", "--set",
                                        "model.likelihood={type=\"categorical\",classes=16}"});
  expect_contains(info.out, "1024");
  expect_refused(train("bad", {"--set", "data.dequantise=true"}), 2, "`data.dequantise`");
  expect_refused(train("bad", {"--data", "synthetic:dense-100?n=100", "--set",
                               "model.likelihood.type=categorical"}),
                 3, "wants a label from 0 to 255");
}

// Latents are the seed's whatever the label; without one the labels come in turn.
TEST_F(Commands, SamplesOfALabel) {
  ASSERT_EQ(
      train("run", {"--set", "model.condition.on=label", "--set", "model.condition.classes=10"})
          .status,
      0);
  const auto sample = [&](const std::string& out, Args more) {
    Args args = {"sample", "run", "--count", "10", "--seed", "4", "--out", out};
    args.insert(args.end(), more.begin(), more.end());
    return json_of(args);
  };
  EXPECT_EQ(sample("threes.npy", {"--label", "3"}).at("label"), 3);
  EXPECT_EQ(sample("fours.npy", {"--label", "4"}).at("label"), 4);
  EXPECT_TRUE(sample("all.npy", {}).at("label").is_null());
  const Tensor threes = read_npy(folder_ / "threes.npy");
  const Tensor fours = read_npy(folder_ / "fours.npy");
  const Tensor all = read_npy(folder_ / "all.npy");
  ASSERT_EQ(threes.shape(), Shape({10, 8, 8}));
  const auto apart = [](const Tensor& a, const Tensor& b, std::size_t row) {
    double most = 0;
    for (std::size_t i = row * 64; i < (row + 1) * 64; ++i)
      most = std::max(most, std::abs(double{a.as<float>()[i]} - double{b.as<float>()[i]}));
    return most;
  };
  for (std::size_t row = 0; row < 10; ++row) {
    EXPECT_GT(apart(threes, fours, row), 1e-3);
    EXPECT_EQ(apart(all, threes, row) < 1e-6, row == 3) << row;
    EXPECT_EQ(apart(all, fours, row) < 1e-6, row == 4) << row;
  }
  (void)sample("threes.png", {"--label", "3"});
  EXPECT_GE(read_png(folder_ / "threes.png").width, 8 * 2);
  expect_refused(in_folder({"sample", "run", "--label", "10", "--out", "x.npy"}), 2, "--label");
}

// What encode writes decodes to the reconstructions: each row is told its own label.
TEST_F(Commands, LabelsGoTheRoundOfEncodeAndDecode) {
  ASSERT_EQ(
      train("run", {"--set", "model.condition.on=label", "--set", "model.condition.classes=10"})
          .status,
      0);
  EXPECT_EQ(json_of({"encode", "run", "--out", "z.npy"}).at("labels"), "z.labels.npy");
  const Tensor labels = read_npy(folder_ / "z.labels.npy");
  EXPECT_EQ(labels.shape(), Shape({64}));
  (void)json_of(
      {"decode", "run", "--latents", "z.npy", "--labels", "z.labels.npy", "--out", "x.npy"});
  (void)json_of({"reconstruct", "run", "--count", "64", "--out", "r.npy"});
  const Tensor decoded = read_npy(folder_ / "x.npy");
  const Tensor pairs = read_npy(folder_ / "r.npy");  // [2, 64, 8, 8]
  for (std::size_t row = 0; row < 64; ++row)
    for (std::size_t i = 0; i < 64; ++i)
      ASSERT_NEAR(decoded.as<float>()[row * 64 + i], pairs.as<float>()[(64 + row) * 64 + i], 1e-6)
          << row;
  const auto decode = [&](Args more) {
    Args args = {"decode", "run", "--latents", "z.npy", "--out", "y.npy"};
    args.insert(args.end(), more.begin(), more.end());
    return in_folder(args);
  };
  expect_refused(decode({"--labels", "z.labels.npy", "--label", "3"}), 2, "exclude each other");
  expect_refused(decode({"--labels", "z.npy"}), 3, "give integers (u1 or i8) of shape [64]");
  Tensor other(DType::i64, Shape{64});
  other.as<std::int64_t>()[5] = -1;
  write_npy(folder_ / "other.npy", other);
  expect_refused(decode({"--labels", "other.npy"}), 2, "no label -1");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "y.npy"));
  ASSERT_EQ(train("plain").status, 0);
  EXPECT_TRUE(json_of({"encode", "plain", "--out", "p.npy"}).at("labels").is_null());
  expect_refused(in_folder({"decode", "plain", "--latents", "p.npy", "--labels", "z.labels.npy",
                            "--out", "y.npy"}),
                 2, "the decoder is told no labels");
}

TEST_F(Commands, ReconstructionsStandBesideTheirOriginals) {
  ASSERT_EQ(train("run").status, 0);
  const Json json = json_of({"reconstruct", "run", "--index", "3,0", "--out", "r.npy"});
  EXPECT_EQ(json.at("index"), Json({3, 0}));
  const Tensor pairs = read_npy(folder_ / "r.npy");
  ASSERT_EQ(pairs.shape(), Shape({2, 2, 8, 8}));
  // Blobs of the test split, scaled to [0, 1]: the first row is sample 3.
  const auto originals = json_of({"reconstruct", "run", "--count", "4", "--out", "four.npy"});
  EXPECT_EQ(originals.at("index").size(), 4U);
  const Tensor four = read_npy(folder_ / "four.npy");
  for (std::size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(pairs.as<float>()[i], four.as<float>()[3 * 64 + i]);
    EXPECT_EQ(pairs.as<float>()[64 + i], four.as<float>()[i]);
  }
  ASSERT_EQ(in_folder({"reconstruct", "run", "--out", "r.png"}).status, 0);
  EXPECT_GT(read_png(folder_ / "r.png").height, 16);
  expect_refused(in_folder({"reconstruct", "run", "--index", "64", "--out", "x.npy"}), 2,
                 "(--index): choose from 0 to 63");
  expect_refused(in_folder({"reconstruct", "run", "--index", "1,,2", "--out", "x.npy"}), 2,
                 "(--index)");
}

TEST_F(Commands, EncodeAndDecodeAreEachOthersWayBack) {
  ASSERT_EQ(train("run").status, 0);
  EXPECT_EQ(json_of({"encode", "run", "--out", "z.npy"}).at("latent"), 4);
  const Tensor mean = read_npy(folder_ / "z.npy");
  EXPECT_EQ(mean.shape(), Shape({test_rows, 4}));
  EXPECT_EQ(read_npy(folder_ / "z.logvar.npy").shape(), Shape({test_rows, 4}));
  ASSERT_EQ(in_folder({"decode", "run", "--latents", "z.npy", "--out", "x.npy"}).status, 0);
  const Tensor decoded = read_npy(folder_ / "x.npy");
  ASSERT_EQ(decoded.shape(), Shape({test_rows, 8, 8}));
  // E[x | z = mean] is what `reconstruct` shows.
  ASSERT_EQ(in_folder({"reconstruct", "run", "--count", "5", "--out", "r.npy"}).status, 0);
  const Tensor pairs = read_npy(folder_ / "r.npy");
  for (std::size_t i = 0; i < 5 * 64; ++i) {
    EXPECT_NEAR(decoded.as<float>()[i], pairs.as<float>()[5 * 64 + i], 1e-5);
  }
  write_npy(folder_ / "bad.npy", Tensor(DType::f32, {3, 5}));
  expect_refused(in_folder({"decode", "run", "--latents", "bad.npy", "--out", "y.npy"}), 3,
                 "give reals of shape [N, 4]");
  Tensor nan(DType::f32, {2, 4});
  nan.as<float>()[5] = std::nanf("");
  write_npy(folder_ / "nan.npy", nan);
  expect_refused(in_folder({"decode", "run", "--latents", "nan.npy", "--out", "y.npy"}), 3,
                 "row 1 is not finite");
  EXPECT_FALSE(fs::exists(folder_.path() / "y.npy"));
}

TEST_F(Commands, ScoresAverageToTheEvaluation) {
  ASSERT_EQ(train("run").status, 0);
  ASSERT_EQ(in_folder({"score", "run", "--out", "s.csv"}).status, 0);
  std::istringstream csv(file_bytes(folder_ / "s.csv"));
  std::string line;
  std::getline(csv, line);
  EXPECT_EQ(line, "index,neg_elbo,reconstruction,kl");
  int rows = 0;
  double sum = 0;
  while (std::getline(csv, line)) {
    long index = -1;
    double neg_elbo = 0;
    double reconstruction = 0;
    double kl = 0;
    ASSERT_EQ(std::sscanf(line.c_str(), "%ld,%lf,%lf,%lf", &index, &neg_elbo, &reconstruction, &kl),
              4);
    EXPECT_EQ(index, rows++);
    EXPECT_NEAR(neg_elbo, reconstruction + kl, 1e-6 * std::abs(neg_elbo));
    sum += neg_elbo;
  }
  EXPECT_EQ(rows, test_rows);
  const double mean = json_of({"eval", "run"}).at("neg_elbo").get<double>();
  EXPECT_NEAR(sum / rows, mean, 1e-6 * std::abs(mean));
}

TEST_F(Commands, CompareJudges) {
  const Json json = json_of({"compare", "small.toml", "--steps", "5"});
  EXPECT_EQ(json.at("passed"), true);
  EXPECT_EQ(json.at("steps"), 5);
  EXPECT_GT(json.at("tensors").size(), 8U);
  const ProcessResult text = in_folder({"compare", "small.toml", "--steps", "3"});
  EXPECT_EQ(text.status, 0) << text.err;
  expect_contains(text.out, "encoder.0.weight");
  expect_contains(text.out, "passed\n");

  const ProcessResult broken =
      in_folder({"compare", "small.toml", "--steps", "3", "--break-gradient", "encoder.0.weight"});
  EXPECT_EQ(broken.status, 6) << broken.err;
  expect_contains(broken.out, "FAILED");
  expect_contains(broken.err, "outside their tolerance");

  const Json drift = json_of({"compare", "small.toml", "--steps", "4", "--mode", "run"});
  EXPECT_GE(drift.at("drift").size(), 1U);
}

// In double the same steps give other last digits, and nothing but those.
TEST_F(Commands, CompareComputesInDouble) {
  const auto losses = [&](const std::string& out, const Args& more) {
    Args args = {"compare", "small.toml", "--steps", "3", "--device", "cpu", "--export", out};
    args.insert(args.end(), more.begin(), more.end());
    const ProcessResult result = in_folder(args);
    EXPECT_EQ(result.status, 0) << result.err;
    return read_npy(folder_ / out / "losses.npy");
  };
  const Tensor single = losses("single", {});
  const Tensor wide = losses("wide", {"--double"});
  const double a = single.as<double>()[6];
  const double b = wide.as<double>()[6];  // the third step's loss
  EXPECT_NE(a, b);
  EXPECT_NEAR(a, b, 1e-4 * std::abs(b));
  EXPECT_NE(static_cast<double>(static_cast<float>(b)), b);  // more digits than a float has
  expect_refused(in_folder({"compare", "small.toml", "--double", "--reference", "cpu"}), 2,
                 "--reference cpu64");
}

TEST_F(Commands, CompareExportsWhatAnotherFrameworkNeeds) {
  json_of({"compare", "small.toml", "--steps", "2", "--export", "parity"});
  EXPECT_EQ(read_npy(folder_ / "parity/batches.npy").shape(), Shape({2, 32}));
  EXPECT_EQ(read_npy(folder_ / "parity/noise.npy").shape(), Shape({2, 32, 4}));
}

TEST_F(Commands, InfoTellsWhatARunHolds) {
  ASSERT_EQ(train("run").status, 0);
  const Json json = json_of({"info", "run"});
  EXPECT_EQ(json.at("epochs"), 2);
  EXPECT_EQ(json.at("steps"), 16);
  EXPECT_EQ(json.at("name"), "small");
  // (64+1)*16 + (16+1)*8 + (4+1)*16 + (16+1)*64
  EXPECT_EQ(json.at("parameters"), 65 * 16 + 17 * 8 + 5 * 16 + 17 * 64);
  expect_contains(in_folder({"info", "run"}).out, "trained     2 of 2 epochs");
}

TEST_F(Commands, DrawnDataNeedNoFile) {
  const std::string source = "synthetic:linear-gaussian?n=128&test=40";
  const Args set = {"--set", "data.scale=none", "--set", "model.likelihood.type=gaussian"};
  Args args = {"train", "small.toml", "--data", source, "--out", "run"};
  args.insert(args.end(), set.begin(), set.end());
  const ProcessResult trained = in_folder(args);
  ASSERT_EQ(trained.status, 0) << trained.err;
  expect_contains(trained.err, "no pictures: the data are 16 features");
  expect_contains(in_folder({"info", "run"}).out,
                  source + " (reals, mean + W z + noise: the best likelihood");
  EXPECT_EQ(json_of({"eval", "run"}).at("samples"), 40);
  EXPECT_EQ(json_of({"eval", "run", "--data", source + "&seed=1"}).at("samples"), 40);

  // Arrays, and no pictures.
  (void)json_of({"sample", "run", "--count", "3", "--out", "s.npy"});
  EXPECT_EQ(read_npy(folder_ / "s.npy").shape(), Shape({3, 16}));
  (void)json_of({"reconstruct", "run", "--count", "5", "--out", "r.npy"});
  EXPECT_EQ(read_npy(folder_ / "r.npy").shape(), Shape({2, 5, 16}));
  (void)json_of({"encode", "run", "--out", "z.npy"});
  EXPECT_EQ(read_npy(folder_ / "z.npy").shape(), Shape({40, 4}));
  (void)json_of({"decode", "run", "--latents", "z.npy", "--out", "x.npy"});
  EXPECT_EQ(read_npy(folder_ / "x.npy").shape(), Shape({40, 16}));
  ASSERT_EQ(in_folder({"score", "run", "--out", "s.csv"}).status, 0);
  for (const Args& picture :
       {Args{"sample", "run", "--out", "x.png"}, Args{"reconstruct", "run", "--out", "x.png"},
        Args{"decode", "run", "--latents", "z.npy", "--out", "x.png"}}) {
    expect_refused(in_folder(picture), 2,
                   "the data are 16 features, which make no picture (PNG): write .npy instead");
  }
  EXPECT_FALSE(fs::exists(folder_ / "x.png"));

  Args about = {"info", "--config", "small.toml", "--data", source};
  about.insert(about.end(), set.begin(), set.end());
  const Json info = json_of(about);
  EXPECT_EQ(info.at("data").at("train"), 128);
  EXPECT_EQ(info.at("data").at("dtype"), "f32");
  EXPECT_EQ(info.at("data").at("sha256").get<std::string>().size(), 64U);
  EXPECT_NEAR(info.at("kl_weight_beside_mse").get<double>(), 2.0 / 16, 1e-12);
  expect_contains(in_folder(about).out, "mean squared error + 0.125 KL");
  const Json shapes = json_of({"info", "--config", "small.toml", "--data", "synthetic:shapes"});
  EXPECT_EQ(shapes.at("data").at("classes"), 3);
  EXPECT_EQ(shapes.at("data").at("factors").size(), 5U);
  EXPECT_TRUE(shapes.at("kl_weight_beside_mse").is_null());

  expect_refused(in_folder({"train", "small.toml", "--data", "synthetic:shape"}), 2,
                 "did you mean `synthetic:shapes`?");
  expect_refused(in_folder({"train", "small.toml", "--data", "synthetic:shapes?N=3"}), 2,
                 "unknown parameter `N`");
  expect_refused(in_folder({"train", "small.toml", "--data", source}), 3,
                 "`data.scale` = \"unit\" takes from 0 to 1 only");
}

TEST_F(Commands, BenchGivesItsFigures) {
  const Json json = json_of({"bench", "small.toml", "--repeats", "2", "--steps", "2"});
  for (const char* field :
       {"step_ms", "samples_per_second", "gemm_gflops", "ceiling_gflops", "share_of_ceiling"}) {
    EXPECT_GT(json.at(field).get<double>(), 0.0) << field;
  }
}

// Rows are printed and kept as they come, and both ways tell the same.
TEST_F(Commands, BenchKeepsEveryRow) {
  const auto done = in_folder({"bench", "small.toml", "--suite", "step", "--batches", "4,8,10000",
                               "--repeats", "1", "--steps", "1", "--out", "rows.json"});
  EXPECT_EQ(done.status, 0) << done.err;
  expect_contains(done.out, "images only");
  const Json kept = Json::parse(file_bytes(folder_ / "rows.json"));
  EXPECT_EQ(kept.at("complete"), true);
  ASSERT_EQ(kept.at("results").size(), 3U);
  EXPECT_EQ(kept.at("results")[1].at("batch"), 8);
  // One line for the machine, one of the columns' names, one a row.
  EXPECT_EQ(std::count(done.out.begin(), done.out.end(), '\n'), 5) << done.out;
}

TEST_F(Commands, ADamagedModelIsRefused) {
  ASSERT_EQ(train("run").status, 0);
  const std::string model = file_bytes(folder_ / "run/model.safetensors");
  std::ofstream(folder_ / "run/model.safetensors") << model.substr(0, model.size() / 2);
  expect_refused(in_folder({"eval", "run"}), 3, "model.safetensors");
  std::string nan = model;
  for (std::size_t i = nan.size() - 4; i < nan.size(); ++i) nan[i] = '\x7f' | '\x80';
  std::ofstream(folder_ / "run/model.safetensors") << nan;
  expect_refused(in_folder({"sample", "run", "--out", "s.png"}), 3, "model.safetensors");
  EXPECT_FALSE(fs::exists(folder_.path() / "s.png"));
}

}  // namespace
}  // namespace cuvae::test
