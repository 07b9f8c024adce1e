// data.weights and data.weighting: rows drawn by their weights, and losses multiplied by them.

#include "train/weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "cpu/cpu_device.h"
#include "cuvae/compare.h"
#include "cuvae/error.h"
#include "cuvae/npy.h"
#include "cuvae/run.h"
#include "cuvae/sampling.h"
#include "support/failure.h"
#include "support/synthetic.h"
#include "train/blob_config.h"
#include "train/compare_table.h"

namespace cuvae {
namespace {

using test::failure;

constexpr std::int64_t rows = 200;

// Of ten rows one has the label 1, the others 0.
std::shared_ptr<const Dataset> unbalanced() {
  auto data = std::make_shared<Dataset>(*test::blob_dataset(rows, 40));
  for (std::int64_t i = 0; i < rows; ++i) data->train->labels.push_back(i % 10 == 3 ? 1 : 0);
  return data;
}

std::vector<double> some_weights(std::int64_t n) {
  std::vector<double> weights;
  for (std::int64_t i = 0; i < n; ++i) weights.push_back(static_cast<double>(i % 7));
  return weights;
}

class Weights : public testing::Test {
 protected:
  Weights() { config_.data.weights = "balanced"; }

  [[nodiscard]] std::unique_ptr<Trainer> make(std::shared_ptr<const Dataset> data,
                                              TrainerOptions options = {}) const {
    options.compile.keep_all = true;
    options.compile.fuse = false;
    return std::make_unique<Trainer>(config_, std::move(data), *device_, options);
  }
  [[nodiscard]] std::string write(const std::vector<double>& weights, DType dtype = DType::f64,
                                  const std::string& name = "weights.npy") const {
    const Tensor tensor(Shape{static_cast<std::int64_t>(weights.size())},
                        std::span<const double>(weights));
    write_npy(folder_ / name, tensor.to(dtype));
    return (folder_ / name).string();
  }
  static void expect_refused(const Error& error, Status status, const std::string& part) {
    EXPECT_EQ(error.status(), status) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }

