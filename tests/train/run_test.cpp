// Runs on disk, as train_run() leaves them and LoadedRun reads them.

#include "cuvae/run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <span>
#include <utility>

#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "cuvae/image.h"
#include "cuvae/safetensors.h"
#include "support/failure.h"
#include "support/synthetic.h"
#include "train/blob_config.h"
#include "train/folder_lock.h"
#include "train/integral.h"

namespace cuvae {
namespace {

using test::failure;

namespace fs = std::filesystem;

class RunTest : public testing::Test {
 protected:
  RunTest() {
    test::write_blob_folder(folder_ / "data", 200, 50);
    config_ = test::blob_config(folder_ / "data");
  }

  [[nodiscard]] TrainRunOptions to(const std::string& name) const {
    TrainRunOptions options;
    options.out = folder_ / name;
    return options;
  }
  [[nodiscard]] std::string bytes(const std::string& path) const {
    return test::file_bytes(folder_ / path);
  }

  test::TemporaryFolder folder_;
  Config config_;
};

TEST_F(RunTest, LeavesTheDocumentedFiles) {
  const TrainReport report = train_run(config_, to("run"));
  EXPECT_EQ(report.epochs, 2);
  EXPECT_EQ(report.steps, 24);
  EXPECT_EQ(report.device, "cpu");
  ASSERT_TRUE(report.test.has_value());
  EXPECT_EQ(report.test->n, 50);
  for (const char* name : {"config.toml", "env.json", "model.safetensors", "metrics.jsonl",
                           "samples.png", "reconstructions.png", "checkpoints/last.safetensors"}) {
    EXPECT_TRUE(fs::exists(folder_ / "run" / name)) << name;
  }
  std::ifstream file(folder_ / "run/metrics.jsonl");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[3]["split"], "test");
  EXPECT_EQ(lines[3]["epoch"], 2);
  EXPECT_EQ(lines[3]["step"], 24);
  EXPECT_EQ(lines[3]["neg_elbo"].get<double>(), report.test->neg_elbo);
  for (const char* key : {"epoch", "step", "split", "n", "loss", "neg_elbo", "reconstruction", "kl",
                          "beta", "lr", "seconds"}) {
    EXPECT_TRUE(lines[0].contains(key)) << key;
  }
  const Image samples = read_png(folder_ / "run/samples.png");
  EXPECT_GT(samples.width, 8 * 8);
  EXPECT_EQ(parse_config(bytes("run/config.toml"), "config").train.lr, 3e-3);
}

TEST_F(RunTest, TwiceIsByteIdentical) {
  train_run(config_, to("a"));
  config_.run.threads = 2;
  train_run(config_, to("b"));
  for (const char* name : {"model.safetensors", "samples.png", "reconstructions.png",
                           "checkpoints/last.safetensors"}) {
    EXPECT_EQ(bytes("a/" + std::string(name)), bytes("b/" + std::string(name))) << name;
    EXPECT_FALSE(bytes("a/" + std::string(name)).empty()) << name;
  }
}

TEST_F(RunTest, ModelFileHoldsNoPathNorDevice) {
  train_run(config_, to("run"));
  const TensorFile file = read_safetensors(folder_ / "run/model.safetensors");
  for (const auto& [key, value] : file.metadata) {
    EXPECT_EQ(value.find(folder_.path().string()), std::string::npos) << key;
    EXPECT_EQ(value.find("threads = 1"), std::string::npos) << key;
  }
  std::vector<std::string> names;
  for (const NamedTensor& named : file.tensors) names.push_back(named.name);
  std::ranges::sort(names);
  EXPECT_EQ(names,
            (std::vector<std::string>{"decoder.0.bias", "decoder.0.weight", "decoder.out.bias",
                                      "decoder.out.weight", "encoder.0.bias", "encoder.0.weight",
                                      "encoder.logvar.bias", "encoder.logvar.weight",
                                      "encoder.mean.bias", "encoder.mean.weight"}));
}

TEST_F(RunTest, ResumedEqualsUninterrupted) {
  config_.train.epochs = 4;
  train_run(config_, to("whole"));
  config_.train.epochs = 2;
  train_run(config_, to("parts"));
  config_.train.epochs = 4;
  TrainRunOptions options = to("parts");
  options.resume = true;
  const TrainReport report = train_run(config_, options);
  EXPECT_EQ(report.epochs, 4);
  EXPECT_GT(report.seconds, 0);
  EXPECT_GT(report.total_seconds, report.seconds);
  EXPECT_EQ(bytes("whole/model.safetensors"), bytes("parts/model.safetensors"));
  EXPECT_EQ(bytes("whole/checkpoints/last.safetensors"),
            bytes("parts/checkpoints/last.safetensors"));
  const auto without_times = [&](const std::string& path) {
    std::ifstream file(folder_ / path);
    std::string text;
    double seconds = 0;
    for (std::string line; std::getline(file, line);) {
      auto json = nlohmann::json::parse(line);
      EXPECT_GE(json.at("seconds").get<double>(), seconds);  // goes on where it was
      seconds = json.at("seconds");
      json.erase("seconds");
      text += json.dump() + "\n";
    }
    return text;
  };
  EXPECT_EQ(without_times("whole/metrics.jsonl"), without_times("parts/metrics.jsonl"));
}

// A horizon that follows from the epochs is kept when there are more of them.
TEST_F(RunTest, HorizonsAreStoredAndMayNotChange) {
  config_.train.schedule = {.type = "cosine", .floor = 1e-4};
  train_run(config_, to("parts"));  // 2 epochs of 12 steps
  EXPECT_EQ(parse_config(bytes("parts/config.toml"), "config").train.schedule.steps, 24);
  Config whole = config_;
  whole.train.schedule.steps = 24;
  whole.train.epochs = 4;
  train_run(whole, to("whole"));
  config_.train.epochs = 4;
  TrainRunOptions options = to("parts");
  options.resume = true;
  train_run(config_, options);
  EXPECT_EQ(bytes("whole/checkpoints/last.safetensors"),
            bytes("parts/checkpoints/last.safetensors"));
  config_.train.schedule.steps = 30;
  const Error error = failure([&] { train_run(config_, options); });
  EXPECT_EQ(error.status(), Status::usage);
  EXPECT_NE(std::string(error.what()).find("`train.schedule.steps`"), std::string::npos)
      << error.what();
}

// Running statistics are in the model's file: a loaded run computes what the trained one did.
TEST_F(RunTest, RunningStatisticsAreLoadedWithTheWeights) {
  config_.model.encoder.layers = {
      {.type = "conv2d", .out = 3, .kernel = {3, 3}},
      {.type = "batch_norm", .activation = "relu"},
  };
  train_run(config_, to("whole"));
  config_.train.epochs = 1;
  train_run(config_, to("run"));
  config_.train.epochs = 2;
  TrainRunOptions options = to("run");
  options.resume = true;
  const TrainReport report = train_run(config_, options);
  EXPECT_EQ(bytes("whole/model.safetensors"), bytes("run/model.safetensors"));
  const TensorFile file = read_safetensors(folder_ / "run/model.safetensors");
  EXPECT_EQ(file.at("encoder.1.norm.num_batches_tracked").as<std::int64_t>()[0], 24);
  ASSERT_TRUE(report.test.has_value());
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  EXPECT_EQ(run.evaluate(*run.load_data("")->test).metrics.neg_elbo, report.test->neg_elbo);
}

TEST_F(RunTest, InterruptedRunsWriteACheckpointAndGoOn) {
  train_run(config_, to("whole"));
  TrainRunOptions options = to("parts");
  int polls = 0;
  options.stop = [&polls] { return ++polls == 5; };
  const TrainReport first = train_run(config_, options);
  EXPECT_TRUE(first.interrupted);
  EXPECT_EQ(first.steps, 5);
  EXPECT_EQ(summarise_run(folder_ / "parts").steps_done, 5);
  EXPECT_EQ(summarise_run(folder_ / "parts").metrics_epoch, 0);
  options.stop = nullptr;
  options.resume = true;
  const TrainReport second = train_run(config_, options);
  EXPECT_FALSE(second.interrupted);
  EXPECT_EQ(bytes("whole/model.safetensors"), bytes("parts/model.safetensors"));
}

TEST_F(RunTest, ResumingAFinishedRunChangesNothing) {
  train_run(config_, to("run"));
  const std::string before = bytes("run/model.safetensors");
  TrainRunOptions options = to("run");
  options.resume = true;
  const TrainReport report = train_run(config_, options);
  EXPECT_EQ(report.steps, 24);
  ASSERT_TRUE(report.test.has_value());
  EXPECT_EQ(bytes("run/model.safetensors"), before);
  config_.train.epochs = 1;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::usage);
}

