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
#include "cuda/mixed_case.h"
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
  std::function<bool(const BlasProduct&)> refuses = {};
  bool masks = true;
};

std::unique_ptr<Device> runner(const Options& options = {}) {
  simt::SimtOptions simt;
  simt.streams = options.streams;
  auto runtime = simt::make_simt_runtime(simt);
  runtime->set_fault(options.fault);
  CudaDeviceOptions device;
  device.blas_from = options.from;
  device.masks = options.masks;
  device.make_blas = [library = simt::HostBlasOptions{options.delay, options.refuses}] {
    return simt::make_host_blas(library);
  };
  return make_cuda_device(std::move(runtime), gpu_on_simt::kernel_table(), device);
}

std::int64_t count(const Graph& graph, Op op) {
  return std::count_if(graph.nodes().begin(), graph.nodes().end(),
                       [&](const Node& node) { return node.op == op; });
}

// The third word of "8x16x20 nt relu_bias fp32 f32 f32".
std::string epilogue_of(const std::string& product) {
  const std::size_t at = product.find(' ', product.find(' ') + 1) + 1;
  return product.substr(at, product.find(' ', at) - at);
}

std::map<std::string, int> epilogues_of(const PlanSummary& plan) {
  std::map<std::string, int> found;
  for (const auto& [node, product] : plan.library) ++found[epilogue_of(product)];
  return found;
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
  // relu and the bias stay in the product; relu's derivative and the bias gradient in that of dX,
  // or, where no relu is before it, the bias gradient in that of the weights.
  EXPECT_EQ(count(graph, Op::linear_activation), 2);
  EXPECT_EQ(count(graph, Op::linear), 2);  // the heads, the logits
  EXPECT_EQ(count(graph, Op::linear_dgrad), 1);
  EXPECT_EQ(count(graph, Op::linear_dgrad_activation), 2);
  EXPECT_EQ(count(graph, Op::linear_wgrad), 4);
  EXPECT_EQ(count(graph, Op::activation_grad), 0);
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
    ++epilogues[epilogue_of(product)];
  }
  EXPECT_EQ(epilogues, (std::map<std::string, int>{{"plain", 3},
                                                   {"bias", 2},
                                                   {"relu_bias_mask", 2},
                                                   {"relu_bias_gradient", 2},
                                                   {"bias_gradient", 2}}));
  for (const std::string* text : {&plan.table, &plan.dot})
    EXPECT_NE(text->find("library: 8x16x20 nt relu_bias_mask fp32 f32 f32"), std::string::npos)
        << *text;
  // Its mask: 8 rows of 128 bits, behind 8 x 16 floats.
  EXPECT_NE(plan.table.find("encoder.0.relu f32 [8, 16]"), std::string::npos) << plan.table;
  EXPECT_NE(plan.table.find("640 bytes, 128 of them beside it"), std::string::npos) << plan.table;
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

// --- relu's derivative in the products ---

using Epilogue = BlasProduct::Epilogue;

std::function<bool(const BlasProduct&)> refusing(std::set<Epilogue> epilogues) {
  return [=](const BlasProduct& product) { return epilogues.count(product.epilogue) != 0; };
}

