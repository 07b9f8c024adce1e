// Products of a library: which they are, what they compute, and where the library is looked for.

#include "cuda/blas.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "base/tolerance.h"
#include "cpu/cpu_device.h"
#include "cuda/cuda_device.h"
#include "cuda/devices.h"
#include "cuda/library_path.h"
#include "cuda/training_case.h"
#include "cuvae/error.h"
#include "kernels/table.cuh"
#include "simt/blas_host.h"
#include "simt/runtime.h"
#include "support/synthetic.h"

namespace cuvae::cuda {
namespace {

using namespace cuvae::testing;  // NOLINT(google-build-using-namespace): the tests' own
using Epilogue = BlasProduct::Epilogue;

// Every node whose gradients and products the backend has: a dense layer trained without fusion.
Graph dense_layer(std::int64_t batch, std::int64_t in, std::int64_t out, bool bias) {
  Graph graph;
  const Value x = graph.input("x", DType::f32, Shape{batch, in});
  const Value w = graph.parameter("w", Shape{out, in});
  const Value b = bias ? graph.parameter("b", Shape{out}) : Value{};
  const Value dy = graph.input("dy", DType::f32, Shape{batch, out});
  graph.output(bias ? graph.apply("linear", "y", {x, w, b}) : graph.apply("linear", "y", {x, w}));
  graph.output(graph.apply("linear_dgrad", "dx", {dy, w}));
  const auto grads = graph.add("linear_wgrad", "dw", {dy, x}, {{"bias", std::int64_t{bias}}});
  for (const Value grad : grads) graph.output(grad);
  return graph;
}

std::unique_ptr<Device> runner(std::int64_t blas_from, std::shared_ptr<int> asked = {}) {
  simt::SimtOptions simt;
  simt.streams = simt::StreamOrder::deferred;
  CudaDeviceOptions options;
  options.blas_from = blas_from;
  options.make_blas = [asked] {
    if (asked) ++*asked;
    return simt::make_host_blas();
  };
  return make_cuda_device(simt::make_simt_runtime(simt), gpu_on_simt::kernel_table(), options);
}

std::map<std::string, Tensor> results(Device& device, const Graph& graph,
                                      const CompileOptions& options,
                                      std::string* tuning = nullptr) {
  const auto store = device.make_store();
  std::mt19937 random(5);
  for (const ValueInfo& info : graph.values()) {
    if (info.producer >= 0) continue;
    Tensor tensor(DType::f32, info.shape);
    for (float& x : tensor.as<float>()) x = static_cast<float>(random()) * 0x1p-31F - 1.0F;
    if (info.name == "far")
      for (float& x : tensor.as<float>()) x = x < 0 ? -30.0F : 30.0F;
    store->write(info.name, tensor);
  }
  const auto program = device.compile(graph, *store, options);
  if (tuning != nullptr) *tuning = program->tuning();
  program->run();
  program->run();
  std::map<std::string, Tensor> found;
  for (const Value output : graph.outputs())
    found[graph[output].name] = program->read(graph[output].name).to(DType::f64);
  return found;
}

TEST(Blas, TakesThePlaceOfKernelsFromASizeOn) {
  for (const bool bias : {true, false})
    for (const char* exec : {"graph", "eager"}) {
      const Graph graph = dense_layer(20, 17, 33, bias);
      CompileOptions options;
      options.exec = exec;
      options.streams = 2;
      const auto reference =
          results(*make_cpu_device({.threads = 1, .real = DType::f64}), graph, {});
      std::string with_library;
      std::string without;
      const auto asked = std::make_shared<int>(0);
      // Of 20, 17 and 33 one is below 20, and two are below 21.
      const auto library = results(*runner(20, asked), graph, options, &with_library);
      EXPECT_EQ(*asked, 1);
      const auto own = results(*runner(21, asked), graph, options, &without);
      EXPECT_EQ(*asked, 1);  // nothing large enough: not even opened
      for (const char* name : {"y: host loops", "dx: host loops", "dw: host loops"}) {
        EXPECT_NE(with_library.find(name), std::string::npos) << with_library;
        EXPECT_EQ(without.find(name), std::string::npos) << without;
      }
      ASSERT_EQ(reference.size(), bias ? 4U : 3U);
      for (const auto& [name, wanted] : reference)
        for (const auto* each : {&library, &own}) {
          const Tensor& got = each->at(name);
          ASSERT_EQ(got.shape(), wanted.shape());
          const Comparison outcome =
              compare_elements(got.as<double>(), wanted.as<double>(),
                               tolerance(DType::f32, 33, std::sqrt(33.0)));  // of up to 33 terms
          ASSERT_TRUE(outcome.passed) << name << ": " << outcome.str();
        }
    }
}

TEST(Blas, KnowsTheProductsOfDenseLayers) {
  const Graph graph = dense_layer(20, 17, 33, true);
  const auto product = [&](const char* name) {
    const Node& node = graph.nodes()[static_cast<std::size_t>(graph[graph.find(name)].producer)];
    EXPECT_TRUE(is_library_node(node));
    return blas_product(graph, node, Precision::tf32);
  };
  const auto forward = product("y");
  ASSERT_TRUE(forward);
  EXPECT_EQ((std::array{forward->m, forward->n, forward->k}),
            (std::array<std::int64_t, 3>{20, 33, 17}));
  EXPECT_FALSE(forward->a_transposed);
  EXPECT_TRUE(forward->b_transposed);
  EXPECT_EQ(forward->epilogue, Epilogue::bias);
  const auto data = product("dx");
  ASSERT_TRUE(data);
  EXPECT_EQ((std::array{data->m, data->n, data->k}), (std::array<std::int64_t, 3>{20, 17, 33}));
  EXPECT_FALSE(data->a_transposed || data->b_transposed);
  EXPECT_EQ(data->epilogue, Epilogue::none);
  const Node& last = graph.nodes().back();
  const auto weight = blas_product(graph, last, Precision::fp32);
  ASSERT_TRUE(weight);
  EXPECT_EQ((std::array{weight->m, weight->n, weight->k}),
            (std::array<std::int64_t, 3>{33, 17, 20}));
  EXPECT_TRUE(weight->a_transposed);
  EXPECT_FALSE(weight->b_transposed);
  EXPECT_EQ(weight->epilogue, Epilogue::bias_gradient);
  EXPECT_EQ(weight->str(), "33x17x20 tn bias_gradient fp32 f32 f32");
  EXPECT_EQ(forward->str(), "20x33x17 nt bias tf32 f32 f32");
}

TEST(Blas, TheSidesDecideWhoMakesAProduct) {
  const auto worth = [](std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t from) {
    return worth_a_library({.m = m, .n = n, .k = k}, from);
  };
  EXPECT_TRUE(worth(1024, 1024, 1024, 1024));
  EXPECT_TRUE(worth(1024, 1024, 1023, 1024));
  EXPECT_FALSE(worth(1024, 1023, 1023, 1024));
  EXPECT_FALSE(worth(65536, 784, 512, 1024));
  EXPECT_TRUE(worth(4096, 4096, 784, 1024));
  EXPECT_TRUE(worth(16384, 256, 4096, 1024));
  EXPECT_FALSE(worth(16384, 255, 4096, 1024));
  EXPECT_FALSE(worth(128, 4096, 4096, 1024));
  EXPECT_FALSE(worth(128, 512, 784, 1024));  // the default model
  EXPECT_TRUE(worth(1, 1, 1, 0));
  EXPECT_FALSE(worth(0, 1, 1, 0));
  EXPECT_TRUE(worth(std::int64_t{1} << 40, std::int64_t{1} << 40, 1024, 1024));
}

TEST(Blas, TheStandInHasEveryEpilogue) {
  const auto runtime = simt::make_simt_runtime();
  Stream stream(*runtime);
  const std::array<float, 6> a{1, 2, 3, 4, 5, 6};    // [2, 3]
  const std::array<float, 6> b{1, -1, 0, 2, -3, 1};  // [3, 2]
  const std::array<float, 2> bias{10, -5};
  DeviceBuffer memory(*runtime, 1024);
  auto* const floats = static_cast<float*>(memory.get());
  runtime->copy_to_device(floats, a.data(), sizeof a, stream.get());
  runtime->copy_to_device(floats + 16, b.data(), sizeof b, stream.get());
  const auto multiply = [&](Epilogue epilogue) {
    runtime->copy_to_device(floats + 48, bias.data(), sizeof bias, stream.get());
    BlasProduct product{.m = 2, .n = 2, .k = 3, .epilogue = epilogue};
    const auto plan = std::move(simt::make_host_blas()->candidates(product, 1).front());
    const std::array<Access, 1> all{Access{memory.get(), 1024, true, false}};
    plan->run(*runtime, {floats, floats + 16, floats + 32, floats + 48, floats + 64}, all,
              stream.get());
    std::array<float, 18> result{};
    runtime->copy_to_host(result.data(), floats + 32, sizeof result, stream.get());
    stream.synchronize();
    return result;
  };
  const auto masked = [&](Epilogue epilogue, std::vector<std::uint8_t> mask) {
    auto* const bytes = static_cast<std::uint8_t*>(memory.get()) + 512;
    runtime->copy_to_device(floats + 48, bias.data(), sizeof bias, stream.get());
    runtime->copy_to_device(bytes, mask.data(), mask.size(), stream.get());
    const BlasProduct product{.m = 2, .n = 2, .k = 3, .epilogue = epilogue};
    EXPECT_EQ(product.mask_bytes(), static_cast<std::int64_t>(mask.size()));
    const auto plan = std::move(simt::make_host_blas()->candidates(product, 1).front());
    const std::array<Access, 1> all{Access{memory.get(), 1024, true, false}};
    plan->run(*runtime, {floats, floats + 16, floats + 32, floats + 48, bytes, floats + 64}, all,
              stream.get());
    std::array<float, 18> result{};
    runtime->copy_to_host(result.data(), floats + 32, sizeof result, stream.get());
    runtime->copy_to_host(mask.data(), bytes, mask.size(), stream.get());
    stream.synchronize();
    return std::pair(result, mask);
  };
  const auto first = [](const std::array<float, 18>& result) {
    return std::array<float, 4>{result[0], result[1], result[2], result[3]};
  };
  EXPECT_EQ(first(multiply(Epilogue::none)), (std::array<float, 4>{-8, 6, -14, 12}));
  EXPECT_EQ(first(multiply(Epilogue::bias)), (std::array<float, 4>{2, 1, -4, 7}));
  EXPECT_EQ(first(multiply(Epilogue::relu)), (std::array<float, 4>{0, 6, 0, 12}));
  EXPECT_EQ(first(multiply(Epilogue::relu_bias)), (std::array<float, 4>{2, 1, 0, 7}));
  const auto sums = multiply(Epilogue::bias_gradient);
  EXPECT_EQ(sums[16], 6);
  EXPECT_EQ(sums[17], 15);
  // A row of a mask begins at a multiple of 128 bits; nothing else of it is touched.
  const std::vector<std::uint8_t> zeros(32, 0);
  std::vector<std::uint8_t> wanted = zeros;
  wanted[0] = wanted[16] = 2;
  const auto relu = masked(Epilogue::relu_mask, zeros);
  EXPECT_EQ(first(relu.first), (std::array<float, 4>{0, 6, 0, 12}));
  EXPECT_EQ(relu.second, wanted);
  wanted[0] = 3;
  const auto relu_bias = masked(Epilogue::relu_bias_mask, zeros);
  EXPECT_EQ(first(relu_bias.first), (std::array<float, 4>{2, 1, 0, 7}));
  EXPECT_EQ(relu_bias.second, wanted);
  const auto gradient = masked(Epilogue::relu_gradient, wanted);
  EXPECT_EQ(first(gradient.first), (std::array<float, 4>{-8, 6, 0, 12}));
  EXPECT_EQ(gradient.first[16], 10);  // no vector
  const auto both = masked(Epilogue::relu_bias_gradient, wanted);
  EXPECT_EQ(first(both.first), (std::array<float, 4>{-8, 6, 0, 12}));
  EXPECT_EQ(both.first[16], -8);
  EXPECT_EQ(both.first[17], 18);
}

TEST(Blas, AMasksRowsBeginAtMultiplesOf128Bits) {
  const auto bytes = [](std::int64_t m, std::int64_t n) {
    return BlasProduct{.m = m, .n = n}.mask_bytes();
  };
  EXPECT_EQ(bytes(1, 1), 16);
  EXPECT_EQ(bytes(3, 128), 48);
  EXPECT_EQ(bytes(3, 129), 96);
  EXPECT_EQ(bytes(16384, 4096), 16384 * 512);
  EXPECT_EQ(bytes(0, 7), 0);
}

// A relu layer with what goes back through it. Its bias keeps what it passes away from zero.
Graph relu_layer(std::int64_t batch, std::int64_t in, std::int64_t hidden, std::int64_t out) {
  Graph graph;
  const Value x = graph.input("x", DType::f32, Shape{batch, in});
  const Value w = graph.parameter("w", Shape{hidden, in});
  const Value far = graph.parameter("far", Shape{hidden});
  const Value next = graph.parameter("next", Shape{out, hidden});
  const Value dy = graph.input("dy", DType::f32, Shape{batch, out});
  const Attrs relu = {{"kind", std::string("relu")}};
  const Value h = graph.apply("linear_activation", "h", {x, w, far}, relu);
  graph.output(graph.apply("linear", "y", {h, next}));
  const Value dh = graph.apply("linear_dgrad", "dh", {dy, next});
  const Value dx = graph.apply("activation_grad", "dx", {dh, h}, relu);
  graph.output(dx);
  for (const Value grad : graph.add("linear_wgrad", "dw", {dx, x}, {{"bias", std::int64_t{1}}}))
    graph.output(grad);
  return graph;
}

// With a GPU and the library: masks that its products leave for one another.
TEST(BlasLt, GoesBackThroughReluByItsMask) {
  if (const std::string reason = cuda_unavailable_reason(); !reason.empty())
    GTEST_SKIP() << "no GPU: " << reason;
  const std::unique_ptr<Runtime> runtime = open_cuda_runtime();
  if (make_blas() == nullptr) GTEST_SKIP() << "no libcublasLt.so.13 was found";
  const Graph graph = relu_layer(384, 96, 200, 104);
  const auto reference = results(*make_cpu_device({.threads = 1, .real = DType::f64}), graph, {});
  for (const char* precision : {"fp32", "tf32", "bf16"}) {
    CudaDeviceOptions options;
    options.make_blas = make_blas;
    options.blas_from = 96;
    CompileOptions compile;
    compile.precision = precision;
    const auto device = make_cuda_device(make_runtime(), *compiled_kernels(), options);
    std::string products;
    for (const auto& [node, product] : device->plan(graph, compile).library)
      products += product + "; ";
    RecordProperty(precision, products);  // which epilogues it has is the library's to say
    const auto first = results(*device, graph, compile);
    const auto second = results(*device, graph, compile);
    const double unit = std::string(precision) == "fp32" ? 0x1p-22 : 0x1p-7;
    for (const auto& [name, wanted] : reference) {
      EXPECT_TRUE(same(first.at(name), second.at(name))) << name;
      double largest = 0;
      for (std::int64_t i = 0; i < wanted.elements(); ++i)
        largest = std::max(largest, std::abs(wanted.item(i)));
      for (std::int64_t i = 0; i < wanted.elements(); ++i)
        ASSERT_NEAR(first.at(name).item(i), wanted.item(i), 8 * unit * largest)
            << products << name << " " << i;
    }
  }
}

TEST(Blas, GoesBackThroughReluByItsMask) {
  const Graph graph = relu_layer(24, 17, 33, 20);
  const auto reference = results(*make_cpu_device({.threads = 1, .real = DType::f64}), graph, {});
  for (const char* exec : {"graph", "eager"}) {
    CompileOptions options;
    options.exec = exec;
    const auto device = runner(17);
    int used = 0;
    for (const auto& [node, product] : device->plan(graph, options).library)
      for (const char* epilogue : {" relu_bias_mask ", " relu_bias_gradient "})
        used += product.find(epilogue) != std::string::npos ? 1 : 0;
    EXPECT_EQ(used, 2);
    for (const auto& [name, got] : results(*device, graph, options)) {
      const Tensor& wanted = reference.at(name);
      const Comparison outcome = compare_elements(got.as<double>(), wanted.as<double>(),
                                                  tolerance(DType::f32, 33, 20 * std::sqrt(33.0)));
      ASSERT_TRUE(outcome.passed) << name << ": " << outcome.str();
    }
  }
}

TEST(LibraryPath, LooksWhereTheUserSaysThenTheLoaderThenToolkitsAndWheels) {
  const test::TemporaryFolder folder;
  const auto put = [&](const std::string& path) {
    std::filesystem::create_directories((folder / path).parent_path());
    std::ofstream(folder / path) << "x";
    return (folder / path).string();
  };
  const std::string name = "libcublasLt-of-a-test.so.13";
  const std::string chosen = put("mine/lib64/" + name);
  const std::string toolkit = put("toolkit/targets/x86_64-linux/lib/" + name);
  const std::string wheel = put("venv/lib/python3.11/site-packages/nvidia/cu13/lib/" + name);
  put("venv/lib/python3.11/site-packages/nvidia/cu13/lib/libother.so");
  const std::map<std::string, std::string> variables{
      {"CUVAE_CUDA_PATH", (folder / "mine").string()},
      {"CUDA_HOME", (folder / "toolkit").string()},
      {"CUDA_PATH", (folder / "nowhere").string()},
      {"VIRTUAL_ENV", (folder / "venv").string()}};
  const auto variable = [&](const char* which) {
    const auto found = variables.find(which);
    return found == variables.end() ? std::string() : found->second;
  };
  EXPECT_EQ(library_candidates(name, variable),
            (std::vector<std::string>{chosen, name, toolkit, wheel}));
  EXPECT_EQ(library_candidates(name, [](const char*) { return std::string(); }),
            (std::vector<std::string>{name}));
}

// With a GPU and the library: against the project's own kernels.
TEST(BlasLt, AgreesWithTheKernels) {
  if (const std::string reason = cuda_unavailable_reason(); !reason.empty())
    GTEST_SKIP() << "no GPU: " << reason;
  const std::unique_ptr<Runtime> runtime = open_cuda_runtime();
  if (make_blas() == nullptr) GTEST_SKIP() << "no libcublasLt.so.13 was found";
  for (const bool bias : {true, false}) {
    const Graph graph = dense_layer(300, 200, 100, bias);
    const auto reference = results(*make_cpu_device({.threads = 1, .real = DType::f64}), graph, {});
    for (const char* precision : {"fp32", "tf32", "bf16"}) {
      CudaDeviceOptions options;
      options.make_blas = make_blas;
      options.blas_from = 100;
      CompileOptions compile;
      compile.precision = precision;
      std::string tuning;
      const auto device = make_cuda_device(make_runtime(), *compiled_kernels(), options);
      const auto first = results(*device, graph, compile, &tuning);
      EXPECT_NE(tuning.find("y: cublasLt"), std::string::npos) << tuning;
      const auto second = results(*device, graph, compile);
      const double unit = std::string(precision) == "fp32" ? 0x1p-23 : 0x1p-8;
      for (const auto& [name, wanted] : reference) {
        EXPECT_TRUE(same(first.at(name), second.at(name))) << name;
        for (std::int64_t i = 0; i < wanted.elements(); ++i)
          ASSERT_TRUE(std::abs(first.at(name).item(i) - wanted.item(i)) <= 300 * unit)
              << name << " " << precision << " " << i;
      }
    }
  }
}

// Without one, the library is found all the same where a toolkit is, and says that it cannot.
TEST(BlasLt, IsNullWithoutAGpu) {
  if (cuda_unavailable_reason().empty()) GTEST_SKIP() << "a GPU can be used on this machine";
  EXPECT_EQ(make_blas(), nullptr);
}

}  // namespace
}  // namespace cuvae::cuda