TEST_F(RunTest, ResumeRefusesAnotherConfigurationNamingTheKey) {
  train_run(config_, to("run"));
  TrainRunOptions options = to("run");
  options.resume = true;
  config_.train.lr = 1e-2;
  const Error error = failure([&] { train_run(config_, options); });
  EXPECT_EQ(error.status(), Status::usage);
  EXPECT_NE(std::string(error.what()).find("`train.lr`"), std::string::npos) << error.what();
}

TEST_F(RunTest, ResumeRefusesOtherData) {
  train_run(config_, to("run"));
  test::write_blob_folder(folder_ / "data", 200, 51);
  config_.train.epochs = 3;
  TrainRunOptions options = to("run");
  options.resume = true;
  const Error error = failure([&] { train_run(config_, options); });
  EXPECT_EQ(error.status(), Status::input);
  EXPECT_NE(std::string(error.what()).find("SHA-256"), std::string::npos) << error.what();
}

TEST_F(RunTest, ANonEmptyFolderIsRefused) {
  fs::create_directories(folder_ / "run");
  std::ofstream(folder_ / "run/mine.txt") << "precious";
  EXPECT_EQ(failure([&] { train_run(config_, to("run")); }).status(), Status::usage);
  TrainRunOptions options = to("run");
  options.overwrite = true;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::usage);
  EXPECT_EQ(bytes("run/mine.txt"), "precious");
  options.overwrite = false;
  options.resume = true;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::usage);
}

