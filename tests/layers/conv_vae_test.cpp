// A small convolutional model from its configuration to its checkpoints: it learns, goes on where
// it stopped, and agrees with the reference; with every optimiser and schedule.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "cpu/cpu_device.h"
#include "cuvae/compare.h"
#include "cuvae/config.h"
#include "cuvae/error.h"
#include "cuvae/trainer.h"
#include "support/synthetic.h"
#include "train/compare_table.h"
#include "train/state_of.h"

namespace cuvae {
namespace {

using test::state_of;

// Everything that a layer of images can be, on images of 6 x 6.
Config conv_config() {
  return parse_config(R"(
[model]
latent.size = 3
[model.encoder]
layers = [
  { type = "conv2d", out = 4, kernel = 3, padding = 1, bias = false },
  { type = "batch_norm", activation = "relu" },
  { type = "max_pool2d", kernel = 2 },
  { type = "residual", layers = [
    { type = "conv2d", out = 4, kernel = 3, padding = 1, activation = "silu" },
    { type = "group_norm", groups = 2 },
    { type = "conv2d", out = 4, kernel = 1 } ], activation = "relu" },
  { type = "flatten" },
  { out = 10 },
  { type = "layer_norm", activation = "gelu" },
]
[model.decoder]
layers = [
  { out = 36, activation = "relu" },
  { type = "dropout", rate = 0.1 },
  { type = "reshape", shape = [4, 3, 3] },
  { type = "batch_norm", momentum = 0.2, activation = "elu" },
  { type = "conv2d", out = 5, kernel = 3, padding = 1, activation = "leaky_relu" },
  { type = "avg_pool2d", kernel = 3, stride = 1, padding = 1 },
  { type = "upsample" },
]
out = { type = "conv_transpose2d", kernel = 3, padding = 1 }
[train]
batch_size = 16
lr = 3e-3
epochs = 4
)",
                      "conv");
}

class ConvVae : public testing::Test {
 protected:
  std::unique_ptr<Trainer> make(const Config& config, const TrainerOptions& options = {},
                                int threads = 1) {
    devices_.push_back(make_cpu_device({.threads = threads}));
    return std::make_unique<Trainer>(config, data_, *devices_.back(), options);
  }
  static std::vector<StepResult> run(Trainer& trainer, std::int64_t steps) {
    std::vector<StepResult> results;
    for (const std::int64_t end = trainer.step() + steps; trainer.step() < end;) {
      const auto some = trainer.run(end - trainer.step());
      results.insert(results.end(), some.begin(), some.end());
    }
    return results;
  }
  // Straight to `steps`, and by way of a checkpoint of another trainer.
  void expect_resumes(const Config& config, std::int64_t steps,
                      const std::vector<std::int64_t>& stops) {
    const auto whole = make(config);
    run(*whole, steps);
    for (const std::int64_t at : stops) {
      const auto before = make(config);
      run(*before, at);
      const TensorFile checkpoint = before->checkpoint();
      const auto after = make(config);
      after->restore(checkpoint, "checkpoint");
      run(*after, steps - at);
      EXPECT_EQ(state_of(*whole), state_of(*after)) << "at step " << at;
    }
  }
  std::shared_ptr<const Dataset> data_ = test::blob_dataset(200, 50, 6);
  std::vector<std::unique_ptr<Device>> devices_;
};

TEST_F(ConvVae, Learns) {
  Config config = conv_config();
  config.train.lr = 1e-2;
  const auto trainer = make(config);
  const double before = trainer->evaluate_test()->neg_elbo;
  const auto steps = run(*trainer, 25 * trainer->steps_per_epoch());
  const double after = trainer->evaluate_test()->neg_elbo;
  EXPECT_LT(after, 0.8 * before);
  EXPECT_LT(steps.back().loss, 0.8 * steps.front().loss);
}

TEST_F(ConvVae, RunningStatisticsAreInTheCheckpointAndCountTheSteps) {
  const auto trainer = make(conv_config());
  run(*trainer, 7);
  const TensorFile file = trainer->checkpoint();
  for (const char* name : {"encoder.1.norm.", "decoder.3.norm."}) {
    EXPECT_EQ(file.at(name + std::string("num_batches_tracked")).as<std::int64_t>()[0], 7);
    const auto mean = file.at(name + std::string("running_mean")).as<float>();
    EXPECT_TRUE(std::ranges::any_of(mean, [](float m) { return m != 0; }));
  }
  // None of them has moments.
  for (const NamedTensor& named : file.tensors) {
    EXPECT_FALSE(named.name.starts_with("adam.") && named.name.find("running") != std::string::npos)
        << named.name;
  }
  // A file without them is refused.
  TensorFile lacking = file;
  std::erase_if(lacking.tensors, [](const NamedTensor& named) {
    return named.name == "encoder.1.norm.running_var";
  });
  try {
    make(conv_config())->restore(lacking, "last.safetensors");
    ADD_FAILURE() << "nothing was refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::input);
    EXPECT_NE(std::string(error.what()).find("`encoder.1.norm.running_var` is missing"),
              std::string::npos)
        << error.what();
  }
}

// With statistics of the batch, a row's score would depend on the rows beside it; with dropout, on
// the time of day.
TEST_F(ConvVae, EvaluationUsesRunningStatistics) {
  const auto trainer = make(conv_config());
  run(*trainer, 30);
  auto few = std::make_shared<Dataset>(*data_);
  Tensor head(DType::u8, Shape{7, 36});
  std::ranges::copy(data_->test->images->bytes().first(head.bytes().size()), head.bytes().begin());
  few->test->images = std::make_shared<const Tensor>(std::move(head));
  const auto scores = [&](const Dataset& data) {
    return Evaluator(trainer->device(), trainer->store(), trainer->model(), *data.test, 0).rows();
  };
  const RowScores all = scores(*data_);
  const RowScores first = scores(*few);
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_NEAR(all.reconstruction[i], first.reconstruction[i], 1e-4);
    EXPECT_NEAR(all.kl[i], first.kl[i], 1e-5);
  }
  // They are what is used: other ones give other scores.
  Tensor mean = trainer->store().read("encoder.1.norm.running_mean");
  for (float& value : mean.as<float>()) value += 1;
  trainer->store().write("encoder.1.norm.running_mean", mean);
  EXPECT_NE(scores(*few).kl, first.kl);
}

