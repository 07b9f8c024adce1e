#include "cuvae/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "support/failure.h"
#include "support/synthetic.h"
#include "train/state_of.h"

namespace cuvae {
namespace {

using test::failure;

using test::state_of;

Config small_config() {
  Config config;
  config.model.encoder.layers = {{.out = 24, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 24, .activation = "relu"}};
  config.model.latent.size = 4;
  config.train.batch_size = 16;
  config.train.epochs = 3;
  config.train.lr = 3e-3;
  return config;
}

class TrainerTest : public testing::Test {
 protected:
  std::unique_ptr<Trainer> make(const Config& config, const TrainerOptions& options = {},
                                std::shared_ptr<const Dataset> data = nullptr, int threads = 1) {
    devices_.push_back(make_cpu_device({.threads = threads}));
    return std::make_unique<Trainer>(config, data ? data : data_, *devices_.back(), options);
  }
  static void run(Trainer& trainer, std::int64_t steps) {
    for (const std::int64_t end = trainer.step() + steps; trainer.step() < end;) {
      trainer.run(end - trainer.step());
    }
  }

  std::shared_ptr<const Dataset> data_ = test::blob_dataset(200, 50);
  std::vector<std::unique_ptr<Device>> devices_;
};

TEST_F(TrainerTest, LearnsTheBlobs) {
  Config config = small_config();
  config.train.lr = 1e-2;
  const auto trainer = make(config);
  const Metrics before = *trainer->evaluate_test();
  run(*trainer, 40 * trainer->steps_per_epoch());
  const Metrics after = *trainer->evaluate_test();
  EXPECT_NEAR(before.neg_elbo, 64 * std::log(2.0), 3.0);  // logits near zero
  EXPECT_LT(after.neg_elbo, 0.75 * before.neg_elbo);
  EXPECT_GT(after.kl, 1.0);
  EXPECT_NEAR(after.neg_elbo, after.reconstruction + after.kl, 1e-9);
  EXPECT_NEAR(trainer->epoch_metrics().loss, after.loss, 0.1 * after.loss);
}

// One step of SGD is w1 - w0 = -lr (g + l1 sign(w0) + l2 w0) for everything that is trained:
// weights, biases and what norms learn. Frozen layers stay, and the loss is without the penalty.
TEST_F(TrainerTest, PenaltiesAreAddedToTheGradients) {
  Config config = small_config();
  config.model.encoder.layers = {
      {.out = 24}, {.type = "batch_norm", .activation = "relu"}, {.out = 12, .activation = "relu"}};
  config.train.optimizer.type = "sgd";
  config.train.lr = 0.125;
  config.train.freeze = {"encoder.2"};
  double loss = 0;
  const auto weights_after = [&](double l1, double l2, std::int64_t steps) {
    config.train.l1 = l1;
    config.train.l2 = l2;
    const auto trainer = make(config);
    if (steps > 0) loss = trainer->run(steps).at(0).loss;
    std::map<std::string, std::vector<float>> weights;
    for (const NamedTensor& named : trainer->weights())
      if (named.tensor.dtype() == DType::f32) {
        const auto values = named.tensor.as<float>();
        weights[named.name] = {values.begin(), values.end()};
      }
    return weights;
  };
  const auto start = weights_after(0, 0, 0);
  const auto plain = weights_after(0, 0, 1);
  const double own = loss;
  for (const auto& [l1, l2] : {std::pair{0.25, 0.5}, {0.25, 0.0}, {0.0, 0.5}}) {
    const auto penalised = weights_after(l1, l2, 1);
    EXPECT_EQ(loss, own);
    ASSERT_EQ(penalised.size(), plain.size());
    for (const auto& [name, values] : penalised) {
      const auto& w0 = start.at(name);
      const auto& w1 = plain.at(name);
      const bool trained =
          !name.starts_with("encoder.2.") && name.find("running_") == std::string::npos;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double sign = w0[i] > 0 ? 1 : w0[i] < 0 ? -1 : 0;
        const double penalty = trained ? l1 * sign + l2 * w0[i] : 0;
        EXPECT_NEAR(values[i] - w1[i], -0.125 * penalty, 1e-6) << name << "[" << i << "]";
      }
      if (name.starts_with("encoder.2.")) {
        EXPECT_EQ(values, w0) << name;
      }
    }
  }
}

// A gradient is clipped with its penalties.
TEST_F(TrainerTest, PenaltiesAreClippedToo) {
  Config config = small_config();
  config.train.optimizer.type = "sgd";
  config.train.lr = 1;
  config.train.l2 = 1000;
  config.train.clip_norm = 0.5;
  const auto trainer = make(config);
  const std::vector<NamedTensor> before = trainer->weights();
  trainer->run(1);
  const std::vector<NamedTensor> after = trainer->weights();
  double step = 0;
  double along = 0;
  double norm = 0;
  for (std::size_t t = 0; t < before.size(); ++t)
    for (std::int64_t i = 0; i < before[t].tensor.elements(); ++i) {
      const double w = before[t].tensor.item(i);
      const double moved = w - after[t].tensor.item(i);
      step += moved * moved;
      along += moved * w;
      norm += w * w;
    }
  EXPECT_NEAR(std::sqrt(step), 0.5, 1e-5);
  EXPECT_GT(along / std::sqrt(step * norm), 0.99);  // the penalty is nearly all of the gradient
}

// Rows of the training split that the seed draws, as near as the sigmoid reaches.
TEST_F(TrainerTest, PseudoInputsBeginAsRowsOfTheData) {
  Config config = small_config();
  config.model.latent.prior = "vamp";
  config.model.latent.components = 12;
  config.data.validation.rows = 150;
  const auto held = std::make_shared<const Dataset>(hold_out(*data_, config));
  ASSERT_EQ(held->train->size(), 50);
  // Which rows of a split they are; -1: none.
  const auto rows_of = [](const Trainer& trainer, const DatasetSplit& split) {
    const auto weights = trainer.weights();
    const auto found = std::ranges::find(weights, "prior.pseudo_inputs", &NamedTensor::name);
    const auto raw = found->tensor.as<float>();
    const auto bytes = split.images->as<std::uint8_t>();
    std::vector<std::int64_t> rows;
    for (std::size_t c = 0; c < raw.size(); c += 64) {
      rows.push_back(-1);
      for (std::size_t row = 0; row < bytes.size(); row += 64) {
        bool same = true;
        for (std::size_t j = 0; same && j < 64; ++j) {
          const double near = std::clamp(bytes[row + j] / 255.0, 1.0 / 512, 511.0 / 512);
          same = std::abs(1 / (1 + std::exp(-static_cast<double>(raw[c + j]))) - near) < 1e-6;
        }
        if (same) rows.back() = static_cast<std::int64_t>(row / 64);
      }
    }
    return rows;
  };
  const auto drawn = rows_of(*make(config, {}, held), *held->train);
  ASSERT_EQ(drawn.size(), 12U);
  EXPECT_EQ(std::ranges::count(drawn, -1), 0) << "no row of the training split";
  EXPECT_EQ(std::set(drawn.begin(), drawn.end()).size(), 12U) << "a row twice";
  EXPECT_EQ(rows_of(*make(config, {}, held), *held->train), drawn);
  config.train.seed = 1;
  const auto other = rows_of(*make(config, {}, held), *held->train);
  EXPECT_EQ(std::ranges::count(other, -1), 0);
  EXPECT_NE(other, drawn);
  // Those that there are no rows for are as the model draws them.
  config.data.validation = {};
  config.model.latent.components = 40;
  const auto few = test::blob_dataset(30, 5);
  const auto trainer = make(config, {}, few);
  const auto all = rows_of(*trainer, *few->train);
  EXPECT_EQ(std::set(all.begin(), all.begin() + 30).size(), 30U);
  EXPECT_EQ(std::count(all.begin(), all.end(), -1), 10);
  const auto pseudo_inputs = [](const std::vector<NamedTensor>& weights) {
    return std::ranges::find(weights, "prior.pseudo_inputs", &NamedTensor::name)->tensor;
  };
  EXPECT_TRUE(
      std::ranges::equal(pseudo_inputs(trainer->weights()).as<float>().last(640),
                         pseudo_inputs(trainer->model().initial_weights(1)).as<float>().last(640)));
}

// A CPU whose data takes a while to get there, and which counts how often it goes.
class SlowStore final : public Store {
 public:
  SlowStore(std::unique_ptr<Store> store, std::chrono::milliseconds delay, int& binds)
      : store_(std::move(store)), delay_(delay), binds_(binds) {}
  [[nodiscard]] Store& store() { return *store_; }
  [[nodiscard]] bool has(std::string_view name) const override { return store_->has(name); }
  void declare(std::string_view name, DType dtype, const Shape& shape) override {
    store_->declare(name, dtype, shape);
  }
  void write(std::string_view name, const Tensor& tensor) override { store_->write(name, tensor); }
  void bind(std::string_view name, std::shared_ptr<const Tensor> tensor) override {
    ++binds_;
    std::this_thread::sleep_for(delay_);
    store_->bind(name, std::move(tensor));
  }
  [[nodiscard]] Tensor read(std::string_view name) const override { return store_->read(name); }
  [[nodiscard]] std::vector<std::string> names() const override { return store_->names(); }