  test::TemporaryFolder folder_;
  std::unique_ptr<Device> device_ = make_cpu_device({.threads = 1});
  Config config_ = test::blob_config("blobs");
};

TEST_F(Weights, DrawsAreThoseOfTheAliasTable) {
  auto data = std::make_shared<Dataset>(*unbalanced());
  data->train->weights = some_weights(rows);
  config_.data.weights = "read by hold_out()";
  config_.train.seed = 9;
  const auto trainer = make(data);
  const WeightedDraws draws(9, some_weights(rows));
  while (trainer->epoch() < 2) {
    const std::int64_t epoch = trainer->epoch(),
                       step = trainer->step() % trainer->steps_per_epoch();
    trainer->run(1);
    const Tensor index = trainer->program().read("batch.index");
    for (std::int64_t b = 0; b < 16; ++b) {
      EXPECT_EQ(index.item(b), static_cast<double>(draws(epoch, step * 16 + b)));
      EXPECT_NE(static_cast<std::int64_t>(index.item(b)) % 7, 0);  // of weight 0
    }
  }
}

TEST_F(Weights, BalancedDrawsHaveEveryLabelAsOften) {
  const auto data = unbalanced();
  const auto share = [&] {
    const auto trainer = make(data);
    double ones = 0, all = 0;
    while (trainer->epoch() < 10) {
      trainer->run(1);
      const Tensor index = trainer->program().read("batch.index");
      for (std::int64_t b = 0; b < 16; ++b, ++all)
        ones += data->train->labels[static_cast<std::size_t>(index.item(b))];
    }
    return ones / all;
  };
  EXPECT_NEAR(share(), 0.5, 4 * std::sqrt(0.25 / 1920));
  config_.data.weights = "none";
  EXPECT_NEAR(share(), 0.1, 0.01);
}

// Draws by weight and losses by weight have the same expectation: the trained loss over an epoch.
// Rows count by their brightness, which is what they cost where every logit is -3.
TEST_F(Weights, DrawsAndLossesAgreeInExpectation) {
  auto data = std::make_shared<Dataset>(*unbalanced());
  for (std::int64_t i = 0; i < rows; ++i) {
    double light = 0;
    for (std::int64_t j = 0; j < 64; ++j) light += data->train->images->item(i * 64 + j) / 255;
    data->train->weights.push_back(light);
  }
  config_.data.weights = "read by hold_out()";
  config_.train.lr = 0;
  config_.train.drop_last = false;
  const auto loss = [&](const char* weighting, int epochs) {
    config_.data.weighting = weighting;
    const auto trainer = make(data);
    Tensor bias = trainer->store().read("decoder.out.bias").to(DType::f32);
    std::ranges::fill(bias.as<float>(), -3.0F);
    trainer->store().write("decoder.out.bias", bias);
    double sum = 0;
    for (int e = 0; e < epochs; ++e) {
      trainer->run(trainer->steps_per_epoch());
      sum += trainer->epoch_metrics().loss / epochs;
    }
    return sum;
  };
  const double weighted = loss("loss", 5), drawn = loss("draws", 40);
  config_.data.weights = "none";
  const double plain = loss("draws", 5);
  EXPECT_NEAR(weighted, drawn, 0.05 * weighted);
  EXPECT_GT(weighted, 1.15 * plain);
}

TEST_F(Weights, LossesAreWeightedOverTheMeanOfAll) {
  auto data = std::make_shared<Dataset>(*unbalanced());
  data->train->weights = some_weights(rows);
  config_.data.weights = "read by hold_out()";
  config_.data.weighting = "loss";
  const auto trainer = make(data);
  const auto steps = trainer->run(1);
  const Tensor index = trainer->program().read("batch.index");
  const Tensor nll = trainer->program().read("nll_rows"), kl = trainer->program().read("kl_rows");
  double mean = 0;
  for (const double weight : some_weights(rows)) mean += weight / rows;
  double expected = 0, plain = 0;
  for (std::int64_t b = 0; b < 16; ++b) {
    const double row = nll.item(b) + kl.item(b);
    expected += static_cast<double>(static_cast<std::int64_t>(index.item(b)) % 7) / mean * row / 16;
    plain += row / 16;
  }
  EXPECT_NEAR(steps[0].loss, expected, 1e-5 * expected);
  EXPECT_NEAR(steps[0].reconstruction + steps[0].kl, plain, 1e-5 * plain);
  EXPECT_GT(std::abs(expected - plain), 0.1);
}

TEST_F(Weights, FloatAgreesWithDoubleStepByStep) {
  const auto reference = make_cpu_device({.threads = 1, .real = DType::f64});
  const auto data = unbalanced();
  const auto agrees = [&](const char* weighting, const char* objective, std::int64_t samples) {
    config_.data.weighting = weighting;
    config_.objective.type = objective;
    config_.objective.samples = samples;
    config_.model.latent.prior = objective == std::string("autoencoder") ? "none" : "normal";
    const CompareReport report = compare(config_, data, *device_, *reference,
                                         {.steps = 5, .mode = CompareOptions::Mode::step});
    EXPECT_TRUE(report.passed) << weighting << " " << objective << "\n" << compare_table(report);
  };
  agrees("draws", "elbo", 1);
  agrees("loss", "elbo", 1);
  agrees("loss", "elbo", 3);
  agrees("loss", "iwae", 3);
  agrees("loss", "dreg", 3);
  agrees("loss", "autoencoder", 1);
  config_.objective.free_bits = 0.5;
  agrees("loss", "elbo", 1);
}

// The trained program (fused) and the plain one make the same of them.
TEST_F(Weights, FusedEqualsUnfused) {
  const auto data = unbalanced();
  for (const char* weighting : {"draws", "loss"}) {
    config_.data.weighting = weighting;
    const auto plain = make(data);
    Trainer fused(config_, data, *device_);
    const auto a = plain->run(plain->steps_per_epoch()), b = fused.run(fused.steps_per_epoch());
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
      EXPECT_NEAR(a[i].loss, b[i].loss, 1e-4 * std::abs(a[i].loss));
  }
}

TEST_F(Weights, FilesGoWithTheirRowsAndResume) {
  test::write_blob_folder(folder_ / "data", rows, 50);
  config_.data.path = (folder_ / "data").string();
  config_.data.weights = write(some_weights(rows), DType::f32);
  config_.data.validation.fraction = 0.2;
  // Rows for validation take theirs away.
  const Dataset held = load_data(config_);
  const RowSplit split = split_shuffled(0, rows, 40);
  ASSERT_EQ(held.train->weights.size(), split.train.size());
  for (std::size_t i = 0; i < split.train.size(); ++i)
    EXPECT_EQ(held.train->weights[i], static_cast<double>(split.train[i] % 7));

  TrainRunOptions options;
  for (const char* weighting : {"draws", "loss"}) {
    config_.data.weighting = weighting;
    options.resume = false;
    options.out = folder_ / (std::string("whole-") + weighting);
    config_.train.epochs = 3;
    train_run(config_, options);
    options.out = folder_ / (std::string("parts-") + weighting);
    config_.train.epochs = 1;
    train_run(config_, options);
    config_.train.epochs = 3;
    options.resume = true;
    train_run(config_, options);
    for (const std::string name : {"/model.safetensors", "/checkpoints/last.safetensors"}) {
      const auto whole = test::file_bytes(folder_ / ("whole-" + (weighting + name)));
      EXPECT_FALSE(whole.empty());
      EXPECT_EQ(whole, test::file_bytes(folder_ / ("parts-" + (weighting + name))));
    }
  }
  // Other weights are another training.
  auto other = some_weights(rows);
  other[11] += 1;
  config_.data.weights = write(other);
  config_.train.epochs = 4;
  expect_refused(failure([&] { train_run(config_, options); }), Status::input,
                 "was made with other data.weights");
}

TEST_F(Weights, WhatMakesNoWeightsIsRefused) {
  const auto refused = [&](const std::vector<double>& weights, const std::string& part) {
    const std::string path = write(weights);
    expect_refused(failure([&] { (void)read_weights(path, 4); }), Status::input, part);
  };
  refused({1, 2, -0.5, 1}, "the weight of row 2 is -0.5");
  refused({1, 2, std::numeric_limits<double>::quiet_NaN(), 1}, "the weight of row 2 is nan");
  refused({1, std::numeric_limits<double>::infinity(), 1, 1}, "the weight of row 1 is inf");
  refused({0, 0, 0, 0}, "all weights of the training rows are 0");
  refused({1, 1, 1}, "weights of shape [3] for 4 training rows");
  write_npy(folder_ / "bytes.npy", Tensor(DType::u8, Shape{4}));
  expect_refused(failure([&] { (void)read_weights(folder_ / "bytes.npy", 4); }), Status::input,
                 "weights of type u8");
  expect_refused(failure([&] { (void)read_weights(folder_ / "none.npy", 4); }), Status::input,
                 "none.npy");
  EXPECT_EQ(read_weights(write({0, 1, 2.5, 3}), 4), (std::vector<double>{0, 1, 2.5, 3}));

  expect_refused(failure([&] { (void)make(test::blob_dataset(rows, 10)); }), Status::input,
                 "the data has no labels, which `data.weights` = \"balanced\" wants");
  TrainerOptions streamed;
  streamed.stream_rows = 64;
  expect_refused(failure([&] { (void)make(unbalanced(), streamed); }), Status::usage,
                 "weights of rows with a streamed data set");
  config_.data.weights = "unread.npy";
  expect_refused(failure([&] { (void)make(unbalanced()); }), Status::usage,
                 "give the trainer hold_out(dataset, config)");
  config_.data.weights = "balanced";
  config_.data.weighting = "loss";
  config_.objective.type = "mmd";
  expect_refused(failure([&] { validate(config_); }), Status::usage,
                 "whose rows have no loss of their own");
}

}  // namespace
}  // namespace cuvae