TEST_F(ConvVae, ResumedEqualsUninterruptedBitForBit) {
  expect_resumes(conv_config(), 30, {1, 12, 23});
}

TEST_F(ConvVae, ThreadsAndUnrollingDoNotMatter) {
  const auto one = make(conv_config());
  run(*one, 20);
  const auto several = make(conv_config(), {}, 3);
  run(*several, 20);
  EXPECT_EQ(state_of(*one), state_of(*several));
  TrainerOptions options;
  options.compile.steps = 5;
  const auto unrolled = make(conv_config(), options);
  run(*unrolled, 20);
  EXPECT_EQ(state_of(*one), state_of(*unrolled));
}

TEST_F(ConvVae, FloatAgreesWithDoubleStepByStep) {
  const auto device = open_device("cpu", {.threads = 1, .real = DType::f32});
  const auto reference = open_device("cpu", {.threads = 1, .real = DType::f64});
  const CompareReport report = compare(conv_config(), data_, *device, *reference, {.steps = 12});
  EXPECT_TRUE(report.passed) << compare_table(report);
  // And a gradient that is wrong by a thousandth is found.
  for (const char* parameter :
       {"encoder.0.weight", "encoder.3.1.norm.weight", "decoder.out.weight"}) {
    const CompareReport broken =
        compare(conv_config(), data_, *device, *reference,
                {.steps = 2, .mode = CompareOptions::Mode::step, .break_gradient = parameter});
    EXPECT_FALSE(broken.passed) << parameter;
  }
}

struct OptimizerCase {
  const char* table;
  std::vector<std::string> states;  // before a parameter's name
};

std::vector<OptimizerCase> optimizers() {
  return {
      {R"({ type = "adam", weight_decay = 0.01 })", {"adam.m.", "adam.v."}},
      {R"({ type = "adamw" })", {"adam.m.", "adam.v."}},
      {R"({ type = "iwae_adam" })", {"iwae_adam.m.", "iwae_adam.v."}},
      {R"({ type = "sgd" })", {}},
      {R"({ type = "sgd", momentum = 0.9, nesterov = true })", {"sgd.momentum."}},
      {R"({ type = "rmsprop" })", {"rmsprop.square."}},
      {R"({ type = "rmsprop", convention = "keras", centered = true, momentum = 0.5 })",
       {"rmsprop.square.", "rmsprop.momentum.", "rmsprop.mean."}},
      {R"({ type = "adagrad" })", {"adagrad.sum."}},
      {R"({ type = "adamax" })", {"adamax.m.", "adamax.u."}},
  };
}

