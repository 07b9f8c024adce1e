// train_replicas(): several seeds side by side, each the single run of its seed byte for byte.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "cuvae/safetensors.h"
#include "support/failure.h"
#include "support/synthetic.h"
#include "train/blob_config.h"
#include "train/folder_lock.h"

namespace cuvae {
namespace {

using test::failure;

namespace fs = std::filesystem;

const std::vector<std::string> run_files = {
    "checkpoints/last.safetensors", "config.toml", "env.json", "metrics.jsonl", "model.safetensors",
    "reconstructions.png",          "samples.png"};

class ReplicasTest : public testing::Test {
 protected:
  ReplicasTest() {
    test::write_blob_folder(folder_ / "data", 200, 50);
    config_ = test::blob_config(folder_ / "data");
    config_.train.seed = 5;
  }

  [[nodiscard]] TrainRunOptions to(const std::string& name) const {
    TrainRunOptions options;
    options.out = folder_ / name;
    return options;
  }
  [[nodiscard]] TrainRunOptions resume(const std::string& name) const {
    TrainRunOptions options = to(name);
    options.resume = true;
    return options;
  }
  // A run of that seed by itself.
  void single(const std::string& name, std::int64_t seed, std::int64_t epochs) const {
    Config config = config_;
    config.train.seed = seed;
    config.train.epochs = epochs;
    train_run(config, to(name));
  }
  [[nodiscard]] std::string bytes(const std::string& path) const {
    return test::file_bytes(folder_ / path);
  }
  [[nodiscard]] std::string metrics_without_times(const std::string& run) const {
    std::ifstream file(folder_ / (run + "/metrics.jsonl"));
    std::string text;
    for (std::string line; std::getline(file, line);) {
      auto json = nlohmann::json::parse(line);
      json.erase("seconds");
      text += json.dump() + "\n";
    }
    return text;
  }
  // As the README says: the same files, and the same bytes in all but the times.
  void expect_same_run(const std::string& a, const std::string& b) const {
    SCOPED_TRACE(a + " and " + b);
    for (const std::string& run : {a, b}) {
      std::vector<std::string> names;
      for (const auto& [name, text] : content(run)) {
        if (!name.ends_with("notes.txt")) names.push_back(name);
      }
      EXPECT_EQ(names, run_files);
    }
    for (const std::string& name : run_files) {
      EXPECT_FALSE(bytes(a + "/" + name).empty()) << name;
      if (name == "metrics.jsonl") continue;
      EXPECT_TRUE(bytes(a + "/" + name) == bytes(b + "/" + name)) << name;
    }
    EXPECT_EQ(metrics_without_times(a), metrics_without_times(b));
  }
  [[nodiscard]] nlohmann::json summary(const std::string& run) const {
    return nlohmann::json::parse(bytes(run + "/replicas.json"));
  }
  // Of everything in a folder, by path.
  [[nodiscard]] std::map<std::string, std::string> content(const std::string& name) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / name)) {
      if (entry.is_regular_file()) {
        files[fs::relative(entry.path(), folder_ / name).string()] = test::file_bytes(entry.path());
      }
    }
    return files;
  }
  // The checkpoint's weights become so large that the next step cannot be finite.
  void poison(const std::string& run) const {
    const fs::path path = folder_ / (run + "/checkpoints/last.safetensors");
    TensorFile file = read_safetensors(path);
    for (NamedTensor& named : file.tensors) {
      if (named.name != "encoder.0.weight") continue;
      Tensor huge(DType::f32, named.tensor.shape());
      for (float& x : huge.as<float>()) x = 3e38F;
      named.tensor = std::move(huge);
    }
    write_safetensors(path, file);
  }
  static void expect_failure(Status status, const std::string& part,
                             const std::function<void()>& action) {
    const Error error = failure(action);
    EXPECT_EQ(static_cast<int>(error.status()), static_cast<int>(status)) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }

  test::TemporaryFolder folder_;
  Config config_;
};