 private:
  std::unique_ptr<Store> store_;
  std::chrono::milliseconds delay_;
  int& binds_;
};

class SlowUploads final : public Device {
 public:
  explicit SlowUploads(std::chrono::milliseconds delay) : delay_(delay) {}
  [[nodiscard]] DeviceInfo info() const override { return cpu_->info(); }
  [[nodiscard]] std::unique_ptr<Store> make_store() override {
    return std::make_unique<SlowStore>(cpu_->make_store(), delay_, binds);
  }
  void check(const CompileOptions& options) const override { cpu_->check(options); }
  [[nodiscard]] std::unique_ptr<Program> compile(const Graph& graph, Store& store,
                                                 const CompileOptions& options) override {
    return cpu_->compile(graph, dynamic_cast<SlowStore&>(store).store(), options);
  }
  [[nodiscard]] PlanSummary plan(const Graph& graph, const CompileOptions& options) override {
    return cpu_->plan(graph, options);
  }
  [[nodiscard]] std::optional<std::int64_t> free_bytes() const override { return left; }
  int binds = 0;
  std::optional<std::int64_t> left;

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device({.threads = 1});
  std::chrono::milliseconds delay_;
};

TEST_F(TrainerTest, CheckpointsWithoutRoomAreRefusedBeforeTraining) {
  SlowUploads device(std::chrono::milliseconds(0));
  const std::int64_t parameters = Trainer(small_config(), data_, device).model().parameter_count();
  device.left = 12 * parameters;
  EXPECT_NO_THROW(Trainer(small_config(), data_, device));
  device.left = 12 * parameters - 1;
  try {
    Trainer refused(small_config(), data_, device);
    ADD_FAILURE() << "it was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::device);
    EXPECT_NE(std::string(error.what()).find("for a checkpoint"), std::string::npos);
  }
}

TEST_F(TrainerTest, WarmUpTellsHowLongTheUploadTook) {
  constexpr double delay = 0.2;
  for (const std::int64_t stream_rows : {0, 64}) {
    SCOPED_TRACE(stream_rows);
    SlowUploads device(std::chrono::milliseconds(200));
    TrainerOptions options;
    options.stream_rows = stream_rows;
    Trainer trainer(small_config(), data_, device, options);
    // Training and test images; a streamed window is first wanted by the warm-up.
    EXPECT_EQ(device.binds, stream_rows > 0 ? 1 : 2);
    EXPECT_GE(trainer.upload_seconds(), delay * device.binds);
    const Trainer::WarmUp first = trainer.warm_up();
    EXPECT_EQ(device.binds, 2);
    EXPECT_GE(first.upload, 2 * delay);
    EXPECT_LT(first.capture, 2 * delay);  // nothing of it is told twice
    EXPECT_EQ(trainer.upload_seconds(), 0);
    const Trainer::WarmUp again = trainer.warm_up();
    EXPECT_EQ(device.binds, 2);
    EXPECT_LT(again.upload, 2 * delay);
  }
}

// Nothing of a training depends on whether its programs were made ready before.
TEST_F(TrainerTest, WarmingUpChangesNothing) {
  Config config = small_config();
  config.train.drop_last = false;
  for (const int steps : {1, 3}) {
    for (const std::int64_t stream_rows : {0, 64}) {
      TrainerOptions options;
      options.stream_rows = stream_rows;
      options.compile.steps = steps;
      const auto plain = make(config, options);
      const auto warmed = make(config, options);
      EXPECT_GT(warmed->warm_up().capture, 0);
      EXPECT_EQ(warmed->step(), 0);
      run(*plain, 5);
      run(*warmed, 5);
      static_cast<void>(warmed->warm_up());  // between two steps, too
      EXPECT_EQ(warmed->step(), 5);
      run(*plain, 20);
      run(*warmed, 20);
      EXPECT_EQ(state_of(*plain), state_of(*warmed)) << steps << " " << stream_rows;
      EXPECT_EQ(plain->epoch_metrics().loss, warmed->epoch_metrics().loss);
    }
  }
}

TEST(UnrolledSteps, AnEpochTakesFewRuns) {
  EXPECT_EQ(unrolled_steps(468, 40), 52);  // MNIST: 9 runs, nothing left over
  EXPECT_EQ(unrolled_steps(469, 40), 52);  // 9 runs and one step
  EXPECT_EQ(unrolled_steps(1, 40), 1);
  EXPECT_EQ(unrolled_steps(7, 40), 7);
  EXPECT_EQ(unrolled_steps(64, 40), 64);
  EXPECT_EQ(unrolled_steps(1000000, 40), 64);
  EXPECT_EQ(unrolled_steps(468, 1000), 4);  // a large model
  EXPECT_EQ(unrolled_steps(468, 5000), 1);
  EXPECT_EQ(unrolled_steps(0, 40), 1);
}

TEST_F(TrainerTest, StepsPerRunAreChosenForTheDevice) {
  TrainerOptions options;
  options.compile.steps = 0;
  EXPECT_EQ(make(small_config(), options)->program().steps(), 1);  // a CPU
}

TEST_F(TrainerTest, DropsOrKeepsTheLastBatch) {
  Config config = small_config();
  const auto dropping = make(config);
  EXPECT_EQ(dropping->steps_per_epoch(), 12);
  run(*dropping, 12);
  EXPECT_EQ(dropping->epoch_metrics().n, 192);
  config.train.drop_last = false;
  const auto keeping = make(config);
  EXPECT_EQ(keeping->steps_per_epoch(), 13);
  run(*keeping, 13);
  EXPECT_EQ(keeping->epoch_metrics().n, 200);
  EXPECT_EQ(keeping->epoch(), 1);
}

TEST_F(TrainerTest, RunStopsAtTheEndOfAnEpoch) {
  const auto trainer = make(small_config());
  EXPECT_EQ(trainer->run(1000).size(), 12U);
  const auto next = trainer->run(1);
  ASSERT_EQ(next.size(), 1U);
  EXPECT_EQ(next[0].step, 12);
  EXPECT_EQ(next[0].epoch, 1);
  EXPECT_EQ(trainer->epoch_metrics().n, 16);
}

TEST_F(TrainerTest, LossIsReconstructionPlusBetaTimesKl) {
  Config config = small_config();
  config.objective.beta = 4.0;
  const auto trainer = make(config);
  for (const StepResult& result : trainer->run(12)) {
    EXPECT_NEAR(result.loss, result.reconstruction + 4.0 * result.kl, 1e-4 * result.loss);
  }
}

TEST_F(TrainerTest, RepeatsBitForBit) {
  const auto first = make(small_config());
  const auto second = make(small_config());
  run(*first, 20);
  run(*second, 20);
  EXPECT_EQ(state_of(*first), state_of(*second));
  Config other = small_config();
  other.train.seed = 1;
  const auto third = make(other);
  run(*third, 20);
  EXPECT_NE(state_of(*first), state_of(*third));
}

TEST_F(TrainerTest, ThreadsDoNotMatter) {
  const auto one = make(small_config(), {}, nullptr, 1);
  run(*one, 20);
  for (const int threads : {2, 3}) {
    const auto several = make(small_config(), {}, nullptr, threads);
    run(*several, 20);
    EXPECT_EQ(state_of(*one), state_of(*several)) << threads << " threads";
  }
}

TEST_F(TrainerTest, UnrolledStepsEqualSingleOnes) {
  Config config = small_config();
  config.train.drop_last = false;
  const auto single = make(config);
  TrainerOptions options;
  options.compile.steps = 5;  // does not divide an epoch's 12 full steps
  const auto unrolled = make(config, options);
  run(*single, 30);
  run(*unrolled, 30);
  EXPECT_EQ(state_of(*single), state_of(*unrolled));
}

TEST_F(TrainerTest, StreamingEqualsResident) {
  for (const bool shuffle : {true, false}) {
    Config config = small_config();
    config.train.shuffle = shuffle;
    config.train.drop_last = false;
    const auto resident = make(config);
    run(*resident, 30);
    for (const std::int64_t rows : {16, 50, 199, 200}) {
      TrainerOptions options;
      options.stream_rows = rows;
      const auto streaming = make(config, options);
      run(*streaming, 30);
      EXPECT_EQ(state_of(*resident), state_of(*streaming)) << rows << " rows";
    }
  }
}

TEST_F(TrainerTest, BuffersReusedOrNotAreEqual) {
  const auto reusing = make(small_config());
  TrainerOptions options;
  options.compile.reuse = false;
  const auto spacious = make(small_config(), options);
  run(*reusing, 15);
  run(*spacious, 15);
  EXPECT_EQ(state_of(*reusing), state_of(*spacious));
}

TEST_F(TrainerTest, RestoredGoesOnLikeUninterrupted) {
  const auto whole = make(small_config());
  run(*whole, 30);
  for (const std::int64_t at : {0, 7, 12, 29}) {
    const auto before = make(small_config());
    run(*before, at);
    const TensorFile checkpoint = before->checkpoint();
    const auto after = make(small_config());
    after->restore(checkpoint, "checkpoint");
    EXPECT_EQ(after->step(), at);
    EXPECT_EQ(after->epoch_metrics().loss, before->epoch_metrics().loss);
    run(*after, 30 - at);
    EXPECT_EQ(state_of(*whole), state_of(*after)) << "at step " << at;
    EXPECT_EQ(whole->epoch_metrics().loss, after->epoch_metrics().loss);
  }
}

TEST_F(TrainerTest, RestoreRefusesWhatIsNotItsOwn) {
  const auto trainer = make(small_config());
  const TensorFile good = trainer->checkpoint();
  const auto refuse = [&](const std::string& key, const std::string& value) {
    TensorFile file = good;
    if (value.empty())
      file.metadata.erase(key);
    else
      file.metadata[key] = value;
    const Error error = failure([&] { trainer->restore(file, "last.safetensors"); });
    EXPECT_EQ(error.status(), Status::input) << key << " = " << value << ": " << error.what();
    EXPECT_NE(std::string(error.what()).find("last.safetensors"), std::string::npos);
  };
  for (const char* key : {"cuvae.checkpoint", "step", "seed", "data.sha256", "epoch.loss",
                          "steps_per_epoch", "epoch.n"}) {
    refuse(key, "");
    refuse(key, "x1");
  }
  refuse("step", "-1");
  refuse("step", "99999999999999999999");
  refuse("seed", "1");
  TensorFile no_moments = good;
  std::erase_if(no_moments.tensors,
                [](const NamedTensor& named) { return named.name.starts_with("adam.m."); });
  EXPECT_EQ(failure([&] { trainer->restore(no_moments, "x"); }).status(), Status::input);
  trainer->restore(good, "x");
}

TEST_F(TrainerTest, DivergingIsStatusFive) {
  Config config = small_config();
  config.train.lr = 1e30;
  const auto trainer = make(config);
  const Error error = failure([&] { run(*trainer, 24); });
  EXPECT_EQ(error.status(), Status::diverged);
  EXPECT_NE(std::string(error.what()).find("train.lr"), std::string::npos) << error.what();
}

TEST_F(TrainerTest, DivergingInTheLastStepIsNoticed) {
  Config config = small_config();
  config.train.batch_size = 200;  // one step an epoch: its loss is that of the initial weights
  config.train.lr = 1e30;
  const auto trainer = make(config);
  EXPECT_EQ(trainer->run(1).size(), 1U);
  EXPECT_EQ(failure([&] { (void)trainer->evaluate_test(); }).status(), Status::diverged);
}

TEST_F(TrainerTest, WeightsThatAreNotFiniteAreNotGivenOut) {
  const auto trainer = make(small_config());
  Tensor bias(DType::f32, Shape{24});
  bias.as<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  trainer->store().write("encoder.0.bias", bias);
  EXPECT_EQ(failure([&] { (void)trainer->weights(); }).status(), Status::diverged);
  EXPECT_EQ(failure([&] { (void)trainer->checkpoint(); }).status(), Status::diverged);
}

TEST_F(TrainerTest, AnyNumberOfStepsCanBeAskedFor) {
  const auto trainer = make(small_config());
  (void)trainer->run(1);
  EXPECT_EQ(trainer->run(std::numeric_limits<std::int64_t>::max()).size(), 11U);
  const double loss = trainer->epoch_metrics().loss;
  EXPECT_TRUE(trainer->run(0).empty());
  EXPECT_TRUE(trainer->run(-5).empty());
  EXPECT_EQ(trainer->epoch_metrics().loss, loss);  // the finished epoch's figures stand
}

TEST_F(TrainerTest, RefusesWhatTheConfigurationFileWouldNotTake) {
  const auto refuse = [&](auto change) {
    Config config = small_config();
    change(config);
    EXPECT_EQ(failure([&] { (void)make(config); }).status(), Status::usage);
  };
  refuse([](Config& c) { c.train.batch_size = 0; });
  refuse([](Config& c) { c.train.clip_norm = -1e-9; });
  refuse([](Config& c) { c.train.optimizer.type = "lion"; });
  refuse([](Config& c) { c.train.optimizer.momentum = 0.9; });
  refuse([](Config& c) { c.train.schedule.type = "step"; });
  refuse([](Config& c) { c.data.binarise = "always"; });
  refuse([](Config& c) { c.objective.samples = 0; });
}

TEST_F(TrainerTest, OtherExecutorsAndPrecisionsAreRefusedOnTheCpu) {
  TrainerOptions options;
  options.compile.exec = "graph";
  EXPECT_EQ(failure([&] { (void)make(small_config(), options); }).status(), Status::usage);
  options.compile.exec = "eager";
  options.compile.precision = "tf32";
  EXPECT_EQ(failure([&] { (void)make(small_config(), options); }).status(), Status::usage);
}

TEST_F(TrainerTest, ABatchLargerThanTheDataIsRefused) {
  Config config = small_config();
  config.train.batch_size = 201;
  const Error error = failure([&] { (void)make(config); });
  EXPECT_EQ(error.status(), Status::usage);
  EXPECT_NE(std::string(error.what()).find("200"), std::string::npos) << error.what();
  config.train.batch_size = 200;
  EXPECT_EQ(make(config)->steps_per_epoch(), 1);
}

TEST_F(TrainerTest, NoTestSplitMeansNoTestMetrics) {
  auto data = std::make_shared<Dataset>(*data_);
  data->test.reset();
  EXPECT_FALSE(make(small_config(), {}, data)->evaluate_test().has_value());
}

TEST_F(TrainerTest, BatchReductionSumIsMeanWithALargerGradient) {
  // Adam with a tiny eps hardly sees a factor on the gradient.
  Config mean = small_config();
  mean.train.optimizer.eps = 1e-14;
  Config sum = mean;
  sum.objective.batch_reduction = "sum";
  const auto a = make(mean);
  const auto b = make(sum);
  const auto from = a->run(3);
  const auto to = b->run(3);
  for (std::size_t i = 0; i < from.size(); ++i) {
    EXPECT_NEAR(from[i].loss, to[i].loss, 1e-4 * from[i].loss);
  }
  mean.train.optimizer.eps = 1e-1;
  sum.train.optimizer.eps = 1e-1;
  const auto c = make(mean);
  const auto d = make(sum);
  EXPECT_NE(c->run(3)[2].loss, d->run(3)[2].loss);
}

TEST_F(TrainerTest, InitialSecondMomentIsV0) {
  Config config = small_config();
  config.train.optimizer.v0 = 1.0;
  const auto trainer = make(config);
  const TensorFile file = trainer->checkpoint();
  for (const float value : file.at("adam.v.encoder.0.weight").as<float>()) {
    ASSERT_EQ(value, 1.0F);
  }
}

TEST_F(TrainerTest, EvaluationDoesNotDependOnTheOrderOfCalls) {
  const auto data = test::blob_dataset(64, 2500);  // two full evaluation batches and a rest
  const auto trainer = make(small_config(), {}, data);
  const ObjectiveConfig elbo;
  Evaluator evaluator(trainer->device(), trainer->store(), trainer->model(), *data->test, 0, {},
                      elbo);
  const RowScores first = evaluator.rows(0);
  const RowScores other = evaluator.rows(1);
  const RowScores again = evaluator.rows(0);
  EXPECT_EQ(first.reconstruction, again.reconstruction);
  EXPECT_EQ(first.kl, again.kl);
  EXPECT_EQ(first.kl, other.kl);                          // analytic
  EXPECT_NE(first.reconstruction, other.reconstruction);  // another sample
  ASSERT_EQ(first.kl.size(), 2500U);
  double sum = 0;
  for (std::size_t i = 0; i < 2500; ++i) sum += first.reconstruction[i] + first.kl[i];
  EXPECT_NEAR(evaluator.metrics().neg_elbo, sum / 2500, 1e-9);
}

TEST_F(TrainerTest, ScoresOfARowDoNotDependOnItsNeighbours) {
  const auto all = test::blob_dataset(64, 1500);
  auto first = std::make_shared<Dataset>(*all);
  Tensor head(DType::u8, Shape{70, 64});
  std::ranges::copy(all->test->images->bytes().first(70 * 64), head.bytes().begin());
  first->test->images = std::make_shared<const Tensor>(std::move(head));
  const auto trainer = make(small_config(), {}, all);
  const ObjectiveConfig elbo;
  const auto rows = [&](const Dataset& data) {
    Evaluator evaluator(trainer->device(), trainer->store(), trainer->model(), *data.test, 0, {},
                        elbo);
    return evaluator.rows();
  };
  const RowScores many = rows(*all);
  const RowScores few = rows(*first);
  for (std::size_t i = 0; i < 70; ++i) {
    EXPECT_NEAR(many.reconstruction[i], few.reconstruction[i], 1e-4);
    EXPECT_NEAR(many.kl[i], few.kl[i], 1e-5);
  }
}

TEST_F(TrainerTest, StandardisedInputHasZeroMeanAndUnitVariance) {
  DataConfig config;
  config.scale = "standardise";
  const InputSpec spec = input_spec(*data_, config);
  double mean = 0;
  double square = 0;
  const auto pixels = data_->train->images->as<std::uint8_t>();
  for (const double pixel : pixels) {
    const double x = (pixel - spec.shift) * spec.scale;
    mean += x;
    square += x * x;
  }
  EXPECT_NEAR(mean / static_cast<double>(pixels.size()), 0, 1e-9);
  EXPECT_NEAR(square / static_cast<double>(pixels.size()), 1, 1e-9);
}

}  // namespace
}  // namespace cuvae
