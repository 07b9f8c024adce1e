// A fault at every single call to the CUDA API, over opening the device, compiling and training:
// each is one clean Error(device), everything is given back, and the next run works.

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <map>
#include <set>

#include "cuda/cuda_device.h"
#include "cuda/deferred_runtime.h"
#include "cuda/host_kernels.h"
#include "cuvae/error.h"
#include "cuvae/trainer.h"
#include "kernels/table.cuh"
#include "simt/blas_host.h"
#include "simt/runtime.h"
#include "support/synthetic.h"
#include "train/state_of.h"

namespace cuvae::cuda {
namespace {

using test::state_of;

Config small_config() {
  Config config;
  config.model.encoder.layers = {{.out = 6, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 6, .activation = "relu"}};
  config.model.latent.size = 2;
  config.train.batch_size = 8;
  return config;
}

struct Case {
  const char* name;
  const char* exec;
  int streams;
  bool simt;  // the project's kernels on the SIMT runner, else the CPU's on the deferred GPU
  bool wide = false;  // all products by the runner's library, timed, with bf16 in memory
};

class Training {
 public:
  explicit Training(const Case& how) : simt_(how.simt), wide_(how.wide) {
    options_.compile.autotune = how.wide;
    if (how.wide) options_.compile.precision = "bf16";
    options_.compile.exec = how.exec;
    options_.compile.streams = how.streams;
    options_.compile.steps = 2;
  }

  void open() {
    if (simt_) {
      simt::SimtOptions options;
      options.streams = simt::StreamOrder::deferred;
      auto runtime = simt::make_simt_runtime(options);
      runtime->set_fault(fault);
      simt::SimtRuntime* const opened = runtime.get();
      CudaDeviceOptions device;
      // So slow that the other algorithm is chosen, every time.
      if (wide_)
        device.make_blas = [] {
          return simt::make_host_blas({.delay = std::chrono::milliseconds(1)});
        };
      if (wide_) device.blas_from = 0;
      device_ = make_cuda_device(std::move(runtime), gpu_on_simt::kernel_table(), device);
      runner_ = opened;
      return;
    }
    auto runtime = std::make_unique<DeferredRuntime>(3);
    runtime->set_fault(fault);
    handles_ = runtime->handles;
    violations_ = runtime->violations;
    device_ = make_cuda_device(std::move(runtime), host_kernels());
  }
  // That programs and stores, and then the device, give back everything, and at the right time.
  void close() {
    trainer_.reset();
    if (simt_) {
      const simt::Live live = runner_->live();
      EXPECT_EQ(live.device_allocations, 0U);
      EXPECT_EQ(live.graphs, 0U);
      EXPECT_EQ(live.executables, 0U);
      EXPECT_EQ(live.host_allocations, 0U);
      EXPECT_EQ(runner_->failed_releases(), 0);
    }
    device_.reset();
    if (simt_) return;
    EXPECT_EQ(*handles_, 0);
    EXPECT_TRUE(violations_->empty()) << violations_->front();
  }
  void build() { trainer_ = std::make_unique<Trainer>(config_, data_, *device_, options_); }
  // An unrolled run, a single step, an evaluation, a node by node run, and all tensors.
  std::string train() {
    trainer_->run(3);
    trainer_->program().run([](const TaskView&) {});
    const auto metrics = trainer_->evaluate_test();
    std::string state = state_of(trainer_->checkpoint().tensors);
    state.append(reinterpret_cast<const char*>(&metrics->loss), sizeof(double));
    return state;
  }

  Runtime::Fault fault;
  [[nodiscard]] Trainer& trainer() { return *trainer_; }
  [[nodiscard]] TrainerOptions& options() { return options_; }