TEST_F(RunTest, OverwriteStartsAnewAndKeepsForeignFiles) {
  train_run(config_, to("run"));
  const std::string before = bytes("run/model.safetensors");
  std::ofstream(folder_ / "run/mine.txt") << "precious";
  EXPECT_EQ(failure([&] { train_run(config_, to("run")); }).status(), Status::usage);
  TrainRunOptions options = to("run");
  options.overwrite = true;
  train_run(config_, options);
  EXPECT_EQ(bytes("run/model.safetensors"), before);
  EXPECT_EQ(bytes("run/mine.txt"), "precious");
  EXPECT_EQ(std::ranges::count(bytes("run/metrics.jsonl"), '\n'), 4);
}

TEST_F(RunTest, OneTrainingAtATimeWritesToAFolder) {
  train_run(config_, to("run"));
  const std::string before = bytes("run/model.safetensors");
  std::optional<FolderLock> other(std::in_place, folder_ / "run");
  TrainRunOptions options = to("run");
  options.overwrite = true;
  Error refused = failure([&] { train_run(config_, options); });
  EXPECT_EQ(refused.status(), Status::usage);
  EXPECT_NE(std::string(refused.what()).find("another training"), std::string::npos);
  options.overwrite = false;
  options.resume = true;
  Config longer = config_;
  longer.train.epochs += 1;
  EXPECT_EQ(failure([&] { train_run(longer, options); }).status(), Status::usage);
  EXPECT_EQ(bytes("run/model.safetensors"), before);
  other.reset();
  train_run(longer, options);
  EXPECT_NE(bytes("run/model.safetensors"), before);
}

TEST_F(RunTest, ARunWithoutACheckpointIsNotToBeFinished) {
  fs::create_directories(folder_ / "run/checkpoints");
  std::ofstream(folder_ / "run/config.toml") << to_toml(config_);
  const auto device = open_device("cpu", {});
  const Error refused = failure([&] { LoadedRun run((folder_ / "run").string(), *device); });
  EXPECT_NE(std::string(refused.what()).find("train anew with --overwrite"), std::string::npos)
      << refused.what();
}

TEST_F(RunTest, AFailedOverwriteLosesNothing) {
  train_run(config_, to("run"));
  const std::string before = bytes("run/model.safetensors");
  config_.data.path = (folder_ / "nothing").string();
  TrainRunOptions options = to("run");
  options.overwrite = true;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::input);
  EXPECT_EQ(bytes("run/model.safetensors"), before);
}