TEST(Wide, WhatTheLibraryRefusesIsDoneByAKernelForThatProductAlone) {
  const TrainingGraph model = small_model();
  CompileOptions options;
  const std::set<Epilogue> masks{Epilogue::relu_mask, Epilogue::relu_bias_mask};
  for (const std::set<Epilogue>& none : {masks, std::set<Epilogue>{Epilogue::relu_gradient}}) {
    const auto device = runner({.refuses = refusing(none)});
    EXPECT_EQ(epilogues_of(device->plan(model.graph, options)),
              (std::map<std::string, int>{
                  {"plain", 3}, {"bias", 2}, {"relu_bias", 2}, {"bias_gradient", 4}}));
  }
  const auto without_sums = runner({.refuses = refusing({Epilogue::relu_bias_gradient})});
  EXPECT_EQ(epilogues_of(without_sums->plan(model.graph, options)),
            (std::map<std::string, int>{{"plain", 1},
                                        {"bias", 2},
                                        {"relu_bias_mask", 2},
                                        {"relu_gradient", 2},
                                        {"bias_gradient", 4}}));
  // One layer's mask, and the sums of the other.
  const auto one = runner({.refuses = [](const BlasProduct& product) {
    return (product.epilogue == Epilogue::relu_bias_mask && product.k == 20) ||
           (product.epilogue == Epilogue::relu_bias_gradient && product.k == 20);
  }});
  const PlanSummary plan = one->plan(model.graph, options);
  EXPECT_EQ(epilogues_of(plan), (std::map<std::string, int>{{"plain", 2},
                                                            {"bias", 2},
                                                            {"relu_bias", 1},
                                                            {"relu_bias_mask", 1},
                                                            {"relu_gradient", 1},
                                                            {"bias_gradient", 4}}));
  EXPECT_NE(plan.table.find("(activation_grad)"), std::string::npos);
  // Not where every value is to be seen, nor where a kind has no mask.
  options.keep_all = true;
  EXPECT_EQ(epilogues_of(runner()->plan(model.graph, options)).count("relu_gradient"), 0U);
  EXPECT_EQ(epilogues_of(runner()->plan(model.graph, options)).count("relu_bias_mask"), 0U);
}

TEST(Wide, AMaskIsTheDerivativeBitForBit) {
  // The sums alone are of other bits, as they are made before rounding.
  for (const char* precision : {"fp32", "bf16"}) {
    const auto plain = runner({.refuses = refusing({Epilogue::relu_bias_mask})});
    const Outcome wanted = trained(*plain, "eager", 1, precision);
    for (const char* exec : {"eager", "graph"}) {
      const auto masked = runner({.refuses = refusing({Epilogue::relu_bias_gradient})});
      CompileOptions options;
      options.precision = precision;
      EXPECT_EQ(epilogues_of(masked->plan(small_model().graph, options))["relu_gradient"], 2);
      EXPECT_TRUE(same(wanted, trained(*masked, exec, 1, precision))) << precision << " " << exec;
    }
  }
}

// What stands between two launches of a step: kernels and products.
TEST(Wide, AStepHasFewerNodes) {
  const TrainingGraph model = small_model();
  const auto launches = [&](const Options& how, const char* precision) {
    const auto device = runner(how);
    const auto store = device->make_store();
    fill(*store, model.graph);
    show_step(*store, 0);
    CompileOptions options;
    options.precision = precision;
    const auto program = device->compile(model.graph, *store, options);
    program->run();
    program->run();
    return std::pair(dynamic_cast<const CudaProgram&>(*program).launches_per_run(),
                     count(program->graph(), Op::scale));
  };
  const Options without{.refuses = refusing({Epilogue::relu_bias_mask})};
  // 11 products, 8 updates, 10 around them; of these, masks leave 2 derivatives of relu out.
  EXPECT_EQ(launches(without, "fp32"), std::pair(std::int64_t{29}, std::int64_t{0}));
  EXPECT_EQ(launches({.masks = false}, "fp32"), std::pair(std::int64_t{29}, std::int64_t{0}));
  EXPECT_EQ(launches({}, "fp32"), std::pair(std::int64_t{27}, std::int64_t{0}));
  // Copies of x and z are made anew; those of 4 weights and 2 biases are not, which would be 37.
  EXPECT_EQ(launches(without, "bf16"), std::pair(std::int64_t{31}, std::int64_t{2}));
  EXPECT_EQ(launches({}, "bf16"), std::pair(std::int64_t{29}, std::int64_t{2}));
}

