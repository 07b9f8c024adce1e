// Fused programs against unfused ones, as the device runs them.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/tolerance.h"
#include "cpu/cpu_device.h"
#include "graph/op.h"
#include "graph/random_graph.h"

namespace cuvae::testing {
namespace {

constexpr int steps = 2;

struct Ran {
  std::map<std::string, Tensor> values;  // outputs of the last step, and what is persistent
  int fused_nodes = 0;
};

Tensor tensor_of(const ValueInfo& info, const Data& data) {
  if (info.dtype == DType::f32) return {info.shape, std::span<const double>(data.real)};
  Tensor tensor(info.dtype, info.shape);
  if (info.dtype == DType::i64)
    std::copy(data.integer.begin(), data.integer.end(), tensor.as<std::int64_t>().begin());
  else
    std::copy(data.integer.begin(), data.integer.end(), tensor.as<std::uint8_t>().begin());
  return tensor;
}

Ran run(Device& device, const Graph& graph, const Memory& memory, bool fuse) {
  const auto store = device.make_store();
  for (const ValueInfo& info : graph.values())
    if (info.producer < 0) {
      const Tensor tensor = tensor_of(info, memory.at(info.name));
      const bool real = info.dtype == DType::f32;
      store->write(info.name, real ? tensor.to(device.info().real) : tensor);
    }
  CompileOptions options;
  options.steps = steps;
  options.fuse = fuse;
  const auto program = device.compile(graph, *store, options);
  dynamic_cast<CpuProgram&>(*program).fill_memory(std::byte{0xFF});
  program->run();
  Ran ran;
  for (const Node& node : program->graph().nodes())
    if (op_def(node.op).compose) ++ran.fused_nodes;
  for (const Value output : graph.outputs())
    ran.values[graph[output].name] = program->read(graph[output].name, steps - 1);
  for (const ValueInfo& info : graph.values())
    if (info.producer < 0) ran.values[info.name] = store->read(info.name);
  return ran;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.bytes().size() == b.bytes().size() &&
         (a.bytes().empty() ||
          std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0);
}

// The graphs' longest chains take some dozens of roundings of sums of at most 17 terms.
constexpr std::int64_t roundings = 100 * 100;

TEST(Fusion, OfRandomGraphsChangesNothing) {
  const auto one = make_cpu_device({.threads = 1, .real = DType::f64});
  const auto three = make_cpu_device({.threads = 3, .real = DType::f64});
  int fused_nodes = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraph random = random_graph(seed);
    const Ran plain = run(*one, random.graph, random.memory, false);
    const Ran fused = run(*one, random.graph, random.memory, true);
    const Ran shared = run(*three, random.graph, random.memory, true);
    EXPECT_EQ(plain.fused_nodes, 0);
    fused_nodes += fused.fused_nodes;
    for (const auto& [name, wanted] : plain.values) {
      const Tensor& got = fused.values.at(name);
      ASSERT_TRUE(same_bytes(got, shared.values.at(name))) << name << " by number of threads";
      if (wanted.dtype() != DType::f64) {
        ASSERT_TRUE(same_bytes(got, wanted)) << name;
        continue;
      }
      double scale = 1;
      for (const double x : wanted.as<double>()) scale = std::max(scale, std::abs(x));
      const Comparison outcome = compare_elements(got.as<double>(), wanted.as<double>(),
                                                  tolerance(DType::f64, roundings, scale));
      ASSERT_TRUE(outcome.passed) << name << ": " << outcome.str();
    }
  }
  EXPECT_GT(fused_nodes, 100);
}

// Large enough for many tiles: the product must see the parameter as it was.
TEST(Fusion, NeverUpdatesWhatItsProductStillReads) {
  constexpr std::int64_t n = 512;
  for (const bool as_dy : {false, true}) {
    SCOPED_TRACE(as_dy);
    Graph g;
    const Value w = g.parameter("w", Shape{n, n});
    const Value m = g.state("adam.m.w", DType::f32, Shape{n, n});
    const Value v = g.state("adam.v.w", DType::f32, Shape{n, n});
    const Value other = g.input("other", DType::f32, Shape{n, n});
    const Value hyper = g.input("hyper", DType::f32, Shape{steps, 2});
    const Value clock = g.input("clock", DType::i64, Shape{5});
    const Value commit = g.input("commit", DType::i64, Shape{1});
    const Value dw = g.apply("linear_wgrad", "wgrad", {as_dy ? w : other, as_dy ? other : w});
    g.add("adam", "adam", {w, m, v, dw, hyper, clock, commit});
    const Memory memory = random_memory(g, 5);
    const auto one = make_cpu_device({.threads = 1});
    const Ran plain = run(*one, g, memory, false);
    for (const int threads : {1, 2, 3}) {
      const auto device = make_cpu_device({.threads = threads});
      const Ran fused = run(*device, g, memory, true);
      EXPECT_EQ(fused.fused_nodes, 0);
      for (const auto& [name, wanted] : plain.values)
        EXPECT_TRUE(same_bytes(fused.values.at(name), wanted)) << name << ", " << threads;
    }
  }
}

}  // namespace
}  // namespace cuvae::testing