TEST_F(RunTest, ADivergedRunLeavesNoFolder) {
  config_.train.lr = 1e30;
  EXPECT_EQ(failure([&] { train_run(config_, to("deep/run")); }).status(), Status::diverged);
  EXPECT_FALSE(fs::exists(folder_ / "deep"));
}

TEST_F(RunTest, DivergingInTheOnlyStepLeavesNoFolder) {
  config_.train.lr = 1e30;
  config_.train.batch_size = 200;
  config_.train.epochs = 1;
  EXPECT_EQ(failure([&] { train_run(config_, to("run")); }).status(), Status::diverged);
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(RunTest, ARunThatDivergesPutsTheReplacedOneBack) {
  train_run(config_, to("run"));
  std::vector<std::pair<std::string, std::string>> before;
  for (const std::string& name : summarise_run(folder_ / "run").files) {
    before.emplace_back(name, bytes("run/" + name));
  }
  config_.train.lr = 1e30;
  TrainRunOptions options = to("run");
  options.overwrite = true;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::diverged);
  for (const auto& [name, content] : before) EXPECT_EQ(bytes("run/" + name), content) << name;
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "run"), {}), 7);
}

TEST_F(RunTest, ADamagedMetricsFileIsStatusThree) {
  train_run(config_, to("run"));
  std::ofstream(folder_ / "run/metrics.jsonl", std::ios::app) << "{\"epoch\":1,\"step\":\"x\"}\n";
  EXPECT_EQ(failure([&] { (void)summarise_run(folder_ / "run"); }).status(), Status::input);
  config_.train.epochs = 3;
  TrainRunOptions options = to("run");
  options.resume = true;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::input);
}

TEST_F(RunTest, TuningWithoutEffectIsSaid) {
  config_.train.epochs = 1;
  for (const bool autotune : {false, true}) {
    config_.run.autotune = autotune;
    TrainRunOptions options = to(autotune ? "tuned" : "plain");
    std::vector<std::string> notes;
    options.on_message = [&](const std::string& line) {
      if (line.find("--autotune") != std::string::npos) notes.push_back(line);
    };
    train_run(config_, options);
    ASSERT_EQ(notes.size(), autotune ? 1U : 0U);
    if (autotune) {
      EXPECT_NE(notes[0].find("without effect"), std::string::npos) << notes[0];
    }
  }
}

TEST_F(RunTest, ResumingByOtherMeansSaysSo) {
  train_run(config_, to("run"));
  config_.train.epochs = 3;
  TrainRunOptions options = to("run");
  options.resume = true;
  options.compile.fuse = false;
  std::string messages;
  options.on_message = [&](const std::string& line) { messages += line + "\n"; };
  train_run(config_, options);
  EXPECT_NE(messages.find("not bit for bit"), std::string::npos) << messages;
}

TEST_F(RunTest, LeftoversOfAKilledProcessAreCleared) {
  train_run(config_, to("run"));
  std::ofstream(folder_ / "run/.cuvae-123-1.tmp") << "half";
  std::ofstream(folder_ / "run/checkpoints/.cuvae-123-2.tmp") << "half";
  TrainRunOptions options = to("run");
  options.overwrite = true;
  train_run(config_, options);
  EXPECT_FALSE(fs::exists(folder_ / "run/.cuvae-123-1.tmp"));
  EXPECT_FALSE(fs::exists(folder_ / "run/checkpoints/.cuvae-123-2.tmp"));
}

