// Bytes as what they are, one of so many levels: the categorical likelihood, and densities of
// dequantised bytes. Both give bits per dimension.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "cpu/cpu_device.h"
#include "cuvae/compare.h"
#include "cuvae/error.h"
#include "cuvae/npy.h"
#include "cuvae/run.h"
#include "cuvae/safetensors.h"
#include "graph/op.h"
#include "support/failure.h"
#include "support/synthetic.h"
#include "train/blob_config.h"
#include "train/compare_table.h"

namespace cuvae {
namespace {

using test::failure;

class LevelsTest : public testing::Test {
 protected:
  LevelsTest() {
    test::write_blob_folder(folder_ / "data", 200, 60);
    config_ = test::blob_config(folder_ / "data");
    device_ = make_cpu_device({.threads = 1});
  }
  void categorical(std::int64_t classes) {
    config_.model.likelihood.type = "categorical";
    config_.model.likelihood.classes = classes;
  }
  void dequantised(const std::string& likelihood) {
    config_.model.likelihood.type = likelihood;
    config_.data.dequantise = true;
  }
  TrainReport train(const std::string& name = "run") {
    TrainRunOptions options;
    options.out = folder_ / name;
    return train_run(config_, options);
  }
  LoadedRun load(const std::string& name = "run") { return {folder_ / name, *device_}; }
  // The run with a decoder that says nothing: its last layer is 0.
  void silence_decoder() {
    const std::filesystem::path path = folder_ / "run/model.safetensors";
    TensorFile file = read_safetensors(path);
    for (NamedTensor& named : file.tensors)
      if (named.name.starts_with("decoder.out")) std::ranges::fill(named.tensor.as<float>(), 0.0F);
    write_safetensors(path, file);
  }
  CompareReport compared(const Dataset& data) {
    const auto reference = make_cpu_device({.threads = 1, .real = DType::f64});
    return compare(config_, std::make_shared<const Dataset>(data), *device_, *reference,
                   {.steps = 10, .mode = CompareOptions::Mode::step});
  }

  test::TemporaryFolder folder_;
  Config config_;
  std::unique_ptr<Device> device_;
};

std::vector<std::int64_t> first(std::int64_t n) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < n; ++i) rows.push_back(i);
  return rows;
}

using CategoricalTest = LevelsTest;
using DequantiseTest = LevelsTest;

// Equal logits: log2 K bits for each of the K levels, whatever the image; the mean is in the
// middle.
TEST_F(CategoricalTest, EqualLogitsTakeAsManyBitsAsThereAreLevels) {
  for (const auto& [classes, bits] : {std::pair{256, 8.0}, std::pair{16, 4.0}, std::pair{2, 1.0}}) {
    categorical(classes);
    config_.train.epochs = 1;
    train();
    silence_decoder();
    LoadedRun run = load();
    EXPECT_EQ(run.model().config().likelihood.classes, classes);
    const auto data = run.load_data("");
    const RowScores scores = run.score(*data->test);
    for (const double nll : scores.reconstruction)
      EXPECT_NEAR(nll, 64 * bits * std::numbers::ln2, 1e-3);
    const Evaluation evaluation = run.evaluate(*data->test);
    ASSERT_TRUE(evaluation.bits_per_dim.has_value());
    EXPECT_NEAR(*evaluation.bits_per_dim, bits + evaluation.metrics.kl / (64 * std::numbers::ln2),
                1e-5);
    EXPECT_EQ(evaluation.levels, classes);
    const Tensor samples = run.sample(3, 0);
    for (const float value : samples.as<float>()) EXPECT_NEAR(value, 0.5, 1e-5);
    std::filesystem::remove_all(folder_ / "run");
  }
}

