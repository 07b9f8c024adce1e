// A test of the tests: the project's kernels, in which the runner leaves out one barrier, wait or
// order, or takes one thread or block for another (simt/mutation.h), at every place where this can
// be done. Each must be found: another result in some order, a report of the runner, or a report of
// the sanitizer of this build.
//
// Every run is a process of its own, because a sanitizer's report, or a wild address, ends it. The
// findings go to the file that CUVAE_MUTATION_REPORT names, as JSON;
// tests/sanitized/mutations.cmake puts those of all builds together, and fails where no build finds
// a mutation.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <sstream>
#include <string>

#include "cuda/cuda_device.h"
#include "cuda/training_case.h"
#include "cuvae/error.h"
#include "kernels/launch.cuh"
#include "kernels/simt_backends.h"
#include "kernels/table.cuh"
#include "ops/parity_table.h"
#include "simt/launching.h"
#include "simt/sanitizer.h"

// What kernels/device has and no kernel of the project uses yet.
namespace CUVAE_KERNELS {
namespace {

constexpr unsigned barrier_blocks = 4;
constexpr unsigned barrier_threads = 64;

__global__ void sums_in_turn(unsigned* counter, float* data) {
  const unsigned all = barrier_blocks * barrier_threads;
  const unsigned me = blockIdx.x * barrier_threads + threadIdx.x;
  for (unsigned round = 1; round <= 3; ++round) {
    data[round * all + me] =
        data[(round - 1) * all + (me + barrier_threads + 1) % all] + static_cast<float>(me);
    device::grid_barrier(counter, round * barrier_blocks);
  }
}

__global__ void lanes_in_step(float* data) {
  CUVAE_SHARED(float, box, [32]);
  const unsigned lane = threadIdx.x;
  box[lane] = data[lane];
  __syncwarp();
  const float left = box[(lane + 31) % 32];
  __syncwarp();
  box[lane] = left + 1.0f;
  __syncwarp();
  data[lane] = box[(lane + 31) % 32];
}

__global__ void matrix_rows(const float* from, std::uint32_t* to) {
  CUVAE_SHARED(float, box, [8 * 16]);
  for (unsigned i = threadIdx.x; i < 8 * 16; i += 32) box[i] = from[i];
  __syncthreads();
  std::uint32_t words[4];
  device::ldmatrix_x4(words, box + threadIdx.x * 4);
  for (unsigned i = 0; i < 4; ++i) to[threadIdx.x * 4 + i] = words[i];
}

}  // namespace
}  // namespace CUVAE_KERNELS