TEST_F(ReplicasTest, EachIsTheSingleRunOfItsSeed) {
  std::vector<EvaluationEvent> events;
  TrainRunOptions options = to("all");
  options.on_evaluation = [&](const EvaluationEvent& event) { events.push_back(event); };
  const ReplicasReport report = train_replicas(config_, 3, options);
  ASSERT_EQ(report.replicas.size(), 3U);
  std::vector<Metrics> tests;
  for (std::int64_t seed = 5; seed < 8; ++seed) {
    const std::string name = "single-" + std::to_string(seed);
    single(name, seed, 2);
    expect_same_run(name, "all/seed-" + std::to_string(seed));
    const ReplicaReport& replica = report.replicas[static_cast<std::size_t>(seed - 5)];
    EXPECT_EQ(replica.seed, seed);
    EXPECT_EQ(replica.report.steps, 24);
    EXPECT_EQ(replica.diverged, "");
    const auto device = make_cpu_device({.threads = 1});
    LoadedRun loaded(folder_ / ("all/seed-" + std::to_string(seed)), *device);
    EXPECT_EQ(loaded.config().train.seed, seed);
    const auto data = loaded.load_data("");
    EXPECT_EQ(loaded.evaluate(*data->test).metrics.neg_elbo, replica.report.test->neg_elbo);
    tests.push_back(*replica.report.test);
  }
  EXPECT_NE(bytes("all/seed-5/model.safetensors"), bytes("all/seed-6/model.safetensors"));

  double mean = 0;
  for (const Metrics& m : tests) mean += m.kl / 3;
  double squares = 0;
  for (const Metrics& m : tests) squares += (m.kl - mean) * (m.kl - mean);
  ASSERT_TRUE(report.test.has_value());
  EXPECT_NEAR(report.test->mean.kl, mean, 1e-9);
  EXPECT_NEAR(report.test->sd.kl, std::sqrt(squares / 2), 1e-9);
  EXPECT_GT(report.test->sd.kl, 0);
  // One event an epoch, of all.
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].replicas, 3);
  EXPECT_NEAR(events[1].test->neg_elbo, report.test->mean.neg_elbo, 1e-9);
  EXPECT_NEAR(events[1].test_sd, report.test->sd.neg_elbo, 1e-9);

  const nlohmann::json json = summary("all");
  EXPECT_EQ(json.at("schema"), 1);
  EXPECT_EQ(json.at("replicas"), 3);
  EXPECT_EQ(json.at("mean").at("test").at("kl").get<double>(), report.test->mean.kl);
  EXPECT_EQ(json.at("sd").at("train").at("neg_elbo").get<double>(), report.train->sd.neg_elbo);
  EXPECT_EQ(json.at("results")[1].at("seed"), 6);
  EXPECT_EQ(json.at("results")[1].at("folder"), "seed-6");
  EXPECT_TRUE(json.at("results")[1].at("diverged").is_null());
  EXPECT_EQ(json.at("results")[1].at("test").at("neg_elbo").get<double>(), tests[1].neg_elbo);
}

TEST_F(ReplicasTest, TheSummaryTellsAfterEveryEvaluationHowFarAllAre) {
  config_.train.epochs = 3;
  TrainRunOptions options = to("all");
  std::vector<nlohmann::json> seen;
  std::vector<EvaluationEvent> events;
  options.on_evaluation = [&](const EvaluationEvent& event) {
    seen.push_back(summary("all"));
    events.push_back(event);
  };
  const ReplicasReport first = train_replicas(config_, 2, options);
  ASSERT_EQ(seen.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    const nlohmann::json& json = seen[i];
    EXPECT_EQ(json.at("state"), "running");
    EXPECT_EQ(json.at("interrupted"), false);
    EXPECT_EQ(json.at("total_seconds").get<double>(), events[i].seconds);
    EXPECT_GT(json.at("samples_per_second").get<double>(), 0);
    EXPECT_EQ(json.at("mean").at("test").at("neg_elbo").get<double>(), events[i].test->neg_elbo);
    EXPECT_EQ(json.at("sd").at("train").at("neg_elbo").get<double>(), events[i].train_sd);
    for (const nlohmann::json& entry : json.at("results")) {
      EXPECT_EQ(entry.at("epochs"), i + 1);
      EXPECT_EQ(entry.at("state"), i < 2 ? "running" : "done");
      EXPECT_TRUE(entry.at("test").is_object());
    }
  }
  const nlohmann::json end = summary("all");
  EXPECT_EQ(end.at("state"), "done");
  EXPECT_EQ(end.at("results")[1].at("state"), "done");
  EXPECT_EQ(end.at("seconds"), end.at("total_seconds"));
  EXPECT_EQ(end, nlohmann::json::parse(replicas_json(first)));

  // What a killed process leaves is such a file: all go on from it, and the times add up.
  seen.clear();
  config_.train.epochs = 4;
  options = resume("all");
  options.on_evaluation = [&](const EvaluationEvent&) { seen.push_back(summary("all")); };
  const ReplicasReport second = train_replicas(config_, 2, options);
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_GT(second.seconds, 0);
  EXPECT_EQ(second.total_seconds, first.seconds + second.seconds);
  EXPECT_EQ(summary("all").at("seconds").get<double>(), second.seconds);
  EXPECT_EQ(summary("all").at("total_seconds").get<double>(), second.total_seconds);
  // A file without the total, as it was written once: the process before is all that is known.
  nlohmann::json old = summary("all");
  old.erase("total_seconds");
  old.erase("state");
  std::ofstream(folder_ / "all/replicas.json") << old.dump();
  const ReplicasReport third = train_replicas(config_, 2, resume("all"));
  EXPECT_EQ(third.total_seconds, second.seconds);
}