TEST_F(RunTest, AFailureBeforeTrainingLeavesNoFolder) {
  config_.train.batch_size = 1000;
  EXPECT_EQ(failure([&] { train_run(config_, to("run")); }).status(), Status::usage);
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(RunTest, AnUnwritablePlaceIsStatusOne) {
  std::ofstream(folder_ / "file") << "x";
  const Error error = failure([&] { train_run(config_, to("file/run")); });
  EXPECT_EQ(error.status(), Status::failed) << error.what();
  EXPECT_EQ(bytes("file"), "x");
}

TEST_F(RunTest, ADamagedModelIsStatusThree) {
  train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  const std::string good = bytes("run/model.safetensors");
  const auto load = [&](const std::string& content) {
    std::ofstream(folder_ / "run/model.safetensors", std::ios::binary) << content;
    return failure([&] { LoadedRun run(folder_ / "run", *device); }).status();
  };
  EXPECT_EQ(load(good.substr(0, good.size() - 1)), Status::input);
  EXPECT_EQ(load(good + "x"), Status::input);
  EXPECT_EQ(load(""), Status::input);
  EXPECT_EQ(load("{}"), Status::input);
  std::string nan = good;
  const float value = std::numeric_limits<float>::quiet_NaN();
  nan.replace(nan.size() - 4, 4, std::string(reinterpret_cast<const char*>(&value), 4));
  EXPECT_EQ(load(nan), Status::input);
  EXPECT_EQ(load(good), Status::done);
  fs::remove(folder_ / "run/model.safetensors");
  EXPECT_EQ(failure([&] { LoadedRun run(folder_ / "run", *device); }).status(), Status::input);
  EXPECT_EQ(failure([&] { LoadedRun run(folder_ / "none", *device); }).status(), Status::input);
}

TEST_F(RunTest, ANaNInACheckpointIsStatusThree) {
  train_run(config_, to("run"));
  TensorFile file = read_safetensors(folder_ / "run/checkpoints/last.safetensors");
  file.tensors[0].tensor.as<float>()[0] = std::numeric_limits<float>::infinity();
  write_safetensors(folder_ / "run/checkpoints/last.safetensors", file);
  TrainRunOptions options = to("run");
  options.resume = true;
  config_.train.epochs = 3;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::input);
}

TEST_F(RunTest, ALoadedRunRepeatsTheReportedMetrics) {
  const TrainReport report = train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const auto data = run.load_data("");
  EXPECT_EQ(run.evaluate(*data->test).metrics.neg_elbo, report.test->neg_elbo);
  const RowScores scores = run.score(*data->test);
  double sum = 0;
  for (std::size_t i = 0; i < scores.kl.size(); ++i) sum += scores.kl[i] + scores.reconstruction[i];
  EXPECT_NEAR(sum / 50, report.test->neg_elbo, 1e-9);
  // More latent samples: the same expectation, so close, but not the same number.
  const double many = run.evaluate(*data->test, {.z_samples = 8}).metrics.neg_elbo;
  EXPECT_NE(many, report.test->neg_elbo);
  EXPECT_NEAR(many, report.test->neg_elbo, 0.05 * many);
}

TEST_F(RunTest, ImportanceWeightingFindsTheIntegral) {
  // With one latent, p(x) = integral of p(x|z) N(z; 0, 1) dz can be had by the trapezoidal rule.
  config_.model.latent.size = 1;
  config_.train.epochs = 20;
  train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const auto data = run.load_data("");
  const std::vector<double> integral = test::Integral{}.log_likelihood(
      run, *data->test,
      [](double z) { return -0.5 * z * z - 0.5 * std::log(2 * std::numbers::pi); });
  const std::vector<double> one = run.log_likelihood(*data->test, 1);
  const std::vector<double> many = run.log_likelihood(*data->test, 2000);
  const RowScores scores = run.score(*data->test);
  double bound = 0;
  double better = 0;
  std::vector<double> errors;
  for (std::size_t row = 0; row < 50; ++row) {
    const double exact = integral[row];
    // Where q is far from the posterior the weights have a heavy tail: single rows stay low.
    EXPECT_NEAR(many[row], exact, 0.5) << "row " << row;
    errors.push_back(std::abs(many[row] - exact));
    bound += one[row];
    better += many[row];
    EXPECT_GE(many[row], -(scores.reconstruction[row] + scores.kl[row]) - 10);
  }
  std::ranges::sort(errors);
  EXPECT_LT(errors[errors.size() / 2], 0.02);
  EXPECT_LT(errors[errors.size() * 9 / 10], 0.1);
  EXPECT_GT(better, bound);
  const Evaluation evaluation = run.evaluate(*data->test, {.iw_samples = 2000});
  EXPECT_NEAR(*evaluation.log_likelihood, better / 50, 1e-9);
  EXPECT_GT(evaluation.log_likelihood_error, 0);
  EXPECT_GT(*evaluation.log_likelihood, -evaluation.metrics.neg_elbo - 0.05);
  EXPECT_EQ(failure([&] { (void)run.log_likelihood(*data->test, 0); }).status(), Status::usage);
}

