#include "cuvae/compare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuvae/error.h"
#include "cuvae/model.h"
#include "cuvae/npy.h"
#include "cuvae/rng.h"
#include "cuvae/safetensors.h"
#include "cuvae/trainer.h"
#include "support/synthetic.h"
#include "train/compare_table.h"

namespace cuvae {
namespace {

Config small_config(const std::string& activation = "relu") {
  Config config;
  config.model.encoder.layers = {{.out = 24, .activation = activation}};
  config.model.decoder.layers = {{.out = 24, .activation = activation}};
  config.model.latent.size = 4;
  config.train.batch_size = 16;
  config.train.lr = 3e-3;
  return config;
}

std::string failures(const CompareReport& report) {
  std::string names;
  for (const TensorError& error : report.tensors) {
    if (!error.passed) names += error.plan + " " + error.tensor + "\n";
  }
  return names;
}

double largest_share(const CompareReport& report) {
  double largest = 0;
  for (const TensorError& error : report.tensors) largest = std::max(largest, error.share);
  return largest;
}

class CompareTest : public testing::Test {
 protected:
  CompareReport against_double(const Config& config, std::int64_t steps,
                               const std::string& break_gradient = {}) {
    return compare(
        config, data_, *device_, *reference_,
        {.steps = steps, .mode = CompareOptions::Mode::step, .break_gradient = break_gradient});
  }
  std::shared_ptr<const Dataset> data_ = test::blob_dataset(200, 0);
  std::unique_ptr<Device> device_ = open_device("cpu", {.threads = 1, .real = DType::f32});
  std::unique_ptr<Device> reference_ = open_device("cpu", {.threads = 1, .real = DType::f64});
};

TEST_F(CompareTest, FloatStaysWithinItsLimitsForEveryActivation) {
  for (const char* activation :
       {"none", "relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus"}) {
    const CompareReport report = against_double(small_config(activation), 30);
    EXPECT_TRUE(report.passed) << activation << "\n" << compare_table(report);
    EXPECT_LT(largest_share(report), 0.8) << activation << "\n" << compare_table(report);
  }
}

TEST_F(CompareTest, FloatStaysWithinItsLimitsForOtherObjectives) {
  Config config = small_config("gelu");
  config.model.likelihood = {.type = "gaussian", .sigma = 0.5};
  config.model.encoder.layers.push_back({.out = 17, .activation = "leaky_relu"});
  config.model.decoder.layers.insert(config.model.decoder.layers.begin(),
                                     {.out = 13, .activation = "tanh"});
  config.objective.beta = 0.3;
  config.objective.batch_reduction = "sum";
  config.train.optimizer.weight_decay = 0.01;
  config.train.optimizer.v0 = 1e-4;
  config.train.batch_size = 33;
  config.train.shuffle = false;
  const CompareReport report = against_double(config, 30);
  EXPECT_TRUE(report.passed) << compare_table(report);
  EXPECT_LT(largest_share(report), 0.8) << compare_table(report);
}

TEST_F(CompareTest, EveryValueIsComparedInBothPlans) {
  const CompareReport report = against_double(small_config(), 2);
  const auto has = [&](const std::string& plan, const std::string& tensor) {
    return std::any_of(report.tensors.begin(), report.tensors.end(),
                       [&](const TensorError& e) { return e.plan == plan && e.tensor == tensor; });
  };
  for (const char* tensor : {"x", "encoder.0", "encoder.0.relu", "mean", "logvar", "latent.z",
                             "latent.eps", "decoder.out", "kl_rows", "nll_rows", "loss",
                             "grad(decoder.out)", "grad(encoder.0.weight)", "encoder.0.weight"}) {
    EXPECT_TRUE(has("unfused", tensor)) << tensor;
  }
  for (const char* tensor : {"loss", "reconstruction", "kl", "encoder.0.weight",
                             "adam.m.decoder.out.bias", "adam.v.encoder.heads.weight"}) {
    EXPECT_TRUE(has("production", tensor)) << tensor;
  }
  EXPECT_EQ(report.steps, 2);
  EXPECT_EQ(report.reference, "cpu (double)");
}

TEST_F(CompareTest, FloatAgainstItselfIsExact) {
  const auto other = open_device("cpu", {.threads = 1, .real = DType::f32});
  const CompareReport report = compare(small_config(), data_, *device_, *other, {.steps = 5});
  EXPECT_TRUE(report.passed);
  for (const TensorError& error : report.tensors) {
    if (error.plan != "unfused") continue;
    EXPECT_EQ(error.max_abs, 0) << error.tensor;
  }
}

TEST_F(CompareTest, AWrongGradientOfAnyParameterFails) {
  const Config config = small_config();
  const Model model(config.model, input_spec(*data_, config.data));
  for (const ParameterSpec& parameter : model.parameters()) {
    const CompareReport report = against_double(config, 2, parameter.name);
    EXPECT_FALSE(report.passed) << parameter.name;
    const std::string names = failures(report);
    EXPECT_NE(names.find("unfused grad(" + parameter.name + ")\n"), std::string::npos) << names;
    EXPECT_NE(names.find("production adam.m." + parameter.name + "\n"), std::string::npos) << names;
    // Nothing else is blamed.
    for (const ParameterSpec& other : model.parameters()) {
      if (other.name == parameter.name) continue;
      EXPECT_EQ(names.find("grad(" + other.name + ")"), std::string::npos) << names;
    }
  }
}

TEST_F(CompareTest, RefusesWhatMakesNoSense) {
  const auto refusal = [&](const std::function<void()>& action) -> std::string {
    try {
      action();
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage);
      return error.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
  };
  EXPECT_NE(refusal([&] { against_double(small_config(), 0); }).find("0 steps"), std::string::npos);
  EXPECT_NE(refusal([&] {
              against_double(small_config(), 1, "encoder.0.wieght");
            }).find("did you mean `encoder.0.weight`?"),
            std::string::npos);
  Config large = small_config();
  large.train.batch_size = 201;
  EXPECT_NE(refusal([&] { against_double(large, 1); }).find("201 from 200"), std::string::npos);
  EXPECT_NE(refusal([&] {
              compare(small_config(), data_, *reference_, *device_, {.steps = 1});
            }).find("--reference cpu64"),
            std::string::npos);
}

TEST_F(CompareTest, WhatIsNotFiniteFails) {
  Config config = small_config();
  config.train.lr = 1e30;  // infinite logits from the second step on
  const CompareReport report = against_double(config, 4);
  EXPECT_FALSE(report.passed);
}

TEST_F(CompareTest, RunModeShowsTheDrift) {
  const CompareReport report = compare(small_config(), data_, *device_, *reference_,
                                       {.steps = 25, .mode = CompareOptions::Mode::run});
  std::vector<std::int64_t> steps;
  for (const DriftRow& row : report.drift) {
    steps.push_back(row.step);
    EXPECT_NEAR(row.loss_device, row.loss_reference, 1e-3 * row.loss_reference);
    EXPECT_GT(row.parameters, 0);
    EXPECT_LT(row.parameters, 1e-2);
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 2, 5, 10, 20, 25}));
  EXPECT_TRUE(report.tensors.empty());
  EXPECT_NE(compare_table(report).find("parameters"), std::string::npos);
}