TEST_F(ReplicasTest, OneIsAFolderOfOneWithoutADeviation) {
  const ReplicasReport report = train_replicas(config_, 1, to("all"));
  EXPECT_TRUE(summary("all").at("sd").at("test").is_null());
  EXPECT_EQ(summary("all").at("mean").at("test").at("kl").get<double>(),
            report.replicas[0].report.test->kl);
  single("single", 5, 2);
  expect_same_run("single", "all/seed-5");
}

TEST_F(ReplicasTest, ResumedEqualsUninterrupted) {
  train_replicas(config_, 2, to("parts"));
  config_.train.epochs = 4;
  train_replicas(config_, 2, to("whole"));
  // One goes ahead by itself: the others catch up first.
  Config ahead = config_;
  ahead.train.seed = 6;
  ahead.train.epochs = 3;
  train_run(ahead, resume("parts/seed-6"));
  const ReplicasReport report = train_replicas(config_, 2, resume("parts"));
  EXPECT_EQ(report.replicas[0].report.epochs, 4);
  for (const char* seed : {"/seed-5", "/seed-6"}) {
    expect_same_run(std::string("whole") + seed, std::string("parts") + seed);
  }
  // At its end there is nothing to do, and nothing changes.
  const ReplicasReport again = train_replicas(config_, 2, resume("parts"));
  EXPECT_EQ(again.test->mean.neg_elbo, report.test->mean.neg_elbo);
  expect_same_run("whole/seed-5", "parts/seed-5");
}

TEST_F(ReplicasTest, InterruptedAllWriteACheckpointAndGoOn) {
  train_replicas(config_, 3, to("whole"));
  TrainRunOptions options = to("parts");
  int polls = 0;
  options.stop = [&] { return ++polls == 17; };  // within the first epoch, between two replicas
  const ReplicasReport report = train_replicas(config_, 3, options);
  EXPECT_TRUE(report.interrupted);
  for (const ReplicaReport& replica : report.replicas) {
    EXPECT_TRUE(replica.report.interrupted);
    EXPECT_GT(replica.report.steps, 0);
    EXPECT_LT(replica.report.steps, 12);
    EXPECT_TRUE(fs::exists(replica.report.run / "checkpoints/last.safetensors"));
    EXPECT_FALSE(fs::exists(replica.report.run / "samples.png"));
  }
  EXPECT_TRUE(summary("parts").at("interrupted"));
  EXPECT_EQ(summary("parts").at("state"), "interrupted");
  EXPECT_EQ(summary("parts").at("results")[2].at("state"), "running");
  EXPECT_TRUE(summary("parts").at("results")[0].at("test").is_null());
  train_replicas(config_, 3, resume("parts"));
  for (const char* seed : {"/seed-5", "/seed-6", "/seed-7"}) {
    expect_same_run(std::string("whole") + seed, std::string("parts") + seed);
  }
}

TEST_F(ReplicasTest, OneThatDivergesLeavesTheOthersAlone) {
  train_replicas(config_, 3, to("all"));
  const std::string before = bytes("all/seed-6/model.safetensors");
  poison("all/seed-6");
  config_.train.epochs = 4;
  std::vector<std::string> log;
  TrainRunOptions options = resume("all");
  options.on_message = [&](const std::string& line) { log.push_back(line); };
  const ReplicasReport report = train_replicas(config_, 3, options);
  EXPECT_NE(report.replicas[1].diverged.find("not finite at step 25"), std::string::npos)
      << report.replicas[1].diverged;
  EXPECT_EQ(report.train->replicas, 2);
  EXPECT_EQ(std::count_if(log.begin(), log.end(),
                          [](const std::string& line) {
                            return line.starts_with("seed 6 diverged, the others go on: ");
                          }),
            1);
  for (const std::int64_t seed : {5, 7}) {
    const std::string name = "single-" + std::to_string(seed);
    single(name, seed, 4);
    expect_same_run(name, "all/seed-" + std::to_string(seed));
  }
  EXPECT_EQ(bytes("all/seed-6/model.safetensors"), before);
  EXPECT_TRUE(summary("all").at("results")[1].at("diverged").is_string());
  EXPECT_EQ(summary("all").at("results")[1].at("state"), "diverged");
  EXPECT_EQ(summary("all").at("results")[2].at("state"), "done");
  EXPECT_EQ(summary("all").at("state"), "done");
  // It is left behind from now on.
  config_.train.epochs = 5;
  const ReplicasReport again = train_replicas(config_, 3, resume("all"));
  EXPECT_EQ(again.replicas[1].diverged, report.replicas[1].diverged);
  EXPECT_EQ(again.replicas[1].report.epochs, report.replicas[1].report.epochs);
  EXPECT_EQ(again.replicas[0].report.epochs, 5);
}