namespace cuvae::testing {
namespace {

using Int = std::int64_t;
using simt::Mutation;
using simt::MutationKind;
using simt::SimtOptions;
using simt::SimtRuntime;

// What a run of a workload gives.
class Result {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes)
      hash_ = (hash_ ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3;  // FNV-1a
  }
  template <class T>
  void add(const std::vector<T>& values) {
    add(std::as_bytes(std::span(values)));
  }
  void add(const Tensor& tensor) { add(tensor.bytes()); }
  [[nodiscard]] std::uint64_t hash() const { return hash_; }
  std::vector<Mutation> places;

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325;
};

struct Workload {
  std::string name;
  bool in_turn = false;  // kernels read what the one before has written
  std::function<Result(const SimtOptions&)> run;
};

struct OpenDevice {
  explicit OpenDevice(const SimtOptions& options) {
    auto made = simt::make_simt_runtime(options);
    runtime = made.get();
    device = make_cuda_device(std::move(made), gpu_on_simt::kernel_table());
  }
  SimtRuntime* runtime;
  std::unique_ptr<cuvae::Device> device;
};

void poison(Program& program) {
  dynamic_cast<CudaProgram&>(program).fill_memory(std::byte{0xFF});  // NaN in every real
}

// Workloads ---------------------------------------------------------------------------------------

Workload of_case(const Case& c, const std::string& precision, int multiprocessors) {
  std::string name = c.id();
  if (precision != "fp32") name += " " + precision;
  if (multiprocessors != 0) name += " on " + std::to_string(multiprocessors);
  return {name, false, [=](const SimtOptions& options) {
            SimtOptions own = options;
            own.multiprocessors = multiprocessors;
            const OpenDevice on(own);
            const CaseGraph g = case_graph(c);
            const std::vector<Tensor> inputs = case_inputs(c);
            const auto store = on.device->make_store();
            for (std::size_t i = 0; i < inputs.size(); ++i)
              if (g.inputs[i]) store->write(g.graph[g.inputs[i]].name, inputs[i]);
            const auto program = on.device->compile(g.graph, *store, {.precision = precision});
            Result result;
            for (int again = 0; again < (simt::with_tsan ? 1 : 2);
                 ++again) {  // counters are as they were
              poison(*program);
              program->run();
              for (const Value output : g.outputs) {
                const Value root = g.graph.root(output);
                result.add(root ? store->read(g.graph[root].name)
                                : program->read(g.graph[output].name));
              }
            }
            result.places = on.runtime->places();
            return result;
          }};
}

// Kernels that wait for the one before: x doubled, then summed along an axis, then doubled again.
Workload of_chain(const std::string& axis, std::int64_t rows, std::int64_t columns) {
  return {"chain_" + axis, true, [=](const SimtOptions& options) {
            const OpenDevice on(options);
            Graph graph;
            const Shape shape{rows, columns};
            const Value x = graph.input("x", DType::f32, shape);
            const Value twice = graph.apply("scale", "twice", {x}, {{"factor", 2.0}});
            const Value sum =
                graph.apply("reduce", "sum", {twice}, {{"axis", axis}, {"op", std::string("sum")}});
            const Value end = graph.apply("scale", "end", {sum}, {{"factor", 0.5}});
            graph.output(end);
            const auto store = on.device->make_store();
            Tensor values(DType::f32, shape);
            float next = 0;
            for (float& v : values.as<float>()) v = next = next * 0.75F + 1.25F;
            store->write("x", values);
            const auto program = on.device->compile(graph, *store, {.exec = "graph"});
            poison(*program);
            program->run();
            Result result;
            result.add(program->read("end"));
            result.places = on.runtime->places();
            return result;
          }};
}

// The same for an update: the gradient comes from the kernel before.
Workload of_update() {
  return {"chain_adam", true, [](const SimtOptions& options) {
            const OpenDevice on(options);
            Graph graph;
            const Shape shape{300};
            const Value x = graph.input("x", DType::f32, shape);
            const Value w = graph.parameter("w", shape);
            const Value m = graph.state("m", DType::f32, shape);
            const Value v = graph.state("v", DType::f32, shape);
            const Value hyper = graph.input("hyper", DType::f32, Shape{1, 2});
            const Value clock = graph.input("clock", DType::i64, Shape{5});
            const Value commit = graph.input("commit", DType::i64, Shape{1});
            const Value gradient = graph.apply("scale", "gradient", {x}, {{"factor", 2.0}});
            graph.add("adam", "update", {w, m, v, gradient, hyper, clock, commit});
            const auto store = on.device->make_store();
            Tensor values(DType::f32, shape);
            float next = 0;
            for (float& value : values.as<float>()) value = next = next * 0.75F + 1.25F;
            for (const char* name : {"x", "w", "m", "v"}) store->write(name, values);
            store->write("commit", integers(Shape{1}, {1}));
            show_step(*store, 0);
            const auto program = on.device->compile(graph, *store, {.exec = "graph"});
            poison(*program);
            program->run();
            Result result;
            for (const char* name : {"w", "m", "v"}) result.add(store->read(name));
            result.places = on.runtime->places();
            return result;
          }};
}

// Of a gradient that is made before, in two chunks: its norm, clipping, an optimiser and the
// average of its weights.
Workload of_clipped_update() {
  return {"chain_clip", true, [](const SimtOptions& options) {
            const OpenDevice on(options);
            Graph graph;
            const Shape shape{simt::with_tsan ? 300 : 9'000};
            const Value x = graph.input("x", DType::f32, shape);
            const Value w = graph.parameter("w", shape);
            const Value ema = graph.state("ema", DType::f32, shape);
            const Value skipped = graph.state("skipped", DType::i64, Shape{1});
            const Value hyper = graph.input("hyper", DType::f32, Shape{1, 2});
            const Value clock = graph.input("clock", DType::i64, Shape{5});
            const Value commit = graph.input("commit", DType::i64, Shape{1});
            const Value gradient = graph.apply("scale", "gradient", {x}, {{"factor", 2.0}});
            const auto clip =
                graph.add("clip_norm", "clip", {commit, skipped, gradient}, {{"limit", 0.5}});
            const Value clipped = graph.apply("scale_by", "clipped", {gradient, clip[1]});
            const auto next =
                add_update(graph, "sgd", w, clipped, hyper, clock, clip[2], {{"momentum", 0.9}});
            graph.add("weight_ema", "average", {ema, next[0], clock, commit});
            for (const Value value : {clip[0], clip[1], clip[2]}) graph.output(value);
            const auto store = on.device->make_store();
            Tensor values(DType::f32, shape);
            float next_value = 0;
            for (float& value : values.as<float>()) value = next_value = next_value * 0.75F + 1.25F;
            for (const char* name : {"x", "w", "sgd.momentum.w", "ema"}) store->write(name, values);
            store->write("commit", integers(Shape{1}, {1}));
            show_step(*store, 3);
            const auto program = on.device->compile(graph, *store, {.exec = "graph"});
            poison(*program);
            Result result;
            for (int again = 0; again < (simt::with_tsan ? 1 : 2); ++again) {
              program->run();  // the counter is as it was
              for (const char* name : {"w", "sgd.momentum.w", "ema"}) result.add(store->read(name));
              for (const char* name : {"clip.norm", "clip.factor", "clip.commit"})
                result.add(program->read(name));
            }
            result.places = on.runtime->places();
            return result;
          }};
}

// And for two layers in one kernel, which read what the kernel before has made.
Workload of_pair() {
  return {"chain_pair", true, [](const SimtOptions& options) {
            const OpenDevice on(options);
            Graph graph;
            const auto parameter = [&](const char* name, Shape shape) {
              return graph.parameter(name, shape);
            };
            const Value x = graph.input("x", DType::f32, Shape{2, 9});
            const Value twice = graph.apply("scale", "twice", {x}, {{"factor", 2.0}});
            const Value pair =
                graph.apply("layer_pair", "pair",
                            {twice, parameter("w1", Shape{11, 9}), parameter("w2", Shape{13, 11}),
                             parameter("b1", Shape{11}), parameter("b2", Shape{13})},
                            {{"kind", std::string("relu")}});
            const Value end = graph.apply("scale", "end", {pair}, {{"factor", 0.5}});
            graph.output(end);
            const auto store = on.device->make_store();
            float next = 0;
            for (const ValueInfo& info : graph.values()) {
              if (info.producer >= 0) continue;
              Tensor values(DType::f32, info.shape);
              for (float& value : values.as<float>()) value = next = next * 0.75F + 1.25F;
              store->write(info.name, values);
            }
            const auto program = on.device->compile(graph, *store, {.exec = "graph"});
            poison(*program);
            program->run();
            Result result;
            result.add(program->read("end"));
            result.places = on.runtime->places();
            return result;
          }};
}

// And for a warp's softmax of a row that the kernel before has made.
Workload of_counts() {
  return {"chain_multinomial", true, [](const SimtOptions& options) {
            const OpenDevice on(options);
            Graph graph;
            const Shape shape{12, 40};
            const Value x = graph.input("x", DType::f32, shape);
            const Value counts = graph.input("counts", DType::f32, shape);
            const Value twice = graph.apply("scale", "twice", {x}, {{"factor", 2.0}});
            const Value nll = graph.apply("multinomial_nll", "nll", {twice, counts});
            const Value end = graph.apply("scale", "end", {nll}, {{"factor", 0.5}});
            graph.output(end);
            const auto store = on.device->make_store();
            Tensor values(DType::f32, shape);
            float next = 0;
            for (float& value : values.as<float>()) value = next = next * 0.75F + 0.25F;
            store->write("x", values);
            next = 0;
            for (float& value : values.as<float>()) value = next = next < 5 ? next + 1 : 0;
            store->write("counts", values);
            const auto program = on.device->compile(graph, *store, {.exec = "graph"});
            poison(*program);
            program->run();
            Result result;
            result.add(program->read("end"));
            result.places = on.runtime->places();
            return result;
          }};
}

// And for a warp's softmax of a row, forward and backward.
Workload of_classes() {
  return {"chain_softmax", true, [](const SimtOptions& options) {
            const OpenDevice on(options);
            Graph graph;
            const Shape shape{12, 40};
            const Value x = graph.input("x", DType::f32, shape);
            const Value twice = graph.apply("scale", "twice", {x}, {{"factor", 2.0}});
            const Value p = graph.apply("softmax", "p", {twice});
            const Value log_p = graph.apply("log_softmax", "log_p", {twice});
            const Value back = graph.apply("softmax_grad", "back", {log_p, p});
            const Value end = graph.apply("scale", "end", {back}, {{"factor", 0.5}});
            graph.output(end);
            const auto store = on.device->make_store();
            Tensor values(DType::f32, shape);
            float next = 0;
            for (float& value : values.as<float>()) value = next = next * 0.75F + 0.25F;
            store->write("x", values);
            const auto program = on.device->compile(graph, *store, {.exec = "graph"});
            poison(*program);
            program->run();
            Result result;
            result.add(program->read("end"));
            result.places = on.runtime->places();
            return result;
          }};
}

// And for layers of images, forward and backward: each reads what kernels before have made.
Workload of_images() {
  return {"chain_images", true, [](const SimtOptions& options) {
            const OpenDevice on(options);
            Graph graph;
            const Value x = graph.parameter("x", Shape{3, 2, 6, 5});
            const Value w = graph.parameter("w", Shape{4, 2, 3, 3});
            const Value back = graph.parameter("back", Shape{4, 3, 2, 2});
            const Value weight = graph.parameter("weight", Shape{4});
            const Value bias = graph.parameter("bias", Shape{4});
            const Value twice = graph.apply("scale", "twice", {x}, {{"factor", 2.0}});
            const Value y = graph.apply("conv2d", "y", {twice, w, bias}, {{"padding", Int{1}}});
            const Value normal =
                graph.apply("norm", "normal", {y, weight, bias}, {{"kind", std::string("batch")}});
            const Value up =
                graph.apply("conv_transpose2d", "up", {normal, back}, {{"stride", Int{2}}});
            const Value loss =
                graph.apply("reduce", "loss", {graph.apply("mul", "square", {up, up})},
                            {{"axis", std::string("all")}, {"op", std::string("sum")}});
            const Value wrt[] = {x, w, back, weight, bias};
            const std::vector<Value> grads = gradients(graph, loss, wrt);
            std::vector<Value> outputs{loss};
            for (const Value grad : grads)
              outputs.push_back(graph.apply("scale", "end" + std::to_string(outputs.size()), {grad},
                                            {{"factor", 0.5}}));
            for (const Value output : outputs) graph.output(output);
            const auto store = on.device->make_store();
            float next = 0;
            for (const Value value : wrt) {
              Tensor values(DType::f32, graph[value].shape);
              for (float& v : values.as<float>()) {
                next = next * 0.75F + 1.25F;
                v = next > 4.0F ? next -= 6.5F : next;
              }
              store->write(graph[value].name, values);
            }
            const auto program = on.device->compile(graph, *store, {.exec = "graph"});
            poison(*program);
            program->run();
            Result result;
            for (const Value output : outputs) result.add(program->read(graph[output].name));
            result.places = on.runtime->places();
            return result;
          }};
}

// And for sums over pairs of latents and Gaussians, whose terms the kernel before has made.
Workload of_densities() {
  return {
      "chain_densities", true, [](const SimtOptions& options) {
        const OpenDevice on(options);
        Graph graph;
        const Value z = graph.parameter("z", Shape{9, 3});
        const Value mean = graph.parameter("mean", Shape{10, 3});
        const Value logvar = graph.parameter("logvar", Shape{10, 3});
        const Value twice = graph.apply("scale", "twice", {z}, {{"factor", 2.0}});
        const Value pairs = graph.apply("pair_log_density", "pairs", {twice, mean, logvar});
        // The bias comes from the kernel just before: it is what is read first.
        const Value bias = graph.apply("reduce", "bias", {pairs},
                                       {{"axis", std::string("rows")}, {"op", std::string("sum")}});
        const Value prior =
            graph.apply("logsumexp", "prior", {pairs, bias}, {{"normalise", Int{1}}});
        const Value marginal =
            graph.apply("marginal_log_density", "marginal", {twice, mean, logvar});
        const Value kernel = graph.apply("kernel_mean", "kernel", {twice, mean},
                                         {{"kernel", std::string("imq")}, {"bandwidth", 1.0}});
        const Value both = graph.apply("add", "both", {prior, marginal});
        const Value product = graph.apply("mul", "product", {both, kernel});
        const Value loss = graph.apply("reduce", "loss", {product},
                                       {{"axis", std::string("all")}, {"op", std::string("sum")}});
        const Value wrt[] = {z, mean, logvar};
        std::vector<Value> outputs{loss};
        for (const Value grad : gradients(graph, loss, wrt))
          outputs.push_back(graph.apply("scale", "end" + std::to_string(outputs.size()), {grad},
                                        {{"factor", 0.5}}));
        for (const Value output : outputs) graph.output(output);
        const auto store = on.device->make_store();
        float next = 0;
        for (const Value value : wrt) {
          Tensor values(DType::f32, graph[value].shape);
          for (float& v : values.as<float>()) {
            next = next * 0.75F + 0.75F;
            v = next > 2.0F ? next -= 3.5F : next;
          }
          store->write(graph[value].name, values);
        }
        const auto program = on.device->compile(graph, *store, {.streams = 2, .exec = "graph"});
        poison(*program);
        program->run();
        Result result;
        for (const Value output : outputs) result.add(program->read(graph[output].name));
        result.places = on.runtime->places();
        return result;
      }};
}

Workload of_training(const std::string& name, const CompileOptions& compile, int steps) {
  return {name, true, [=](const SimtOptions& options) {
            const OpenDevice on(options);
            const Outcome outcome = train(*on.device, compile, steps, poison);
            Result result;
            for (const auto& [tensor, values] : outcome.tensors) result.add(values);
            result.places = on.runtime->places();
            return result;
          }};
}

// The persistent path: several blocks of both kinds, weights in pieces, and so many steps that what
// alternates comes back.
Workload of_persistent(const std::string& precision, std::int64_t batch, int multiprocessors) {
  return {"persistent " + precision, true, [=](const SimtOptions& options) {
            SimtOptions own = options;
            own.multiprocessors = multiprocessors;
            const OpenDevice on(own);
            constexpr int steps = 3;
            const TrainingGraph model = training_graph({.batch = batch,
                                                        .rows = 80,
                                                        .pixels = 96,
                                                        .hidden = {20},
                                                        .latent = 6,
                                                        .steps = steps});
            const auto store = on.device->make_store();
            fill(*store, model.graph);
            store->write("clock", integers(Shape{5}, {11, 0, 1, 0, 0}));
            store->write("hyper", reals(Shape{steps, 2}, {1e-3F, 0.5F, 2e-3F, 0.6F, 3e-3F, 0.7F}));
            CompileOptions compile;
            compile.steps = steps;
            compile.exec = "persistent";
            compile.precision = precision;
            const auto program = on.device->compile(model.graph, *store, compile);
            if (program->exec() != "persistent")
              throw Error(Status::failed, program->note(), "persistent");
            poison(*program);
            program->run();
            Result result;
            for (const char* name : {"loss", "reconstruction", "kl"})
              result.add(program->read_steps(name));
            for (const ValueInfo& info : model.graph.values())
              if (info.producer < 0 && info.storage != Storage::input)
                result.add(store->read(info.name));
            result.places = on.runtime->places();
            return result;
          }};
}

Workload of_device_layer() {
  return {"device_layer", false, [](const SimtOptions& options) {
            using namespace gpu_on_simt;
            const auto runtime = simt::make_simt_runtime(options);
            Result result;
            {
              constexpr std::size_t all = barrier_blocks * barrier_threads;
              testing::Device<unsigned> counter(*runtime, std::vector<unsigned>(1));
              testing::Device<float> data(*runtime, std::vector<float>(4 * all, 1.0F));
              launch(*runtime, CUVAE_KERNEL(sums_in_turn),
                     {.grid = {barrier_blocks, 1, 1},
                      .block = {barrier_threads, 1, 1},
                      .cooperative = true},
                     nullptr, counter.get(), data.get());
              result.add(data.values());
              std::vector<float> numbers;
              for (int i = 0; i < 128; ++i) numbers.push_back(static_cast<float>(i) + 0.5F);
              testing::Device<float> lanes(*runtime, numbers);
              testing::Device<std::uint32_t> words(*runtime, std::size_t{128});
              launch(*runtime, CUVAE_KERNEL(matrix_rows), {.block = {32, 1, 1}}, nullptr,
                     lanes.get(), words.get());
              launch(*runtime, CUVAE_KERNEL(lanes_in_step), {.block = {32, 1, 1}}, nullptr,
                     lanes.get());
              result.add(words.values());
              result.add(lanes.values());
            }
            result.places = runtime->places();
            return result;
          }};
}

std::int64_t elements(const Case& c) {
  const Graph graph = case_graph(c).graph;
  std::int64_t all = 0;
  for (const ValueInfo& info : graph.values()) all += info.shape.elements();
  return all;
}

// The largest case of an operator up to `most` elements.
const Case* largest(const std::string& op, std::int64_t most, const std::string& with = {}) {
  const Case* found = nullptr;
  for (const Case& c : parity_table())
    if (c.op == op && c.what.find(with) != std::string::npos && elements(c) <= most &&
        (found == nullptr || elements(c) > elements(*found)))
      found = &c;
  return found;
}

std::vector<Workload> workloads() {
  const bool few = simt::with_tsan;  // half a millisecond for each CUDA thread
  std::vector<Workload> all{of_device_layer(),
                            of_update(),
                            of_clipped_update(),
                            of_pair(),
                            of_images(),
                            of_counts(),
                            of_classes(),
                            of_densities(),
                            of_chain("rows", 12, 40),
                            of_chain("cols", 12, 40),
                            of_chain("all", few ? 11 : 110, 100)};
  // Sums over several blocks, of parts that all their warps write.
  Case tiles = *largest("linear_nll", 1'500);
  tiles.what = "three_tiles";
  const Shape shapes[] = {Shape{3, 8}, Shape{70, 8}, Shape{70}, Shape{3, 70}, Shape{3}};
  for (std::size_t i = 0; i < tiles.inputs.size(); ++i) tiles.inputs[i].shape = shapes[i];
  all.push_back(of_case(tiles, "fp32", 0));
  for (const OpDef* def : all_ops()) {
    const std::string op(def->name);
    const bool product = is_product(op);
    // A warp makes one element of the gradient of a kernel's mean.
    const Int affordable = op == "kernel_mean_grad" ? 300 : 1'500;
    std::set<const Case*> cases{largest(op, few ? affordable : product ? 12'000 : 4'000)};
    if (op == "reduce" && few) cases.insert(largest(op, 12'000, "vector_10007"));
    if (op == "reduce" && !few)
      for (const char* with : {"vector_10007", "_all_", "_rows_", "_cols_"})
        cases.insert(largest(op, 12'000, with));
    for (const Case* c : cases) {
      if (c == nullptr) continue;
      all.push_back(of_case(*c, "fp32", 0));
      if (!product || (few && op != "linear")) continue;
      for (const int multiprocessors : {0, 1}) {
        if (few && multiprocessors != 0) continue;
        if (multiprocessors != 0) all.push_back(of_case(*c, "fp32", multiprocessors));
        all.push_back(of_case(*c, "tf32", multiprocessors));
        all.push_back(of_case(*c, "bf16", multiprocessors));
      }
    }
  }
  all.push_back(of_training("fused", {.streams = 1, .exec = "graph"}, few ? 1 : 2));
  all.push_back(of_training("streams", {.steps = 2, .streams = 3, .exec = "graph"}, 2));
  all.push_back(of_training("eager", {.streams = 3, .exec = "eager"}, 2));
  all.push_back(of_persistent("tf32", few ? 9 : 20, few ? 5 : 12));
  if (!few) all.push_back(of_persistent("bf16", 20, 12));
  if (!few)
    all.push_back(of_training("unfused", {.streams = 1, .fuse = false, .exec = "graph"}, 2));
  return all;
}

// The orders, and then some more by chance.
constexpr int tries = simt_variants + (simt::with_asan ? 4 : 30);
SimtOptions options_of(int attempt) {
  if (attempt < simt_variants) return simt_variant(attempt);
  SimtOptions options = simt_variant(attempt % 2 == 0 ? 3 : 4);
  options.seed = static_cast<std::uint64_t>(attempt) * 101;
  options.streams = simt::StreamOrder::deferred;
  return options;
}

// Processes ---------------------------------------------------------------------------------------

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;
File temporary() {
  File file(std::tmpfile(), &std::fclose);
  if (!file) throw Error(Status::failed, "no temporary file");
  return file;
}
std::string text_in(std::FILE* file) {
  std::string text;
  std::rewind(file);
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, file)) text.append(buffer, n);
  return text;
}

constexpr unsigned tries_seconds = 100;

struct Ended {
  int status = 0;    // of wait()
  std::string told;  // what the function has written
  std::string stderr_text;
};

// Runs it in a process of its own, for so many seconds at the most.
Ended in_a_process(unsigned seconds, const std::function<void(std::FILE* tell)>& run) {
  const File told = temporary();
  const File errors = temporary();
  std::cout.flush();
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(::fileno(errors.get()), STDERR_FILENO);
    ::alarm(seconds);
    int status = 0;
    try {
      run(told.get());
    } catch (const std::exception& error) {
      std::fprintf(told.get(), "error %s\n", error.what());
      status = 1;
    }
    std::fflush(told.get());
    ::_exit(status);
  }
  Ended ended;
  if (child < 0 || ::waitpid(child, &ended.status, 0) != child)
    throw Error(Status::failed, "a process cannot be started");
  ended.told = text_in(told.get());
  ended.stderr_text = text_in(errors.get());
  return ended;
}

// The part of a sanitizer's report that says what it is.
std::string sanitizer_says(const std::string& text) {
  for (const char* mark : {"ThreadSanitizer: ", "AddressSanitizer: ", "runtime error: "}) {
    const std::size_t at = text.find(mark);
    if (at == std::string::npos) continue;
    std::size_t end = text.find_first_of("\n(", at + std::string(mark).size());
    for (const char* stop : {" on address", " on unknown"})
      end = std::min(end, text.find(stop, at));
    std::string says = text.substr(at, end - at);
    while (says.ends_with(' ')) says.pop_back();
    return says;
  }
  return {};
}

// The findings ------------------------------------------------------------------------------------

struct Known {
  const Workload* workload = nullptr;
  std::uint64_t hash = 0;
  double seconds = 0;
};

struct Place {
  Mutation mutation;
  std::vector<std::size_t> where;  // workloads that have met it, cheapest first
};

struct Finding {
  std::string by;  // "result", "report: ...", "ThreadSanitizer: data race", ...; empty: nothing
  std::string workload;
  int attempt = 0;
};

class Mutations : public ::testing::Test {
 protected:
  // Runs everything without a mutation, and notes what there is to mutate.
  void learn() {
    for (const Workload& workload : all_) {
      const auto start = std::chrono::steady_clock::now();
      const Ended ended = in_a_process(300, [&](std::FILE* tell) {
        SimtOptions options = options_of(0);
        options.list_places = true;
        const Result result = workload.run(options);
        std::fprintf(tell, "hash %llu\n", static_cast<unsigned long long>(result.hash()));
        for (const Mutation& place : result.places)
          std::fprintf(tell, "place %s\n", text_of(place).c_str());
      });
      ASSERT_EQ(ended.status, 0) << workload.name << ": " << ended.told << ended.stderr_text;
      Known known;
      known.workload = &workload;
      known.seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::istringstream lines(ended.told);
      for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("hash ")) known.hash = std::stoull(line.substr(5));
        if (line.starts_with("place ")) {
          // The number of an event means something in its own workload only.
          const Mutation place = simt::parse_mutation(line.substr(6));
          std::string text = text_of(place);
          if (place.kind == MutationKind::drop_event) text += " of " + workload.name;
          Place& there = places_[text];
          there.mutation = place;
          there.where.push_back(known_.size());
        }
      }
      known_.push_back(std::move(known));
    }
    for (auto& [text, place] : places_)
      std::stable_sort(place.where.begin(), place.where.end(), [&](std::size_t a, std::size_t b) {
        return known_[a].seconds < known_[b].seconds;
      });
  }

  // Tries the cheapest workloads in many orders, and then, since which are the cheapest is a matter
  // of chance, all others in some.
  Finding find(const Place& place, std::size_t cheap, int cheap_tries, int other_tries) const {
    const Mutation& mutation = place.mutation;
    std::vector<const Known*> where;
    const bool in_turn = mutation.kind == MutationKind::skip_producer_wait ||
                         mutation.kind == MutationKind::early_read;
    for (const std::size_t i : place.where)
      if (!in_turn || known_[i].workload->in_turn) where.push_back(&known_[i]);
    const std::span<const Known* const> all(where);
    const std::size_t first = std::min(cheap, all.size());
    Finding finding = shown(mutation, all.first(first), cheap_tries);
    // Each in a process of its own: ThreadSanitizer keeps what it knows of every thread.
    for (std::size_t i = first; i < all.size() && finding.by.empty(); ++i)
      finding = shown(mutation, all.subspan(i, 1), other_tries);
    return finding;
  }

  static Finding shown(const Mutation& mutation, std::span<const Known* const> some, int orders) {
    const Ended ended = in_a_process(tries_seconds, [&](std::FILE* tell) {
      // What every order shows at once comes first.
      for (int attempt = 0; attempt < orders; ++attempt) {
        for (const Known* known : some) {
          std::fprintf(tell, "try %d %s\n", attempt, known->workload->name.c_str());
          std::fflush(tell);
          // Of each: what is as slow without a mutation is not found by that.
          ::alarm(tries_seconds + static_cast<unsigned>(10 * known->seconds));
          SimtOptions options = options_of(attempt);
          options.mutation = mutation;
          if (known->workload->run(options).hash() != known->hash) {
            std::fprintf(tell, "result\n");
            return;
          }
        }
      }
      std::fprintf(tell, "nothing\n");
    });
    Finding finding;
    std::istringstream lines(ended.told);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("try ")) {
        finding.attempt = std::atoi(line.c_str() + 4);
        finding.workload = line.substr(line.find(' ', 4) + 1);
      } else if (line == "result") {
        finding.by = "result";
      } else if (line.starts_with("error ")) {
        finding.by = "report: " + line.substr(6, line.find_first_of(";:", 6) - 6);
      }
    }
    if (const std::string says = sanitizer_says(ended.stderr_text); !says.empty()) {
      finding.by = says;
    } else if (WIFSIGNALED(ended.status)) {
      finding.by = WTERMSIG(ended.status) == SIGALRM ? "never ends" : "crash";
    }
    return finding;
  }