 private:
  bool simt_;
  bool wide_;
  simt::SimtRuntime* runner_ = nullptr;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Trainer> trainer_;
  std::shared_ptr<int> handles_;
  std::shared_ptr<std::vector<std::string>> violations_;
  Config config_ = small_config();
  std::shared_ptr<const Dataset> data_ = test::blob_dataset(40, 12, 3);
  TrainerOptions options_;
};

class FaultTest : public ::testing::TestWithParam<Case> {};

TEST_P(FaultTest, AtAnyCallIsOneErrorThatLeaksNothingAndTheNextRunWorks) {
  const Case& how = GetParam();
  std::vector<Call> calls;
  std::string wanted;
  TensorFile start;
  {
    Training beginning(how);
    beginning.open();
    beginning.build();
    start = beginning.trainer().checkpoint();
  }
  {
    Training whole(how);
    bool counting = true;
    whole.fault = [&](Call call) {
      if (counting) calls.push_back(call);
      return 0;
    };
    whole.open();
    whole.build();
    wanted = whole.train();
    counting = false;  // what destructors do has nobody to tell
  }
  const std::set<Call> kinds(calls.begin(), calls.end());
  for (const Call kind :
       {Call::properties, Call::set_device, Call::memory, Call::allocate, Call::allocate_host,
        Call::copy_to_device, Call::copy_to_host, Call::fill, Call::create_stream,
        Call::synchronize_stream, Call::create_event, Call::record_event, Call::launch})
    EXPECT_EQ(kinds.count(kind), 1U) << name_of(kind);
  if (std::string(how.exec) == "graph") {
    for (const Call kind :
         {Call::begin_capture, Call::end_capture, Call::instantiate, Call::launch_graph})
      EXPECT_EQ(kinds.count(kind), 1U) << name_of(kind);
  }
  if (how.streams > 1) {
    EXPECT_EQ(kinds.count(Call::wait_event), 1U);
  }

  std::map<Call, int> met;
  for (std::size_t bad = 0; bad < calls.size(); ++bad) {
    // The runner takes its time: the first call of each kind, and every fifth (timing makes many).
    if (how.simt && met.count(calls[bad]) != 0 && bad % (how.wide ? 199 : 5) != 0) continue;
    SCOPED_TRACE("fault at call " + std::to_string(bad) + ", " + std::string(name_of(calls[bad])));
    Training training(how);
    std::size_t count = 0;
    bool counting = true;
    training.fault = [&](Call) { return counting && count++ == bad ? DeferredRuntime::broken : 0; };
    int failures = 0;
    // Does it again where it fails; what it says is one line about that call.
    const auto insist = [&](auto f, auto mend) {
      try {
        return f();
      } catch (const Error& error) {
        ++failures;
        EXPECT_EQ(error.status(), Status::device) << error.what();
        const std::string text = error.what();
        EXPECT_NE(text.find(name_of(calls[bad])), std::string::npos) << text;
        EXPECT_EQ(text.find('\n'), std::string::npos);
      }
      counting = false;
      mend();
      return f();
    };
    insist([&] { training.open(); }, [] {});
    insist([&] { training.build(); }, [] {});
    const std::string state = insist([&] { return training.train(); },
                                     [&] { training.trainer().restore(start, "the start"); });
    EXPECT_EQ(failures, 1);
    EXPECT_TRUE(state == wanted);
    ++met[calls[bad]];
    training.close();
    if (HasFailure()) break;
  }
  EXPECT_EQ(met.size(), kinds.size());
}

// Programs of a warm-up are told to keep nothing: where it fails, the training after it must not
// believe so too, nor go on from another step.
TEST_P(FaultTest, AFailedWarmUpIsAsIfThereHadBeenNone) {
  const Case& how = GetParam();
  for (const std::int64_t stream_rows : {0, 24}) {
    if (stream_rows > 0 && how.simt) continue;
    const auto begin = [&](Training& training) {
      training.options().stream_rows = stream_rows;
      training.open();
      training.build();
      training.trainer().run(3);
    };
    std::vector<Call> calls;
    std::string wanted;
    {
      Training straight(how);
      begin(straight);
      wanted = straight.train();
      Training counted(how);
      bool counting = false;
      counted.fault = [&](Call call) {
        if (counting) calls.push_back(call);
        return 0;
      };
      begin(counted);
      counting = true;
      static_cast<void>(counted.trainer().warm_up());
      counting = false;
      EXPECT_TRUE(counted.train() == wanted);
    }
    std::set<Call> met;
    int lasting_faults = 0;
    for (std::size_t bad = 0; bad < calls.size(); ++bad) {
      if (how.simt && met.contains(calls[bad])) continue;
      met.insert(calls[bad]);
      // Where uploads go on failing, the flag cannot be set again at once either.
      for (const bool lasting : {false, true}) {
        if (lasting && calls[bad] != Call::copy_to_device) continue;
        SCOPED_TRACE("fault at call " + std::to_string(bad) + ", " +
                     std::string(name_of(calls[bad])) + (lasting ? " and after" : "") +
                     (stream_rows > 0 ? ", streaming" : ""));
        Training training(how);
        bool faulty = false;
        std::size_t count = 0;
        training.fault = [&](Call call) {
          if (!faulty) return 0;
          const std::size_t now = count++;
          return now == bad || (lasting && now > bad && call == calls[bad])
                     ? DeferredRuntime::broken
                     : 0;
        };
        begin(training);
        faulty = true;
        try {
          static_cast<void>(training.trainer().warm_up());
          ADD_FAILURE() << "the fault was not noticed";
        } catch (const Error& error) {
          EXPECT_EQ(error.status(), Status::device) << error.what();
        }
        faulty = false;
        lasting_faults += lasting ? 1 : 0;
        EXPECT_EQ(training.trainer().step(), 3);
        EXPECT_TRUE(training.train() == wanted);
        training.close();
        if (HasFailure()) return;
      }
    }
    EXPECT_GT(lasting_faults, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Executors, FaultTest,
                         ::testing::Values(Case{"Eager", "eager", 1, false},
                                           Case{"Graph", "graph", 1, false},
                                           Case{"GraphOfThreeStreams", "graph", 3, false},
                                           Case{"OnTheRunner", "graph", 2, true},
                                           Case{"WideOnTheRunner", "graph", 2, true, true}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace cuvae::cuda
