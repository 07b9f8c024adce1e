// Programs and stores of the CUDA backend over a GPU that does everything as late as it may, with
// the CPU's kernels: whatever the CPU backend computes must come out, bit for bit.

#include "cuda/cuda_device.h"

#include <gtest/gtest.h>

#include <set>

#include "cpu/cpu_device.h"
#include "cuda/deferred_runtime.h"
#include "cuda/host_kernels.h"
#include "cuda/training_case.h"
#include "cuvae/error.h"

namespace cuvae::cuda {
namespace {

using namespace cuvae::testing;  // NOLINT(google-build-using-namespace): the tests' own

struct Gpu {
  explicit Gpu(std::uint64_t seed = 1, const CudaDeviceOptions& options = {}) {
    auto made = std::make_unique<DeferredRuntime>(seed);
    runtime = made.get();
    device = make_cuda_device(std::move(made), host_kernels(), options);
  }
  DeferredRuntime* runtime = nullptr;
  std::unique_ptr<Device> device;
};

template <class F>
std::string error_of(Status status, F f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.status()), static_cast<int>(status)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

::testing::AssertionResult has(const std::string& text, std::string_view part) {
  if (text.find(part) != text.npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "\"" << text << "\" lacks \"" << part << "\"";
}

Outcome on_cpu(const CompileOptions& options, std::int64_t steps) {
  CompileOptions plain = options;
  plain.exec = "auto";
  plain.streams = 1;
  return train(*make_cpu_device({.threads = 1}), plain, steps);
}

TEST(CudaProgram, TrainsAsTheCpuDoesInEveryOrderOfStreams) {
  for (const bool fuse : {true, false}) {
    CompileOptions options;
    options.fuse = fuse;
    const Outcome wanted = on_cpu(options, 6);
    for (const char* exec : {"eager", "graph", "auto"})
      for (const int streams : {1, 2, 4})
        for (const int steps : {1, 3}) {
          SCOPED_TRACE(std::string(exec) + ", " + std::to_string(streams) + " streams, " +
                       std::to_string(steps) + " steps");
          options.exec = exec;
          options.streams = streams;
          options.steps = steps;
          Gpu gpu(static_cast<std::uint64_t>(10 * streams + steps));
          const auto poison = [](Program& program) {
            dynamic_cast<CudaProgram&>(program).fill_memory(std::byte{0xFF});
          };
          EXPECT_TRUE(same(wanted, train(*gpu.device, options, 6, poison)));
          EXPECT_TRUE(gpu.runtime->violations->empty()) << gpu.runtime->violations->front();
          EXPECT_TRUE(gpu.runtime->ranges.empty());
          EXPECT_EQ(gpu.runtime->seen_ranges.count("adam.decoder.out.weight"), 1U);
        }
  }
}

TEST(CudaProgram, ProfileCoversEveryNode) {
  const TrainingGraph model = small_model(1);
  Gpu gpu;
  const auto store = gpu.device->make_store();
  for (const char* exec : {"eager", "graph"}) {
    CompileOptions options;
    options.exec = exec;
    const auto program = gpu.device->compile(model.graph, *store, options);
    fill(*store, model.graph);
    show_step(*store, 0, 1);
    const std::vector<NodeTime> times = program->profile(3);
    ASSERT_EQ(times.size(), program->graph().nodes().size());
    double flops = 0;
    std::set<std::string> names;
    for (const Node& node : program->graph().nodes()) names.insert(node.name);
    for (std::size_t i = 0; i < times.size(); ++i) {
      EXPECT_EQ(names.erase(times[i].node), 1U) << times[i].node;  // in the plan's order
      EXPECT_GT(times[i].seconds, 0) << times[i].node;
      EXPECT_GT(times[i].bytes, 0) << times[i].node;
      flops += times[i].flops;
    }
    EXPECT_GT(flops, 0);
    EXPECT_TRUE(gpu.runtime->violations->empty());
    EXPECT_TRUE(has(error_of(Status::usage, [&] { static_cast<void>(program->profile(0)); }),
                    "a profile of 0 runs"));
  }
}

TEST(CudaDevice, TimesByItsOwnClock) {
  const TrainingGraph model = small_model(1);
  Gpu gpu;
  const auto store = gpu.device->make_store();
  const auto program = gpu.device->compile(model.graph, *store, {});
  fill(*store, model.graph);
  show_step(*store, 0, 1);
  const std::unique_ptr<DeviceTimer> timer = gpu.device->make_timer(*store);
  ASSERT_TRUE(timer);
  for (int i = 0; i < 2; ++i) {
    timer->start();
    program->run();
    EXPECT_GT(timer->stop(), 0);
  }
  const auto cpu = make_cpu_device({.threads = 1});
  EXPECT_FALSE(cpu->make_timer(*cpu->make_store()));
  // The clock is of the store's device.
  EXPECT_TRUE(
      has(error_of(Status::usage, [&] { static_cast<void>(Gpu().device->make_timer(*store)); }),
          "a store of another device"));
}

TEST(CudaProgram, KeepsWhatItIsAskedToKeep) {
  CompileOptions options;
  options.fuse = false;
  options.keep_all = true;
  options.streams = 2;
  options.steps = 2;
  const TrainingGraph model = small_model(2);
  const auto cpu = make_cpu_device({.threads = 1});
  const auto store = cpu->make_store();
  Gpu gpu;
  const auto gpu_store = gpu.device->make_store();
  const auto reference = cpu->compile(model.graph, *store, options);
  const auto program = gpu.device->compile(model.graph, *gpu_store, options);
  for (Store* each : {store.get(), gpu_store.get()}) {
    fill(*each, model.graph);
    show_step(*each, 0, 2);
  }
  reference->run();
  program->run();
  int values = 0;
  for (const ValueInfo& info : model.graph.values()) {
    if (info.producer < 0) continue;
    for (const int step : {0, 1})
      EXPECT_TRUE(same(reference->read(info.name, step), program->read(info.name, step)))
          << info.name;
    EXPECT_TRUE(same(reference->read_steps(info.name), program->read_steps(info.name)));
    ++values;
  }
  EXPECT_GT(values, 40);
}

TEST(CudaProgram, RunsNodeByNodeAndTakesWhatTheObserverWrites) {
  CompileOptions options;
  options.fuse = false;
  options.streams = 3;
  const TrainingGraph model = small_model();
  const auto cpu = make_cpu_device({.threads = 1});
  const auto store = cpu->make_store();
  Gpu gpu;
  const auto gpu_store = gpu.device->make_store();
  const auto reference = cpu->compile(model.graph, *store, options);
  const auto program = gpu.device->compile(model.graph, *gpu_store, options);
  std::map<std::string, Tensor> seen;
  const auto observe = [&](Program& p, Store& s,
                           const std::function<void(const std::string&, const Tensor&)>& note) {
    fill(s, model.graph);
    show_step(s, 3);
    p.run([&](const TaskView& task) {
      EXPECT_EQ(task.step, 0);
      for (const Value output : task.node->outputs) {
        const std::string& name = p.graph()[output].name;
        if (name == "decoder.out") {
          Tensor changed = p.read(name);
          changed.as<float>()[0] += 1;
          p.write(name, 0, changed);
        }
        note(name, p.read(name));
      }
    });
    note("loss at the end", p.read("loss"));
  };
  observe(*reference, *store, [&](const std::string& name, const Tensor& t) { seen[name] = t; });
  std::size_t count = 0;
  observe(*program, *gpu_store, [&](const std::string& name, const Tensor& tensor) {
    ASSERT_TRUE(seen.count(name)) << name;
    EXPECT_TRUE(same(seen[name], tensor)) << name;
    ++count;
  });
  EXPECT_EQ(count, seen.size());
  // A transient value is gone when nobody watches.
  EXPECT_TRUE(has(error_of(Status::usage, [&] { (void)program->read("encoder.0"); }),
                  "does not outlive its last reader"));
}

TEST(CudaProgram, NeitherRunningNorWritingWaitsForTheDevice) {
  for (const char* exec : {"eager", "graph"}) {
    Gpu gpu;
    const TrainingGraph model = small_model();
    const auto store = gpu.device->make_store();
    CompileOptions options;
    options.exec = exec;
    options.streams = 2;
    fill(*store, model.graph);
    const auto program = gpu.device->compile(model.graph, *store, options);
    EXPECT_EQ(program->exec(), exec);
    (void)store->read("commit");
    EXPECT_TRUE(gpu.runtime->idle());
    const std::int64_t done = gpu.runtime->executed;
    for (int step = 0; step < 5; ++step) {
      show_step(*store, step);
      program->run();
    }
    EXPECT_EQ(gpu.runtime->executed, done);
    EXPECT_FALSE(gpu.runtime->idle());
    (void)program->read("loss");
    EXPECT_GT(gpu.runtime->executed, done);
  }
}

TEST(CudaProgram, ManyRunsEachSeeWhatWasWrittenBeforeThem) {
  const TrainingGraph model = small_model();
  const auto cpu = make_cpu_device({.threads = 1});
  const auto store = cpu->make_store();
  Gpu gpu;
  const auto gpu_store = gpu.device->make_store();
  const auto reference = cpu->compile(model.graph, *store, {});
  const auto program = gpu.device->compile(model.graph, *gpu_store, {});
  fill(*store, model.graph);
  fill(*gpu_store, model.graph);
  // More pieces than the staging ring has, without anybody waiting in between.
  for (int step = 0; step < 400; ++step) {
    for (Store* each : {store.get(), gpu_store.get()}) show_step(*each, step % 8);
    reference->run();
    program->run();
  }
  for (const ValueInfo& info : model.graph.values())
    if (info.storage == Storage::parameter) {
      EXPECT_TRUE(same(store->read(info.name), gpu_store->read(info.name))) << info.name;
    }
  EXPECT_TRUE(same(reference->read("loss"), program->read("loss")));
}

TEST(CudaProgram, ReadsTheSmallOutputsOfAllStepsWithOneWait) {
  Gpu gpu;
  const TrainingGraph model = small_model(4);
  const auto store = gpu.device->make_store();
  CompileOptions options;
  options.steps = 4;
  const auto program = gpu.device->compile(model.graph, *store, options);
  fill(*store, model.graph);
  show_step(*store, 0, 4);
  program->run();
  const Tensor loss = program->read_steps("loss");
  EXPECT_EQ(loss.shape(), (Shape{4}));
  const std::int64_t done = gpu.runtime->executed;
  const Tensor kl = program->read_steps("kl");
  for (int step = 0; step < 4; ++step) {
    EXPECT_EQ(program->read("loss", step).item(), loss.item(step));
    EXPECT_EQ(program->read("kl", step).item(), kl.item(step));
  }
  EXPECT_EQ(gpu.runtime->executed, done);
  // What is fetched belongs to one run.
  show_step(*store, 4, 4);
  program->run();
  EXPECT_NE(program->read("loss", 0).item(), loss.item(0));
  program->write("loss", 1, reals(Shape{}, {42}));
  EXPECT_EQ(program->read("loss", 1).item(), 42);
}

TEST(CudaProgram, FaultsAreTheCpusErrorsAndTheNextRunWorks) {
  const TrainingGraph model = small_model();
  struct Case {
    std::vector<std::int64_t> clock;
    std::string where;
    std::string on_the_gpu;  // whose first layer gathers
    std::string mend;
  };
  const std::string batch = "(node `batch` (batch_index)): ";
  const std::vector<Case> cases = {
      {{11, 0, 0, 60, 0}, batch, batch, "a run stays within one epoch"},
      {{11, 0, 0, 0, 50},
       "(node `x` (gather)): ",
       "(node `encoder.0.relu` (linear_gather_activation)): ",
       "the clock's base and the window must agree"}};
  for (const char* exec : {"eager", "graph"})
    for (const Case& bad : cases) {
      const auto cpu = make_cpu_device({.threads = 1});
      const auto cpu_store = cpu->make_store();
      fill(*cpu_store, model.graph);
      show_step(*cpu_store, 0);
      cpu_store->write("clock", integers(Shape{5}, bad.clock));
      const auto reference = cpu->compile(model.graph, *cpu_store, {});
      EXPECT_TRUE(has(error_of(Status::failed, [&] { reference->run(); }), bad.where + bad.mend));

      Gpu gpu;
      const auto store = gpu.device->make_store();
      fill(*store, model.graph);
      show_step(*store, 0);
      CompileOptions options;
      options.exec = exec;
      const auto program = gpu.device->compile(model.graph, *store, options);
      store->write("clock", integers(Shape{5}, bad.clock));
      program->run();  // says nothing yet
      const std::string text = error_of(Status::failed, [&] { (void)store->read("commit"); });
      EXPECT_TRUE(has(text, bad.on_the_gpu + bad.mend));
      fill(*store, model.graph);
      show_step(*store, 0);
      program->run();
      EXPECT_TRUE(std::isfinite(program->read("loss").item()));
      // Node by node it is the node that says so.
      store->write("clock", integers(Shape{5}, bad.clock));
      EXPECT_TRUE(has(error_of(Status::failed, [&] { program->run([](const TaskView&) {}); }),
                      bad.on_the_gpu + bad.mend));
    }
}

TEST(CudaProgram, AnImpossibleKeyOfRandomNumbersIsSaidTheSameWay) {
  Graph graph;
  const Value mean = graph.input("mean", DType::f32, Shape{2, 3});
  const Value logvar = graph.input("logvar", DType::f32, Shape{2, 3});
  const Value clock = graph.input("clock", DType::i64, Shape{5});
  const Value key = graph.input("key", DType::i64, Shape{2});
  const auto outputs = graph.add("sample", "latent", {mean, logvar, clock, key},
                                 {{"purpose", static_cast<std::int64_t>(Purpose::evaluation)}});
  graph.output(outputs[0]);
  Gpu gpu;
  const auto cpu = make_cpu_device({.threads = 1});
  for (Device* device : {cpu.get(), gpu.device.get()}) {
    const auto store = device->make_store();
    const auto program = device->compile(graph, *store, {});
    program->write("key", 0, integers(Shape{2}, {0, -1}));
    EXPECT_TRUE(has(error_of(Status::failed,
                             [&] {
                               program->run();
                               (void)store->read("key");
                             }),
                    "(node `latent` (sample)): indices are not negative and fit 2^42 elements"));
    EXPECT_TRUE(same(store->read("key"), integers(Shape{2}, {0, -1})));
  }
}

TEST(CudaProgram, TooLittleMemoryIsSaidBeforeAnythingIsAllocated) {
  Gpu gpu;
  const auto store = gpu.device->make_store();
  const TrainingGraph model = small_model();
  const int handles = *gpu.runtime->handles;
  const std::int64_t used = gpu.runtime->used;
  gpu.runtime->capacity = used + 20000;
  const std::string text =
      error_of(Status::device, [&] { (void)gpu.device->compile(model.graph, *store, {}); });
  EXPECT_TRUE(has(text, "too little GPU memory: "));
  EXPECT_TRUE(has(text, "19.5 KiB of"));
  EXPECT_TRUE(has(text, "(cuda:0): use a smaller batch"));
  EXPECT_EQ(*gpu.runtime->handles, handles);
  EXPECT_EQ(gpu.runtime->used, used);
  gpu.runtime->capacity = 1 << 30;
  fill(*store, model.graph);
  show_step(*store, 0);
  const auto program = gpu.device->compile(model.graph, *store, {});
  EXPECT_EQ(gpu.runtime->used - used,
            dynamic_cast<CudaProgram&>(*program).device_bytes() + program->persistent_bytes());
  EXPECT_LT(program->arena_bytes(), dynamic_cast<CudaProgram&>(*program).device_bytes());
  program->run();
  EXPECT_GT(program->read("loss").item(), 0);
}

TEST(CudaProgram, RefusesWhatItHasNot) {
  Gpu gpu;
  Gpu other;
  const auto store = gpu.device->make_store();
  const auto foreign = other.device->make_store();
  const auto on_cpu_store = make_cpu_device({.threads = 1})->make_store();
  const TrainingGraph model = small_model();
  const auto compile = [&](Store& where, const CompileOptions& options) {
    return error_of(Status::usage, [&] { (void)gpu.device->compile(model.graph, where, options); });
  };
  EXPECT_TRUE(has(compile(*foreign, {}), "a program on a store of another device"));
  EXPECT_TRUE(has(compile(*on_cpu_store, {}), "a program on a store of another device"));
  CompileOptions options;
  options.exec = "grap";
  EXPECT_TRUE(has(compile(*store, options), "use auto, graph, persistent or eager"));
  options = {};
  options.precision = "bf61";
  EXPECT_TRUE(has(compile(*store, options), "did you mean `bf16`"));
  for (const char* precision : {"fp32", "tf32", "bf16"}) {
    options.precision = precision;
    EXPECT_NO_THROW((void)gpu.device->compile(model.graph, *store, options));
  }
  const auto program = gpu.device->compile(model.graph, *store, {});
  EXPECT_TRUE(has(error_of(Status::usage, [&] { (void)program->read("nothing"); }),
                  "the program has no value `nothing`"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { (void)program->read("loss", 1); }), "step 1 of 1"));
  EXPECT_TRUE(has(error_of(Status::usage,
                           [&] {
                             program->write("loss", 0, reals(Shape{2}, {1, 2}));
                           }),
                  "the value `loss` is f32 [], not f32 [2]"));
}

TEST(CudaProgram, TellsWhatItIs) {
  Gpu gpu;
  const DeviceInfo info = gpu.device->info();
  EXPECT_EQ(info.name, "cuda:0");
  EXPECT_EQ(info.model, "a deferred GPU");
  EXPECT_EQ(info.numerics, "cuda f32, a deferred GPU (sm_90), deferred");
  EXPECT_EQ(info.real, DType::f32);
  const auto store = gpu.device->make_store();
  CompileOptions options;
  options.fuse = false;
  const auto program = gpu.device->compile(small_model().graph, *store, options);
  EXPECT_TRUE(has(program->tuning(), "encoder.heads: host"));
  EXPECT_TRUE(has(program->dump(), "algorithms: "));
  EXPECT_TRUE(has(program->dump(), "workspace "));
  EXPECT_TRUE(has(program->dump_dot(), "digraph plan"));
}

// Which launches overlap, and what they may read early, follows from the plan.
TEST(CudaProgram, OverlapsOnlyWhereThePlanAllows) {
  const TrainingGraph model = small_model();
  for (const int streams : {1, 3})
    for (const char* exec : {"eager", "graph"}) {
      Gpu gpu;
      const auto store = gpu.device->make_store();
      fill(*store, model.graph);
      show_step(*store, 0);
      CompileOptions options;
      options.exec = exec;
      options.fuse = false;
      options.streams = streams;
      const auto program = gpu.device->compile(model.graph, *store, options);
      program->run();
      (void)program->read("loss");
      const auto& launches = gpu.runtime->launches;
      EXPECT_EQ(static_cast<std::int64_t>(launches.size()),
                dynamic_cast<CudaProgram&>(*program).launches_per_run());
      EXPECT_FALSE(launches.front().shape.programmatic);
      int early = 0;
      int overlapping = 0;
      for (const auto& launch : launches) {
        EXPECT_EQ(launch.captured, std::string(exec) == "graph");
        overlapping += launch.shape.programmatic ? 1 : 0;
        for (const Access& access : launch.accesses) {
          EXPECT_NE(access.memory, nullptr);
          EXPECT_GT(access.bytes, 0U);
          if (!access.early) continue;
          ++early;
          EXPECT_TRUE(launch.shape.programmatic);
          EXPECT_FALSE(access.write);
        }
      }
      EXPECT_GT(early, 0);
      EXPECT_GT(overlapping, 5);
      if (streams == 1) {
        EXPECT_EQ(overlapping, static_cast<int>(launches.size()) - 1);
      }
      gpu.runtime->launches.clear();
      program->run([](const TaskView&) {});
      // A second kernel of a node overlaps with the first.
      for (const auto& launch : gpu.runtime->launches) {
        EXPECT_EQ(launch.shape.programmatic, launch.kernel == "finish");
        for (const Access& access : launch.accesses) EXPECT_FALSE(access.early);
      }
    }
}

TEST(CudaProgram, NothingOverlapsBelowComputeCapability9OrWhereItIsSwitchedOff) {
  for (const bool old : {true, false}) {
    auto runtime = std::make_unique<DeferredRuntime>();
    DeferredRuntime& seen = *runtime;
    if (old) runtime->properties_.major = 8;
    CudaDeviceOptions options;
    options.programmatic = old;
    const auto device = make_cuda_device(std::move(runtime), host_kernels(), options);
    EXPECT_TRUE(same(on_cpu({}, 2), train(*device, {}, 2)));
    EXPECT_FALSE(seen.launches.empty());
    for (const auto& launch : seen.launches) {
      EXPECT_FALSE(launch.shape.programmatic);
      for (const Access& access : launch.accesses) EXPECT_FALSE(access.early);
    }
  }
}

TEST(CudaStore, HoldsWhatIsWrittenAndDeclaredTensorsAreZero) {
  Gpu gpu;
  const auto store = gpu.device->make_store();
  EXPECT_FALSE(store->has("x"));
  store->declare("x", DType::f32, Shape{3});
  EXPECT_TRUE(same(store->read("x"), Tensor(DType::f32, Shape{3})));
  store->write("x", reals(Shape{3}, {1, 2, 3}));
  store->declare("x", DType::f32, Shape{3});
  EXPECT_TRUE(same(store->read("x"), reals(Shape{3}, {1, 2, 3})));
  store->write("i", integers(Shape{2}, {-1, 5}));
  EXPECT_TRUE(same(store->read("i"), integers(Shape{2}, {-1, 5})));
  Tensor large(DType::u8, Shape{3, 3 << 20});  // more than the staging ring holds
  std::mt19937 random(3);
  for (auto& x : large.as<std::uint8_t>()) x = static_cast<std::uint8_t>(random());
  store->write("large", large);
  EXPECT_TRUE(same(store->read("large"), large));
  store->write("none", Tensor(DType::f32, Shape{0}));
  EXPECT_EQ(store->read("none").elements(), 0);
  EXPECT_EQ(store->names(), (std::vector<std::string>{"i", "large", "none", "x"}));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { store->declare("x", DType::f32, Shape{4}); }),
                  "the tensor `x` is f32 [3], not f32 [4]"));
  EXPECT_TRUE(has(error_of(Status::usage,
                           [&] {
                             store->write("x", integers(Shape{3}, {1, 2, 3}));
                           }),
                  "the tensor `x` is f32 [3], not i64 [3]"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { (void)store->read("y"); }),
                  "the store holds no tensor `y`"));
  EXPECT_TRUE(
      has(error_of(Status::usage, [&] { store->write("d", reals(Shape{1}, {1}).to(DType::f64)); }),
          "the tensor `d` is f64 (store): a GPU computes in f32"));
  gpu.runtime->capacity = gpu.runtime->used + 1000;
  EXPECT_TRUE(has(error_of(Status::device, [&] { store->declare("big", DType::f32, Shape{1000}); }),
                  "`big`, 3.9 KiB"));
  EXPECT_FALSE(store->has("big"));
}

