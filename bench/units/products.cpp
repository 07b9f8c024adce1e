// The 11 matrix products of the default model's step, each alone: by our kernels and by cuBLASLt,
// through the same backend, as nodes of one graph replayed; and what relu's derivative in
// cuBLASLt's epilogues saves a wide layer.

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cuda/cuda_device.h"
#include "cuda/devices.h"
#include "cuvae/graph.h"
#include "units/measure.h"

namespace cuvae::units {
namespace {

struct Product {
  const char* op;
  const char* name;
  std::int64_t out;
  std::int64_t in;
};
// Heads merged, as the graph merges them.
constexpr Product step_products[] = {
    {"linear", "encoder.0", 512, 784},          {"linear", "encoder.heads", 64, 512},
    {"linear", "decoder.0", 512, 32},           {"linear", "decoder.out", 784, 512},
    {"linear_dgrad", "encoder.heads", 64, 512}, {"linear_dgrad", "decoder.0", 512, 32},
    {"linear_dgrad", "decoder.out", 784, 512},  {"linear_wgrad", "encoder.0", 512, 784},
    {"linear_wgrad", "encoder.heads", 64, 512}, {"linear_wgrad", "decoder.0", 512, 32},
    {"linear_wgrad", "decoder.out", 784, 512}};

Tensor random_matrix(std::int64_t rows, std::int64_t columns, unsigned seed) {
  Tensor tensor(DType::f32, Shape{rows, columns});
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  for (float& value : tensor.as<float>()) value = uniform(random);
  return tensor;
}

// c [m, n] = a [m, k] b [k, n], by strides.
struct Strides {
  std::int64_t m, n, k;
  std::int64_t a_row, a_column, b_row, b_column;
};

Strides shape_of(const Product& p, std::int64_t batch) {
  const std::string_view op = p.op;
  if (op == "linear") return {batch, p.out, p.in, p.in, 1, 1, p.in};         // x w^T
  if (op == "linear_dgrad") return {batch, p.in, p.out, p.out, 1, p.in, 1};  // dy w
  return {p.out, p.in, batch, 1, p.out, p.in, 1};                            // dy^T x
}

// What rounding of the operands may do, of the sum of the terms' magnitudes.
double share_of(const std::string& precision) {
  if (precision == "tf32") return 0x1p-9;
  if (precision == "bf16") return 0x1p-6;
  return 1e-4;
}

void expect_product(const Strides& s, const Tensor& a, const Tensor& b, const Tensor& c,
                    double share) {
  const auto x = a.as<float>();
  const auto y = b.as<float>();
  const auto z = c.as<float>();
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    const auto row = static_cast<std::int64_t>(random()) % s.m;
    const auto column = static_cast<std::int64_t>(random()) % s.n;
    double sum = 0;
    double scale = 0;
    for (std::int64_t k = 0; k < s.k; ++k) {
      const double term =
          static_cast<double>(x[static_cast<std::size_t>(row * s.a_row + k * s.a_column)]) *
          static_cast<double>(y[static_cast<std::size_t>(k * s.b_row + column * s.b_column)]);
      sum += term;
      scale += std::abs(term);
    }
    const double got = z[static_cast<std::size_t>(row * s.n + column)];
    expect(std::abs(got - sum) <= share * scale, "a product is wrong");
  }
}

// Unrolled steps of one replay: two lengths, so that the replay's own cost falls out.
std::pair<std::unique_ptr<Program>, std::unique_ptr<Program>> compile(Device& device,
                                                                      const Graph& graph,
                                                                      Store& store,
                                                                      const std::string& precision,
                                                                      int few, int many) {
  CompileOptions options;
  options.exec = "graph";
  options.precision = precision;
  options.steps = few;
  auto less = device.compile(graph, store, options);
  options.steps = many;
  return {std::move(less), device.compile(graph, store, options)};
}

// Microseconds of one step.
Sample time_step(Program& less, Program& more) {
  const auto seconds = [](Program& program) {
    CUVAE_UNITS_CHECK(cudaDeviceSynchronize());
    const double start = now();
    program.run();
    CUVAE_UNITS_CHECK(cudaDeviceSynchronize());
    return now() - start;
  };
  for (int i = 0; i < 3; ++i) {
    static_cast<void>(seconds(less));
    static_cast<void>(seconds(more));
  }
  std::vector<double> times;
  for (int i = 0; i < 21; ++i) {
    const double shorter = seconds(less);
    times.push_back((seconds(more) - shorter) / (more.steps() - less.steps()));
  }
  return sample_of(std::move(times)) * 1e6;
}

Sample time_product(Device& device, const Product& p, std::int64_t batch,
                    const std::string& precision, bool library) {
  const std::string_view op = p.op;
  const Shape first = op == "linear" ? Shape{batch, p.in} : Shape{batch, p.out};
  const Shape second = op == "linear_wgrad" ? Shape{batch, p.in} : Shape{p.out, p.in};
  Graph graph;
  const Value a = graph.input("a", DType::f32, first);
  const Value b = graph.input("b", DType::f32, second);
  graph.output(graph.apply(op, "product", {a, b}));
  const auto store = device.make_store();
  const Tensor left = random_matrix(first[0], first[1], 1);
  const Tensor right = random_matrix(second[0], second[1], 2);
  store->write("a", left);
  store->write("b", right);
  const auto [less, more] = compile(device, graph, *store, precision, 8, 72);
  const bool taken = more->tuning().find("cublasLt") != std::string::npos;
  if (library && !taken) throw Unavailable("cuBLASLt is not found, or has no algorithm for it");
  expect(library || !taken, "our own kernel was asked for");
  const Strides s = shape_of(p, batch);
  const Sample sample = time_step(*less, *more);
  expect_product(s, left, right, more->read("product", more->steps() - 1), share_of(precision));
  return sample;
}

// A hidden relu layer of a wide model, forward and back: its output, and the gradients of its
// weights and bias from what comes out of the next layer.
Sample time_relu_layer(Device& device, std::int64_t batch, std::int64_t width,
                       const std::string& precision, bool masks) {
  Graph graph;
  const Value x = graph.input("x", DType::f32, Shape{batch, width});
  const Value w = graph.parameter("w", Shape{width, width});
  const Value b = graph.parameter("b", Shape{width});
  const Value dy = graph.input("dy", DType::f32, Shape{batch, width});
  const Value next = graph.parameter("next", Shape{width, width});
  const Attrs relu = {{"kind", std::string("relu")}};
  const Value h = graph.apply("linear_activation", "h", {x, w, b}, relu);
  graph.output(graph.add("linear_wgrad", "dnext", {dy, h}).front());
  const Value dh = graph.apply("linear_dgrad", "dh", {dy, next});
  const Value dpre = graph.apply("activation_grad", "dpre", {dh, h}, relu);
  for (const Value grad : graph.add("linear_wgrad", "dw", {dpre, x}, {{"bias", std::int64_t{1}}}))
    graph.output(grad);
  const auto store = device.make_store();
  unsigned seed = 0;
  for (const char* name : {"x", "w", "dy", "next"})
    store->write(name, random_matrix(graph[graph.find(name)].shape[0], width, ++seed));
  store->write("b", Tensor(DType::f32, Shape{width}));
  CompileOptions options;
  options.precision = precision;
  const std::string table = device.plan(graph, options).table;
  const bool used = table.find(" relu_bias_mask ") != std::string::npos;
  if (masks && !used) throw Unavailable("cuBLASLt is not found, or has no masks for it");
  expect(masks || !used, "a kernel was asked for");
  const auto [less, more] = compile(device, graph, *store, precision, 1, 5);
  return time_step(*less, *more);
}

}  // namespace

