#include "ops/parity_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>

#include "base/tolerance.h"
#include "cpu/cpu_device.h"
#include "graph/passes.h"

namespace cuvae::testing {
namespace {

// The last few that were asked for: a backend on the SIMT runner holds thousands of stacks.
Device& device(const Backend& backend, int variant) {
  struct Open {
    std::string name;
    std::unique_ptr<Device> device;
  };
  static std::deque<Open> open;
  const std::string name = backend.name + "/" + std::to_string(variant);
  const auto found =
      std::find_if(open.begin(), open.end(), [&](const Open& one) { return one.name == name; });
  if (found != open.end()) return *found->device;
  if (open.size() >= 6) open.pop_front();
  open.push_back({name, backend.make_device(variant)});
  return *open.back().device;
}

std::string slot_name(const CaseGraph& g, std::size_t i) {
  return g.graph[g.outputs[i]].name;
}

// Runs a graph once on poisoned memory: the values of `outputs`, updated ones from the store.
std::vector<Tensor> run(const Backend& backend, int variant, const Graph& graph,
                        const std::vector<Value>& outputs, const std::vector<Value>& inputs,
                        const std::vector<Tensor>& tensors, bool fuse = true) {
  Device& on = device(backend, variant);
  const auto store = on.make_store();
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i]) store->write(graph[inputs[i]].name, tensors[i]);
  CompileOptions options = backend.options;
  options.fuse = fuse;
  const auto program = on.compile(graph, *store, options);
  if (backend.poison) backend.poison(*program);
  program->run();
  if (backend.guards_intact) {
    EXPECT_TRUE(backend.guards_intact(*program, *store));
  }
  std::vector<Tensor> results;
  for (const Value output : outputs) {
    const Value root = graph.root(output);
    results.push_back(root ? store->read(graph[root].name) : program->read(graph[output].name));
  }
  return results;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.bytes().size() == b.bytes().size() &&
         (a.bytes().empty() ||
          std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0);
}

Comparison compare_tensor(const Tensor& got, std::span<const double> wanted, Tolerance limit) {
  if (got.dtype() == DType::f64) return compare_elements(got.as<double>(), wanted, limit);
  return compare_elements(got.as<float>(), wanted, limit);
}

}  // namespace

void check_values(const Backend& backend, const Case& c) {
  const CaseGraph g = case_graph(c);
  const std::vector<Tensor> inputs = case_inputs(c);
  const std::vector<Expected> expected = reference(c, inputs, backend.rounding);
  ASSERT_EQ(expected.size(), g.outputs.size());
  const auto results = run(backend, backend.variants.front(), g.graph, g.outputs, g.inputs, inputs);
  for (std::size_t i = 0; i < results.size(); ++i) {
    SCOPED_TRACE(c.id() + " on " + backend.name + ", output " + slot_name(g, i));
    if (results[i].dtype() == DType::i64) {
      const auto got = results[i].as<std::int64_t>();
      EXPECT_TRUE(std::equal(got.begin(), got.end(), expected[i].integer.begin(),
                             expected[i].integer.end()));
      continue;
    }
    Tolerance limit = tolerance(backend.real, c.reduction, expected[i].scale);
    limit.abs += expected[i].slack;
    const Comparison outcome = compare_tensor(results[i], expected[i].real, limit);
    EXPECT_TRUE(outcome.passed) << outcome.str();
  }
}

void check_variants(const Backend& backend, const Case& c) {
  const CaseGraph g = case_graph(c);
  const std::vector<Tensor> inputs = case_inputs(c);
  std::vector<Tensor> first;
  for (const int variant : backend.variants) {
    const auto results = run(backend, variant, g.graph, g.outputs, g.inputs, inputs);
    if (first.empty()) {
      first = results;
      continue;
    }
    for (std::size_t i = 0; i < first.size(); ++i)
      EXPECT_TRUE(same_bytes(first[i], results[i]))
          << c.id() << " on " << backend.name << " as variant " << variant << ", output "
          << slot_name(g, i);
  }
}

void check_fused(const Backend& backend, const Case& c) {
  const CaseGraph g = case_graph(c);
  const std::vector<Tensor> inputs = case_inputs(c);
  const Rewritten lowered =
      lower(g.graph, [](const Graph&, const Node& node) { return !op_def(node.op).compose; });
  for (const Node& node : lowered.graph.nodes()) EXPECT_FALSE(op_def(node.op).compose);
  std::vector<Value> outputs, values;
  for (const Value v : g.outputs) outputs.push_back(lowered.map[static_cast<std::size_t>(v.id)]);
  for (const Value v : g.inputs)
    values.push_back(v ? lowered.map[static_cast<std::size_t>(v.id)] : Value{});
  const int variant = backend.variants.back();
  const auto fused = run(backend, variant, g.graph, g.outputs, g.inputs, inputs, false);
  const auto composed = run(backend, variant, lowered.graph, outputs, values, inputs, false);
  std::vector<Expected> expected(fused.size());
  if (backend.rounding != nullptr) expected = reference(c, inputs, backend.rounding);
  for (std::size_t i = 0; i < fused.size(); ++i) {
    SCOPED_TRACE(c.id() + " on " + backend.name + ", output " + slot_name(g, i));
    const Tensor wanted = composed[i].to(DType::f64);
    double scale = 1;
    for (const double v : wanted.as<double>()) scale = std::max(scale, std::abs(v));
    Tolerance limit = tolerance(backend.real, c.reduction, scale);
    limit.abs += expected[i].slack;
    const Comparison outcome = compare_tensor(fused[i], wanted.as<double>(), limit);
    EXPECT_TRUE(outcome.passed) << outcome.str();
  }
}

std::vector<Case> fused_cases() {
  std::vector<Case> cases;
  for (const Case& c : parity_table())
    if (op_def(c.op).compose) cases.push_back(c);
  return cases;
}

const std::vector<Backend>& cpu_backends() {
  static const std::vector<Backend> all = [] {
    std::vector<Backend> list;
    for (const DType dtype : {DType::f32, DType::f64}) {
      Backend cpu;
      cpu.name = dtype == DType::f32 ? "cpu" : "cpu64";
      cpu.real = dtype;
      cpu.variants = {2, 1, 3};
      cpu.make_device = [dtype](int threads) {
        return make_cpu_device({.threads = threads, .real = dtype});
      };
      cpu.poison = [](Program& program) {
        dynamic_cast<CpuProgram&>(program).fill_memory(std::byte{0xFF});  // NaN in every real
      };
      cpu.guards_intact = [](const Program& program, const Store& store) {
        return dynamic_cast<const CpuProgram&>(program).guards_intact() &&
               dynamic_cast<const CpuStore&>(store).guards_intact();
      };
      list.push_back(std::move(cpu));
    }
    return list;
  }();
  return all;
}

}  // namespace cuvae::testing