TEST_F(ReplicasTest, OneThatDivergesAtOnceLeavesNoFolder) {
  // Some learning rate is too much for some seeds only.
  constexpr std::int64_t seeds = 6;
  config_.train.epochs = 1;
  const auto data = std::make_shared<const Dataset>(load_dataset(config_.data.path));
  const auto device = make_cpu_device({.threads = 1});
  bool found = false;
  for (double lr = 1; lr < 1e6 && !found; lr *= 1.3) {
    Config config = config_;
    config_.train.lr = config.train.lr = lr;
    std::int64_t diverged = 0;
    for (config.train.seed = 5; config.train.seed < 5 + seeds; ++config.train.seed) {
      const Error error = failure([&] {
        Trainer trainer(config, data, *device);
        trainer.run(trainer.steps_per_epoch());
        static_cast<void>(trainer.evaluate_test());
        static_cast<void>(trainer.checkpoint());
      });
      if (error.status() == Status::diverged) ++diverged;
    }
    found = diverged > 0 && diverged < seeds;
  }
  ASSERT_TRUE(found);
  for (std::int64_t seed = 5; seed < 5 + seeds; ++seed) {
    static_cast<void>(failure([&] { single("single-" + std::to_string(seed), seed, 1); }));
  }
  const ReplicasReport report = train_replicas(config_, seeds, to("all"));
  for (const ReplicaReport& replica : report.replicas) {
    const std::string number = std::to_string(replica.seed);
    EXPECT_EQ(replica.diverged.empty(), fs::exists(folder_ / ("single-" + number)));
    EXPECT_EQ(replica.diverged.empty(), fs::exists(folder_ / ("all/seed-" + number)));
    if (replica.diverged.empty()) expect_same_run("single-" + number, "all/seed-" + number);
  }
}

TEST_F(ReplicasTest, WhereAllDivergeNothingIsLeft) {
  config_.train.lr = 1e30;
  expect_failure(Status::diverged, "all 3 replicas diverged",
                 [&] { train_replicas(config_, 3, to("all")); });
  EXPECT_FALSE(fs::exists(folder_ / "all"));
}

TEST_F(ReplicasTest, OverwriteReplacesAllReplicasAndNothingElse) {
  train_replicas(config_, 4, to("all"));
  std::ofstream(folder_ / "all/notes.txt") << "mine";
  std::ofstream(folder_ / "all/seed-5/notes.txt") << "mine too";
  const auto before = content("all");
  TrainRunOptions options = to("all");
  expect_failure(Status::usage, "not empty", [&] { train_replicas(config_, 2, options); });
  options.overwrite = true;
  Config wild = config_;
  wild.train.lr = 1e30;
  expect_failure(Status::diverged, "all 2", [&] { train_replicas(wild, 2, options); });
  EXPECT_TRUE(content("all") == before);

  config_.train.lr = 1e-3;
  train_replicas(config_, 2, options);
  EXPECT_EQ(bytes("all/notes.txt"), "mine");
  EXPECT_EQ(bytes("all/seed-5/notes.txt"), "mine too");
  EXPECT_FALSE(fs::exists(folder_ / "all/seed-7"));
  EXPECT_FALSE(fs::exists(folder_ / "all/seed-5/.replaced"));
  EXPECT_EQ(read_replicas(folder_ / "all")->replicas.size(), 2U);
  single("single", 6, 2);
  expect_same_run("single", "all/seed-6");
}

TEST_F(ReplicasTest, OneTrainingAtATimeWritesToAFolder) {
  train_replicas(config_, 2, to("two"));
  const auto before = content("two");
  TrainRunOptions anew = to("two");
  anew.overwrite = true;
  Config longer = config_;
  longer.train.epochs += 1;
  // Another of the whole, and one that goes on with a single replica.
  for (const char* held : {"two", "two/seed-6"}) {
    SCOPED_TRACE(held);
    const FolderLock other(folder_ / held);
    for (const TrainRunOptions& options : {anew, resume("two")}) {
      try {
        train_replicas(longer, 2, options);
        ADD_FAILURE() << "it trained";
      } catch (const Error& error) {
        EXPECT_EQ(error.status(), Status::usage);
        EXPECT_NE(std::string(error.what()).find("another training"), std::string::npos);
      }
      // What seed 5 had begun is undone, or was only about to go on: its wtwos are as they were.
      for (const auto& [name, text] : before) {
        if (name.ends_with(".safetensors") || name == "replicas.json") {
          EXPECT_EQ(bytes("two/" + name), text) << name;
        }
      }
    }
  }
  train_replicas(longer, 2, resume("two"));
}