TEST_F(CompareTest, TheTableMarksWhatFailed) {
  const std::string passed = compare_table(against_double(small_config(), 1));
  EXPECT_NE(passed.find("passed"), std::string::npos) << passed;
  EXPECT_EQ(passed.find("FAILED"), std::string::npos) << passed;
  const std::string failed = compare_table(against_double(small_config(), 1, "decoder.out.bias"));
  EXPECT_NE(failed.find("FAILED"), std::string::npos) << failed;
}

// A device whose results are right but for one element of one value.
class FaultyProgram final : public Program {
 public:
  FaultyProgram(std::unique_ptr<Program> right, const std::string& fault, double factor)
      : right_(std::move(right)), fault_(fault), factor_(factor) {}
  [[nodiscard]] const Graph& graph() const override { return right_->graph(); }
  [[nodiscard]] int steps() const override { return right_->steps(); }
  [[nodiscard]] std::string_view exec() const override { return right_->exec(); }
  [[nodiscard]] Tensor read_steps(std::string_view value) const override {
    return right_->read_steps(value);
  }
  void run() override { right_->run(); }
  void run(const std::function<void(const TaskView&)>& observer) override { right_->run(observer); }
  [[nodiscard]] Tensor read(std::string_view value, int step) const override {
    Tensor tensor = right_->read(value, step);
    if (value == fault_ && tensor.dtype() == DType::f32 && tensor.elements() > 0) {
      const auto values = tensor.as<float>();
      auto largest = std::max_element(values.begin(), values.end(),
                                      [](float a, float b) { return std::abs(a) < std::abs(b); });
      *largest = static_cast<float>(*largest * factor_);
    }
    return tensor;
  }
  void run_batches(std::string_view input, const Tensor& rows, std::string_view output,
                   Tensor& results) override {
    right_->run_batches(input, rows, output, results);
  }
  void write(std::string_view value, int step, const Tensor& tensor) override {
    right_->write(value, step, tensor);
  }
  [[nodiscard]] std::int64_t arena_bytes() const override { return right_->arena_bytes(); }
  [[nodiscard]] std::int64_t persistent_bytes() const override {
    return right_->persistent_bytes();
  }
  [[nodiscard]] std::string dump() const override { return right_->dump(); }
  [[nodiscard]] std::string dump_dot() const override { return right_->dump_dot(); }