// floor(byte K / 256) / (K - 1), for the encoder and as the target.
TEST_F(CategoricalTest, ImagesAreQuantisedByTheirFormula) {
  for (const std::int64_t classes : {2, 7, 256}) {
    categorical(classes);
    config_.train.epochs = 1;
    train();
    LoadedRun run = load();
    const auto data = run.load_data("");
    const Tensor seen = run.reconstruct(*data->test, first(60)).original;
    const auto bytes = data->test->images->as<std::uint8_t>();
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const std::int64_t level = std::int64_t{bytes[i]} * classes / 256;
      ASSERT_NEAR(seen.as<float>()[i],
                  static_cast<double>(level) / static_cast<double>(classes - 1), 1e-6)
          << int{bytes[i]};
    }
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(CategoricalTest, ARunLearnsAndEveryCommandReadsIt) {
  categorical(8);
  config_.train.epochs = 80;
  const TrainReport report = train();
  LoadedRun run = load();
  const auto data = run.load_data("");
  const Evaluation evaluation = run.evaluate(*data->test, {.iw_samples = 20});
  EXPECT_EQ(evaluation.metrics.neg_elbo, report.test->neg_elbo);
  EXPECT_EQ(evaluation.likelihood, "categorical (8 levels)");
  EXPECT_LT(*evaluation.bits_per_dim, 1.5);  // of 3; 1.17
  RecordProperty("bits", std::to_string(*evaluation.bits_per_dim));
  EXPECT_GE(*evaluation.log_likelihood, -evaluation.metrics.neg_elbo);
  EXPECT_EQ(run.score(*data->test).kl.size(), 60U);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "run/samples.png"));
  const auto pair = run.reconstruct(*data->test, first(60));
  double error = 0;
  for (std::size_t i = 0; i < 60 * 64; ++i) {
    const float value = pair.reconstruction.as<float>()[i];
    ASSERT_TRUE(value >= 0 && value <= 1) << value;
    error += std::abs(static_cast<double>(value - pair.original.as<float>()[i])) / (60 * 64);
  }
  EXPECT_LT(error, 0.1);
}

// Planes of logits, as a convolution gives them, and logits beside one another, of a linear layer:
// D K outputs either way.
TEST_F(CategoricalTest, TheLastLayerGivesALogitForEveryClass) {
  categorical(5);
  const auto data = load_dataset((folder_ / "data").string());
  const auto last = [&] {
    return Model(config_.model, input_spec(data, config_.data)).layers().back();
  };
  EXPECT_EQ(last().out.count(), 320);
  EXPECT_TRUE(compared(data).passed);
  LayerConfig reshape;
  reshape.type = "reshape";
  reshape.shape = {3, 8, 8};
  config_.model.decoder.layers = {{.out = 192, .activation = "relu"}, reshape};
  config_.model.decoder.out.type = "conv2d";
  config_.model.decoder.out.kernel = {3, 3};
  config_.model.decoder.out.padding = {1, 1};
  EXPECT_EQ(last().out, (Features{5, 8, 8, true}));
  const CompareReport report = compared(data);
  EXPECT_TRUE(report.passed) << compare_table(report);
  config_.train.epochs = 1;
  train();
  silence_decoder();
  const auto scores = load().score(*data.test);
  EXPECT_NEAR(scores.reconstruction[7], 64 * std::log(5.0), 1e-3);

  config_.model.decoder.out.padding = {0, 0};
  const Error refused = failure([&] { (void)last(); });
  EXPECT_EQ(refused.status(), Status::usage);
  EXPECT_NE(std::string(refused.what()).find("of 5 classes, which wants 5 x 8 x 8"),
            std::string::npos)
      << refused.what();
}

