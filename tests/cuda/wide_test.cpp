// Wide models: products that a library makes, with what is fused around them, the record of its
// algorithms, and activations stored as bf16. All of it on the SIMT runner with its stand-in.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/tolerance.h"
#include "cpu/cpu_device.h"
#include "cuda/autotune.h"
#include "cuda/cuda_device.h"
#include "cuda/devices.h"
#include "cuda/narrow.h"
#include "cuda/training_case.h"
#include "cuvae/error.h"
#include "cuvae/trainer.h"
#include "graph/passes.h"
#include "graph/plan.h"
#include "kernels/table.cuh"
#include "ops/parity_check.h"
#include "simt/blas_host.h"
#include "simt/runtime.h"
#include "support/synthetic.h"

namespace cuvae::cuda {
namespace {

using namespace cuvae::testing;  // NOLINT(google-build-using-namespace): the tests' own
using namespace std::chrono_literals;

struct Options {
  std::int64_t from = 0;  // all products go to the library
  std::chrono::milliseconds delay{};
  simt::StreamOrder streams = simt::StreamOrder::deferred;
  Runtime::Fault fault = {};
};

std::unique_ptr<Device> runner(const Options& options = {}) {
  simt::SimtOptions simt;
  simt.streams = options.streams;
  auto runtime = simt::make_simt_runtime(simt);
  runtime->set_fault(options.fault);
  CudaDeviceOptions device;
  device.blas_from = options.from;
  device.make_blas = [delay = options.delay] { return simt::make_host_blas(delay); };
  return make_cuda_device(std::move(runtime), gpu_on_simt::kernel_table(), device);
}

std::int64_t count(const Graph& graph, Op op) {
  return std::count_if(graph.nodes().begin(), graph.nodes().end(),
                       [&](const Node& node) { return node.op == op; });
}

// The parity table's products, each made by the library with what is left of its node around it.
class WideParity : public ::testing::TestWithParam<std::string> {};

TEST_P(WideParity, ProductsOfALibraryMatchAPlainDoubleLoop) {
  Backend backend;
  backend.name = "library " + GetParam();
  backend.variants = {0};
  backend.make_device = [](int) { return runner(); };
  backend.poison = [](Program& program) {
    dynamic_cast<CudaProgram&>(program).fill_memory(std::byte{0xFF});  // NaN in every real
  };
  backend.options.precision = GetParam();
  if (GetParam() == "bf16") backend.real = DType::bf16;
  std::map<std::string, int> cases;
  for (const Case& c : parity_table()) {
    std::int64_t elements = 0;
    for (const CaseInput& input : c.inputs) elements += input.shape.elements();
    if (!c.op.starts_with("linear") || elements > 20000) continue;
    // A rounded gradient is divided by its own size there: any error becomes a whole step.
    if (c.op.ends_with("wgrad_adam") && GetParam() == "bf16") continue;
    ++cases[c.op];
    check_values(backend, c);
  }
  EXPECT_EQ(cases.size(), GetParam() == "bf16" ? 12U : 14U);
}

INSTANTIATE_TEST_SUITE_P(Precisions, WideParity, ::testing::Values("fp32", "bf16"),
                         [](const auto& test) { return test.param; });

TEST(Wide, FusedNodesAreTakenApartAroundTheirProducts) {
  const TrainingGraph model = small_model();
  const auto device = runner();
  const auto store = device->make_store();
  const auto program = device->compile(model.graph, *store, {});
  const Graph& graph = program->graph();
  // relu and the bias stay in the product, the bias gradient in that of the weights.
  EXPECT_EQ(count(graph, Op::linear_activation), 2);
  EXPECT_EQ(count(graph, Op::linear), 2);  // the heads, the logits
  EXPECT_EQ(count(graph, Op::linear_dgrad), 3);
  EXPECT_EQ(count(graph, Op::linear_wgrad), 4);
  EXPECT_EQ(count(graph, Op::activation_grad), 2);
  EXPECT_EQ(count(graph, Op::adam), 8);
  EXPECT_EQ(count(graph, Op::nll_with_grad), 1);
  EXPECT_EQ(count(graph, Op::sample_kl), 1);
  EXPECT_EQ(count(graph, Op::sample_kl_grad), 1);
  EXPECT_EQ(count(graph, Op::elbo), 1);
  for (const Op op : {Op::activation, Op::split, Op::concat, Op::bernoulli_nll, Op::reduce})
    EXPECT_EQ(count(graph, op), 0) << op_def(op).name;

  const PlanSummary plan = device->plan(model.graph, {});
  EXPECT_EQ(plan.arena_bytes, program->arena_bytes());
  EXPECT_EQ(plan.persistent_bytes, program->persistent_bytes());
  ASSERT_EQ(plan.library.size(), 11U);
  std::map<std::string, int> epilogues;
  for (const auto& [node, product] : plan.library) {
    EXPECT_NE(program->tuning().find(node + ": host loops"), std::string::npos) << node;
    for (const char* epilogue : {" plain ", " bias ", " relu_bias ", " bias_gradient "})
      epilogues[epilogue] += product.find(epilogue) != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(epilogues,
            (std::map<std::string, int>{
                {" plain ", 3}, {" bias ", 2}, {" relu_bias ", 2}, {" bias_gradient ", 4}}));
  for (const std::string* text : {&plan.table, &plan.dot})
    EXPECT_NE(text->find("library: 8x16x20 nt relu_bias fp32 f32 f32"), std::string::npos) << *text;
  // The derivative takes the logits' place.
  EXPECT_NE(plan.table.find("(nll_with_grad)"), std::string::npos);

  const auto without = runner({.from = 1024});
  EXPECT_TRUE(without->plan(model.graph, {}).library.empty());
}

TEST(Wide, TheLossIsMadeInThePlaceOfTheLogits) {
  const Graph whole = fuse(small_model().graph).graph;
  const Graph graph =
      prune(lower(whole, [](const Graph&, const Node& node) { return node.op != Op::linear_nll; })
                .graph)
          .graph;
  const Plan plan = make_plan(graph);
  for (const Node& node : graph.nodes()) {
    if (node.op != Op::nll_with_grad) continue;
    EXPECT_EQ(plan.place(0, node.inputs[0]).offset, plan.place(0, node.outputs[1]).offset);
    return;
  }
  FAIL() << "no such node";
}

// Losses, parameters and moments after four steps.
Outcome trained(Device& device, const char* exec, int streams, const std::string& precision,
                const std::function<void(Program&)>& before = {}) {
  CompileOptions options;
  options.exec = exec;
  options.streams = streams;
  options.precision = precision;
  options.steps = 2;
  return train(device, options, 4, before);
}

TEST(Wide, TrainsAsTheKernelsDo) {
  const auto reference = make_cpu_device({.threads = 1});
  const Outcome wanted = trained(*reference, "auto", 1, "fp32");
  for (const auto& [exec, streams] : {std::pair{"graph", 1}, {"eager", 1}, {"graph", 3}}) {
    const auto device = runner();
    const Outcome got = trained(*device, exec, streams, "fp32");
    ASSERT_EQ(got.tensors.size(), wanted.tensors.size());
    for (std::size_t i = 0; i < got.tensors.size(); ++i) {
      const Comparison outcome = compare_elements(
          got.tensors[i].second.as<float>(), wanted.tensors[i].second.as<float>(), {2e-5, 2e-4});
      EXPECT_TRUE(outcome.passed) << got.tensors[i].first << " " << outcome.str();
    }
  }
}

TEST(Wide, GraphIsEagerBitForBit) {
  for (const char* precision : {"fp32", "bf16"}) {
    const auto poison = [](Program& program) {
      dynamic_cast<CudaProgram&>(program).fill_memory(std::byte{0xFF});
    };
    const auto first = runner();
    const Outcome eager = trained(*first, "eager", 1, precision, poison);
    for (const int streams : {1, 3}) {
      const auto device = runner();
      EXPECT_TRUE(same(eager, trained(*device, "graph", streams, precision, poison)))
          << precision << " " << streams;
    }
    const auto at_once = runner({.streams = simt::StreamOrder::immediate});
    EXPECT_TRUE(same(eager, trained(*at_once, "graph", 1, precision))) << precision;
  }
}

// With a GPU and the library itself: its epilogues, its algorithms by guess and by time, bf16 in
// memory, in graphs and without.
TEST(WideLt, TrainsTheSameInEveryWay) {
  if (const std::string reason = cuda_unavailable_reason(); !reason.empty())
    GTEST_SKIP() << "no GPU: " << reason;
  const std::unique_ptr<Runtime> opened = open_cuda_runtime();
  if (make_blas() == nullptr) GTEST_SKIP() << "no libcublasLt.so.13 was found";
  const auto reference = make_cpu_device({.threads = 1});
  const double wanted = trained(*reference, "auto", 1, "fp32").tensors.front().second.item(0);
  for (const char* precision : {"fp32", "tf32", "bf16"}) {
    const auto device = [] {
      CudaDeviceOptions options;
      options.make_blas = make_blas;
      options.blas_from = 0;
      return make_cuda_device(make_runtime(), *compiled_kernels(), options);
    };
    const auto first = device();
    const Outcome eager = trained(*first, "eager", 1, precision);
    // The first loss: of up to 20 rounded terms, through four layers.
    EXPECT_NEAR(eager.tensors.front().second.item(0), wanted,
                (precision == std::string("fp32") ? 1e-4 : 0.05) * std::abs(wanted));
    for (const int streams : {1, 3}) {
      const auto other = device();
      EXPECT_TRUE(same(eager, trained(*other, "graph", streams, precision)))
          << precision << " " << streams;
    }
    const auto tuned = device();
    const auto store = tuned->make_store();
    CompileOptions options;
    options.precision = precision;
    options.autotune = true;
    options.tuning = std::make_shared<Tuning>();
    const std::string chosen = tuned->compile(small_model().graph, *store, options)->tuning();
    EXPECT_NE(chosen.find("cublasLt"), std::string::npos) << chosen;
    options.tuning = std::make_shared<Tuning>(Tuning::parse(options.tuning->str(), "a test"));
    EXPECT_EQ(tuned->compile(small_model().graph, *store, options)->tuning(), chosen);
  }
}

TEST(Wide, StoresAsBf16WhatOnlyProductsAndTheirNeighboursRead) {
  const TrainingGraph model = small_model();
  const auto device = runner();
  CompileOptions options;
  const PlanSummary wide = device->plan(model.graph, options);
  options.precision = "bf16";
  const PlanSummary narrow = device->plan(model.graph, options);
  EXPECT_EQ(narrow.persistent_bytes, wide.persistent_bytes);
  const auto line = [&](const std::string& value) {
    const std::size_t at = narrow.table.find("\n         " + value + " ");
    if (at == std::string::npos) return std::string("none");
    const std::size_t end = narrow.table.find('\n', at + 1);
    return narrow.table.substr(at + 10, end - at - 10);
  };
  for (const char* value : {"encoder.0.relu", "decoder.0.relu", "grad(decoder.out)", "x.bf16",
                            "encoder.0.weight.bf16", "encoder.0.bias.bf16", "latent.z.bf16"})
    EXPECT_NE(line(value).find(" bf16 "), std::string::npos) << value << ": " << line(value);
  for (const char* value : {"x", "mean", "logvar", "latent.z", "kl_rows", "nll_rows", "loss"})
    EXPECT_NE(line(value).find(" f32 "), std::string::npos) << value << ": " << line(value);
  EXPECT_NE(line("encoder.0.relu").find("256 bytes"), std::string::npos);  // 8 x 16
  std::map<std::string, int> kinds;
  for (const auto& [node, product] : narrow.library) {
    ASSERT_GT(product.size(), 9U);
    ++kinds[product.substr(product.find("bf16 "))];
  }
  // Into the next product, and into f32: heads, logits, gradients of weights.
  EXPECT_EQ(kinds, (std::map<std::string, int>{{"bf16 bf16 bf16", 5}, {"bf16 bf16 f32", 6}}));

  // A wide step of which activations are most of the memory.
  const TrainingGraph large = training_graph(
      {.batch = 4096, .rows = 8192, .pixels = 784, .hidden = {2048, 2048}, .latent = 128});
  options.precision = "tf32";
  const std::int64_t full = device->plan(large.graph, options).arena_bytes;
  options.precision = "bf16";
  const std::int64_t half = device->plan(large.graph, options).arena_bytes;
  EXPECT_LT(static_cast<double>(half), 0.75 * static_cast<double>(full));
  // Whoever looks at every value sees it as it is.
  options.keep_all = true;
  EXPECT_EQ(device->plan(large.graph, options).table.find("bf16  "), std::string::npos);
}

TEST(Wide, Bf16InMemoryIsWithinItsTolerance) {
  const auto reference = make_cpu_device({.threads = 1, .real = DType::f64});
  const auto device = runner();
  const TrainingGraph model = small_model();
  std::map<std::string, Tensor> wanted;
  for (Device* on : {reference.get(), device.get()}) {
    const auto store = on->make_store();
    fill(*store, model.graph);
    show_step(*store, 0);
    CompileOptions options;
    if (on == device.get()) options.precision = "bf16";
    const auto program = on->compile(model.graph, *store, options);
    std::set<std::string> seen;
    program->run([&](const TaskView& view) {
      for (const Value output : view.node->outputs) {
        const std::string& name = program->graph()[output].name;
        if (program->graph().root(output)) continue;
        const Tensor value = program->read(name).to(DType::f64);
        if (on == reference.get()) {
          wanted[name] = value;
        } else if (wanted.count(name) != 0) {
          // Through up to five products, each of at most 20 terms.
          const double scale = 5 * std::sqrt(20.0);
          const Comparison outcome =
              compare_elements(value.as<double>(), std::as_const(wanted.at(name)).as<double>(),
                               tolerance(DType::bf16, 20, scale));
          EXPECT_TRUE(outcome.passed) << name << " " << outcome.str();
          seen.insert(name);
        }
      }
    });
    if (on == device.get()) {
      for (const char* name :
           {"encoder.0.relu", "decoder.0.relu", "mean", "loss", "nll_rows", "grad(decoder.out)"})
        EXPECT_EQ(seen.count(name), 1U) << name;
    }
  }
}

TEST(Wide, ValuesStoredAsBf16AreReadAndWrittenAsReals) {
  const TrainingGraph model = small_model();
  const auto device = runner();
  const auto store = device->make_store();
  fill(*store, model.graph);
  show_step(*store, 0);
  CompileOptions options;
  options.precision = "bf16";
  const auto program = device->compile(model.graph, *store, options);
  int looked = 0;
  program->run([&](const TaskView& view) {
    if (view.node->name != "encoder.0.relu") return;
    const Tensor value = program->read("encoder.0.relu");
    ASSERT_EQ(value.dtype(), DType::f32);
    EXPECT_EQ(value.shape(), (Shape{case_batch, 16}));
    EXPECT_TRUE(same(value, value.to(DType::bf16).to(DType::f32)));
    Tensor other(DType::f32, value.shape());
    for (float& x : other.as<float>()) x = 1.0f + 0x1p-9f;  // between two of bf16
    program->write("encoder.0.relu", 0, other);
    EXPECT_EQ(program->read("encoder.0.relu").item(3), 1.0);
    ++looked;
  });
  EXPECT_EQ(looked, 1);
}

// --- the record ---

struct Calls {
  std::shared_ptr<std::map<Call, int>> made = std::make_shared<std::map<Call, int>>();
  [[nodiscard]] Runtime::Fault fault() const {
    return [made = made](Call call) {
      ++(*made)[call];
      return 0;
    };
  }
};

TEST(Autotune, TakesTheFastestAndKeepsIt) {
  const TrainingGraph model = small_model();
  const Calls calls;
  const auto device = runner({.delay = 5ms, .fault = calls.fault()});
  const auto store = device->make_store();
  CompileOptions options;
  options.tuning = std::make_shared<Tuning>();
  const auto by_guess = device->compile(model.graph, *store, options);
  EXPECT_EQ(by_guess->tuning().find("backwards"), std::string::npos) << by_guess->tuning();
  EXPECT_EQ((*calls.made)[Call::elapsed], 0);
  const std::string guessed = options.tuning->str();
  EXPECT_NE(guessed.find("8x16x20 nt relu_bias fp32 f32 f32 = host loops"), std::string::npos)
      << guessed;
  // What is recorded stays, also where it would be timed.
  options.autotune = true;
  const auto as_before = device->compile(model.graph, *store, options);
  EXPECT_EQ(as_before->tuning(), by_guess->tuning());
  EXPECT_EQ((*calls.made)[Call::elapsed], 0);

  options.tuning = std::make_shared<Tuning>();
  const auto timed = device->compile(model.graph, *store, options);
  EXPECT_GT((*calls.made)[Call::elapsed], 0);
  const std::string text = timed->tuning();
  std::size_t products = 0;
  for (std::size_t at = text.find("backwards"); at != std::string::npos;
       at = text.find("backwards", at + 1))
    ++products;
  EXPECT_EQ(products, 11U) << text;
  const std::string record = options.tuning->str();

  // Another process with the record: nothing is timed.
  const Calls later;
  const auto other = runner({.delay = 5ms, .fault = later.fault()});
  const auto others = other->make_store();
  options.tuning = std::make_shared<Tuning>(Tuning::parse(record, "a test"));
  const auto resumed = other->compile(model.graph, *others, options);
  EXPECT_EQ(resumed->tuning(), timed->tuning());
  EXPECT_EQ((*later.made)[Call::elapsed], 0);
  EXPECT_EQ(options.tuning->str(), record);

  // One that the library does not know is chosen anew.
  options.tuning->set("8x16x20 nt relu_bias fp32 f32 f32", "another library's");
  static_cast<void>(other->compile(model.graph, *others, options));
  EXPECT_EQ(options.tuning->str(), record);
  EXPECT_GT((*later.made)[Call::elapsed], 0);
}

TEST(Autotune, LeavesTheGuessWhereThereIsNoMemoryToTimeIn) {
  simt::SimtOptions simt;
  simt.memory_bytes = 8 << 20;
  const auto runtime_of = [&] { return simt::make_simt_runtime(simt); };
  Context context(std::make_shared<Gpu>(runtime_of(), 0, true));
  const auto blas = simt::make_host_blas(2ms);
  BlasProduct product{.m = 16, .n = 16, .k = 16};
  EXPECT_EQ(fastest(context, product, blas->candidates(product, 2)), 1U);
  product.m = 1 << 20;  // 64 MiB
  EXPECT_EQ(fastest(context, product, blas->candidates(product, 2)), 0U);
  product.m = 16;
  EXPECT_EQ(fastest(context, product, blas->candidates(product, 1)), 0U);
}

// A run that is interrupted and goes on by the record of its checkpoint is the one that was not.
TEST(Autotune, AResumedTrainingComputesByItsRecord) {
  Config config;
  config.model.encoder.layers = {{.out = 6, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 6, .activation = "gelu"}};
  config.model.latent.size = 2;
  config.train.batch_size = 8;
  const auto data = test::blob_dataset(40, 12, 3);
  const auto bytes = [](const TensorFile& file) {
    std::string all;
    for (const NamedTensor& named : file.tensors) {
      const auto content = named.tensor.bytes();
      all.append(reinterpret_cast<const char*>(content.data()), content.size());
    }
    return all;
  };
  TrainerOptions options;
  options.compile.autotune = true;
  options.compile.precision = "bf16";
  const auto device = runner({.delay = 3ms});
  Trainer whole(config, data, *device, options);
  whole.run(2);
  const TensorFile half = whole.checkpoint();
  ASSERT_EQ(half.metadata.count("algorithms"), 1U);
  EXPECT_NE(half.metadata.at("algorithms").find("backwards"), std::string::npos);
  whole.run(2);
  const std::string wanted = bytes(whole.checkpoint());

  for (const bool autotune : {true, false}) {
    const Calls calls;
    const auto other = runner({.fault = calls.fault()});
    options.compile.autotune = autotune;
    options.compile.tuning = recorded_tuning(half);
    Trainer resumed(config, data, *other, options);
    resumed.restore(half, "the checkpoint");
    EXPECT_EQ(resumed.execution(), whole.execution());
    resumed.run(2);
    EXPECT_EQ(bytes(resumed.checkpoint()), wanted);
    EXPECT_EQ((*calls.made)[Call::elapsed], 0);
  }
  // By the library's own choice it computes other bits, and says so.
  options.compile.tuning = nullptr;
  const auto other = runner();
  Trainer guessed(config, data, *other, options);
  guessed.restore(half, "the checkpoint");
  EXPECT_NE(guessed.execution(), whole.execution());
  guessed.run(2);
  EXPECT_NE(bytes(guessed.checkpoint()), wanted);
}

}  // namespace
}  // namespace cuvae::cuda