TEST(Wide, StoresAsBf16WhatOnlyProductsAndTheirNeighboursRead) {
  const TrainingGraph model = small_model();
  const auto device = runner();
  CompileOptions options;
  const PlanSummary wide = device->plan(model.graph, options);
  options.precision = "bf16";
  const PlanSummary narrow = device->plan(model.graph, options);
  // Two bytes for each weight of four layers, and each bias of two whose outputs are bf16.
  EXPECT_EQ(narrow.persistent_bytes - wide.persistent_bytes,
            2 * (16 * 20 + 8 * 16 + 16 * 4 + 20 * 16 + 16 + 16));
  const auto line = [&](const std::string& value) {
    const std::size_t at = narrow.table.find("\n         " + value + " ");
    if (at == std::string::npos) return std::string("none");
    const std::size_t end = narrow.table.find('\n', at + 1);
    return narrow.table.substr(at + 10, end - at - 10);
  };
  for (const char* value : {"encoder.0.relu", "decoder.0.relu", "grad(decoder.out)", "x.bf16",
                            "adam.encoder.0.weight/adam.w.shadow",
                            "adam.encoder.0.weight/adam.b.shadow", "latent.z.bf16"})
    EXPECT_NE(line(value).find(" bf16 "), std::string::npos) << value << ": " << line(value);
  for (const char* value : {"x", "mean", "logvar", "latent.z", "kl_rows", "nll_rows", "loss"})
    EXPECT_NE(line(value).find(" f32 "), std::string::npos) << value << ": " << line(value);
  EXPECT_NE(line("encoder.0.relu").find("384 bytes, 128 of them"), std::string::npos);  // 8 x 16
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

class MixedProducts : public ::testing::TestWithParam<MixedCase> {};

// Where parameters are bf16 already, storing as bf16 what is rounded so for the next product anyway
// changes no bit of any value: against a program that stores all of them as f32.
TEST_P(MixedProducts, ReadAndWriteBf16AsTheyWouldRoundIt) {
  const TrainingGraph training = mixed_model(GetParam());
  std::map<std::string, Tensor> floats;
  for (const bool keep_all : {true, false}) {
    const auto device = mixed_device(GetParam());
    const auto store = device->make_store();
    fill(*store, training.graph);
    show_step(*store, 0);
    for (const ValueInfo& info : training.graph.values())
      if (info.storage == Storage::parameter)
        store->write(info.name, store->read(info.name).to(DType::bf16).to(DType::f32));
    CompileOptions options;
    options.precision = "bf16";
    options.keep_all = keep_all;
    const auto program = device->compile(training.graph, *store, options);
    EXPECT_EQ(count(program->graph(), Op::linear_wgrad_adam), 4);
    EXPECT_EQ(count(program->graph(), Op::linear_bottleneck), 0);
    if (!keep_all) {
      dynamic_cast<CudaProgram&>(*program).fill_memory(std::byte{0xFF});
      const std::string table = device->plan(training.graph, options).table;
      const auto stored = [&](const std::string& value) {
        const std::size_t at = table.find("\n         " + value + " ");
        return at == std::string::npos ? "none" : table.substr(at + 11 + value.size(), 4);
      };
      // Between our products and the library's, either way.
      for (const char* value : {"encoder.0.relu", "encoder.1.relu", "decoder.0.relu",
                                "grad(encoder.0)", "grad(encoder.1)", "grad(decoder.0)"})
        EXPECT_EQ(stored(value), "bf16") << value << table;
      EXPECT_EQ(table.find("latent.z.bf16"), std::string::npos);
    }
    int compared = 0;
    int rounded = 0;
    program->run([&](const TaskView& view) {
      for (const Value output : view.node->outputs) {
        const std::string& name = program->graph()[output].name;
        if (program->graph().root(output)) continue;
        const Tensor value = program->read(name);
        if (keep_all) {
          floats[name] = value;
          continue;
        }
        if (floats.count(name) == 0 || value.dtype() != DType::f32) continue;
        ++compared;
        const Tensor& wanted = floats.at(name);
        if (same(value, wanted)) continue;
        ++rounded;
        EXPECT_TRUE(same(value, wanted.to(DType::bf16).to(DType::f32))) << name;
      }
    });
    if (keep_all) continue;
    EXPECT_GE(compared, 20);
    EXPECT_GE(rounded, 6);
  }
}

TEST_P(MixedProducts, GraphIsEagerBitForBit) {
  const TrainingGraph training = mixed_model(GetParam());
  std::vector<std::map<std::string, Tensor>> results;
  for (const auto& [exec, streams] : {std::pair{"eager", 1}, {"graph", 1}, {"graph", 3}}) {
    const auto device = mixed_device(GetParam());
    const auto store = device->make_store();
    fill(*store, training.graph);
    CompileOptions options;
    options.precision = "bf16";
    options.exec = exec;
    options.streams = streams;
    const auto program = device->compile(training.graph, *store, options);
    dynamic_cast<CudaProgram&>(*program).fill_memory(std::byte{0xFF});
    for (int step = 0; step < 2; ++step) {
      show_step(*store, step);
      program->run();
    }
    results.emplace_back();
    for (const ValueInfo& info : training.graph.values())
      if (info.producer < 0 && info.storage != Storage::input)
        results.back()[info.name] = store->read(info.name);
  }
  for (const auto& [name, tensor] : results.front()) {
    EXPECT_TRUE(same(tensor, results[1].at(name))) << name;
    EXPECT_TRUE(same(tensor, results[2].at(name))) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiles, MixedProducts, ::testing::ValuesIn(mixed_cases),
                         [](const auto& test) {
                           return "Of" + std::to_string(test.param.batch) + "x" +
                                  std::to_string(test.param.hidden);
                         });

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

// --- weights as bf16 ---

// Whether every shadow in the store is its weight, rounded.
::testing::AssertionResult shadows_are_their_weights(const Store& store, const Graph& graph) {
  int looked = 0;
  for (const ValueInfo& info : graph.values()) {
    if (info.storage != Storage::parameter || !store.has(info.name + ".bf16")) continue;
    ++looked;
    if (!same(store.read(info.name + ".bf16"), store.read(info.name).to(DType::bf16)))
      return ::testing::AssertionFailure() << info.name;
  }
  if (looked != 6) return ::testing::AssertionFailure() << looked << " shadows";
  return ::testing::AssertionSuccess();
}

class Shadows : public ::testing::TestWithParam<const char*> {
 protected:
  Shadows() {
    options_.exec = GetParam();
    options_.precision = "bf16";
    options_.steps = 2;
    fill(*store_, model_.graph);
  }
  std::unique_ptr<Program> compile(const char* precision) {
    options_.precision = precision;
    return device_->compile(model_.graph, *store_, options_);
  }
  void run(Program& program, std::int64_t step) {
    show_step(*store_, step, options_.steps);
    program.run();
  }
  // Parameters and moments of a store after the same two steps from the content of this one, with
  // a program that has seen nothing else.
  std::map<std::string, Tensor> fresh(std::int64_t step) {
    const auto device = runner();
    const auto store = device->make_store();
    for (const ValueInfo& info : model_.graph.values())
      if (info.producer < 0) store->write(info.name, store_->read(info.name));
    const auto program = device->compile(model_.graph, *store, options_);
    show_step(*store, step, options_.steps);
    program->run();
    return content(*store);
  }
  std::map<std::string, Tensor> content(const Store& store) const {
    std::map<std::string, Tensor> found;
    for (const ValueInfo& info : model_.graph.values())
      if (info.producer < 0 && info.storage != Storage::input)
        found[info.name] = store.read(info.name);
    return found;
  }
  // The next two steps are those of a program that has seen nothing else.
  void expect_fresh(Program& program, std::int64_t step) {
    const auto wanted = fresh(step);
    run(program, step);
    for (const auto& [name, tensor] : content(*store_))
      EXPECT_TRUE(same(tensor, wanted.at(name))) << name;
    EXPECT_TRUE(shadows_are_their_weights(*store_, model_.graph));
  }

  TrainingGraph model_ = small_model(2);
  std::unique_ptr<Device> device_ = runner();
  std::unique_ptr<Store> store_ = device_->make_store();
  CompileOptions options_;
};

TEST_P(Shadows, FollowTheirWeightsThroughUpdates) {
  const auto program = compile("bf16");
  for (std::int64_t step = 0; step < 6; step += 2) expect_fresh(*program, step);
  for (const std::string& name : store_->names())
    EXPECT_EQ(name.find(".bf16"), std::string::npos) << name;
}

TEST_P(Shadows, AreMadeAnewWhereTheHostWrites) {
  const auto program = compile("bf16");
  run(*program, 0);
  const Tensor before = store_->read("encoder.0.weight");
  Tensor other = before;
  for (float& x : other.as<float>()) x = -1.5F * x;
  store_->write("encoder.0.weight", other);
  expect_fresh(*program, 2);
  // As a program's value, and before the first run of another program.
  program->write("encoder.0.weight", 0, before);
  const auto second = compile("bf16");
  expect_fresh(*second, 4);
  expect_fresh(*program, 6);
}

TEST_P(Shadows, AreMadeAnewWhereAnotherProgramUpdatesTheWeights) {
  const auto program = compile("bf16");
  run(*program, 0);
  const auto floats = compile("fp32");
  run(*floats, 2);
  static_cast<void>(compile("bf16"));
  options_.precision = "bf16";
  expect_fresh(*program, 4);
}

TEST_P(Shadows, StayWhereNothingIsCommitted) {
  const auto program = compile("bf16");
  run(*program, 0);
  const auto before = content(*store_);
  store_->write("commit", integers(Shape{1}, {0}));
  run(*program, 2);
  for (const auto& [name, tensor] : content(*store_))
    EXPECT_TRUE(same(tensor, before.at(name))) << name;
  EXPECT_TRUE(shadows_are_their_weights(*store_, model_.graph));
  store_->write("commit", integers(Shape{1}, {1}));
  expect_fresh(*program, 2);
}

INSTANTIATE_TEST_SUITE_P(Executors, Shadows, ::testing::Values("graph", "eager"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Wide, AWeightThatAFusedKernelUpdatesIsCopiedInEachStep) {
  // The library has no product for one layer's weight gradient: its update is the fused kernel's.
  const auto device = runner({.refuses = [](const BlasProduct& product) {
    return product.a_transposed && product.n == 20;
  }});
  CompileOptions options;
  options.precision = "bf16";
  const auto store = device->make_store();
  const auto program = device->compile(small_model().graph, *store, options);
  EXPECT_EQ(count(program->graph(), Op::linear_gather_wgrad_adam), 1);
  EXPECT_FALSE(store->has("encoder.0.weight.bf16"));
  EXPECT_TRUE(store->has("heads.weight.bf16") || store->has("decoder.0.weight.bf16"));
  EXPECT_EQ(count(program->graph(), Op::scale), 4);
  fill(*store, small_model().graph);
  show_step(*store, 0);
  program->run();
  EXPECT_TRUE(std::isfinite(program->read("loss").item(0)));
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
  EXPECT_NE(guessed.find("8x16x20 nt relu_bias_mask fp32 f32 f32 = host loops"), std::string::npos)
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
  options.tuning->set("8x16x20 nt relu_bias_mask fp32 f32 f32", "another library's");
  static_cast<void>(other->compile(model.graph, *others, options));
  EXPECT_EQ(options.tuning->str(), record);
  EXPECT_GT((*later.made)[Call::elapsed], 0);
}

TEST(Autotune, LeavesTheGuessWhereThereIsNoMemoryToTimeIn) {
  simt::SimtOptions simt;
  simt.memory_bytes = 8 << 20;
  const auto runtime_of = [&] { return simt::make_simt_runtime(simt); };
  Context context(std::make_shared<Gpu>(runtime_of(), 0, true));
  const auto blas = simt::make_host_blas({.delay = 2ms});
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