// With data.scale = "none" values are the classes themselves.
TEST_F(CategoricalTest, ClassNumbersStayAsTheyAre) {
  const auto classes_of = [](std::int64_t rows, int classes) {
    Tensor values(DType::u8, Shape{rows, 6});
    for (std::int64_t i = 0; i < rows * 6; ++i)
      values.as<std::uint8_t>()[static_cast<std::size_t>(i)] =
          static_cast<std::uint8_t>((i / 6 + i % 6) % classes);
    return DatasetSplit{std::make_shared<const Tensor>(std::move(values)), {}};
  };
  const auto data = [&](int classes) {
    auto made = std::make_shared<Dataset>();
    made->path = "classes";
    made->image = {.channels = 1, .height = 1, .width = 6};
    made->train = classes_of(256, classes);
    made->test = classes_of(64, classes);
    made->sha256 = "classes";
    return made;
  };
  categorical(4);
  config_.data.scale = "none";
  EXPECT_TRUE(compared(*data(4)).passed);
  Trainer trainer(config_, data(4), *device_);
  const double before = trainer.evaluate_test()->reconstruction;
  EXPECT_NEAR(before, 6 * std::log(4.0), 2);
  while (trainer.epoch() < 40) trainer.run(trainer.steps_per_epoch());
  EXPECT_LT(trainer.evaluate_test()->reconstruction, 0.5 * before);
  // A class too many.
  const Error refused = failure([&] { Trainer(config_, data(5), *device_); });
  EXPECT_EQ(refused.status(), Status::input);
  EXPECT_NE(std::string(refused.what())
                .find("4 among the data, where the categorical likelihood "
                      "wants a label from 0 to 3"),
            std::string::npos)
      << refused.what();
}

TEST_F(CategoricalTest, RealsAreRefused) {
  categorical(16);
  config_.data.path = "synthetic:dense-100?n=100&test=20";
  for (const char* scale : {"unit", "none"}) {
    config_.data.scale = scale;
    const Error refused = failure([&] { (void)train("real"); });
    EXPECT_EQ(refused.status(), Status::input) << refused.what();
    EXPECT_NE(std::string(refused.what()).find("wants a label from 0 to 15"), std::string::npos)
        << refused.what();
  }
}

// A density of 1 on [0, 1] is a bin of 1/256 for each byte: exactly 8 bits.
TEST_F(DequantiseTest, AUniformDensityTakesEightBits) {
  dequantised("continuous_bernoulli");
  config_.train.epochs = 1;
  train();
  silence_decoder();
  LoadedRun run = load();
  EXPECT_TRUE(run.model().input().dequantise);
  const auto data = run.load_data("");
  for (const double nll : run.score(*data->test).reconstruction) EXPECT_NEAR(nll, 0, 1e-5);
  const Evaluation evaluation = run.evaluate(*data->test);
  ASSERT_TRUE(evaluation.bits_per_dim.has_value());
  EXPECT_NEAR(*evaluation.bits_per_dim, 8 + evaluation.metrics.kl / (64 * std::numbers::ln2), 1e-6);
  EXPECT_EQ(evaluation.likelihood, "continuous_bernoulli (dequantised)");
  // Without it a density has no bits.
  config_.data.dequantise = false;
  train("plain");
  const Evaluation plain = load("plain").evaluate(*data->test);
  EXPECT_FALSE(plain.bits_per_dim.has_value());
  EXPECT_NE(plain.no_bits.find("data.dequantise"), std::string::npos);
}

// A draw of the row's own in evaluation, whatever the latent sample, the batch and the order.
TEST_F(DequantiseTest, EvaluationDrawsARowOnce) {
  dequantised("gaussian");
  config_.train.epochs = 1;
  train();
  silence_decoder();  // nll is of x alone
  LoadedRun run = load();
  const auto data = run.load_data("");
  Evaluator evaluator(*device_, run.store(), run.model(), *data->test, 0);
  const std::vector<double> once = evaluator.rows(0).reconstruction;
  EXPECT_EQ(evaluator.rows(1).reconstruction, once);
  EXPECT_EQ(evaluator.rows(7).reconstruction, once);
  const Tensor seen = run.reconstruct(*data->test, first(60)).original;
  const auto bytes = data->test->images->as<std::uint8_t>();
  std::int64_t within = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const double filled = static_cast<double>(seen.as<float>()[i]) * 256 - bytes[i];
    EXPECT_TRUE(filled >= -1e-4 && filled <= 1 + 1e-4) << filled;
    within += filled > 0.25 && filled < 0.75 ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(within), 0.5 * 3840, 4 * std::sqrt(3840 * 0.25));
}

