#include "cpu/cpu_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "cpu/available_memory.h"
#include "cpu/blas_coretype.h"
#include "cpu/program.h"
#include "cuvae/error.h"
#include "graph/passes.h"

namespace cuvae {
namespace {

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const auto colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "CPU";
}

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const DeviceOptions& options) : real_(options.real), team_(options.threads) {
    if (real_ != DType::f32 && real_ != DType::f64)
      throw Error(Status::usage, fmt::format("{} is not a real type", name_of(real_)), "cpu",
                  "use f32 or f64");
    cpu::use_single_threaded_blas();
  }

  [[nodiscard]] DeviceInfo info() const override {
    const char* isa = loops<float>().isa;
    return {.name = "cpu",
            .model = fmt::format("{} ({})", cpu_model(), isa),
            .details = fmt::format("{} thread{}, {} loops, OpenBLAS {}{}{}", team_.threads(),
                                   team_.threads() == 1 ? "" : "s", isa, cpu::blas_core_type(),
                                   cpu::slower_blas_note(), real_ == DType::f64 ? ", double" : ""),
            .numerics = fmt::format("cpu {}, OpenBLAS {}", name_of(real_), cpu::blas_core_type()),
            .real = real_,
            .threads = team_.threads()};
  }

  [[nodiscard]] std::optional<std::int64_t> free_bytes() const override {
    const auto there = available_memory();
    if (!there) return std::nullopt;
    return static_cast<std::int64_t>(std::min(there->bytes, std::uint64_t{1} << 62));
  }

  [[nodiscard]] std::unique_ptr<Store> make_store() override {
    return std::make_unique<HostStore>(real_);
  }

  void check(const CompileOptions& options) const override {
    if (options.exec != "auto" && options.exec != "eager")
      throw Error(Status::usage, fmt::format("run.exec = {} on the CPU", options.exec),
                  "--exec, run.exec", "use auto or eager");
    if (options.precision != "fp32")
      throw Error(Status::usage, fmt::format("run.precision = {} on the CPU", options.precision),
                  "--precision, run.precision", "use fp32");
  }

  [[nodiscard]] std::unique_ptr<Program> compile(const Graph& graph, Store& store,
                                                 const CompileOptions& options) override {
    auto* host = dynamic_cast<HostStore*>(&store);
    if (!host) throw Error(Status::usage, "a program on a store of another device", "cpu");
    check(options);
    Plan plan = make(graph, options);
    check_plan(plan);
    if (real_ == DType::f64) return make_cpu_program<double>(std::move(plan), team_, *host);
    return make_cpu_program<float>(std::move(plan), team_, *host);
  }

  [[nodiscard]] PlanSummary plan(const Graph& graph, const CompileOptions& options) override {
    const Plan plan = make(graph, options);
    return {plan.arena_bytes(), plan.persistent_bytes(), plan.str(), plan.dot(), {}};
  }

 private:
  [[nodiscard]] Plan make(const Graph& graph, const CompileOptions& options) const {
    // What nobody reads must not stand in the way of a fusion.
    Graph chosen = options.keep_all ? graph : prune(graph).graph;
    if (options.fuse) chosen = fuse(chosen).graph;
    // Without fuse_gather(): converting the batch once, for all that read it, takes a CPU as long.
    chosen = lower(chosen, cpu_supports).graph;
    if (!options.keep_all) chosen = prune(chosen).graph;
    for (const Node& node : chosen.nodes())
      if (!cpu_supports(chosen, node))
        throw Error(Status::usage, "a matrix with a dimension of 2^31 or more",
                    fmt::format("node `{}` ({})", node.name, op_def(node.op).name),
                    "use smaller layers or batches");
    PlanOptions plan_options;
    plan_options.steps = options.steps;
    plan_options.streams = 1;  // one team: tasks run one after the other, each on all threads
    plan_options.reuse = options.reuse;
    plan_options.keep_all = options.keep_all;
    plan_options.real = real_;
    return make_plan(std::move(chosen), plan_options);
  }

  DType real_;
  Team team_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(const DeviceOptions& options) {
  return std::make_unique<CpuDevice>(options);
}

}  // namespace cuvae