TEST_F(ReplicasTest, WhatCannotWorkIsRefusedBeforeAnythingIsMade) {
  expect_failure(Status::usage, "0 replicas", [&] { train_replicas(config_, 0, to("all")); });
  expect_failure(Status::usage, "1 to 1024", [&] { train_replicas(config_, 1025, to("all")); });
  Config last = config_;
  last.train.seed = std::numeric_limits<std::int64_t>::max();
  expect_failure(Status::usage, "no seeds for 2", [&] { train_replicas(last, 2, to("all")); });
  expect_failure(Status::usage, "no folder of replicas",
                 [&] { train_replicas(config_, 2, resume("all")); });
  Config large = config_;
  large.train.batch_size = 201;
  expect_failure(Status::usage, "a batch of 201", [&] { train_replicas(large, 2, to("all")); });
  EXPECT_FALSE(fs::exists(folder_ / "all"));

  single("single", 5, 2);
  TrainRunOptions overwrite = to("single");
  overwrite.overwrite = true;
  expect_failure(Status::usage, "the folder holds one run, no replicas",
                 [&] { train_replicas(config_, 2, overwrite); });
  train_replicas(config_, 2, to("all"));
  overwrite = to("all");
  overwrite.overwrite = true;
  expect_failure(Status::usage, "give --replicas to replace them",
                 [&] { train_run(config_, overwrite); });
  expect_failure(Status::usage, "it holds replicas", [&] { train_run(config_, resume("all")); });
  expect_failure(Status::usage, "it holds one run: leave --replicas out",
                 [&] { train_replicas(config_, 2, resume("single")); });
  for (const bool several : {false, true}) {
    overwrite = to("data");
    overwrite.overwrite = true;
    expect_failure(Status::usage, "holds nothing of cuvae", [&] {
      if (several)
        train_replicas(config_, 2, overwrite);
      else
        train_run(config_, overwrite);
    });
  }
  const auto device = make_cpu_device({.threads = 1});
  expect_failure(Status::input, "seed-5", [&] { LoadedRun(folder_ / "all", *device); });

  expect_failure(Status::usage, "3 replicas, the run has 2",
                 [&] { train_replicas(config_, 3, resume("all")); });
  Config other = config_;
  other.train.seed = 6;
  expect_failure(Status::usage, "`train.seed` is 6 now and was 5",
                 [&] { train_replicas(other, 2, resume("all")); });
  other = config_;
  other.train.lr = 1;
  expect_failure(Status::usage, "`train.lr`", [&] { train_replicas(other, 2, resume("all")); });
  fs::rename(folder_ / "all/seed-6", folder_ / "elsewhere");
  expect_failure(Status::input, "seed-6", [&] { train_replicas(config_, 2, resume("all")); });
  for (const char* damage : {"", "{", "[]", R"({"schema":2})", R"({"schema":1,"seed":5})",
                             R"({"schema":1,"seed":5,"results":[]})",
                             R"({"schema":1,"seed":5,"results":[{"seed":7,"epochs":1,"steps":1,)"
                             R"("diverged":null}]})"}) {
    std::ofstream(folder_ / "all/replicas.json") << damage;
    expect_failure(Status::input, "replicas.json",
                   [&] { train_replicas(config_, 2, resume("all")); });
  }
}

TEST_F(ReplicasTest, TooMuchMemoryIsRefusedBeforeItIsTaken) {
  const auto device = make_cpu_device({.threads = 1});
  const auto there = device->free_bytes();
  if (!there) GTEST_SKIP() << "the system does not say how much memory is free";
  // Weights and moments (72 weights a unit) of 1/500 of it each.
  const std::int64_t width = std::max<std::int64_t>(*there / 500 / 12 / 72, 1000);
  config_.model.encoder.layers[0].out = width;
  expect_failure(Status::device, "too little memory for 1000 replicas",
                 [&] { train_replicas(config_, 1000, to("all")); });
  EXPECT_FALSE(fs::exists(folder_ / "all"));
}

}  // namespace
}  // namespace cuvae