 private:
  std::unique_ptr<Program> right_;
  const std::string& fault_;
  double factor_;
};

class FaultyDevice final : public Device {
 public:
  FaultyDevice(Device& right, double factor) : right_(right), factor_(factor) {}
  [[nodiscard]] DeviceInfo info() const override { return right_.info(); }
  [[nodiscard]] std::unique_ptr<Store> make_store() override { return right_.make_store(); }
  void check(const CompileOptions& options) const override { right_.check(options); }
  [[nodiscard]] std::unique_ptr<Program> compile(const Graph& graph, Store& store,
                                                 const CompileOptions& options) override {
    return std::make_unique<FaultyProgram>(right_.compile(graph, store, options), fault, factor_);
  }
  [[nodiscard]] PlanSummary plan(const Graph& graph, const CompileOptions& options) override {
    return right_.plan(graph, options);
  }
  std::string fault;

 private:
  Device& right_;
  double factor_;
};

TEST_F(CompareTest, OneWrongElementOfAnyValueFails) {
  for (const double factor : {1.001, std::numeric_limits<double>::quiet_NaN()}) {
    FaultyDevice device(*device_, factor);
    const CompareReport right = compare(small_config(), data_, device, *reference_, {.steps = 1});
    ASSERT_TRUE(right.passed) << compare_table(right);
    for (const TensorError& tensor : right.tensors) {
      if (tensor.plan != "unfused" || tensor.aggregate_limit == 0) continue;  // integers
      if (tensor.tensor.starts_with("encoder.") || tensor.tensor.starts_with("decoder.") ||
          tensor.tensor.starts_with("adam.")) {
        if (tensor.tensor.ends_with(".weight") || tensor.tensor.ends_with(".bias")) continue;
      }
      device.fault = tensor.tensor;
      const CompareReport report =
          compare(small_config(), data_, device, *reference_, {.steps = 1});
      EXPECT_FALSE(report.passed) << tensor.tensor << " times " << factor;
      EXPECT_NE(failures(report).find("unfused " + tensor.tensor + "\n"), std::string::npos)
          << failures(report);
    }
  }
}

TEST_F(CompareTest, ExportHoldsWhatTrainingUsed) {
  const Config config = small_config();
  const test::TemporaryFolder folder;
  constexpr std::int64_t steps = 15;  // into the second epoch of 12 steps
  export_parity(config, data_, *device_, steps, (folder / "export").string());

  const Model model(config.model, input_spec(*data_, config.data));
  const TensorFile initial = read_safetensors(folder / "export/initial.safetensors");
  const TensorFile gradients = read_safetensors(folder / "export/gradients.safetensors");
  for (const NamedTensor& named : model.initial_weights(0)) {
    const auto expected = named.tensor.bytes();
    const auto found = initial.at(named.name).bytes();
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), found.begin(), found.end()));
    EXPECT_EQ(gradients.at(named.name).shape(), named.tensor.shape());
  }
  EXPECT_NE(gradients.find("encoder.mean.weight"), nullptr);

  const Tensor batches = read_npy(folder / "export/batches.npy");
  ASSERT_EQ(batches.shape(), (Shape{steps, 16}));
  const auto index = batches.as<std::int64_t>();
  const Shuffle first(0, 0, 200);
  const Shuffle second(0, 1, 200);
  EXPECT_EQ(index[0], first(0));
  EXPECT_EQ(index[17], first(17));
  EXPECT_EQ(index[12 * 16 + 3], second(3));

  const Tensor noise = read_npy(folder / "export/noise.npy");
  ASSERT_EQ(noise.shape(), (Shape{steps, 16, 4}));
  const RandomKey key{.seed = 0, .purpose = Purpose::latent, .stream = 0, .step = 7};
  EXPECT_EQ(noise.as<float>()[7 * 64 + 5], random_normal(key, 5));

  const Tensor losses = read_npy(folder / "export/losses.npy");
  ASSERT_EQ(losses.shape(), (Shape{steps, 3}));
  Trainer trainer(config, data_, *device_);
  for (std::int64_t step = 0; step < steps; ++step) {
    const StepResult result = trainer.run(1).front();
    const auto row = losses.as<double>().subspan(static_cast<std::size_t>(3 * step), 3);
    EXPECT_EQ(row[0], result.loss);
    EXPECT_EQ(row[1], result.reconstruction);
    EXPECT_EQ(row[2], result.kl);
  }
  EXPECT_NE(test::file_bytes(folder / "export/config.json").find("\"batch_size\": 16"),
            std::string::npos);
}

}  // namespace
}  // namespace cuvae
