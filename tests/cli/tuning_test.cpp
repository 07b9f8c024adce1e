// Validation, early stopping, averaged and frozen weights, weights of another run and folds, as a
// user asks for them.

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/expect.h"
#include "cli/process.h"
#include "cli/small_model.h"
#include "support/synthetic.h"

namespace cuvae::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Args = std::vector<std::string>;

class Tuning : public ::testing::Test {
 protected:
  void SetUp() override {
    write_blob_folder(folder_ / "data", 256, 64);
    write("small.toml", std::string(small_model_toml));
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  [[nodiscard]] ProcessOptions here() const {
    ProcessOptions options;
    options.folder = folder_.path().string();
    return options;
  }
  [[nodiscard]] ProcessResult run_here(const Args& args) const { return run(args, here()); }
  [[nodiscard]] ProcessResult train(const std::string& out, const Args& more) const {
    Args args = {"train", "small.toml", "--out", out, "--threads", "1"};
    args.insert(args.end(), more.begin(), more.end());
    return run_here(args);
  }
  [[nodiscard]] std::string bytes(const std::string& path) const {
    return file_bytes(folder_ / path);
  }
  static void expect_refused(const ProcessResult& result, int status, const std::string& part) {
    EXPECT_EQ(result.status, status) << result.err;
    EXPECT_EQ(result.out, "");
    const auto start = result.err.find("cuvae: error: ");
    ASSERT_NE(start, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find('\n', start), result.err.size() - 1) << result.err;
    expect_contains(result.err.substr(start), part);
  }

  TemporaryFolder folder_;
};

// From the file; everything that is printed and written tells of the split.
TEST_F(Tuning, ValidationIsInWhatIsPrintedAndWritten) {
  write("validated.toml", std::string(small_model_toml) +
                              "early_stopping = { patience = 3, metric = \"kl\" }\n"
                              "[run]\nthreads = 1\n");
  std::string text = bytes("validated.toml");
  text.insert(text.find("path = "), "validation = 0.25\n");
  write("validated.toml", text);
  const ProcessResult result = run_here({"train", "validated.toml", "--out", "run"});
  ASSERT_EQ(result.status, 0) << result.err;
  expect_contains(result.err, "; 192 training samples, 64 for validation, 6 steps an epoch;");
  expect_contains(result.err, "  validation ");
  expect_contains(result.err, ", the best  test ");
  expect_contains(result.out, "best after epoch ");
  expect_contains(result.out, "\nvalidation neg_elbo ");
  expect_contains(result.out, "\ntest neg_elbo ");
  EXPECT_TRUE(fs::exists(folder_ / "run/checkpoints/best.safetensors"));
  expect_contains(bytes("run/metrics.jsonl"), "\"split\":\"validation\",\"n\":64,");
  const ProcessResult info = run_here({"info", "run"});
  expect_contains(info.out, "\nvalidation  neg_elbo ");
  expect_contains(info.out, "\nbest        after epoch ");
  const Json about = Json::parse(run_here({"info", "run", "--json"}).out);
  EXPECT_EQ(about.at("best").at("metric"), "kl");
  EXPECT_EQ(about.at("validation").at("n"), 64);

  const ProcessResult json =
      train("json", {"--set", "data.validation=40", "--set", "train.lr=0", "--set",
                     "train.early_stopping.patience=1", "--epochs", "9", "--json"});
  ASSERT_EQ(json.status, 0) << json.err;
  const Json report = Json::parse(json.out);
  EXPECT_EQ(report.at("validation").at("n"), 40);
  EXPECT_EQ(report.at("stopped_early"), true);
  EXPECT_EQ(report.at("epochs"), 2);
  EXPECT_EQ(report.at("best").at("epoch"), 1);
  EXPECT_EQ(report.at("best").at("value"), report.at("validation").at("neg_elbo"));
  expect_contains(json.err, "early stopping after epoch 2: no better neg_elbo");
  const ProcessResult ended = run_here({"train", "--resume", "--out", "json", "--epochs", "20"});
  EXPECT_EQ(ended.status, 0) << ended.err;
  expect_contains(ended.err, "nothing left to train: early stopping after epoch 2");

  const Json plain = Json::parse(train("plain", {"--json"}).out);
  EXPECT_TRUE(plain.at("validation").is_null());
  EXPECT_TRUE(plain.at("best").is_null());
  EXPECT_EQ(plain.at("stopped_early"), false);
}

// What `eval` gives of a run is what the training told of it: of the best weights, averaged.
TEST_F(Tuning, EvalGivesTheFiguresOfTheTraining) {
  const ProcessResult result =
      train("run", {"--set", "data.validation=0.2", "--set", "train.ema=0.9", "--set",
                    "train.early_stopping.metric=kl", "--epochs", "4", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  const Json report = Json::parse(result.out);
  EXPECT_LT(report.at("best").at("epoch"), 4);
  const Json eval = Json::parse(run_here({"eval", "run", "--threads", "1", "--json"}).out);
  EXPECT_EQ(eval.at("neg_elbo"), report.at("test").at("neg_elbo"));
  EXPECT_NE(train("without", {"--set", "data.validation=0.2", "--epochs", "4"}).out, result.out);
  EXPECT_FALSE(bytes("without/model.safetensors") == bytes("run/model.safetensors"));
}

TEST_F(Tuning, OtherDataOfTheFilesFolderAreForValidation) {
  write_blob_folder(folder_ / "sub/other", 50, 10);
  fs::create_directories(folder_ / "sub");
  std::string text(small_model_toml);
  text.replace(text.find("\"data\""), 6, "\"../data\"\nvalidation = \"other\"");
  write("sub/mine.toml", text);
  const ProcessResult result = run_here({"train", "sub/mine.toml", "--out", "run", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(Json::parse(result.out).at("validation").at("n"), 50);
  expect_refused(train("bad", {"--set", "data.validation=sub/nothing"}), 3,
                 "no such file or folder");
  EXPECT_FALSE(fs::exists(folder_ / "bad"));
}

TEST_F(Tuning, ResumedIsWhatWasNotInterrupted) {
  const Args all = {"--set", "data.validation=0.2",
                    "--set", "train.ema=0.95",
                    "--set", "train.early_stopping.metric=kl",
                    "--set", "train.schedule={type=\"plateau\",patience=0,threshold=1.0}",
                    "--set", "train.freeze=[\"decoder.out\"]"};
  Args longer = all;
  longer.insert(longer.end(), {"--epochs", "4"});
  ASSERT_EQ(train("whole", longer).status, 0);
  ASSERT_EQ(train("parts", all).status, 0);
  const ProcessResult result = run_here({"train", "--resume", "--out", "parts", "--epochs", "4"});
  ASSERT_EQ(result.status, 0) << result.err;
  for (const char* name : {"model.safetensors", "checkpoints/last.safetensors",
                           "checkpoints/best.safetensors", "samples.png"}) {
    EXPECT_TRUE(bytes(std::string("whole/") + name) == bytes(std::string("parts/") + name)) << name;
  }
  expect_refused(
      run_here({"train", "--resume", "--out", "parts", "--set", "train.schedule.patience=2"}), 2,
      "`train.schedule.patience` is 2 now and was 0");
  expect_refused(run_here({"train", "--resume", "--out", "parts", "--set", "data.validation=0.3"}),
                 2, "`data.validation` is 0.3 now and was 0.2");
  expect_refused(run_here({"train", "--resume", "--out", "parts", "--set", "train.ema=0"}), 2,
                 "`train.ema` is 0.0 now and was 0.95");
}

TEST_F(Tuning, WeightsOfAnotherRun) {
  ASSERT_EQ(train("source", {}).status, 0);
  const ProcessResult result =
      train("run", {"--init-from", "source", "--set", "train.freeze=[\"encoder.*\"]", "--set",
                    "model.decoder.layers=[{ out = 20, activation = \"relu\" }]"});
  ASSERT_EQ(result.status, 0) << result.err;
  expect_contains(result.err, " parameters, 1,176 of them frozen;");
  expect_contains(result.err, "weights of source: 7 of 10 tensors taken\n");
  expect_contains(result.err, "  not taken: decoder.0.weight [20, 4] (there [16, 4]), ");
  EXPECT_EQ(Json::parse(bytes("run/env.json")).at("init_from").at("taken").size(), 7U);
  fs::remove_all(folder_ / "source");
  EXPECT_EQ(run_here({"train", "--resume", "--out", "run", "--epochs", "3"}).status, 0);
  EXPECT_EQ(Json::parse(bytes("run/env.json")).at("init_from").at("taken").size(), 7U);
  expect_refused(train("bad", {"--init-from", "source"}), 3, "no such run (source)");
  expect_refused(train("bad", {"--init-from", ""}), 2, "an empty argument (after `--init-from`)");
  expect_refused(run_here({"train", "--resume", "--out", "run", "--init-from", "run"}), 2,
                 "--resume and --init-from exclude each other");
  EXPECT_FALSE(fs::exists(folder_ / "bad"));
}

TEST_F(Tuning, FoldsHaveASummary) {
  const ProcessResult result = train("all", {"--folds", "4", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("schema"), 1);
  EXPECT_EQ(json.at("run"), "all");
  ASSERT_EQ(json.at("results").size(), 4U);
  Json same = json;
  same.erase("run");
  EXPECT_EQ(Json::parse(bytes("all/folds.json")), same);
  expect_contains(result.err, "fold-3 (4/4): 192 training samples, 64 for validation\n");
  expect_contains(result.err, "fold-3 (4/4)  epoch 2/2  train neg_elbo ");
  for (const Args& args : {Args{"eval", "all/fold-3"}, Args{"info", "all/fold-0"}})
    EXPECT_EQ(run_here(args).status, 0) << args[0];
  expect_refused(run_here({"eval", "all"}), 3, "such as all/fold-0");
  // There are as many as there are; more epochs are for all.
  const ProcessResult more = run_here({"train", "--resume", "--out", "all", "--epochs", "3"});
  ASSERT_EQ(more.status, 0) << more.err;
  expect_contains(more.out, "validation neg_elbo ");
  expect_contains(more.out, "(mean +- standard deviation of 4 folds)\n");
  expect_contains(more.out, "all/fold-3\n");
  EXPECT_EQ(Json::parse(bytes("all/folds.json")).at("results")[3].at("epochs"), 3);

  expect_refused(train("bad", {"--folds", "1"}), 2, "--folds");
  expect_refused(train("bad", {"--folds", "x"}), 2, "give an integer from 2 to 1000");
  expect_refused(train("bad", {"--folds", "3", "--replicas", "2"}), 2, "exclude each other");
  expect_refused(train("bad", {"--folds", "3", "--set", "data.validation=0.1"}), 2,
                 "--folds beside `data.validation`");
  expect_refused(train("all", {"--folds", "4"}), 2, "not empty (all)");
  expect_refused(run_here({"train", "--resume", "--out", "all", "--folds", "5"}), 2,
                 "5 folds, the run has 4");
  expect_refused(run_here({"train", "--resume", "--out", "all", "--replicas", "4"}), 2,
                 "no folder of replicas (all): it holds folds");
  EXPECT_FALSE(fs::exists(folder_ / "bad"));
}

// A classifier's error over folds, as over seeds.
TEST_F(Tuning, FoldsOfM2TellTheErrorOfTheClassifier) {
  const ProcessResult result =
      train("all", {"--folds", "2", "--epochs", "1", "--set", "objective.type=m2", "--set",
                    "model.condition.on=label", "--set", "objective.labelled_batch=10"});
  ASSERT_EQ(result.status, 0) << result.err;
  for (const char* split : {"validation", "test"})
    expect_contains(result.out, std::string("\n") + split + " error of the classifier ");
  expect_contains(result.out, " over 2 folds\n");
}

// beta_tc's number of rows is each fold's own.
TEST_F(Tuning, FoldsHaveTheirOwnNumberOfRows) {
  ASSERT_EQ(
      train("all", {"--folds", "3", "--epochs", "1", "--set", "objective.type=beta_tc"}).status, 0);
  expect_contains(bytes("all/fold-0/config.toml"), "dataset = 17");  // of 256: 170 or 171
  const ProcessResult more = run_here({"train", "--resume", "--out", "all", "--epochs", "2"});
  EXPECT_EQ(more.status, 0) << more.err;
}

// Nor is the horizon of a schedule that of another fold, which may have more steps.
TEST_F(Tuning, FoldsHaveTheirOwnHorizon) {
  ASSERT_EQ(train("all", {"--folds", "3", "--epochs", "2", "--batch-size", "57", "--set",
                          "train.schedule={ type = \"cosine\" }"})
                .status,
            0);
  expect_contains(bytes("all/fold-0/config.toml"), "schedule.steps = 4\n");  // 170 rows
  expect_contains(bytes("all/fold-2/config.toml"), "schedule.steps = 6\n");  // 171
  EXPECT_EQ(Json::parse(bytes("all/folds.json")).at("told").at("schedule_steps"), 0);
  const ProcessResult more = run_here({"train", "--resume", "--out", "all", "--epochs", "3"});
  EXPECT_EQ(more.status, 0) << more.err;
  expect_contains(bytes("all/fold-2/config.toml"), "schedule.steps = 6\n");
  // What a user says is that of all, and may not change.
  const ProcessResult told = run_here(
      {"train", "--resume", "--out", "all", "--epochs", "4", "--set", "train.schedule.steps=5"});
  expect_refused(told, 2, "`train.schedule.steps` is 5 now and was 4");
  // Also where it says what one of them has.
  expect_refused(run_here({"train", "--resume", "--out", "all", "--epochs", "4", "--set",
                           "train.schedule.steps=4"}),
                 2, "`train.schedule.steps` is 4 now and was 6");
}

// Nor do those that have not begun end their schedule elsewhere.
TEST_F(Tuning, WaitingFoldsKeepTheEndOfTheirSchedule) {
  Process process({"train", "small.toml", "--folds", "3", "--out", "all", "--epochs", "1000000",
                   "--set", "train.schedule={ type = \"cosine\" }"},
                  here());
  ASSERT_TRUE(process.wait_for("fold-0 (1/3)  epoch 1/"));
  process.signal(SIGINT);
  ASSERT_EQ(process.wait().status, 130);
  expect_refused(run_here({"train", "--resume", "--out", "all", "--epochs", "1000001"}), 2,
                 "go on with --epochs 1000000 first");
}

// Where the user has said it, it is the same of all, those of a resumed command included.
TEST_F(Tuning, FoldsAreToldANumberOfRows) {
  Process process({"train", "small.toml", "--folds", "3", "--out", "all", "--epochs", "1000000",
                   "--set", "objective.type=beta_tc", "--set", "objective.dataset=1000"},
                  here());
  ASSERT_TRUE(process.wait_for("fold-0 (1/3)  epoch 1/"));
  process.signal(SIGINT);
  ASSERT_EQ(process.wait().status, 130);
  const auto epochs =
      Json::parse(bytes("all/folds.json")).at("results")[0].at("epochs").get<std::int64_t>() + 1;
  const ProcessResult more =
      run_here({"train", "--resume", "--out", "all", "--epochs", std::to_string(epochs)});
  ASSERT_EQ(more.status, 0) << more.err;
  for (const char* fold : {"0", "2"})
    expect_contains(bytes(std::string("all/fold-") + fold + "/config.toml"), "dataset = 1000\n");
}

TEST_F(Tuning, InterruptedFoldsGoOn) {
  Process process({"train", "small.toml", "--folds", "3", "--out", "all", "--epochs", "1000000"},
                  here());
  ASSERT_TRUE(process.wait_for("fold-0 (1/3)  epoch 2/"));
  process.signal(SIGINT);
  expect_refused(process.wait(), 130, "go on with `cuvae train --resume --folds 3 --out all`");
  const Json there = Json::parse(bytes("all/folds.json"));
  EXPECT_EQ(there.at("state"), "interrupted");
  const auto epochs = there.at("results")[0].at("epochs").get<std::int64_t>() + 2;
  const ProcessResult resumed = run_here({"train", "--resume", "--folds", "3", "--out", "all",
                                          "--epochs", std::to_string(epochs), "--json"});
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  for (const Json& entry : Json::parse(resumed.out).at("results"))
    EXPECT_EQ(entry.at("epochs"), epochs);
}

TEST_F(Tuning, BadInputIsOneLine) {
  const struct {
    const char* set;
    const char* part;
  } rows[] = {
      {"data.validation=1.5", "`data.validation` = 1.5 is out of range"},
      {"data.validation=256", "the last 256 rows for validation of 256 samples"},
      {"data.folds=3", nullptr},
      {"train.early_stopping.patience=2", "without rows for validation"},
      {"train.schedule.type=plateau", "without rows for validation"},
      {"train.freeze=[\"encoder.00\"]", "did you mean `encoder.0`?"},
      {"train.freeze=encoder.0", "give a list of names"},
      {"train.freeze=[\"encoder.logvar\"]", "freeze both or neither"},
      {"train.ema=1", "`train.ema` = 1.0 is out of range"},
      {"train.emma=0.9", "did you mean `train.ema`?"},
  };
  for (const auto& row : rows) {
    const ProcessResult result = train("run", {"--set", row.set});
    if (row.part == nullptr) {
      EXPECT_EQ(result.status, 0) << row.set << ": " << result.err;
      fs::remove_all(folder_ / "run");
      continue;
    }
    expect_refused(result, 2, row.part);
    EXPECT_FALSE(fs::exists(folder_ / "run")) << row.set;
  }
}

// A device is compared with the reference on the same rows, averages and frozen layers included.
TEST_F(Tuning, CompareKnowsAllOfIt) {
  const ProcessResult result =
      run_here({"compare", "small.toml", "--steps", "4", "--set", "train.ema=0.9", "--set",
                "train.freeze=[\"decoder.*\"]", "--set", "data.validation=0.5"});
  EXPECT_EQ(result.status, 0) << result.err;
  expect_contains(result.out, "ema.encoder.0.weight");
  EXPECT_EQ(result.out.find("adam.m.decoder"), std::string::npos) << result.out;
}

}  // namespace
}  // namespace cuvae::test