TEST_F(ConvVae, EveryOptimiserTrainsResumesAndAgreesWithDouble) {
  const auto device = open_device("cpu", {.threads = 1, .real = DType::f32});
  const auto reference = open_device("cpu", {.threads = 1, .real = DType::f64});
  for (const OptimizerCase& one : optimizers()) {
    SCOPED_TRACE(one.table);
    Config config = conv_config();
    config.train.optimizer =
        parse_config(std::string("[train]\noptimizer = ") + one.table, "f").train.optimizer;
    const auto trainer = make(config);
    const auto steps = run(*trainer, 60);
    double first = 0;
    double last = 0;
    for (std::size_t i = 0; i < 12; ++i) {
      first += steps[i].loss;
      last += steps[steps.size() - 1 - i].loss;
    }
    EXPECT_LT(last, first);
    // What it keeps is in the checkpoint: of each parameter, and nothing else.
    std::set<std::string> kept;
    for (const NamedTensor& named : trainer->checkpoint().tensors) {
      const auto at = named.name.find("encoder.0.weight");
      if (at != std::string::npos && at > 0) kept.insert(named.name.substr(0, at));
    }
    EXPECT_EQ(kept, std::set<std::string>(one.states.begin(), one.states.end()));
    EXPECT_EQ(update_rule(config.train.optimizer).prefixes().size(), one.states.size());
    for (const std::string& prefix : update_rule(config.train.optimizer).prefixes())
      EXPECT_TRUE(kept.contains(prefix)) << prefix;
    expect_resumes(config, 20, {9});
    const CompareReport report = compare(config, data_, *device, *reference, {.steps = 4});
    EXPECT_TRUE(report.passed) << compare_table(report);
  }
}

// The gradient of a bias before a normalisation is zero but for rounding: where an update goes by
// its sign, that rounding decides on a whole step.
TEST_F(ConvVae, GradientsThatAreRoundingAloneAgreeWithDouble) {
  const auto device = open_device("cpu", {.threads = 1, .real = DType::f32});
  const auto reference = open_device("cpu", {.threads = 1, .real = DType::f64});
  for (const OptimizerCase& one : optimizers()) {
    SCOPED_TRACE(one.table);
    Config config = conv_config();
    config.model.encoder.layers[0].bias = true;
    config.train.optimizer =
        parse_config(std::string("[train]\noptimizer = ") + one.table, "f").train.optimizer;
    const CompareReport report = compare(config, data_, *device, *reference, {.steps = 6});
    EXPECT_TRUE(report.passed) << compare_table(report);
  }
}

TEST_F(ConvVae, ACheckpointOfAnotherOptimiserIsRefused) {
  Config sgd = conv_config();
  sgd.train.optimizer.type = "sgd";
  const auto trainer = make(conv_config());
  run(*trainer, 2);
  try {
    make(sgd)->restore(trainer->checkpoint(), "last.safetensors");
    ADD_FAILURE() << "nothing was refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::input);
    EXPECT_NE(std::string(error.what()).find("train.optimizer"), std::string::npos) << error.what();
  }
}

// What the device reads in each step: the rows of `hyper` that the program takes.
std::vector<Trainer::Rates> rates_of(Trainer& trainer, std::int64_t steps) {
  std::vector<Trainer::Rates> rates;
  for (std::int64_t s = 0; s < steps; ++s) {
    trainer.run(1);
    const Tensor hyper = trainer.store().read("hyper");
    rates.push_back({hyper.item(0), hyper.item(1)});
    EXPECT_FLOAT_EQ(static_cast<float>(trainer.rates().lr), static_cast<float>(hyper.item(0)));
    EXPECT_FLOAT_EQ(static_cast<float>(trainer.rates().beta), static_cast<float>(hyper.item(1)));
  }
  return rates;
}

