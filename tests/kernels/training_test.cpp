// Training steps of whole models on the SIMT runner: the same bits in every order, through every
// executor, and the CPU's numbers. What a sanitizer's build can afford of it is said in each test.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <thread>

#include "cpu/cpu_device.h"
#include "cuda/training_case.h"
#include "cuvae/trainer.h"
#include "kernels/simt_backends.h"
#include "simt/sanitizer.h"
#include "support/synthetic.h"
#include "train/state_of.h"
#include "train/train_run.h"

namespace cuvae::testing {
namespace {

using test::state_of;

struct Trained {
  std::vector<double> losses;
  std::vector<std::pair<std::string, Tensor>> tensors;
};

// The default model on random images.
Trained train_default(Device& device, int steps, const CompileOptions& options) {
  const ModelSizes sizes{.rows = 512, .steps = options.steps};
  const TrainingGraph model = training_graph(sizes);
  const auto store = device.make_store();
  std::mt19937 random(11);
  for (const ValueInfo& info : model.graph.values()) {
    if (info.producer >= 0) continue;
    Tensor tensor(info.dtype, info.shape);
    if (info.storage == Storage::parameter) {
      const double bound = 1 / std::sqrt(static_cast<double>(info.shape[info.shape.rank() - 1]));
      for (float& x : tensor.as<float>())
        x = static_cast<float>(bound * (static_cast<double>(random()) * 0x1p-31 - 1));
    } else if (info.dtype == DType::u8) {
      for (auto& x : tensor.as<std::uint8_t>()) x = static_cast<std::uint8_t>(random());
    }
    store->write(info.name, tensor);
  }
  store->write("commit", integers(Shape{1}, {1}));
  const auto program = device.compile(model.graph, *store, options);
  Trained result;
  for (int step = 0; step < steps; step += options.steps) {
    store->write("clock", integers(Shape{5}, {3, step, 0, step * sizes.batch, 0}));
    std::vector<float> hyper;
    for (int s = 0; s < options.steps; ++s) hyper.insert(hyper.end(), {1e-3F, 1.0F});
    store->write("hyper", reals(Shape{options.steps, 2}, hyper));
    program->run();
    const Tensor losses = program->read_steps("loss");
    for (int s = 0; s < options.steps; ++s) result.losses.push_back(losses.item(s));
  }
  for (const ValueInfo& info : model.graph.values())
    if (info.producer < 0 && info.storage != Storage::input)
      result.tensors.emplace_back(info.name, store->read(info.name));
  return result;
}

void expect_same_bits(const Trained& a, const Trained& b) {
  EXPECT_EQ(a.losses, b.losses);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (std::size_t i = 0; i < a.tensors.size(); ++i)
    EXPECT_TRUE(same(a.tensors[i].second, b.tensors[i].second)) << a.tensors[i].first;
}

TEST(SimtTraining, DefaultModelInEveryOrder) {
  if (simt::with_tsan) GTEST_SKIP() << "50,000 threads of a step are too many for ThreadSanitizer";
  const int steps = simt::with_asan ? 1 : 3;
  const int variants = simt::with_asan ? 2 : simt_variants;
  Trained first;
  for (int variant = 0; variant < variants; ++variant) {
    SCOPED_TRACE("variant " + std::to_string(variant));
    const auto device = make_simt_device(simt_variant(variant));
    const Trained trained = train_default(*device, steps, {.steps = steps});
    if (variant == 0)
      first = trained;
    else
      expect_same_bits(first, trained);
  }
  const auto cpu = make_cpu_device({.threads = 1});
  const Trained reference = train_default(*cpu, steps, {});
  for (int step = 0; step < steps; ++step) {
    const auto s = static_cast<std::size_t>(step);
    EXPECT_NEAR(first.losses[s] / reference.losses[s], 1, 1e-5) << "step " << step;
  }
  // Weights are compared in lock-step by `cuvae-simt compare`: in a free run one pre-activation
  // within rounding of 0 moves a gradient by much more than rounding.
}

// 20-16-(4+4)-16-20, batch 8.
TEST(SimtTraining, SmallModelInEveryOrderAndThroughEveryExecutor) {
  const int variants = simt::with_tsan ? 2 : simt_variants;  // streams in both orders
  Outcome first;
  for (int variant = 0; variant < variants; ++variant) {
    SCOPED_TRACE("variant " + std::to_string(variant));
    const auto device = make_simt_device(simt_variant(variant));
    const std::vector<CompileOptions> all = {
        {.steps = 1, .streams = 1, .exec = "eager"}, {.steps = 1, .streams = 1, .exec = "graph"},
        {.steps = 2, .streams = 1, .exec = "graph"}, {.steps = 2, .streams = 3, .exec = "graph"},
        {.steps = 2, .streams = 3, .exec = "eager"}, {.steps = 4, .streams = 2, .reuse = false}};
    for (std::size_t i = 0; i < all.size(); ++i) {
      SCOPED_TRACE("options " + std::to_string(i));
      Outcome outcome = train(*device, all[i], 4);
      // The losses come step by step in all of them.
      if (first.tensors.empty())
        first = std::move(outcome);
      else
        EXPECT_TRUE(same(first, outcome));
    }
  }
  const auto cpu = make_cpu_device({.threads = 1});
  const Outcome reference = train(*cpu, {}, 4);
  ASSERT_EQ(reference.tensors.size(), first.tensors.size());
  for (std::size_t i = 0; i < first.tensors.size(); ++i)
    for (std::int64_t e = 0; e < first.tensors[i].second.elements(); ++e)
      EXPECT_NEAR(first.tensors[i].second.item(e), reference.tensors[i].second.item(e), 1e-4)
          << first.tensors[i].first << "[" << e << "]";
}

TEST(SimtTraining, SmallModelUnfusedAndInEveryPrecision) {
  const auto device = make_simt_device(simt_variant(0));
  const Outcome fused = train(*device, {}, 2);
  for (const char* precision : {"fp32", "tf32", "bf16"})
    for (const bool fuse : {true, false}) {
      SCOPED_TRACE(std::string(precision) + (fuse ? " fused" : " unfused"));
      CompileOptions options;
      options.fuse = fuse;
      options.precision = precision;
      const Outcome outcome = train(*device, options, 2);
      const double limit = precision == std::string("fp32") ? 1e-5 : 0.02;
      const double loss = fused.tensors[0].second.item();
      EXPECT_NEAR(outcome.tensors[0].second.item() / loss, 1, limit);
    }
}

// Two seeds on one GPU whose streams do their work as late and mixed as is legal, and threads in
// greedy order: the bits of each alone on an obedient one.
TEST(SimtTraining, ReplicasSideBySideAreTheSingleRuns) {
  Config config;
  config.model.encoder.layers = {{.out = 16, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 16, .activation = "relu"}};
  config.model.latent.size = 4;
  config.train.batch_size = 8;
  const auto data = test::blob_dataset(24, 8, 4);
  for (const char* exec : {"graph", "persistent", "eager"}) {
    if (simt::with_tsan && exec == std::string("eager")) continue;
    SCOPED_TRACE(exec);
    TrainerOptions options;
    options.compile.exec = exec;
    options.compile.steps = 2;
    options.compile.streams = 2;
    std::vector<std::string> wanted;
    for (const std::int64_t seed : {3, 4}) {
      config.train.seed = seed;
      const auto device = make_simt_device(simt_variant(0));
      Trainer trainer(config, data, *device, options);
      EXPECT_EQ(trainer.program().exec(), exec);
      trainer.run(3);
      wanted.push_back(state_of(trainer));
    }
    EXPECT_NE(wanted[0], wanted[1]);
    simt::SimtOptions late;
    late.streams = simt::StreamOrder::deferred;
    late.order = simt::Order::greedy;
    for (const std::uint64_t choice : {5, 6}) {
      late.seed = choice;
      const auto device = make_simt_device(late);
      std::vector<std::unique_ptr<Trainer>> trainers;
      for (const std::int64_t seed : {3, 4}) {
        config.train.seed = seed;
        trainers.push_back(std::make_unique<Trainer>(config, data, *device, options));
      }
      while (trainers[0]->step() < 3) {
        for (auto& trainer : trainers) trainer->launch(3 - trainer->step());
        for (auto& trainer : trainers) EXPECT_FALSE(trainer->collect().empty());
      }
      for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(state_of(*trainers[i]) == wanted[i]) << i;
    }
  }
}

// Averages follow the updates of their own step, across unrolled steps and streams, and evaluation
// reads a store of its own; rows for validation and test of one number change places there.
TEST(SimtTraining, AveragesAndFrozenLayersInEveryOrder) {
  Config config;
  config.model.encoder.layers = {{.out = 16, .activation = "relu"}, {.type = "batch_norm"}};
  config.model.decoder.layers = {{.out = 16, .activation = "relu"}};
  config.model.latent.size = 4;
  config.train.batch_size = 8;
  config.train.ema = 0.8;
  config.train.freeze = {"encoder.1", "decoder.out"};
  config.data.validation.rows = 8;
  const auto data =
      std::make_shared<const Dataset>(hold_out(*test::blob_dataset(32, 8, 4), config));
  struct Result {
    std::string state;
    double validation = 0;
    double test = 0;
  };
  const auto train = [&](Device& device, const CompileOptions& compile) {
    TrainerOptions options;
    options.compile = compile;
    Trainer trainer(config, data, device, options);
    Result result;
    trainer.run(3);
    static_cast<void>(trainer.evaluate_validation());  // changes nothing of the training
    trainer.run(3);
    result.state = state_of(trainer);
    result.validation = trainer.evaluate_validation()->neg_elbo;
    result.test = trainer.evaluate_test()->neg_elbo;
    return result;
  };
  const Result cpu = train(*make_cpu_device({.threads = 1}), {});
  Result first;
  const int variants = simt::with_tsan ? 2 : simt_variants;
  for (int variant = 0; variant < variants; ++variant) {
    SCOPED_TRACE("variant " + std::to_string(variant));
    const auto device = make_simt_device(simt_variant(variant));
    for (const CompileOptions& options :
         {CompileOptions{.steps = 1, .exec = "eager"},
          CompileOptions{.steps = 3, .streams = 3, .exec = "graph"}}) {
      const Result result = train(*device, options);
      if (first.state.empty()) first = result;
      EXPECT_TRUE(result.state == first.state);
      EXPECT_EQ(result.validation, first.validation);
      EXPECT_EQ(result.test, first.test);
      EXPECT_NEAR(result.validation, cpu.validation, 1e-3);
      EXPECT_NEAR(result.test, cpu.test, 1e-3);
      EXPECT_NE(result.test, result.validation);
    }
  }
}

Config persistent_config() {
  Config config;
  config.model.encoder.layers = {{.out = 16, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 16, .activation = "relu"}};
  config.model.latent.size = 4;
  config.train.batch_size = 8;
  config.run.exec = "persistent";
  return config;
}

std::shared_ptr<Device> late_device(std::uint64_t seed) {
  simt::SimtOptions options;
  options.streams = simt::StreamOrder::deferred;  // a launch runs when it is waited for
  options.seed = seed;
  return make_simt_device(options);
}

// Its steps are those of a run that was asked for no more.
TEST(SimtTraining, AStoppedLaunchEndsEarlyAndTrainingGoesOn) {
  const auto data = test::blob_dataset(52, 8, 4);
  TrainerOptions options;
  options.compile.exec = "persistent";
  options.compile.steps = 0;  // a launch is an epoch
  const auto device = late_device(3);
  const auto make = [&] {
    return std::make_unique<Trainer>(persistent_config(), data, *device, options);
  };
  const auto whole = make();
  ASSERT_EQ(whole->program().exec(), "persistent") << whole->note();
  ASSERT_EQ(whole->program().steps(), 6);
  const auto trainer = make();
  trainer->stop();  // nothing is under way
  trainer->launch(6);
  trainer->stop();
  const std::vector<StepResult> done = trainer->collect();
  ASSERT_EQ(done.size(), 2U);  // the one at which it looks, and the next
  EXPECT_EQ(trainer->step(), 2);
  const auto short_run = make();
  const std::vector<StepResult> wanted = short_run->run(2);
  ASSERT_EQ(wanted.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(done[i].loss, wanted[i].loss) << i;
  EXPECT_TRUE(state_of(*trainer) == state_of(*short_run));
  EXPECT_EQ(whole->run(6).size(), 6U);
  EXPECT_EQ(trainer->run(6).size(), 4U);
  EXPECT_TRUE(state_of(*trainer) == state_of(*whole));
  EXPECT_EQ(trainer->epoch_metrics().loss, whole->epoch_metrics().loss);
}

// An interrupt in the middle of a launch that would train an epoch: it ends early, and what it has
// done is in the checkpoint.
TEST(SimtTraining, AnInterruptEndsAPersistentEpochWithACheckpoint) {
  const test::TemporaryFolder folder;
  Config config = persistent_config();
  config.train.epochs = 1;
  const std::int64_t steps = simt::with_tsan || simt::with_asan ? 200 : 1000;
  Workplace workplace;
  workplace.dataset = test::blob_dataset(8 * steps, 8, 4);
  workplace.trainer.compile.exec = "persistent";
  workplace.trainer.compile.steps = 0;
  workplace.trainer.compile.tuning = std::make_shared<Tuning>();
  workplace.device = late_device(5);

  TrainRunOptions options;
  const std::thread::id here = std::this_thread::get_id();
  // Asked between two launches only, it would never end.
  options.stop = [here] { return std::this_thread::get_id() != here; };
  TrainRun run(config, options, folder / "run");
  run.open(workplace);
  ASSERT_TRUE(run.can_stop());
  ASSERT_EQ(run.trainer().program().steps(), steps);
  run.start();
  const std::array<TrainRun*, 1> all{&run};
  const cuvae::Trained trained = train_side_by_side(all, options);
  EXPECT_TRUE(trained.interrupted);
  const TrainReport report = run.report(trained);
  EXPECT_TRUE(report.interrupted);
  EXPECT_GT(report.steps, 0);
  ASSERT_LT(report.steps, steps);

  Trainer straight(config, workplace.dataset, *workplace.device, workplace.trainer);
  straight.run(report.steps);
  TrainRunOptions resume;
  resume.resume = true;
  TrainRun rest(config, resume, folder / "run");
  rest.open(workplace);
  EXPECT_EQ(rest.trainer().step(), report.steps);
  EXPECT_TRUE(state_of(rest.trainer()) == state_of(straight));
}

}  // namespace
}  // namespace cuvae::testing