TEST(CudaStore, BindsByUploadingWhatIsNotThereYet) {
  Gpu gpu;
  const auto store = gpu.device->make_store();
  const auto a = std::make_shared<const Tensor>(reals(Shape{2}, {1, 2}));
  const auto b = std::make_shared<const Tensor>(reals(Shape{2}, {3, 4}));
  const auto uploads = [&](auto f) {
    const std::int64_t before = gpu.runtime->uploaded;
    f();
    return gpu.runtime->uploaded - before;
  };
  EXPECT_EQ(uploads([&] { store->bind("w", a); }), 8);
  EXPECT_EQ(uploads([&] { store->bind("w", a); }), 0);
  EXPECT_EQ(uploads([&] { store->bind("w", b); }), 8);
  EXPECT_TRUE(same(store->read("w"), *b));
  store->write("w", *a);
  EXPECT_EQ(uploads([&] { store->bind("w", b); }), 8);
  EXPECT_TRUE(
      has(error_of(Status::usage, [&] { store->bind("w", nullptr); }), "no tensor to bind"));
  EXPECT_TRUE(has(error_of(Status::usage,
                           [&] {
                             store->bind(
                                 "w", std::make_shared<const Tensor>(Tensor(DType::f32, Shape{3})));
                           }),
                  "is f32 [2], not f32 [3]"));
  // What a program changes is bound anew each time.
  const TrainingGraph model = small_model();
  const auto program = gpu.device->compile(model.graph, *store, {});
  fill(*store, model.graph);
  show_step(*store, 0);
  const auto weight = std::make_shared<const Tensor>(store->read("encoder.0.weight"));
  store->bind("encoder.0.weight", weight);
  program->run();
  EXPECT_FALSE(same(store->read("encoder.0.weight"), *weight));
  store->bind("encoder.0.weight", weight);
  EXPECT_TRUE(same(store->read("encoder.0.weight"), *weight));
}

TEST(CudaStore, OutlivesItsDevice) {
  Gpu gpu;
  const auto store = gpu.device->make_store();
  store->write("x", reals(Shape{1}, {7}));
  gpu.device.reset();
  EXPECT_EQ(store->read("x").item(), 7);
}

}  // namespace
}  // namespace cuvae::cuda
