// The device as a whole: stores, programs, and the default model's training step.

#include "cpu/cpu_device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/tolerance.h"
#include "cuvae/error.h"
#include "graph/default_model.h"

namespace cuvae {
namespace {

using testing::training_graph;
using testing::TrainingGraph;

template <class F>
void expect_error(Status status, const std::string& part, F f) {
  try {
    f();
    ADD_FAILURE() << "no error: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

Tensor reals(Shape shape, std::vector<float> values) {
  return Tensor(shape, std::span<const float>(values));
}
Tensor integers(Shape shape, std::vector<std::int64_t> values) {
  return Tensor(shape, std::span<const std::int64_t>(values));
}

// A trained-looking state: parameters, moments, images, clock, learning rate.
void fill(Store& store, const Graph& graph, std::int64_t steps = 1, std::int64_t commit = 1) {
  std::mt19937 random(7);
  const auto uniform = [&] { return static_cast<float>(random()) * 0x1p-31F - 1.0F; };
  for (const ValueInfo& info : graph.values()) {
    if (info.producer >= 0) continue;
    Tensor tensor(info.dtype, info.shape);
    if (info.storage == Storage::parameter) {
      const float bound = 1 / std::sqrt(static_cast<float>(info.shape[info.shape.rank() - 1]));
      for (float& x : tensor.as<float>()) x = bound * uniform();
    } else if (info.storage == Storage::state) {
      for (float& x : tensor.as<float>())
        x = 1e-3F *
            (info.name.find(".v.") != std::string::npos ? 0.1F + std::abs(uniform()) : uniform());
    } else if (info.dtype == DType::u8) {
      for (auto& x : tensor.as<std::uint8_t>())
        x = static_cast<std::uint8_t>(random() % 5 == 0 ? random() : 0);
    }
    store.write(info.name, tensor);
  }
  store.write("clock", integers(Shape{5}, {11, 20, 1, 256, 0}));
  std::vector<float> hyper;
  for (std::int64_t step = 0; step < steps; ++step) {
    hyper.push_back(1e-3F / static_cast<float>(step + 1));
    hyper.push_back(0.5F);
  }
  store.write("hyper", reals(Shape{steps, 2}, hyper));
  store.write("commit", integers(Shape{1}, {commit}));
}

struct Outcome {
  std::vector<Tensor> losses;
  std::vector<std::pair<std::string, Tensor>> state;
};

Outcome train(Device& device, const TrainingGraph& model, const CompileOptions& options, int runs,
              std::int64_t hyper_rows = 1, std::int64_t commit = 1, bool poison = true) {
  const auto store = device.make_store();
  fill(*store, model.graph, hyper_rows, commit);
  const auto program = device.compile(model.graph, *store, options);
  Outcome outcome;
  const std::int64_t batch = 128;
  for (int run = 0; run < runs; ++run) {
    if (poison) dynamic_cast<CpuProgram&>(*program).fill_memory(std::byte{0xFF});
    if (run > 0) {
      store->write("clock", integers(Shape{5}, {11, 20 + run, 1, 256 + run * batch, 0}));
      store->write("hyper", reals(Shape{1, 2}, {1e-3F / static_cast<float>(run + 1), 0.5F}));
    }
    program->run();
    for (int step = 0; step < options.steps; ++step)
      for (const char* name : {"loss", "reconstruction", "kl"})
        outcome.losses.push_back(program->read(name, step));
  }
  EXPECT_TRUE(dynamic_cast<CpuProgram&>(*program).guards_intact());
  EXPECT_TRUE(dynamic_cast<CpuStore&>(*store).guards_intact());
  for (const ValueInfo& info : model.graph.values())
    if (info.producer < 0 && info.storage != Storage::input)
      outcome.state.emplace_back(info.name, store->read(info.name));
  return outcome;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.bytes().size() == b.bytes().size() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

void expect_same(const Outcome& a, const Outcome& b) {
  ASSERT_EQ(a.losses.size(), b.losses.size());
  for (std::size_t i = 0; i < a.losses.size(); ++i)
    EXPECT_TRUE(same(a.losses[i], b.losses[i])) << i;
  for (std::size_t i = 0; i < a.state.size(); ++i)
    EXPECT_TRUE(same(a.state[i].second, b.state[i].second)) << a.state[i].first;
}

// Losses to float's accuracy; moments and weights as far as float gradients determine them.
void expect_close(const Outcome& a, const Outcome& b, std::int64_t reduction) {
  const auto close = [&](const Tensor& x, const Tensor& y, Tolerance limit,
                         const std::string& what) {
    const Tensor left = x.to(DType::f64);
    const Tensor right = y.to(DType::f64);
    const Comparison outcome =
        compare_elements<double, double>(left.as<double>(), right.as<double>(), limit);
    EXPECT_TRUE(outcome.passed) << what << ": " << outcome.str();
  };
  ASSERT_EQ(a.losses.size(), b.losses.size());
  for (std::size_t i = 0; i < a.losses.size(); ++i)
    close(a.losses[i], b.losses[i], tolerance(DType::f32, reduction), "loss " + std::to_string(i));
  for (std::size_t i = 0; i < a.state.size(); ++i)
    close(a.state[i].second, b.state[i].second, tolerance(DType::f32, reduction, 0.05),
          a.state[i].first);
}

const TrainingGraph& default_model() {
  static const TrainingGraph model = training_graph({.rows = 2000});
  return model;
}

TEST(TrainingStep, FusedMatchesUnfused) {
  const auto device = make_cpu_device({.threads = 2});
  CompileOptions unfused;
  unfused.fuse = false;
  expect_close(train(*device, default_model(), {}, 1), train(*device, default_model(), unfused, 1),
               784);
}

TEST(TrainingStep, FloatMatchesDouble) {
  const auto device = make_cpu_device({.threads = 2});
  const auto reference = make_cpu_device({.threads = 2, .real = DType::f64});
  EXPECT_EQ(reference->info().real, DType::f64);
  for (const bool fuse : {true, false}) {
    CompileOptions options;
    options.fuse = fuse;
    expect_close(train(*device, default_model(), options, 1),
                 train(*reference, default_model(), options, 1), 784);
  }
}

TEST(TrainingStep, ReuseOfMemoryChangesNothing) {
  const auto device = make_cpu_device({.threads = 2});
  for (const bool fuse : {true, false}) {
    CompileOptions reuse, apart, keep;
    reuse.fuse = apart.fuse = keep.fuse = fuse;
    apart.reuse = false;
    keep.keep_all = true;
    const Outcome with = train(*device, default_model(), reuse, 2);
    expect_same(with, train(*device, default_model(), apart, 2));
    expect_same(with, train(*device, default_model(), keep, 2));
  }
}

TEST(TrainingStep, ThreadsChangeNothing) {
  const auto one = make_cpu_device({.threads = 1});
  for (const bool fuse : {true, false}) {
    CompileOptions options;
    options.fuse = fuse;
    const Outcome wanted = train(*one, default_model(), options, 2);
    for (const int threads : {2, 3}) {
      const auto many = make_cpu_device({.threads = threads});
      expect_same(wanted, train(*many, default_model(), options, 2));
    }
  }
}

TEST(TrainingStep, UnrolledStepsEqualSeparateRuns) {
  const auto device = make_cpu_device({.threads = 2});
  CompileOptions unrolled;
  unrolled.steps = 3;
  const TrainingGraph three = training_graph({.rows = 2000, .steps = 3});
  expect_same(train(*device, default_model(), {}, 3), train(*device, three, unrolled, 1, 3));
}

TEST(TrainingStep, WithoutCommitNothingChanges) {
  const auto device = make_cpu_device({.threads = 2});
  for (const bool fuse : {true, false}) {
    CompileOptions options;
    options.fuse = fuse;
    const Outcome outcome = train(*device, default_model(), options, 1, 1, 0);
    const auto store = device->make_store();
    fill(*store, default_model().graph);
    for (const auto& [name, tensor] : outcome.state)
      EXPECT_TRUE(same(tensor, store->read(name))) << name;
  }
}

TEST(TrainingStep, ObservedRunIsTheSame) {
  const auto device = make_cpu_device({.threads = 2});
  const auto store = device->make_store();
  fill(*store, default_model().graph);
  const auto program = device->compile(default_model().graph, *store, {});
  std::vector<std::string> nodes;
  program->run([&](const TaskView& view) {
    EXPECT_EQ(view.step, 0);
    nodes.push_back(view.node->name);
    for (const Value output : view.node->outputs)
      EXPECT_GE(program->read(program->graph()[output].name).elements(), 0);
  });
  EXPECT_EQ(nodes.size(), program->graph().nodes().size());
  const Outcome wanted = train(*device, default_model(), {}, 1);
  EXPECT_TRUE(same(program->read("loss"), wanted.losses[0]));
  expect_error(Status::usage, "does not outlive",
               [&] { static_cast<void>(program->read("mean")); });
}

TEST(TrainingStep, ProfileCoversEveryNode) {
  const auto device = make_cpu_device({.threads = 2});
  const auto store = device->make_store();
  fill(*store, default_model().graph);
  const auto program = device->compile(default_model().graph, *store, {});
  auto& cpu = dynamic_cast<CpuProgram&>(*program);
  const auto times = cpu.profile(3);
  EXPECT_EQ(times.size(), program->graph().nodes().size());
  double flops = 0;
  for (const NodeTime& time : times) {
    EXPECT_TRUE(time.seconds > 0 && std::isfinite(time.seconds)) << time.node;
    flops += time.flops;
  }
  EXPECT_GT(flops, 551e6);  // the products of the default model
  EXPECT_LT(flops, 600e6);
  expect_error(Status::usage, "profile", [&] { static_cast<void>(cpu.profile(0)); });
}

TEST(Program, ObserverMayChangeAValue) {
  Graph graph;
  const Value x = graph.input("x", DType::f32, Shape{3});
  const Value doubled = graph.apply("scale", "doubled", {x}, {{"factor", 2.0}});
  graph.output(graph.apply("scale", "result", {doubled}, {{"factor", 10.0}}));
  const auto device = make_cpu_device({.threads = 1});
  const auto store = device->make_store();
  store->write("x", reals(Shape{3}, {1, 2, 3}));
  const auto program = device->compile(graph, *store, {});
  program->run([&](const TaskView& view) {
    if (view.node->name == "doubled")
      program->write("doubled", view.step, reals(Shape{3}, {5, 6, 7}));
  });
  const Tensor result = program->read("result");
  EXPECT_EQ(result.as<float>()[2], 70.0F);
  expect_error(Status::usage, "[2]", [&] { program->write("result", 0, reals(Shape{2}, {1, 2})); });
  expect_error(Status::usage, "no value `nothing`",
               [&] { static_cast<void>(program->read("nothing")); });
  expect_error(Status::usage, "step 1", [&] { static_cast<void>(program->read("result", 1)); });
}

TEST(Program, KernelErrorsReachTheCaller) {
  const auto device = make_cpu_device({.threads = 2});
  const auto store = device->make_store();
  fill(*store, default_model().graph);
  const auto program = device->compile(default_model().graph, *store, {});
  store->write("clock", integers(Shape{5}, {11, 20, 1, 1999, 0}));  // beyond the epoch's end
  expect_error(Status::failed, "batch", [&] { program->run(); });
  store->write("clock", integers(Shape{5}, {11, 20, 1, 0, 500}));  // a window that begins later
  expect_error(Status::failed, "window", [&] { program->run(); });
  store->write("clock", integers(Shape{5}, {11, 20, 1, 0, 0}));
  program->run();
}

TEST(Program, WantsARowOfHyperParametersPerStep) {
  const auto device = make_cpu_device({.threads = 1});
  const auto store = device->make_store();
  CompileOptions options;
  options.steps = 2;
  expect_error(Status::usage, "hyper",
               [&] { static_cast<void>(device->compile(default_model().graph, *store, options)); });
}

TEST(Program, ProgramsOfOneStoreShareItsTensors) {
  Graph twice, thrice;
  twice.output(
      twice.apply("scale", "y", {twice.input("x", DType::f32, Shape{2})}, {{"factor", 2.0}}));
  thrice.output(
      thrice.apply("scale", "y", {thrice.input("x", DType::f32, Shape{2})}, {{"factor", 3.0}}));
  const auto device = make_cpu_device({.threads = 1});
  const auto store = device->make_store();
  const auto a = device->compile(twice, *store, {});
  const auto b = device->compile(thrice, *store, {});
  store->write("x", reals(Shape{2}, {1, 2}));
  a->run();
  b->run();
  EXPECT_EQ(a->read("y").as<float>()[1], 4.0F);
  EXPECT_EQ(b->read("y").as<float>()[1], 6.0F);
  Graph other;
  other.output(other.apply("detach", "y", {other.input("x", DType::f32, Shape{3})}));
  expect_error(Status::usage, "`x`",
               [&] { static_cast<void>(device->compile(other, *store, {})); });
}

TEST(Store, DeclaresWritesReadsAndBinds) {
  const auto device = make_cpu_device({.threads = 1});
  const auto store = device->make_store();
  EXPECT_FALSE(store->has("x"));
  expect_error(Status::usage, "no tensor `x`", [&] { static_cast<void>(store->read("x")); });
  store->declare("x", DType::f32, Shape{2});
  EXPECT_EQ(store->read("x").as<float>()[1], 0.0F);
  store->write("x", reals(Shape{2}, {1, 2}));
  store->declare("x", DType::f32, Shape{2});  // left as it is
  EXPECT_EQ(store->read("x").as<float>()[1], 2.0F);
  expect_error(Status::usage, "`x`", [&] { store->declare("x", DType::f32, Shape{3}); });
  expect_error(Status::usage, "`x`", [&] { store->write("x", integers(Shape{2}, {1, 2})); });
  expect_error(Status::usage, "f64", [&] { store->write("x", Tensor(DType::f64, Shape{2})); });
  store->write("n", integers(Shape{1}, {9}));
  EXPECT_EQ(store->names(), (std::vector<std::string>{"n", "x"}));
  store->bind("x", std::make_shared<const Tensor>(reals(Shape{2}, {7, 8})));
  EXPECT_EQ(store->read("x").as<float>()[0], 7.0F);
  expect_error(Status::usage, "`x`",
               [&] { store->bind("x", std::make_shared<const Tensor>(DType::f32, Shape{3})); });
  expect_error(Status::usage, "no tensor", [&] { store->bind("x", nullptr); });
  store->declare("empty", DType::f32, Shape{0, 4});
  EXPECT_EQ(store->read("empty").elements(), 0);
}

TEST(Store, OfADoubleDeviceWidens) {
  const auto device = make_cpu_device({.threads = 1, .real = DType::f64});
  const auto store = device->make_store();
  store->write("x", reals(Shape{2}, {0.1F, 2}));
  const Tensor x = store->read("x");
  ASSERT_EQ(x.dtype(), DType::f64);
  EXPECT_EQ(x.as<double>()[0], static_cast<double>(0.1F));
  store->write("x", x);  // f64 is taken too
  store->bind("x", std::make_shared<const Tensor>(reals(Shape{2}, {3, 4})));
  EXPECT_EQ(store->read("x").as<double>()[1], 4.0);
}

TEST(Store, ABoundTensorIsNeverWritten) {
  Graph graph;
  const Value w = graph.parameter("w", Shape{2});
  const Value m = graph.state("m", DType::f32, Shape{2});
  const Value v = graph.state("v", DType::f32, Shape{2});
  const Value g = graph.input("g", DType::f32, Shape{2});
  graph.add(
      "adam", "adam",
      {w, m, v, g, graph.input("hyper", DType::f32, Shape{1, 2}),
       graph.input("clock", DType::i64, Shape{5}), graph.input("commit", DType::i64, Shape{1})});
  const auto device = make_cpu_device({.threads = 1});
  const auto store = device->make_store();
  const auto mine = std::make_shared<const Tensor>(reals(Shape{2}, {1, 2}));
  store->bind("w", mine);
  store->write("g", reals(Shape{2}, {1, -1}));
  store->write("hyper", reals(Shape{1, 2}, {0.1F, 1}));
  store->write("commit", integers(Shape{1}, {1}));
  device->compile(graph, *store, {})->run();
  EXPECT_EQ(mine->as<float>()[0], 1.0F);
  EXPECT_NEAR(store->read("w").as<float>()[0], 0.9F, 1e-6F);
}

TEST(CpuDevice, InfoAndErrors) {
  const auto device = make_cpu_device({.threads = 2});
  const DeviceInfo info = device->info();
  EXPECT_EQ(info.name, "cpu");
  EXPECT_EQ(info.threads, 2);
  EXPECT_EQ(info.real, DType::f32);
  EXPECT_NE(info.model.find("x86-64-v"), std::string::npos) << info.model;
  EXPECT_NE(info.details.find("OpenBLAS"), std::string::npos) << info.details;
  EXPECT_NE(info.details.find("2 threads"), std::string::npos) << info.details;
  expect_error(Status::usage, "threads",
               [] { static_cast<void>(make_cpu_device({.threads = -3})); });
  expect_error(Status::usage, "real type",
               [] { static_cast<void>(make_cpu_device({.threads = 1, .real = DType::i64})); });
}

TEST(CpuDevice, TooMuchMemoryIsADeviceError) {
  const auto device = make_cpu_device({.threads = 1});
  const auto store = device->make_store();
  expect_error(Status::device, "memory",
               [&] { store->declare("x", DType::f32, Shape{std::int64_t{1} << 50}); });
  EXPECT_FALSE(store->has("x"));
}

}  // namespace
}  // namespace cuvae
