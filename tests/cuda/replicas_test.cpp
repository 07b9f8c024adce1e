// Several trainers on one GPU, side by side: each computes what it computes alone, nobody waits for
// another, and they share the images.

#include <gtest/gtest.h>

#include "cuda/cuda_device.h"
#include "cuda/deferred_runtime.h"
#include "cuda/host_kernels.h"
#include "cuvae/error.h"
#include "cuvae/trainer.h"
#include "support/synthetic.h"
#include "train/state_of.h"

namespace cuvae::cuda {
namespace {

using test::state_of;

constexpr std::int64_t train_rows = 40;
constexpr std::int64_t test_rows = 12;
constexpr std::int64_t features = 9;

Config small_config(std::int64_t seed) {
  Config config;
  config.model.encoder.layers = {{.out = 6, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 6, .activation = "relu"}};
  config.model.latent.size = 2;
  config.train.batch_size = 8;
  config.train.seed = seed;
  return config;
}

struct Case {
  const char* name;
  const char* exec;
  int streams;
};

class CudaReplicas : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override { open(1); }
  // Another GPU, whose streams go on in another order.
  void open(std::uint64_t seed) {
    auto made = std::make_unique<DeferredRuntime>(seed);
    runtime_ = made.get();
    violations_ = made->violations;
    handles_ = made->handles;
    device_ = make_cuda_device(std::move(made), host_kernels());
  }
  [[nodiscard]] std::unique_ptr<Trainer> make(std::int64_t seed) {
    TrainerOptions options;
    options.compile.exec = GetParam().exec;
    options.compile.streams = GetParam().streams;
    options.compile.steps = 2;
    return std::make_unique<Trainer>(small_config(seed), data_, *device_, options);
  }
  // What a seed becomes by itself in one epoch.
  std::string alone(std::int64_t seed) {
    const auto trainer = make(seed);
    trainer->run(5);
    return state_of(*trainer);
  }

  std::shared_ptr<const Dataset> data_ = test::blob_dataset(train_rows, test_rows, 3);
  DeferredRuntime* runtime_ = nullptr;
  std::shared_ptr<std::vector<std::string>> violations_;
  std::shared_ptr<int> handles_;
  std::unique_ptr<Device> device_;
};

TEST_P(CudaReplicas, LaunchesWaitForNothingAndEachComputesWhatItComputesAlone) {
  std::vector<std::string> wanted;
  for (std::int64_t seed = 0; seed < 3; ++seed) wanted.push_back(alone(seed));
  bool independent = false;
  for (std::uint64_t order = 1; order <= 5; ++order) {
    SCOPED_TRACE(order);
    open(order);
    std::vector<std::unique_ptr<Trainer>> trainers;
    for (std::int64_t seed = 0; seed < 3; ++seed) trainers.push_back(make(seed));
    for (auto& trainer : trainers) static_cast<void>(trainer->checkpoint());  // waits
    std::vector<double> losses(3);
    for (int round = 0; round < 3; ++round) {  // 2 + 2 + 1 steps
      const std::int64_t before = runtime_->executed;
      for (auto& trainer : trainers) trainer->launch(5 - trainer->step());
      EXPECT_EQ(runtime_->executed, before) << "a launch has waited";
      EXPECT_FALSE(runtime_->idle());
      // The last that was launched first: nobody waits for those before it.
      for (const std::size_t i : {2U, 0U, 1U}) {
        for (const StepResult& step : trainers[i]->collect()) losses[i] += step.loss;
        independent = independent || (i == 2 && !runtime_->idle());
      }
    }
    EXPECT_NE(losses[0], losses[1]);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(trainers[i]->step(), 5);
      EXPECT_TRUE(state_of(*trainers[i]) == wanted[i]) << i;
      EXPECT_EQ(trainers[i]->evaluate_test()->n, test_rows);
    }
    trainers.clear();
    device_.reset();
    EXPECT_EQ(*handles_, 0);
    EXPECT_TRUE(violations_->empty()) << violations_->front();
  }
  EXPECT_TRUE(independent) << "a trainer's work stands behind another's";
}

TEST_P(CudaReplicas, ShareTheImages) {
  const std::string wanted = alone(1);
  open(2);
  const std::int64_t start = runtime_->uploaded;
  auto first = make(0);
  const std::int64_t of_first = runtime_->uploaded - start;
  const std::int64_t memory_of_first = runtime_->used;
  auto second = make(1);
  const std::int64_t images = (train_rows + test_rows) * features;
  EXPECT_EQ(runtime_->uploaded - start - of_first, of_first - images);
  EXPECT_EQ(runtime_->used - memory_of_first, memory_of_first - images);

  // What another reads is not written, and lives as long as anybody needs it.
  const Tensor other(DType::u8, data_->train->images->shape());
  try {
    first->store().write("data", other);
    ADD_FAILURE() << "shared images were overwritten";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::usage);
    EXPECT_NE(std::string(error.what()).find("`data` shares its memory"), std::string::npos);
  }
  second->launch(5);
  first.reset();
  second->collect();
  second->run(5);
  EXPECT_TRUE(state_of(*second) == wanted);
  second->store().write("data", other);
  // What it holds now is nothing to share.
  const auto third = make(1);
  third->run(5);
  EXPECT_TRUE(state_of(*third) == wanted);
}

TEST_P(CudaReplicas, AFaultInOneLeavesTheOtherAlone) {
  const std::string wanted = alone(1);
  open(3);
  auto first = make(0);
  auto second = make(1);
  bool broken = true;
  runtime_->set_fault([&](Call call) {
    return broken && call == Call::copy_to_host ? DeferredRuntime::broken : 0;
  });
  first->launch(5);
  second->launch(5);
  EXPECT_THROW(first->collect(), Error);
  broken = false;
  second->collect();
  second->run(5);
  EXPECT_TRUE(state_of(*second) == wanted);
  first.reset();
  EXPECT_TRUE(violations_->empty()) << violations_->front();
}

TEST_P(CudaReplicas, BetweenLaunchAndCollectTheStateIsNobodys) {
  const auto trainer = make(0);
  EXPECT_TRUE(trainer->collect().empty());
  trainer->launch(0);
  EXPECT_TRUE(trainer->collect().empty());
  const TensorFile start = trainer->checkpoint();
  trainer->launch(5);
  const auto refused = [](auto f) {
    try {
      f();
    } catch (const Error& error) {
      return error.status() == Status::usage &&
             std::string(error.what()).find("call collect() first") != std::string::npos;
    }
    return false;
  };
  EXPECT_TRUE(refused([&] { trainer->launch(1); }));
  EXPECT_TRUE(refused([&] { trainer->run(1); }));
  EXPECT_TRUE(refused([&] { static_cast<void>(trainer->checkpoint()); }));
  EXPECT_TRUE(refused([&] { static_cast<void>(trainer->weights()); }));
  EXPECT_TRUE(refused([&] { static_cast<void>(trainer->evaluate_test()); }));
  EXPECT_TRUE(refused([&] { trainer->restore(start, "start"); }));
  EXPECT_EQ(trainer->collect().size(), 2U);
  EXPECT_EQ(trainer->step(), 2);
}

INSTANTIATE_TEST_SUITE_P(Executors, CudaReplicas,
                         ::testing::Values(Case{"Eager", "eager", 1}, Case{"Graph", "graph", 1},
                                           Case{"GraphOfThreeStreams", "graph", 3}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace cuvae::cuda