TEST_F(RunTest, EvaluationNamesTheLikelihoodAndItsBits) {
  train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const auto data = run.load_data("");
  const Evaluation grey = run.evaluate(*data->test);
  EXPECT_EQ(grey.likelihood, "bernoulli (grey)");
  EXPECT_FALSE(grey.bits_per_dim.has_value());
  EXPECT_FALSE(grey.log_likelihood.has_value());
  Tensor binary(DType::u8, data->test->images->shape());
  const auto pixels = data->test->images->as<std::uint8_t>();
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    binary.as<std::uint8_t>()[i] = pixels[i] > 127 ? 255 : 0;
  }
  const DatasetSplit split{std::make_shared<const Tensor>(std::move(binary)), {}};
  const Evaluation evaluation = run.evaluate(split);
  EXPECT_EQ(evaluation.likelihood, "bernoulli");
  EXPECT_NEAR(*evaluation.bits_per_dim, evaluation.metrics.neg_elbo / (64 * std::log(2.0)), 1e-12);
}

TEST_F(RunTest, SamplesDependOnTheSeedAndNotOnTheCount) {
  train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const Tensor few = run.sample(3, 7);
  const Tensor many = run.sample(1100, 7);
  const Tensor other = run.sample(3, 8);
  EXPECT_EQ(few.shape(), (Shape{3, 64}));
  double difference = 0;
  for (std::size_t i = 0; i < 3 * 64; ++i) {
    EXPECT_NEAR(few.as<float>()[i], many.as<float>()[i], 1e-5);
    EXPECT_GE(few.as<float>()[i], 0.0F);
    EXPECT_LE(few.as<float>()[i], 1.0F);
    difference += std::abs(few.as<float>()[i] - other.as<float>()[i]);
  }
  EXPECT_GT(difference, 0.1);
}

TEST_F(RunTest, EncodeThenDecodeIsReconstruct) {
  train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const auto data = run.load_data("");
  const LoadedRun::Encoding encoding = run.encode(*data->test);
  EXPECT_EQ(encoding.mean.shape(), (Shape{50, 4}));
  const Tensor decoded = run.decode(encoding.mean);
  const auto pair = run.reconstruct(*data->test, {0, 49, 7});
  for (std::size_t j = 0; j < 64; ++j) {
    EXPECT_NEAR(pair.reconstruction.as<float>()[j], decoded.as<float>()[j], 1e-5);
    EXPECT_NEAR(pair.reconstruction.as<float>()[64 + j], decoded.as<float>()[49 * 64 + j], 1e-5);
    EXPECT_NEAR(pair.original.as<float>()[128 + j],
                data->test->images->as<std::uint8_t>()[7 * 64 + j] / 255.0, 1e-6);
  }
  EXPECT_EQ(failure([&] { (void)run.reconstruct(*data->test, {50}); }).status(), Status::usage);
  EXPECT_EQ(failure([&] {
              (void)run.decode(Tensor(DType::f32, Shape{2, 5}));
            }).status(),
            Status::input);
}

// Several batches and a rest: the encoder alone gives what the evaluation does, and rows of a batch
// are decoded as by themselves.
TEST_F(RunTest, EncodeAndDecodeByBatches) {
  train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const auto data = test::blob_dataset(2300, 1, 8);
  const LoadedRun::Encoding encoding = run.encode(*data->train);
  const RowScores scores = run.score(*data->train);
  const auto same = [](std::span<const std::byte> a, std::span<const std::byte> b) {
    return std::ranges::equal(a, b);
  };
  EXPECT_EQ(encoding.mean.shape(), (Shape{2300, 4}));
  // Within rounding: there the heads are fused with the sample.
  for (const auto& [ours, theirs] :
       {std::pair(&encoding.mean, &scores.mean), std::pair(&encoding.logvar, &scores.logvar)}) {
    ASSERT_EQ(ours->shape(), theirs->shape());
    double worst = 0;
    for (std::int64_t i = 0; i < ours->elements(); ++i) {
      worst = std::max(worst,
                       std::abs(ours->item(i) - theirs->item(i)) / (1 + std::abs(theirs->item(i))));
    }
    EXPECT_LE(worst, 2e-6);
  }

  const Tensor all = run.decode(encoding.mean);
  EXPECT_EQ(all.shape(), (Shape{2300, 64}));
  for (const auto& [first, count] :
       {std::pair(0, 1000), std::pair(1000, 1000), std::pair(2000, 300)}) {
    Tensor some(DType::f32, Shape{count, 4});
    std::ranges::copy(encoding.mean.as<float>().subspan(static_cast<std::size_t>(first) * 4,
                                                        some.as<float>().size()),
                      some.as<float>().begin());
    const Tensor part = run.decode(some);
    EXPECT_TRUE(same(part.bytes(), all.bytes().subspan(static_cast<std::size_t>(first) * 64 * 4,
                                                       part.bytes().size())))
        << first;
  }
}