TEST_F(DequantiseTest, TrainingDrawsAnewAndAgreesWithDouble) {
  dequantised("gaussian");
  config_.model.likelihood.learned = "global";
  const auto data = load_dataset((folder_ / "data").string());
  const CompareReport report = compared(data);
  EXPECT_TRUE(report.passed) << compare_table(report);
  const Model model(config_.model, input_spec(data, config_.data));
  TrainingSpec spec = training_spec(config_);
  spec.dataset = spec.window = 200;
  const auto mode = [](const Graph& graph) {
    for (const Node& node : graph.nodes())
      if (op_def(node.op).name == "dequantise") return node.attrs.text("mode");
    return std::string("none");
  };
  EXPECT_EQ(mode(model.training_graph(spec)), "dynamic");
  EXPECT_EQ(mode(model.evaluation_graph(20, 60)), "static");
  // A trained density is worth fewer bits than a uniform one.
  config_.train.epochs = 80;
  train();
  LoadedRun run = load();
  const Evaluation evaluation = run.evaluate(*run.load_data("")->test, {.iw_samples = 10});
  EXPECT_LT(*evaluation.bits_per_dim, 7.5);
  RecordProperty("bits", std::to_string(*evaluation.bits_per_dim));
}

// Another framework gets what was drawn.
TEST_F(DequantiseTest, AnExportHoldsWhatTheModelSees) {
  dequantised("gaussian");
  const auto data = std::make_shared<const Dataset>(load_dataset((folder_ / "data").string()));
  const auto exported = [&](const std::string& name) {
    export_parity(config_, data, *device_, 2, (folder_ / name).string());
    return read_npy(folder_ / name / "rows.npy");
  };
  const auto byte_at = [&](const std::string& name, std::size_t row, std::size_t pixel) {
    const Tensor index = read_npy(folder_ / name / "batches.npy");
    const auto at = static_cast<std::size_t>(index.as<std::int64_t>()[row]);
    return static_cast<int>(data->train->images->as<std::uint8_t>()[at * 64 + pixel]);
  };
  const Tensor rows = exported("filled");
  ASSERT_EQ(rows.shape(), (Shape{2, 16, 64}));
  for (std::size_t row = 0; row < 32; ++row) {
    const double filled = static_cast<double>(rows.as<float>()[row * 64 + 20]) * 256;
    const int byte = byte_at("filled", row, 20);
    EXPECT_TRUE(filled >= byte - 1e-4 && filled <= byte + 1 + 1e-4) << filled << " " << byte;
  }
  config_.data.dequantise = false;
  categorical(4);
  const Tensor levels = exported("levels");
  for (std::size_t row = 0; row < 32; ++row)
    EXPECT_NEAR(levels.as<float>()[row * 64 + 20], byte_at("levels", row, 20) / 64 / 3.0, 1e-6);
  EXPECT_NE(test::file_bytes(folder_ / "levels/config.json").find("\"pixel_scale\": 1.0"),
            std::string::npos);
}

TEST_F(DequantiseTest, RealsAreRefused) {
  dequantised("gaussian");
  config_.data.path = "synthetic:dense-100?n=100&test=20";
  const Error refused = failure([&] { (void)train("real"); });
  EXPECT_EQ(refused.status(), Status::input);
  EXPECT_NE(std::string(refused.what()).find("`data.dequantise` of data that are no bytes"),
            std::string::npos)
      << refused.what();
}

}  // namespace
}  // namespace cuvae
