// Rows kept for validation, and what they decide: the best weights, the end of the training and the
// learning rate. Averaged and frozen weights, weights of another run, folds: as files show them.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "cuvae/safetensors.h"
#include "cuvae/sampling.h"
#include "cuvae/schedule.h"
#include "graph/op.h"
#include "support/failure.h"
#include "support/synthetic.h"
#include "train/blob_config.h"

namespace cuvae {
namespace {

using test::failure;

namespace fs = std::filesystem;
using Json = nlohmann::json;

class Selection : public testing::Test {
 protected:
  Selection() {
    test::write_blob_folder(folder_ / "data", 200, 50);
    config_ = test::blob_config(folder_ / "data");
    config_.data.validation.fraction = 0.2;
  }

  [[nodiscard]] TrainRunOptions to(const std::string& name, bool resume = false) const {
    TrainRunOptions options;
    options.out = folder_ / name;
    options.resume = resume;
    return options;
  }
  [[nodiscard]] std::string bytes(const std::string& path) const {
    return test::file_bytes(folder_ / path);
  }
  [[nodiscard]] std::vector<Json> metrics(const std::string& run, const std::string& split) const {
    std::ifstream file(folder_ / run / "metrics.jsonl");
    std::vector<Json> lines;
    for (std::string line; std::getline(file, line);)
      if (Json json = Json::parse(line); json.at("split") == split) lines.push_back(json);
    return lines;
  }
  // Everything but the times.
  [[nodiscard]] std::string lines_of(const std::string& run) const {
    std::ifstream file(folder_ / run / "metrics.jsonl");
    std::string text;
    for (std::string line; std::getline(file, line);) {
      Json json = Json::parse(line);
      json.erase("seconds");
      text += json.dump() + "\n";
    }
    return text;
  }
  void expect_same_run(const std::string& a, const std::string& b) const {
    for (const char* name : {"model.safetensors", "checkpoints/last.safetensors",
                             "checkpoints/best.safetensors", "samples.png"}) {
      EXPECT_FALSE(bytes(a + "/" + name).empty()) << name;
      EXPECT_TRUE(bytes(a + "/" + name) == bytes(b + "/" + name)) << name;
    }
    EXPECT_EQ(lines_of(a), lines_of(b));
  }
  static void expect_refused(const Error& error, Status status, const std::string& part) {
    EXPECT_EQ(error.status(), status) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
  [[nodiscard]] TensorFile tensors(const std::string& path) const {
    return read_safetensors(folder_ / path);
  }
  static bool same(const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && std::ranges::equal(a.bytes(), b.bytes());
  }

  test::TemporaryFolder folder_;
  Config config_;
};

TEST_F(Selection, RowsAreKeptApartAndReported) {
  const TrainReport report = train_run(config_, to("run"));
  EXPECT_EQ(report.steps, 20);  // 160 rows, batches of 16, twice
  ASSERT_TRUE(report.validation && report.test && report.best);
  EXPECT_EQ(report.validation->n, 40);
  EXPECT_EQ(report.test->n, 50);
  ASSERT_EQ(metrics("run", "validation").size(), 2U);
  EXPECT_EQ(metrics("run", "test").size(), 2U);
  EXPECT_EQ(metrics("run", "validation")[1].at("n"), 40);
  EXPECT_EQ(metrics("run", "train")[1].at("n"), 160);
  const RunSummary summary = summarise_run(folder_ / "run");
  ASSERT_TRUE(summary.validation && summary.best);
  EXPECT_EQ(summary.validation->neg_elbo, metrics("run", "validation")[1].at("neg_elbo"));
  EXPECT_EQ(summary.best->step, report.best->step);
  EXPECT_EQ(summary.best->metric, "neg_elbo");
}

// Which rows: those of sampling.h, whatever their type, with their labels.
TEST_F(Selection, HoldsOutTheRowsThatTheKeyNames) {
  const Dataset all = load_dataset(config_.data.path);
  const auto row = [](const DatasetSplit& split, std::int64_t i) {
    const auto width = static_cast<std::size_t>(split.images->shape()[1]);
    const auto bytes = split.images->bytes().subspan(static_cast<std::size_t>(i) * width, width);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  const auto expect_rows = [&](const DatasetSplit& split, const std::vector<std::int64_t>& rows) {
    ASSERT_EQ(split.size(), std::ssize(rows));
    ASSERT_EQ(split.labels.size(), rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(row(split, static_cast<std::int64_t>(i)), row(*all.train, rows[i]));
      EXPECT_EQ(split.labels[i], all.train->labels[static_cast<std::size_t>(rows[i])]);
    }
  };
  const auto expect_split = [&](const RowSplit& split) {
    const Dataset held = hold_out(all, config_);
    expect_rows(*held.train, split.train);
    expect_rows(*held.validation, split.validation);
    EXPECT_EQ(held.test->size(), 50);
    EXPECT_EQ(held.sha256, all.sha256);
  };
  config_.train.seed = 5;
  expect_split(split_shuffled(5, 200, 40));
  config_.data.validation = {.rows = 30};
  expect_split(split_last(200, 30));
  config_.data.validation = {};
  config_.data.folds = 3;
  config_.data.fold = 2;
  expect_split(split_fold(5, 200, 3, 2));
  config_.data.folds = 0;
  config_.data.fold = 0;
  EXPECT_FALSE(hold_out(all, config_).validation.has_value());
  EXPECT_EQ(hold_out(all, config_).train->images, all.train->images);

  // Rows of floats are rows, too.
  Dataset real = all;
  auto values = std::make_shared<Tensor>(DType::f32, Shape{5, 2});
  for (std::size_t i = 0; i < 10; ++i) values->as<float>()[i] = static_cast<float>(i);
  real.train = DatasetSplit{.images = values, .labels = {}};
  config_.data.validation = {.rows = 2};
  const Dataset held = hold_out(real, config_);
  EXPECT_EQ(held.validation->images->as<float>()[0], 6.0F);
  EXPECT_EQ(held.validation->images->as<float>()[3], 9.0F);
  EXPECT_EQ(held.train->images->shape(), (Shape{3, 2}));
}

TEST_F(Selection, OtherDataAreForValidation) {
  test::write_blob_folder(folder_ / "other", 60, 20);
  config_.data.validation = {.path = (folder_ / "other").string()};
  const TrainReport report = train_run(config_, to("run"));
  EXPECT_EQ(report.steps, 24);  // nothing is taken away
  EXPECT_EQ(report.validation->n, 60);
  EXPECT_NE(bytes("run/config.toml").find("# validation data SHA-256: "), std::string::npos);
  // They may have moved, and must be the same.
  fs::rename(folder_ / "other", folder_ / "moved");
  config_.data.validation.path = (folder_ / "moved").string();
  config_.train.epochs = 3;
  EXPECT_EQ(train_run(config_, to("run", true)).epochs, 3);
  test::write_blob_folder(folder_ / "moved", 61, 20);
  expect_refused(failure([&] { train_run(config_, to("run", true)); }), Status::input,
                 "was made with other validation data");
  // One file of images is what it holds.
  config_.data.validation.path = (folder_ / "moved/t10k-images-idx3-ubyte").string();
  EXPECT_EQ(train_run(config_, to("file")).validation->n, 20);
  test::write_blob_folder(folder_ / "larger", 60, 20, 9);
  config_.data.validation.path = (folder_ / "larger").string();
  expect_refused(failure([&] { train_run(config_, to("bad")); }), Status::input,
                 "rows of 1 x 9 x 9 pixels for validation, training has 1 x 8 x 8 pixels");
  EXPECT_FALSE(fs::exists(folder_ / "bad"));
}

TEST_F(Selection, WhatLeavesNothingIsRefused) {
  config_.data.validation = {.rows = 200};
  expect_refused(failure([&] { train_run(config_, to("run")); }), Status::usage,
                 "the last 200 rows for validation of 200 samples (data.validation)");
  config_.data.validation = {};
  config_.data.folds = 201;
  expect_refused(failure([&] { train_run(config_, to("run")); }), Status::usage,
                 "201 folds of 200 samples (data.folds): choose at most 200");
  config_.data.folds = 0;
  config_.train.early_stopping.patience = 2;
  expect_refused(failure([&] { train_run(config_, to("run")); }), Status::usage,
                 "`train.early_stopping.patience` = 2 without rows for validation");
  config_.train.early_stopping.patience = 0;
  config_.train.schedule.type = "plateau";
  expect_refused(failure([&] { train_run(config_, to("run")); }), Status::usage,
                 "`train.schedule.type` = \"plateau\" without rows for validation");
  EXPECT_FALSE(fs::exists(folder_ / "run"));
  // A program that forgets to keep them apart.
  config_.train.schedule = {};
  config_.data.validation.fraction = 0.1;
  const auto all = std::make_shared<const Dataset>(load_dataset(config_.data.path));
  const auto device = make_cpu_device({.threads = 1});
  expect_refused(failure([&] { const Trainer trainer(config_, all, *device); }), Status::usage,
                 "give the trainer hold_out(dataset, config)");
}

// The KL term rises from the start, so that the first evaluation is the best by it.
TEST_F(Selection, TheModelIsTheBestAndNotTheLast) {
  config_.train.early_stopping.metric = "kl";
  config_.train.epochs = 4;
  const TrainReport report = train_run(config_, to("run"));
  ASSERT_TRUE(report.best.has_value());
  const std::vector<Json> validation = metrics("run", "validation");
  const auto best = std::ranges::min_element(
      validation, {}, [](const Json& line) { return line.at("kl").get<double>(); });
  EXPECT_EQ(report.best->step, best->at("step"));
  EXPECT_EQ(report.best->value, best->at("kl").get<double>());
  EXPECT_LT(report.best->epoch, 4);
  EXPECT_FALSE(report.stopped_early);
  // What is reported is what the model gives, on both splits.
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const auto data = std::make_shared<const Dataset>(load_data(config_));
  EXPECT_EQ(run.evaluate(*data->validation).metrics.kl, report.validation->kl);
  EXPECT_EQ(run.evaluate(*data->test).metrics.neg_elbo, report.test->neg_elbo);
  EXPECT_EQ(
      report.test->neg_elbo,
      metrics("run", "test")[static_cast<std::size_t>(report.best->epoch) - 1].at("neg_elbo"));
  const TensorFile model = tensors("run/model.safetensors");
  const TensorFile kept = tensors("run/checkpoints/best.safetensors");
  const TensorFile last = tensors("run/checkpoints/last.safetensors");
  for (const NamedTensor& named : model.tensors) {
    EXPECT_TRUE(same(named.tensor, kept.at(named.name))) << named.name;
    EXPECT_FALSE(same(named.tensor, last.at(named.name))) << named.name;
  }
  EXPECT_EQ(training_position(kept).step, report.best->step);
  EXPECT_EQ(training_position(last).step, 40);
}

TEST_F(Selection, AFinishedRunFindsItsBestAgain) {
  config_.train.early_stopping.metric = "kl";
  config_.train.epochs = 3;
  const TrainReport before = train_run(config_, to("run"));
  const std::string model = bytes("run/model.safetensors");
  const auto expect_same = [&] {
    const TrainReport after = train_run(config_, to("run", true));
    EXPECT_EQ(after.best->step, before.best->step);
    EXPECT_EQ(after.validation->neg_elbo, before.validation->neg_elbo);
    EXPECT_EQ(after.test->neg_elbo, before.test->neg_elbo);
    EXPECT_EQ(bytes("run/model.safetensors"), model);
  };
  expect_same();
  // Without its lines, and without the model: the best checkpoint has them.
  fs::remove(folder_ / "run/metrics.jsonl");
  expect_same();
  fs::remove(folder_ / "run/model.safetensors");
  expect_same();
}

TEST_F(Selection, StopsEarlyWhereNothingGetsBetter) {
  config_.train.lr = 0;  // every evaluation is the same
  config_.train.epochs = 10;
  config_.train.early_stopping.patience = 2;
  std::vector<std::string> log;
  TrainRunOptions options = to("run");
  options.on_message = [&](const std::string& line) { log.push_back(line); };
  const TrainReport report = train_run(config_, options);
  EXPECT_TRUE(report.stopped_early);
  EXPECT_EQ(report.epochs, 3);
  EXPECT_EQ(report.best->epoch, 1);
  EXPECT_EQ(metrics("run", "validation").size(), 3U);
  EXPECT_EQ(log.back(),
            "early stopping after epoch 3: no better neg_elbo of the validation split in 2 "
            "evaluations, the best was after epoch 1");
  EXPECT_TRUE(fs::exists(folder_ / "run/samples.png"));
  // It has ended.
  const std::string model = bytes("run/model.safetensors");
  config_.train.epochs = 20;
  const TrainReport again = train_run(config_, to("run", true));
  EXPECT_TRUE(again.stopped_early);
  EXPECT_EQ(again.epochs, 3);
  EXPECT_EQ(bytes("run/model.safetensors"), model);
  config_.train.early_stopping.patience = 3;
  expect_refused(failure([&] { train_run(config_, to("run", true)); }), Status::usage,
                 "`train.early_stopping.patience` is 3 now and was 2");
}

TEST_F(Selection, EvaluationsCountForPatienceAndNotEpochs) {
  config_.train.lr = 0;
  config_.train.epochs = 10;
  config_.train.early_stopping.patience = 2;
  TrainRunOptions options = to("run");
  options.eval_every = 2;
  EXPECT_EQ(train_run(config_, options).epochs, 6);
}

// A KL term that is annealed makes the trained loss smallest at the start.
TEST_F(Selection, IsAtBetaOneWhateverTheWarmUp) {
  config_.train.epochs = 24;
  config_.train.lr = 1e-2;
  config_.objective.beta = 1;
  config_.objective.warmup = {.type = "linear", .steps = 240};
  config_.train.early_stopping.patience = 24;
  const TrainReport report = train_run(config_, to("run"));
  const std::vector<Json> lines = metrics("run", "validation");
  const auto argmin = [&](auto value) {
    return std::ranges::min_element(lines, {}, value)->at("step").template get<std::int64_t>();
  };
  const auto neg_elbo = [](const Json& line) {
    return line.at("reconstruction").get<double>() + line.at("kl").get<double>();
  };
  EXPECT_EQ(report.best->step, argmin(neg_elbo));
  for (const Json& line : lines) {
    EXPECT_NEAR(line.at("neg_elbo").get<double>(), neg_elbo(line), 1e-9);
    EXPECT_LT(line.at("beta").get<double>(), 1.0);  // of the last step
  }
  // By the annealed loss it would have been another one.
  EXPECT_NE(report.best->step, argmin([](const Json& line) {
              return line.at("reconstruction").get<double>() +
                     line.at("beta").get<double>() * line.at("kl").get<double>();
            }));
}

TEST_F(Selection, APlateauLowersTheLearningRate) {
  config_.train.epochs = 4;
  config_.train.schedule = {
      .type = "plateau", .factor = 0.5, .patience = 0, .threshold = 1.0};  // never better
  train_run(config_, to("run"));
  const std::vector<Json> lines = metrics("run", "train");
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0].at("lr").get<double>(), 3e-3);
  EXPECT_EQ(lines[1].at("lr").get<double>(), 3e-3);  // the first evaluation is the best so far
  EXPECT_EQ(lines[2].at("lr").get<double>(), 1.5e-3);
  EXPECT_EQ(lines[3].at("lr").get<double>(), 0.75e-3);
  config_.train.schedule.floor = 2e-3;
  config_.train.schedule.cooldown = 1;
  train_run(config_, to("floor"));
  EXPECT_EQ(metrics("floor", "train")[3].at("lr").get<double>(), 2e-3);
  EXPECT_NE(bytes("run/model.safetensors"), bytes("floor/model.safetensors"));
}

// So is what a plateau watches: the annealed loss rises with beta while the bound gets better.
TEST_F(Selection, APlateauIsAtBetaOneWhateverTheWarmUp) {
  config_.train.epochs = 24;
  config_.train.lr = 1e-2;
  config_.objective.warmup = {.type = "linear", .steps = 240};
  config_.train.schedule = {.type = "plateau", .factor = 0.5, .patience = 0, .threshold = 0.0};
  train_run(config_, to("run"));
  const std::vector<Json> seen = metrics("run", "validation");
  const std::vector<Json> trained = metrics("run", "train");
  ASSERT_EQ(seen.size(), 24U);
  ASSERT_EQ(trained.size(), 24U);
  // The rates that each epoch would have been trained with.
  const auto rates = [&](const std::function<double(const Json&)>& value) {
    PlateauLearningRate plateau(1e-2, {.factor = 0.5, .patience = 0, .threshold = 0});
    std::vector<double> all;
    for (const Json& line : seen) {
      all.push_back(plateau.value());
      plateau.observe(value(line));
    }
    return all;
  };
  const auto bound = [](const Json& line) {
    return line.at("reconstruction").get<double>() + line.at("kl").get<double>();
  };
  const auto annealed = [](const Json& line) {
    return line.at("reconstruction").get<double>() +
           line.at("beta").get<double>() * line.at("kl").get<double>();
  };
  std::vector<double> told;
  for (const Json& line : trained) told.push_back(line.at("lr"));
  const std::vector<double> expected = rates(bound);
  ASSERT_EQ(told.size(), expected.size());
  for (std::size_t i = 0; i < told.size(); ++i) EXPECT_NEAR(told[i], expected[i], 1e-12) << i;
  EXPECT_LT(told.back(), 1e-2);
  EXPECT_NE(told, rates(annealed));
}

// Batch norm, clipping, warm-up, averages, frozen layers and all that validation decides, cut at
// the ends of epochs and within one.
TEST_F(Selection, ResumedEqualsUninterrupted) {
  config_.model.encoder.layers = {{.type = "conv2d", .out = 3, .kernel = {3, 3}},
                                  {.type = "batch_norm", .activation = "relu"},
                                  {.out = 12, .activation = "relu"}};
  config_.train.epochs = 5;
  config_.train.clip_norm = 5;
  config_.train.ema = 0.9;
  config_.train.freeze = {"encoder.2", "decoder.out"};
  config_.train.early_stopping = {.patience = 4, .metric = "kl"};
  config_.train.schedule = {
      .type = "plateau", .warmup = 4, .factor = 0.5, .patience = 0, .threshold = 0.5};
  const TrainReport whole = train_run(config_, to("whole"));
  EXPECT_LT(whole.best->epoch, 5);

  config_.train.epochs = 1;
  train_run(config_, to("parts"));
  config_.train.epochs = 3;
  TrainRunOptions options = to("parts", true);
  int polls = 0;
  options.stop = [&polls] { return ++polls == 15; };
  EXPECT_TRUE(train_run(config_, options).interrupted);
  train_run(config_, to("parts", true));
  config_.train.epochs = 5;
  const TrainReport parts = train_run(config_, to("parts", true));
  EXPECT_EQ(parts.best->step, whole.best->step);
  EXPECT_EQ(parts.test->neg_elbo, whole.test->neg_elbo);
  expect_same_run("whole", "parts");
}

TEST_F(Selection, CheckpointsAreThereForEveryBest) {
  TrainRunOptions options = to("run");
  options.save_every = 100;
  config_.train.epochs = 4;
  int polls = 0;
  options.stop = [&polls] { return ++polls == 15; };
  EXPECT_TRUE(train_run(config_, options).interrupted);
  const auto best = recorded_selection(tensors("run/checkpoints/last.safetensors"));
  ASSERT_TRUE(best.has_value());
  EXPECT_EQ(training_position(tensors("run/checkpoints/best.safetensors")).step, best->best_step);
}

// The average of the weights after each step, by hand: bias-corrected.
TEST_F(Selection, AveragedWeightsAreWhatIsEvaluatedAndKept) {
  config_.data.validation = {};
  config_.train.ema = 0.7;
  const auto data = std::make_shared<const Dataset>(load_dataset(config_.data.path));
  const auto device = make_cpu_device({.threads = 1});
  Trainer trainer(config_, data, *device);
  Config plain = config_;
  plain.train.ema = 0;
  Trainer without(plain, data, *device);
  const std::string name = "decoder.out.weight";
  const auto weight = [&](Trainer& of) { return of.store().read(name).to(DType::f64); };
  const auto average = [&] {
    for (const NamedTensor& named : trainer.weights())
      if (named.name == name) return named.tensor.to(DType::f64);
    return Tensor();
  };
  EXPECT_TRUE(same(average(), weight(without)));  // before the first step
  std::vector<double> sum(static_cast<std::size_t>(weight(without).elements()), 0.0);
  double weights = 0;
  for (int step = 1; step <= 7; ++step) {
    trainer.run(1);
    without.run(1);
    ASSERT_TRUE(same(weight(trainer), weight(without)));  // training does not see it
    weights = 0.7 * weights + 0.3;
    double difference = 0;
    const Tensor now = weight(without);
    const Tensor seen = average();
    for (std::size_t i = 0; i < sum.size(); ++i) {
      sum[i] = 0.7 * sum[i] + 0.3 * now.as<double>()[i];
      difference = std::max(difference, std::abs(seen.as<double>()[i] - sum[i] / weights));
    }
    EXPECT_LT(difference, 1e-6) << step;
  }
  EXPECT_NE(trainer.evaluate_test()->neg_elbo, without.evaluate_test()->neg_elbo);
  // What the model's file holds is what was evaluated.
  write_model(folder_ / "model.safetensors", trainer);
  LoadedRun run(folder_ / "model.safetensors", *device);
  EXPECT_EQ(run.evaluate(*data->test).metrics.neg_elbo, trainer.evaluate_test()->neg_elbo);
  // Another decay is another training.
  const TensorFile checkpoint = without.checkpoint();
  expect_refused(failure([&] { trainer.restore(checkpoint, "file"); }), Status::input,
                 "tensor `ema.encoder.0.weight` is missing");
}

TEST_F(Selection, FrozenLayersStayAsTheyAre) {
  config_.model.encoder.layers = {{.type = "conv2d", .out = 3, .kernel = {3, 3}},
                                  {.type = "batch_norm", .activation = "relu"},
                                  {.out = 12, .activation = "relu"}};
  config_.data.validation = {};
  const auto data = std::make_shared<const Dataset>(load_dataset(config_.data.path));
  const auto device = make_cpu_device({.threads = 1});
  const std::map<std::string, std::vector<std::string>> cases = {
      {"encoder.*", {"encoder."}},
      {"encoder.1", {"encoder.1."}},  // what is before it is trained through it
      {"decoder.out", {"decoder.out."}},
      {"decoder", {"decoder."}},
  };
  for (const auto& [name, beginnings] : cases) {
    SCOPED_TRACE(name);
    config_.train.freeze = {name};
    Trainer trainer(config_, data, *device);
    const TensorFile before = trainer.checkpoint();
    for (int epoch = 0; epoch < 2; ++epoch) trainer.run(trainer.steps_per_epoch());
    const TensorFile after = trainer.checkpoint();
    for (const NamedTensor& named : before.tensors) {
      if (named.name.starts_with("adam.")) {
        for (const std::string& beginning : beginnings)
          EXPECT_EQ(named.name.find(beginning), std::string::npos) << named.name;
        continue;
      }
      const bool frozen = std::ranges::any_of(beginnings, [&](const std::string& beginning) {
        return named.name.starts_with(beginning);
      });
      EXPECT_EQ(same(named.tensor, after.at(named.name)), frozen) << named.name;
    }
    // A frozen batch norm is the same function in training as in evaluation.
    const bool normed = name.starts_with("encoder");
    TrainingSpec spec = training_spec(config_);
    spec.dataset = spec.window = data->train->size();
    const Graph graph = trainer.model().training_graph(spec);
    EXPECT_EQ(std::ranges::any_of(graph.nodes(),
                                  [](const Node& node) { return node.op == Op::running_stats; }),
              !normed);
  }
}

TEST_F(Selection, FrozenNamesAreChecked) {
  const auto refused = [&](std::vector<std::string> names, const std::string& part) {
    config_.train.freeze = std::move(names);
    expect_refused(failure([&] { train_run(config_, to("run")); }), Status::usage, part);
    EXPECT_FALSE(fs::exists(folder_ / "run"));
  };
  refused({"encoder.O"}, "no layer `encoder.O` (train.freeze): did you mean `encoder.0`?");
  refused({"encoder.1"}, "no layer `encoder.1`");
  refused({"x*"}, "no layer `x*`");
  refused({"encoder.mean"},
          "`encoder.mean` and `encoder.logvar` are one matrix, and only a part of it is named");
  refused({"*"}, "every layer is frozen");
  config_.train.freeze = {"encoder.mean", "encoder.logvar"};
  train_run(config_, to("run"));
  config_.train.freeze = {};
  expect_refused(failure([&] { train_run(config_, to("run", true)); }), Status::usage,
                 "`train.freeze` is [] now and was [\"encoder.mean\", \"encoder.logvar\"]");
}

TEST_F(Selection, WeightsOfAnotherRunAreTakenWhereTheyFit) {
  train_run(config_, to("source"));
  Config larger = config_;
  larger.model.decoder.layers = {{.out = 30, .activation = "relu"}};
  larger.train.freeze = {"encoder.*"};
  TrainRunOptions options = to("run");
  options.init_from = folder_ / "source";
  std::vector<std::string> log;
  options.on_message = [&](const std::string& line) { log.push_back(line); };
  train_run(larger, options);
  const TensorFile source = tensors("source/model.safetensors");
  const TensorFile model = tensors("run/model.safetensors");
  for (const char* name :
       {"encoder.0.weight", "encoder.0.bias", "encoder.mean.weight", "encoder.logvar.bias"}) {
    EXPECT_TRUE(same(source.at(name), model.at(name))) << name;
  }
  const auto contains = [&](const std::string& part) {
    return std::ranges::any_of(
        log, [&](const std::string& line) { return line.find(part) != std::string::npos; });
  };
  EXPECT_TRUE(contains("/source: 7 of 10 tensors taken"));
  EXPECT_TRUE(contains("not taken: decoder.0.weight [30, 4] (there [24, 4])"));
  Json environment = Json::parse(bytes("run/env.json"));
  EXPECT_EQ(environment.at("init_from").at("path"), (folder_ / "source").string());
  EXPECT_EQ(environment.at("init_from").at("taken").size(), 7U);
  EXPECT_EQ(environment.at("init_from").at("own").size(), 3U);

  // It goes on without the other, and still tells of it.
  fs::rename(folder_ / "source", folder_ / "gone");
  larger.train.epochs = 3;
  train_run(larger, to("run", true));
  environment = Json::parse(bytes("run/env.json"));
  EXPECT_EQ(environment.at("init_from").at("taken").size(), 7U);
  options = to("whole");
  options.init_from = folder_ / "gone/model.safetensors";
  train_run(larger, options);
  expect_same_run("whole", "run");

  options = to("run", true);
  options.init_from = folder_ / "gone";
  expect_refused(failure([&] { train_run(larger, options); }), Status::usage,
                 "--resume and --init-from together");
  Config other = config_;
  other.model.encoder.layers = {{.out = 31, .activation = "relu"}};
  other.model.decoder.layers = {{.out = 33, .activation = "relu"}};
  other.model.latent.size = 5;
  options = to("none");
  options.init_from = folder_ / "gone";
  train_run(other, options);  // the last bias alone fits
  other.model.decoder.out = {.type = "linear", .bias = false};
  options = to("nothing");
  options.init_from = folder_ / "gone";
  expect_refused(failure([&] { train_run(other, options); }), Status::input,
                 "no tensor fits this model");
  EXPECT_FALSE(fs::exists(folder_ / "nothing"));
  options.init_from = folder_ / "nowhere";
  expect_refused(failure([&] { train_run(other, options); }), Status::input, "no such run");
}

TEST_F(Selection, ReplicasHoldOutRowsByTheirOwnSeeds) {
  config_.train.epochs = 2;
  const ReplicasReport report = train_replicas(config_, 2, to("all"));
  ASSERT_TRUE(report.validation.has_value());
  EXPECT_EQ(report.validation->replicas, 2);
  const Json json = Json::parse(bytes("all/replicas.json"));
  EXPECT_EQ(json.at("mean").at("validation").at("neg_elbo"), report.validation->mean.neg_elbo);
  EXPECT_EQ(json.at("results")[1].at("validation").at("n"), 40);
  config_.train.seed = 1;
  train_run(config_, to("one"));
  expect_same_run("one", "all/seed-1");
  // Those that one seed's early stopping ends wait for nobody.
  config_.train.seed = 0;
  config_.train.epochs = 6;
  config_.train.lr = 0;
  config_.train.early_stopping.patience = 1;
  const ReplicasReport stopped = train_replicas(config_, 2, to("stopped"));
  EXPECT_EQ(stopped.replicas[0].report.epochs, 2);
  EXPECT_TRUE(stopped.replicas[1].done);
}

class Folds : public Selection {
 protected:
  Folds() { config_.data.validation = {}; }
  [[nodiscard]] Json summary(const std::string& run) const {
    return Json::parse(bytes(run + "/folds.json"));
  }
};

TEST_F(Folds, EachRowIsKeptOnce) {
  const FoldsReport report = train_folds(config_, 3, to("all"));
  ASSERT_EQ(report.results.size(), 3U);
  EXPECT_EQ(report.results[0].report.validation->n, 67);
  EXPECT_EQ(report.results[2].report.validation->n, 66);
  double sum = 0;
  for (const FoldReport& fold : report.results) {
    EXPECT_TRUE(fold.done);
    sum += fold.report.validation->neg_elbo;
  }
  EXPECT_NEAR(report.validation->mean.neg_elbo, sum / 3, 1e-9);
  const Json json = summary("all");
  EXPECT_EQ(json.at("state"), "done");
  EXPECT_EQ(json.at("folds"), 3);
  EXPECT_EQ(json.at("mean").at("validation").at("neg_elbo"), report.validation->mean.neg_elbo);
  EXPECT_EQ(json.at("sd").at("validation").at("kl"), report.validation->sd.kl);
  EXPECT_EQ(json.at("results")[1].at("folder"), "fold-1");
  EXPECT_EQ(json.at("results")[1].at("state"), "done");
  EXPECT_EQ(json.at("results")[1].at("best_epoch"), report.results[1].report.best->epoch);
  // Each is what it is by itself.
  config_.data.folds = 3;
  config_.data.fold = 1;
  train_run(config_, to("one"));
  expect_same_run("one", "all/fold-1");
}

TEST_F(Folds, InterruptedOnesGoOn) {
  config_.train.epochs = 3;
  train_folds(config_, 3, to("whole"));
  TrainRunOptions options = to("parts");
  int polls = 0;
  options.stop = [&polls] { return ++polls > 28; };  // in the second fold
  EXPECT_TRUE(train_folds(config_, 3, options).interrupted);
  EXPECT_EQ(summary("parts").at("state"), "interrupted");
  EXPECT_EQ(summary("parts").at("results")[0].at("state"), "done");
  EXPECT_EQ(summary("parts").at("results")[1].at("state"), "running");
  EXPECT_EQ(summary("parts").at("results")[2].at("state"), "waiting");
  EXPECT_FALSE(fs::exists(folder_ / "parts/fold-2"));
  expect_refused(failure([&] { train_folds(config_, 4, to("parts", true)); }), Status::usage,
                 "4 folds, the run has 3 (--folds): go on with --folds 3");
  train_folds(config_, 3, to("parts", true));
  for (const char* fold : {"fold-0", "fold-1", "fold-2"})
    expect_same_run(std::string("whole/") + fold, std::string("parts/") + fold);
  EXPECT_EQ(summary("parts").at("mean"), summary("whole").at("mean"));
  EXPECT_GT(summary("parts").at("total_seconds").get<double>(),
            summary("parts").at("seconds").get<double>());
}

TEST_F(Folds, BeginWithTheSameWeightsAlsoAfterAnInterruption) {
  Config source = config_;
  train_run(source, to("source"));
  TrainRunOptions options = to("whole");
  options.init_from = folder_ / "source";
  train_folds(config_, 2, options);
  options.out = folder_ / "parts";
  int polls = 0;
  options.stop = [&polls] { return ++polls == 3; };
  EXPECT_TRUE(train_folds(config_, 2, options).interrupted);
  train_folds(config_, 2, to("parts", true));
  expect_same_run("whole/fold-1", "parts/fold-1");
}

TEST_F(Folds, RefuseWhatMakesNoSense) {
  const auto refused = [&](std::int64_t folds, const std::string& part) {
    expect_refused(failure([&] { train_folds(config_, folds, to("all")); }), Status::usage, part);
    EXPECT_FALSE(fs::exists(folder_ / "all"));
  };
  refused(1, "1 folds (--folds): give an integer from 2 to 1000");
  refused(300, "300 folds of 200 samples");
  config_.data.validation.rows = 10;
  refused(3, "--folds beside `data.validation`");
  config_.data.validation = {};
  config_.data.folds = 3;
  refused(3, "--folds beside `data.folds`");
  config_.data.folds = 0;
  train_run(config_, to("one"));
  TrainRunOptions options = to("one", true);
  expect_refused(failure([&] { train_folds(config_, 3, options); }), Status::usage,
                 "no folder of folds");
  options = to("one");
  options.overwrite = true;
  expect_refused(failure([&] { train_folds(config_, 3, options); }), Status::usage,
                 "the folder holds one run, no folds");
  train_folds(config_, 3, to("all"));
  expect_refused(failure([&] { train_folds(config_, 3, to("all")); }), Status::usage, "not empty");
  options = to("all");
  options.overwrite = true;
  expect_refused(failure([&] { train_run(config_, options); }), Status::usage,
                 "the folder holds folds, not one run");
  expect_refused(failure([&] { train_replicas(config_, 2, options); }), Status::usage,
                 "the folder holds folds, no replicas");
  // Fewer of them leave none of the old.
  train_folds(config_, 2, options);
  EXPECT_FALSE(fs::exists(folder_ / "all/fold-2"));
  std::ofstream(folder_ / "all/folds.json") << "{}";
  expect_refused(failure([&] { static_cast<void>(read_folds(folder_ / "all")); }), Status::input,
                 "this is no summary of folds");
}

TEST_F(Folds, OneThatDivergesIsLeftBehind) {
  config_.train.epochs = 1;
  train_folds(config_, 2, to("all"));
  TensorFile last = tensors("all/fold-0/checkpoints/last.safetensors");
  for (NamedTensor& named : last.tensors) {
    if (named.name != "encoder.0.weight") continue;
    Tensor huge(DType::f32, named.tensor.shape());
    for (float& x : huge.as<float>()) x = 3e38F;
    named.tensor = std::move(huge);
  }
  write_safetensors(folder_ / "all/fold-0/checkpoints/last.safetensors", last);
  config_.train.epochs = 2;
  const FoldsReport report = train_folds(config_, 2, to("all", true));
  EXPECT_FALSE(report.results[0].diverged.empty());
  EXPECT_EQ(report.results[1].report.epochs, 2);
  EXPECT_EQ(report.validation->replicas, 1);
  EXPECT_EQ(summary("all").at("results")[0].at("state"), "diverged");
  // It stays left behind.
  config_.train.epochs = 3;
  EXPECT_EQ(train_folds(config_, 2, to("all", true)).results[1].report.epochs, 3);
}

}  // namespace
}  // namespace cuvae