// Streams of several models need queues of their own; what the environment says stays.
TEST(Queues, AreAskedForByMoreThanFour) {
  constexpr const char* name = "CUDA_DEVICE_MAX_CONNECTIONS";
  const char* const before = std::getenv(name);
  const std::string kept = before != nullptr ? before : "";
  unsetenv(name);
  ask_for_queues(4);
  EXPECT_EQ(std::getenv(name), nullptr);
  ask_for_queues(5);
  EXPECT_STREQ(std::getenv(name), "32");
  setenv(name, "12", 1);
  ask_for_queues(8);
  EXPECT_STREQ(std::getenv(name), "12");
  unsetenv(name);
  if (before != nullptr) setenv(name, kept.c_str(), 1);
}

// Of a run's programs, not of its training.
TEST_F(RunTest, ALoadedRunTakesTheDevicesOptions) {
  config_.run.exec = "eager";
  train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  CompileOptions options;
  options.precision = "bf16";
  const Error refused = failure([&] { LoadedRun(folder_ / "run", *device, options); });
  EXPECT_EQ(refused.status(), Status::usage);
  EXPECT_NE(std::string(refused.what()).find("use fp32"), std::string::npos);
  RunConfig how;
  how.exec = "eager";
  how.precision = "tf32";
  how.autotune = true;
  options = compile_options(how);
  EXPECT_EQ(options.exec, "eager");
  EXPECT_EQ(options.precision, "tf32");
  EXPECT_TRUE(options.autotune);
  EXPECT_EQ(options.steps, 1);
}

TEST_F(RunTest, DataOfAnotherSizeIsRefused) {
  train_run(config_, to("run"));
  test::write_blob_folder(folder_ / "larger", 20, 10, 9);
  const auto device = make_cpu_device({.threads = 1});
  const LoadedRun run(folder_ / "run", *device);
  EXPECT_EQ(failure([&] { (void)run.load_data((folder_ / "larger").string()); }).status(),
            Status::input);
}

TEST_F(RunTest, SummaryTellsWhatTheRunHolds) {
  const TrainReport report = train_run(config_, to("run"));
  const RunSummary summary = summarise_run(folder_ / "run");
  EXPECT_EQ(summary.metrics_epoch, 2);
  EXPECT_EQ(summary.steps_done, 24);
  EXPECT_EQ(summary.steps_per_epoch, 12);
  ASSERT_TRUE(summary.test.has_value());
  EXPECT_EQ(summary.test->neg_elbo, report.test->neg_elbo);
  EXPECT_EQ(summary.config.model, config_.model);
  EXPECT_EQ(summary.files.size(), 7U);
}

TEST_F(RunTest, EvaluatesAndSavesAsOftenAsAsked) {
  config_.train.epochs = 5;
  TrainRunOptions options = to("run");
  options.eval_every = 2;
  std::vector<std::int64_t> epochs;
  options.on_evaluation = [&](const EvaluationEvent& event) { epochs.push_back(event.epoch); };
  train_run(config_, options);
  EXPECT_EQ(epochs, (std::vector<std::int64_t>{2, 4, 5}));
}

TEST_F(RunTest, ImpossibleIntervalsAreRefused) {
  TrainRunOptions options = to("run");
  options.save_every = 0;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::usage);
  options = to("run");
  options.eval_every = -1;
  EXPECT_EQ(failure([&] { train_run(config_, options); }).status(), Status::usage);
}

}  // namespace
}  // namespace cuvae
