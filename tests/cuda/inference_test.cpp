// Inference from host to host: what a call asks of the runtime, and that batches whose copies
// overlap give what runs one by one give.

#include <gtest/gtest.h>

#include <map>

#include "base/tolerance.h"
#include "cpu/cpu_device.h"
#include "cuda/cuda_device.h"
#include "cuda/deferred_runtime.h"
#include "cuda/host_kernels.h"
#include "cuda/training_case.h"
#include "cuvae/error.h"
#include "kernels/table.cuh"
#include "simt/runtime.h"

namespace cuvae::cuda {
namespace {

using namespace cuvae::testing;  // NOLINT(google-build-using-namespace): the tests' own

// z [B, 3] -> relu [B, 7] -> sigmoid [B, 5].
Graph decoder(std::int64_t batch) {
  Graph g;
  const Value z = g.input("z", DType::f32, Shape{batch, 3});
  const auto layer = [&](const std::string& name, Value in, std::int64_t out) {
    return g.apply("linear", name,
                   {in, g.parameter(name + ".w", Shape{out, g[in].shape[1]}),
                    g.parameter(name + ".b", Shape{out})});
  };
  const Value h = g.apply("activation", "h", {layer("one", z, 7)}, {{"kind", std::string("relu")}});
  g.output(g.apply("activation", "y", {layer("two", h, 5)}, {{"kind", std::string("sigmoid")}}));
  return g;
}

Tensor noise(Shape shape, unsigned seed) {
  std::mt19937 random(seed);
  Tensor tensor(DType::f32, shape);
  for (float& x : tensor.as<float>()) x = static_cast<float>(random()) * 0x1p-31F - 1.0F;
  return tensor;
}

void fill_parameters(Store& store, const Graph& graph) {
  unsigned seed = 3;
  for (const ValueInfo& info : graph.values())
    if (info.storage == Storage::parameter) store.write(info.name, noise(info.shape, ++seed));
}

struct Gpu {
  explicit Gpu(bool simt, simt::StreamOrder streams = simt::StreamOrder::deferred) {
    const auto fault = [this](Call call) {
      ++calls[call];
      ++count;
      return count == bad ? DeferredRuntime::broken : 0;
    };
    if (simt) {
      simt::SimtOptions options;
      options.streams = streams;
      auto runtime = simt::make_simt_runtime(options);
      runtime->set_fault(fault);
      device = make_cuda_device(std::move(runtime), gpu_on_simt::kernel_table());
      return;
    }
    auto runtime = std::make_unique<DeferredRuntime>(3);
    runtime->set_fault(fault);
    violations = runtime->violations;
    device = make_cuda_device(std::move(runtime), host_kernels());
  }
  ~Gpu() {
    device.reset();
    if (violations) {
      EXPECT_TRUE(violations->empty()) << violations->front();
    }
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  std::map<Call, int> calls;
  int count = 0;
  int bad = -1;  // the call that fails
  std::unique_ptr<Device> device;
  std::shared_ptr<std::vector<std::string>> violations;
};

// The rows one batch after the other, by write, run and read.
Tensor one_by_one(Program& program, Store& store, std::int64_t batch, const Tensor& rows) {
  Tensor all(DType::f32, Shape{rows.shape()[0], 5});
  for (std::int64_t first = 0; first < rows.shape()[0]; first += batch) {
    Tensor part(DType::f32, Shape{batch, 3});
    std::memcpy(part.bytes().data(), rows.bytes().data() + first * 12, part.bytes().size());
    store.write("z", part);
    program.run();
    const Tensor y = program.read("y");
    std::memcpy(all.bytes().data() + first * 20, y.bytes().data(), y.bytes().size());
  }
  return all;
}

TEST(Inference, BatchesGiveWhatRunsOneByOneGive) {
  for (const bool simt : {true, false})
    for (const char* exec : {"graph", "eager"})
      for (const std::int64_t batch : {1, 6}) {
        SCOPED_TRACE(std::string(exec) + (simt ? " on the runner " : " ") + std::to_string(batch));
        Gpu gpu(simt);
        const Graph graph = decoder(batch);
        const auto store = gpu.device->make_store();
        fill_parameters(*store, graph);
        CompileOptions options;
        options.exec = exec;
        const auto program = gpu.device->compile(graph, *store, options);
        for (const std::int64_t batches : {1, 2, 3, 5, 1}) {
          const Tensor rows = noise(Shape{batches * batch, 3}, static_cast<unsigned>(batches));
          Tensor results(DType::f32, Shape{batches * batch, 5});
          program->run_batches("z", rows, "y", results);
          EXPECT_TRUE(same(results, one_by_one(*program, *store, batch, rows))) << batches;
        }
        Tensor none(DType::f32, Shape{0, 5});
        program->run_batches("z", Tensor(DType::f32, Shape{0, 3}), "y", none);
      }
}

TEST(Inference, ACallIsOneLaunchAndOneWait) {
  Gpu gpu(true);
  const Graph graph = decoder(1);
  const auto store = gpu.device->make_store();
  fill_parameters(*store, graph);
  const auto program = gpu.device->compile(graph, *store, {});
  EXPECT_EQ(program->graph().nodes().size(), 1U);  // both layers
  Tensor result(DType::f32, Shape{1, 5});
  program->run_batches("z", noise(Shape{1, 3}, 1), "y", result);
  EXPECT_EQ(dynamic_cast<CudaProgram&>(*program).launches_per_run(), 1);
  gpu.calls.clear();
  program->run_batches("z", noise(Shape{1, 3}, 2), "y", result);
  EXPECT_EQ(gpu.calls,
            (std::map<Call, int>{{Call::launch_graph, 1}, {Call::synchronize_stream, 1}}));
  // The store holds what was asked for last.
  EXPECT_TRUE(same(store->read("z"), noise(Shape{1, 3}, 2)));
}

TEST(Inference, SeveralValuesAreReadWithOneWait) {
  Gpu gpu(true);
  const TrainingGraph model = small_model();
  const auto store = gpu.device->make_store();
  fill(*store, model.graph);
  show_step(*store, 0);
  CompileOptions options;
  options.keep_all = true;
  const auto program = gpu.device->compile(model.graph, *store, options);
  program->run();
  const std::vector<std::string_view> names{"loss", "mean", "kl_rows", "logvar"};
  gpu.calls.clear();
  const std::vector<Tensor> all = program->read_all(names);
  EXPECT_EQ(gpu.calls[Call::synchronize_stream], 1);
  ASSERT_EQ(all.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i)
    EXPECT_TRUE(same(all[i], program->read(names[i]))) << names[i];
}

TEST(Inference, RefusesWhatIsNoBatch) {
  Gpu gpu(true);
  const Graph graph = decoder(2);
  const auto store = gpu.device->make_store();
  const auto program = gpu.device->compile(graph, *store, {});
  const auto cpu = make_cpu_device({.threads = 1});
  const auto cpu_store = cpu->make_store();
  const auto cpu_program = cpu->compile(graph, *cpu_store, {});
  const auto refused = [&](const char* input, Shape rows, const char* output, Shape results,
                           const char* part, DType dtype = DType::f32) {
    for (Program* on : {program.get(), cpu_program.get()}) {
      Tensor to(dtype, results);
      try {
        on->run_batches(input, Tensor(DType::f32, rows), output, to);
        ADD_FAILURE() << part;
      } catch (const Error& error) {
        EXPECT_EQ(error.status(), Status::usage);
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      }
    }
  };
  const Shape rows{4, 3}, results{4, 5};
  refused("x", rows, "y", results, "no input `x`");
  refused("one.w", rows, "y", results, "no input `one.w`");
  refused("z", rows, "h", results, "no output `h`");
  refused("z", Shape{3, 3}, "y", results, "batches of it are not f32 [3, 3]");
  refused("z", Shape{4, 2}, "y", results, "batches of it are not f32 [4, 2]");
  refused("z", Shape{12}, "y", results, "batches of it are not f32 [12]");
  refused("z", rows, "y", results, "batches of it are not f64 [4, 5]", DType::f64);
  refused("z", rows, "y", Shape{6, 5}, "2 batches of `z` and results for 3");
}

TEST(Inference, TheCpuDoesTheSame) {
  const auto device = make_cpu_device({.threads = 2});
  const Graph graph = decoder(2);
  const auto store = device->make_store();
  fill_parameters(*store, graph);
  const auto program = device->compile(graph, *store, {});
  const Tensor rows = noise(Shape{6, 3}, 9);
  Tensor results(DType::f32, Shape{6, 5});
  program->run_batches("z", rows, "y", results);
  EXPECT_TRUE(same(results, one_by_one(*program, *store, 2, rows)));
  Gpu gpu(true);
  const auto gpu_store = gpu.device->make_store();
  fill_parameters(*gpu_store, graph);
  Tensor others(DType::f32, Shape{6, 5});
  gpu.device->compile(graph, *gpu_store, {})->run_batches("z", rows, "y", others);
  const Comparison outcome =
      compare_elements(std::as_const(others).as<float>(), std::as_const(results).as<float>(),
                       tolerance(DType::f32, 10, std::sqrt(10.0)));
  EXPECT_TRUE(outcome.passed) << outcome.str();
}

// Every call that a first and a second use make fails once.
TEST(Inference, AFaultAtAnyCallIsOneErrorAndTheNextCallWorks) {
  for (const bool simt : {true, false})
    for (const std::int64_t batches : {1, 3}) {
      const Graph graph = decoder(1);
      const Tensor rows = noise(Shape{batches, 3}, 5);
      Tensor wanted(DType::f32, Shape{batches, 5});
      for (int bad = 0;; ++bad) {
        Gpu gpu(simt);
        const auto store = gpu.device->make_store();
        fill_parameters(*store, graph);
        const auto program = gpu.device->compile(graph, *store, {});
        Tensor results(DType::f32, Shape{batches, 5});
        gpu.count = 0;
        gpu.bad = bad;
        int failures = 0;
        for (int use = 0; use < 2; ++use) {
          try {
            program->run_batches("z", rows, "y", results);
          } catch (const Error& error) {
            EXPECT_EQ(error.status(), Status::device);
            ++failures;
          }
        }
        const int made = gpu.count;
        gpu.bad = -1;
        std::fill(results.as<float>().begin(), results.as<float>().end(), 0.0f);
        program->run_batches("z", rows, "y", results);
        if (bad == 0) {
          EXPECT_EQ(failures, 0);
          wanted = results;
        } else if (bad > made) {
          EXPECT_GT(bad, 6);
          break;
        }
        EXPECT_EQ(failures, bad == 0 ? 0 : 1) << bad;
        EXPECT_TRUE(same(results, wanted)) << bad;
      }
    }
}

// What a kernel reports is thrown by the call that met it, and by no other.
TEST(Inference, AKernelsFaultIsThrownByItsCall) {
  Gpu gpu(true);
  Graph g;
  const Value data = g.input("data", DType::f32, Shape{4, 2});
  const Value index = g.input("index", DType::i64, Shape{3});
  g.output(g.apply("gather", "x", {data, index}, {{"scale", 1.0}}));
  const auto store = gpu.device->make_store();
  store->write("data", noise(Shape{4, 2}, 1));
  const auto program = gpu.device->compile(g, *store, {});
  Tensor results(DType::f32, Shape{3, 2});
  program->run_batches("index", integers(Shape{3}, {3, 0, 1}), "x", results);
  for (const std::int64_t batches : {1, 2}) {
    Tensor many(DType::f32, Shape{3 * batches, 2});
    std::vector<std::int64_t> wrong(static_cast<std::size_t>(3 * batches), 1);
    wrong.back() = 4;
    EXPECT_THROW(program->run_batches("index", integers(Shape{3 * batches}, wrong), "x", many),
                 Error);
    program->run_batches("index", integers(Shape{3}, {3, 0, 1}), "x", results);
    EXPECT_EQ(results.item(0), store->read("data").item(6));
  }
}

}  // namespace
}  // namespace cuvae::cuda