  std::vector<Workload> all_ = workloads();
  std::vector<Known> known_;
  std::map<std::string, Place> places_;
};

// What the plain build has found, if CUVAE_MUTATION_PLAIN names its report. ThreadSanitizer then
// looks only for the rest, and for what it is made for.
std::set<std::string> found_by_plain() {
  std::set<std::string> found;
  const char* path = std::getenv("CUVAE_MUTATION_PLAIN");
  std::ifstream file(path != nullptr ? path : "");
  if (!file) return found;
  const nlohmann::json report = nlohmann::json::parse(file);
  for (const auto& finding : report.at("findings"))
    if (finding.at("by") != "") found.insert(finding.at("mutation"));
  return found;
}
bool is_of_order(MutationKind kind) {
  switch (kind) {
    case MutationKind::skip_barrier:
    case MutationKind::skip_syncwarp:
    case MutationKind::skip_producer_wait:
    case MutationKind::skip_acquire:
    case MutationKind::skip_spin: return true;
    default: return false;
  }
}

TEST_F(Mutations, EachIsFound) {
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_NO_FATAL_FAILURE(learn());
  std::set<MutationKind> kinds;
  nlohmann::json findings = nlohmann::json::array();
  int missed = 0;
  const std::set<std::string> known = found_by_plain();
  for (const auto& [text, place] : places_) {
    kinds.insert(place.mutation.kind);
    if (simt::with_tsan && known.contains(text) && !is_of_order(place.mutation.kind)) continue;
    // Between streams one order of many shows what is missing; only one workload has the event.
    const int orders = place.mutation.kind == MutationKind::drop_event ? 4 * tries : tries;
    const Finding finding =
        simt::with_tsan ? find(place, 4, 2, 2) : find(place, 8, orders, simt_variants);
    findings.push_back({{"mutation", text},
                        {"by", finding.by},
                        {"workload", finding.by.empty() ? "" : finding.workload},
                        {"order", finding.attempt}});
    if (finding.by.empty()) {
      std::cout << "not found here: " << text << "\n";
      ++missed;
    }
  }
  EXPECT_EQ(kinds.size(), 12U) << "kinds of mutations that have a place";
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::cout << findings.size() << " mutations, " << missed << " not found by this build, "
            << known_.size() << " workloads, " << seconds << " s\n";
  if (const char* path = std::getenv("CUVAE_MUTATION_REPORT")) {
    std::ofstream file(path);
    file << nlohmann::json{{"build", simt::with_tsan   ? "thread"
                                     : simt::with_asan ? "address"
                                                       : "plain"},
                           {"findings", findings}}
                .dump(1)
         << "\n";
    EXPECT_TRUE(file.good()) << path;
  }
}

}  // namespace
}  // namespace cuvae::testing