void measure_products(const Context& context) {
  if (cuda::compiled_kernels() == nullptr) throw Unavailable("this build has no kernels");
  for (const bool masks : {true, false}) {
    CudaDeviceOptions options;
    options.make_blas = cuda::make_blas;
    options.masks = masks;
    const auto device = make_cuda_device(open_cuda_runtime(0), *cuda::compiled_kernels(), options);
    for (const char* const precision : {"bf16", "tf32"})
      context.attempt(
          std::string("relu layer by cuBLASLt, ") + (masks ? "masks" : "a kernel"),
          std::string("4096 wide, batch 4096, ") + precision,
          [&] { return time_relu_layer(*device, 4096, 4096, precision, masks); }, "us");
  }
  CudaDeviceOptions own;
  CudaDeviceOptions lt;
  lt.make_blas = cuda::make_blas;
  lt.blas_from = 1;
  const auto ours = make_cuda_device(open_cuda_runtime(0), *cuda::compiled_kernels(), own);
  const auto theirs = make_cuda_device(open_cuda_runtime(0), *cuda::compiled_kernels(), lt);
  for (const std::int64_t batch : {128, 4096}) {
    for (const char* const precision : {"fp32", "tf32", "bf16"}) {
      for (const bool library : {false, true}) {
        const std::string row = std::string("product by ") + (library ? "cuBLASLt" : "own kernel");
        const std::string suffix = ", batch " + std::to_string(batch) + ", " + precision;
        Sample sum;
        bool complete = true;
        for (const Product& p : step_products) {
          context.attempt(
              row, std::string(p.op) + " " + p.name + suffix,
              [&] {
                // Until it is measured, the sum is not.
                complete = false;
                const Sample time =
                    time_product(library ? *theirs : *ours, p, batch, precision, library);
                complete = true;
                sum = {sum.median + time.median, sum.low + time.low, sum.high + time.high};
                return time;
              },
              "us");
          if (!complete) break;
        }
        if (complete) context.figure(row, "all 11" + suffix, sum, "us");
      }
    }
  }
}

}  // namespace cuvae::units
