// data.augment: what training makes of its images, and evaluation does not.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cpu/cpu_device.h"
#include "cuvae/compare.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "graph/op.h"
#include "support/failure.h"
#include "support/synthetic.h"
#include "train/blob_config.h"
#include "train/compare_table.h"
#include "train/state_of.h"

namespace cuvae {
namespace {

using test::failure;

using test::state_of;

class Augmented : public testing::Test {
 protected:
  Augmented() {
    config_ = test::blob_config("blobs");
    config_.data.augment = {.flip = 0.5, .shift = 2, .crop = 0, .noise = 0.1};
  }
  [[nodiscard]] std::unique_ptr<Trainer> make(const Config& config,
                                              std::shared_ptr<const Dataset> data = nullptr) const {
    TrainerOptions options;
    options.compile.keep_all = true;
    options.compile.fuse = false;
    return std::make_unique<Trainer>(config, data ? data : data_, *device_, options);
  }
  static std::vector<double> read(Trainer& trainer, const std::string& name) {
    const Tensor tensor = trainer.program().read(name).to(DType::f64);
    return {tensor.as<double>().begin(), tensor.as<double>().end()};
  }
  static bool has(const Graph& graph, Op op) {
    return std::ranges::any_of(graph.nodes(), [&](const Node& node) { return node.op == op; });
  }
  static void expect_refused(const Error& error, const std::string& part) {
    EXPECT_EQ(error.status(), Status::usage) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }

  std::shared_ptr<const Dataset> data_ = test::blob_dataset(200, 50);
  std::unique_ptr<Device> device_ = make_cpu_device({.threads = 1});
  Config config_;
};

std::shared_ptr<const Dataset> mirrored(const Dataset& data) {
  auto other = std::make_shared<Dataset>(data);
  Tensor images = *data.train->images;
  const auto width = static_cast<std::size_t>(data.image.width);
  const auto bytes = images.as<std::uint8_t>();
  for (std::size_t row = 0; row < bytes.size(); row += width)
    std::ranges::reverse(bytes.subspan(row, width));
  other->train->images = std::make_shared<const Tensor>(std::move(images));
  return other;
}

TEST_F(Augmented, IsInTrainingGraphsAlone) {
  const auto trainer = make(config_);
  const Model& model = trainer->model();
  EXPECT_TRUE(has(trainer->program().graph(), Op::augment));
  for (const Graph& graph : {model.evaluation_graph(4, 10), model.encoder_graph(4, 10),
                             model.reconstruction_graph(4, 10), model.decoder_graph(4)})
    EXPECT_FALSE(has(graph, Op::augment));
  // What is off is not there.
  config_.data.augment = {};
  EXPECT_FALSE(has(make(config_)->program().graph(), Op::augment));
  // Evaluation of the same weights is the same.
  const double plain = make(config_)->evaluate_test()->neg_elbo;
  EXPECT_EQ(trainer->evaluate_test()->neg_elbo, plain);
}

// A sure flip is training on mirror images: target and encoder's input alike.
TEST_F(Augmented, AFlippedImageTrains) {
  config_.data.augment = {.flip = 1};
  const auto flipped = make(config_);
  Config plain = config_;
  plain.data.augment = {};
  const auto other = make(plain, mirrored(*data_));
  flipped->run(1);
  other->run(1);
  EXPECT_EQ(read(*flipped, "x"), read(*other, "x"));
  const auto untouched = make(plain);
  untouched->run(1);
  EXPECT_NE(read(*flipped, "x"), read(*untouched, "x"));
  // Encoder and likelihood read that one value.
  const Graph& graph = flipped->program().graph();
  const Value read_rows = graph.find("read");
  ASSERT_TRUE(bool(read_rows));
  EXPECT_EQ(graph.readers(read_rows).size(), 1U);
  EXPECT_GE(graph.readers(graph.find("x")).size(), 2U);
  // And it learns them: mirror images of one side's blobs.
  auto left = std::make_shared<Dataset>(*data_);
  Tensor images = *data_->train->images;
  for (std::int64_t i = 0; i < images.elements(); ++i)
    if (i % 8 >= 4) images.as<std::uint8_t>()[static_cast<std::size_t>(i)] = 0;
  left->train->images = std::make_shared<const Tensor>(images);
  left->test = left->train;
  const auto learner = make(config_, left);
  for (int epoch = 0; epoch < 5; ++epoch) learner->run(learner->steps_per_epoch());
  const double here = learner->evaluate_test()->neg_elbo;
  auto right = std::make_shared<Dataset>(*left);
  right->test = mirrored(*left)->train;
  const auto judge = make(plain, right);
  judge->restore(learner->checkpoint(), "test");
  EXPECT_LT(judge->evaluate_test()->neg_elbo, here - 5);
}

TEST_F(Augmented, ValuesStayInTheUnitIntervalAndPixelsMove) {
  config_.data.augment = {.noise = 0.5};
  const auto noisy = make(config_);
  noisy->run(1);
  const auto x = read(*noisy, "x");
  const auto [low, high] = std::ranges::minmax(x);
  EXPECT_EQ(low, 0);
  EXPECT_EQ(high, 1);
  EXPECT_GT(std::ranges::count_if(x, [](double v) { return v > 0 && v < 1; }), std::ssize(x) / 4);
  // Not where values are no longer within it.
  config_.data.scale = "standardise";
  config_.model.likelihood.type = "gaussian";
  const auto wide = make(config_);
  wide->run(1);
  EXPECT_GT(std::ranges::max(read(*wide, "x")), 2);
  // Before binarisation: what is read are still bits.
  config_ = test::blob_config("blobs");
  config_.data.augment = {.shift = 2, .noise = 0.5};
  for (const char* mode : {"threshold", "dynamic", "static"}) {
    config_.data.binarise = mode;
    const auto bits = make(config_);
    bits->run(1);
    EXPECT_TRUE(std::ranges::all_of(read(*bits, "x"), [](double v) { return v == 0 || v == 1; }));
    EXPECT_TRUE(bool(bits->program().graph().find("augmented")));
  }
  // crop is shift by another name.
  const auto moved = [&](const AugmentConfig& how) {
    Config config = test::blob_config("blobs");
    config.data.augment = how;
    const auto trainer = make(config);
    trainer->run(1);
    return read(*trainer, "x");
  };
  EXPECT_EQ(moved({.shift = 2}), moved({.crop = 2}));
  EXPECT_NE(moved({.shift = 2}), moved({}));
}

TEST_F(Augmented, FloatAgreesWithDoubleStepByStep) {
  const auto reference = make_cpu_device({.threads = 1, .real = DType::f64});
  for (const char* binarise : {"none", "dynamic"}) {
    config_.data.binarise = binarise;
    const CompareReport report = compare(config_, data_, *device_, *reference,
                                         {.steps = 5, .mode = CompareOptions::Mode::step});
    EXPECT_TRUE(report.passed) << compare_table(report);
  }
}

TEST_F(Augmented, ResumedEqualsUninterrupted) {
  const test::TemporaryFolder folder;
  test::write_blob_folder(folder / "data", 200, 50);
  config_.data.path = (folder / "data").string();
  config_.train.epochs = 3;
  TrainRunOptions options;
  options.out = folder / "whole";
  train_run(config_, options);
  options.out = folder / "parts";
  config_.train.epochs = 1;
  train_run(config_, options);
  config_.train.epochs = 3;
  options.resume = true;
  train_run(config_, options);
  for (const char* name : {"model.safetensors", "checkpoints/last.safetensors"}) {
    EXPECT_FALSE(test::file_bytes(folder / "whole" / name).empty());
    EXPECT_EQ(test::file_bytes(folder / "whole" / name), test::file_bytes(folder / "parts" / name));
  }
}

TEST_F(Augmented, WhatIsNoImageIsRefused) {
  Config flat = test::blob_config("synthetic:linear-gaussian?n=100&test=20");
  flat.data.scale = "none";
  flat.model.likelihood.type = "gaussian";
  flat.data.augment = {.noise = 0.1};
  expect_refused(failure([&] {
                   (void)make(flat, std::make_shared<const Dataset>(load_dataset(flat.data.path)));
                 }),
                 "rows of 16 features are no images (data.augment)");
  config_.data.augment = {.shift = 9};
  expect_refused(failure([&] { (void)make(config_); }),
                 "moved by up to 9 (data.augment.shift): give at most 8");
  config_.data.augment = {.noise = 0.1};
  config_.data.scale = "none";
  config_.model.likelihood.type = "poisson";
  expect_refused(failure([&] { validate(config_); }), "whose targets are no reals");
}

}  // namespace
}  // namespace cuvae