TEST_F(ConvVae, SchedulesGiveEachStepItsRates) {
  const std::int64_t per_epoch = 200 / 16;
  const double lr = 3e-3;
  const struct {
    const char* schedule;
    const char* warmup;
    LearningRate rate;
    KlWeight beta;
  } cases[] = {
      {R"({ type = "constant" })", R"({ type = "linear", steps = 20 })", LearningRate::constant(lr),
       KlWeight::linear(0.5, 20)},
      {R"({ type = "step", steps = 7, factor = 0.3 })",
       R"({ type = "cyclical", steps = 24, cycles = 2, rise = 0.25 })",
       LearningRate::steps(lr, 7, 0.3), KlWeight::cyclical(0.5, 24, 2, 0.25)},
      {R"({ type = "cosine" })", R"({ type = "none" })", LearningRate::cosine(lr, 3 * per_epoch),
       KlWeight::constant(0.5)},
      {R"({ type = "cosine", steps = 20, floor = 1e-4, warmup = 5 })", R"({ type = "none" })",
       LearningRate::cosine(lr, 20, 1e-4).after_warmup(5, 0.2), KlWeight::constant(0.5)},
      {R"({ type = "iwae" })", R"({ type = "none" })",
       LearningRate::iwae_stages(lr, per_epoch, true), KlWeight::constant(0.5)},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(std::string(one.schedule) + one.warmup);
    Config config = conv_config();
    config.train.epochs = 3;
    config.objective =
        parse_config(std::string("[objective]\nbeta = 0.5\nwarmup = ") + one.warmup, "f").objective;
    config.train.schedule =
        parse_config(std::string("[train]\nschedule = ") + one.schedule, "f").train.schedule;
    const auto trainer = make(config);
    const auto rates = rates_of(*trainer, 30);
    for (std::int64_t s = 0; s < 30; ++s) {
      const auto at = static_cast<std::size_t>(s);
      EXPECT_EQ(rates[at].lr, static_cast<double>(static_cast<float>(one.rate.value(s)))) << s;
      EXPECT_EQ(rates[at].beta, static_cast<double>(static_cast<float>(one.beta.value(s)))) << s;
    }
    // Several steps to a run, and stopped in between.
    TrainerOptions options;
    options.compile.steps = 4;
    const auto unrolled = make(config, options);
    run(*unrolled, 30);
    EXPECT_EQ(state_of(*trainer), state_of(*unrolled));
    expect_resumes(config, 30, {13});
  }
}

bool is_buffer(const std::string& name) {
  return name.find(".running_") != std::string::npos || name.ends_with(".num_batches_tracked");
}

TEST_F(ConvVae, ClippingLimitsTheStep) {
  Config config = conv_config();
  config.train.optimizer.type = "sgd";
  config.train.lr = 1.0;
  config.train.clip_norm = 1e-3;
  const auto trainer = make(config);
  const auto before = trainer->weights();
  run(*trainer, 1);
  const auto after = trainer->weights();
  double square = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (is_buffer(before[i].name)) continue;
    for (std::int64_t e = 0; e < before[i].tensor.elements(); ++e)
      square += std::pow(after[i].tensor.item(e) - before[i].tensor.item(e), 2);
  }
  EXPECT_NEAR(std::sqrt(square), 1e-3, 1e-5);
  expect_resumes(config, 20, {9});
}

TEST_F(ConvVae, ClippingSkipsAndCountsStepsThatAreNotFinite) {
  Config config = conv_config();
  config.train.clip_norm = 1.0;
  const auto trainer = make(config);
  run(*trainer, 3);
  EXPECT_EQ(trainer->store().read("skipped").as<std::int64_t>()[0], 0);
  const std::string good = state_of(*trainer);
  TensorFile checkpoint = trainer->checkpoint();
  EXPECT_EQ(checkpoint.at("skipped").as<std::int64_t>()[0], 0);
  std::array<std::int64_t, 1> many{5};
  std::ranges::find(checkpoint.tensors, "skipped", &NamedTensor::name)->tensor =
      Tensor(Shape{1}, std::span<const std::int64_t>(many));
  const auto other = make(config);
  other->restore(checkpoint, "c");
  EXPECT_EQ(other->store().read("skipped").as<std::int64_t>()[0], 5);
  // Such a step counts, and changes nothing that is trained.
  const auto finite = other->weights();
  Tensor bias = other->store().read("decoder.out.bias");
  const Tensor kept = bias;
  bias.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  other->store().write("decoder.out.bias", bias);
  EXPECT_THROW((void)other->run(1), Error);  // its loss is not finite either
  EXPECT_EQ(other->store().read("skipped").as<std::int64_t>()[0], 6);
  other->store().write("decoder.out.bias", kept);
  const auto same = other->weights();
  for (std::size_t i = 0; i < finite.size(); ++i) {
    if (is_buffer(finite[i].name))
      continue;  // what a batch was like is known whatever its gradient
    EXPECT_TRUE(std::ranges::equal(finite[i].tensor.bytes(), same[i].tensor.bytes()))
        << finite[i].name;
  }
}

}  // namespace
}  // namespace cuvae
