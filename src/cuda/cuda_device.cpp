#include "cuda/cuda_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/text.h"
#include "cuda/autotune.h"
#include "cuda/narrow.h"
#include "cuda/program.h"
#include "cuvae/error.h"
#include "graph/passes.h"

namespace cuvae {
namespace {

using cuda::CudaNode;

cuda::Precision precision_of(const std::string& name) {
  if (name == "fp32") return cuda::Precision::fp32;
  if (name == "tf32") return cuda::Precision::tf32;
  if (name == "bf16") return cuda::Precision::bf16;
  const std::string near = closest(name, {"fp32", "tf32", "bf16"});
  throw Error(Status::usage, fmt::format("run.precision = {}", name), "run.precision",
              near.empty() ? "use fp32, tf32 or bf16" : fmt::format("did you mean `{}`?", near));
}

// Whether runs are captured graphs.
bool graph_of(const std::string& exec) {
  if (exec == "auto" || exec == "graph") return true;
  if (exec == "eager") return false;
  if (exec == "persistent")
    throw Error(Status::usage, "no persistent kernel fits this program", "run.exec",
                "use graph or eager");
  throw Error(Status::usage, fmt::format("run.exec = {}", exec), "run.exec",
              "use auto, graph or eager");
}

class CudaDevice final : public Device {
 public:
  CudaDevice(std::unique_ptr<cuda::Runtime> runtime, const cuda::KernelTable& kernels,
             const CudaDeviceOptions& options)
      : kernels_(kernels),
        make_blas_(options.make_blas),
        blas_from_(options.blas_from),
        context_(std::make_shared<cuda::Context>(std::move(runtime), options.index,
                                                 options.programmatic, options.multiprocessors)) {}

  [[nodiscard]] DeviceInfo info() const override {
    return cuda_device_info(context_->index(), context_->gpu(), context_->runtime().version());
  }

  [[nodiscard]] std::unique_ptr<Store> make_store() override {
    return std::make_unique<cuda::CudaStore>(context_);
  }

  void check(const CompileOptions& options) const override {
    static_cast<void>(precision_of(options.precision));
    static_cast<void>(graph_of(options.exec));
  }

  [[nodiscard]] std::unique_ptr<Program> compile(const Graph& graph, Store& store,
                                                 const CompileOptions& options) override {
    auto* memory = dynamic_cast<cuda::CudaStore*>(&store);
    if (memory == nullptr || memory->context() != context_)
      throw Error(Status::usage, "a program on a store of another device", context_->name());
    Planned planned = make(graph, options);
    check_plan(planned.plan);
    cuda::ProgramOptions program;
    program.precision = precision_of(options.precision);
    program.graph = graph_of(options.exec);
    Tuning own;
    Tuning& record = options.tuning ? *options.tuning : own;
    for (const auto& product : planned.products)
      program.products.push_back(product ? chosen(*product, record, options.autotune) : nullptr);
    return cuda::make_cuda_program(std::move(planned.plan), *memory, kernels_, program);
  }

  [[nodiscard]] PlanSummary plan(const Graph& graph, const CompileOptions& options) override {
    const Planned planned = make(graph, options);
    PlanSummary summary;
    summary.arena_bytes = planned.plan.arena_bytes();
    summary.persistent_bytes = planned.plan.persistent_bytes();
    summary.table = planned.plan.str();
    summary.dot = planned.plan.dot();
    for (std::size_t n = 0; n < planned.products.size(); ++n)
      if (planned.products[n])
        summary.library.emplace_back(planned.plan.graph().nodes()[n].name,
                                     planned.products[n]->str());
    return summary;
  }

 private:
  struct Planned {
    Plan plan;
    std::vector<std::optional<cuda::BlasProduct>> products;  // by node: what a library makes
  };

  // Null where there is none; asked for once, whatever came of it.
  cuda::Blas* library() {
    if (make_blas_) blas_ = std::exchange(make_blas_, {})();
    return blas_.get();
  }

  // Whether the library has an algorithm for it, in every form that it may take here.
  bool available(cuda::BlasProduct product, bool narrowed) {
    if (library() == nullptr) return false;
    const auto has = [&] { return !blas_->candidates(product, 1).empty(); };
    if (!narrowed) return has();
    product.operands = DType::bf16;
    if (!has()) return false;
    product.result = DType::bf16;
    return has();
  }

  // Which products a library makes is decided here, before anything is lowered: what a library
  // makes is taken apart around its product, what a kernel does stays whole.
  Planned make(const Graph& graph, const CompileOptions& options) {
    const cuda::Precision precision = precision_of(options.precision);
    // Whoever wants to see every value wants to see it as it is.
    const bool narrows = precision == cuda::Precision::bf16 && !options.keep_all;
    std::map<std::string, bool> known;  // by product
    const auto by_library = [&](const Graph& in, const Node& node) {
      const auto product = blas_product(in, node, precision);
      if (!product || !worth_a_library(*product, blas_from_)) return false;
      const auto [at, fresh] = known.try_emplace(product->str(), false);
      if (fresh) at->second = available(*product, narrows);
      return at->second;
    };
    const auto supports = [&](const Graph& in, const Node& node) {
      if (by_library(in, node)) return cuda::is_library_node(node);
      return kernels_.supports.at(static_cast<std::size_t>(node.op))(
          CudaNode{in, node, context_->gpu(), precision});
    };
    // What nobody reads must not stand in the way of a fusion.
    Graph chosen = options.keep_all ? graph : prune(graph).graph;
    if (options.fuse) chosen = fuse(chosen).graph;
    chosen = lower(chosen, supports).graph;
    if (!options.keep_all) chosen = prune(chosen).graph;
    for (const Node& node : chosen.nodes())
      if (!supports(chosen, node))
        throw Error(Status::usage, "no kernel takes these shapes",
                    fmt::format("node `{}` ({})", node.name, op_def(node.op).name),
                    "use smaller layers or batches, or --device cpu");
    PlanOptions plan_options;
    const auto& nodes = chosen.nodes();
    const bool wide = std::any_of(nodes.begin(), nodes.end(),
                                  [&](const Node& node) { return by_library(chosen, node); });
    const bool narrowed_here = narrows && wide;
    if (narrowed_here) {
      cuda::Narrowed narrowed =
          cuda::narrow(chosen, [&](const Node& node) { return by_library(chosen, node); });
      chosen = std::move(narrowed.graph);
      plan_options.stored = std::move(narrowed.stored);
    }
    std::vector<std::optional<cuda::BlasProduct>> products;
    for (const Node& node : chosen.nodes()) {
      products.emplace_back();
      plan_options.notes.emplace_back();
      if (!by_library(chosen, node)) continue;
      cuda::BlasProduct product = *blas_product(chosen, node, precision);
      if (narrowed_here) {
        const auto stored = [&](Value value) {
          return plan_options.stored.at(static_cast<std::size_t>(value.id));
        };
        product.operands = stored(node.inputs[0]);
        product.result = stored(node.outputs[0]);
      }
      plan_options.notes.back() = "library: " + product.str();
      products.back() = product;
    }
    plan_options.steps = options.steps;
    plan_options.streams = options.streams;
    plan_options.reuse = options.reuse;
    plan_options.keep_all = options.keep_all;
    return {make_plan(std::move(chosen), plan_options), std::move(products)};
  }

  // The recorded algorithm; where there is none, or this library has it not, the library's own
  // choice or the fastest of its candidates.
  std::shared_ptr<cuda::Blas::Plan> chosen(const cuda::BlasProduct& product, Tuning& record,
                                           bool autotune) {
    constexpr int most_candidates = 16;
    const std::string name = product.str();
    if (const auto known = record.find(name))
      if (std::shared_ptr<cuda::Blas::Plan> plan = blas_->make(product, *known)) return plan;
    auto candidates = blas_->candidates(product, autotune ? most_candidates : 1);
    if (candidates.empty())
      throw Error(Status::device, fmt::format("the library has no algorithm for {}", name),
                  context_->name(), "use another --precision, or --device cpu");
    const std::size_t best = autotune ? cuda::fastest(*context_, product, candidates) : 0;
    std::shared_ptr<cuda::Blas::Plan> plan = std::move(candidates[best]);
    record.set(name, plan->algorithm());
    return plan;
  }

  const cuda::KernelTable& kernels_;
  std::function<std::unique_ptr<cuda::Blas>()> make_blas_;
  std::int64_t blas_from_;
  std::shared_ptr<cuda::Blas> blas_;
  std::shared_ptr<cuda::Context> context_;
};

}  // namespace

std::unique_ptr<Device> make_cuda_device(std::unique_ptr<cuda::Runtime> runtime,
                                         const cuda::KernelTable& kernels,
                                         const CudaDeviceOptions& options) {
  return std::make_unique<CudaDevice>(std::move(runtime), kernels, options);
}

DeviceInfo cuda_device_info(int index, const cuda::Properties& gpu, const std::string& version) {
  const std::string suffix = version.empty() ? "" : ", " + version;
  return {
      .name = fmt::format("cuda:{}", index),
      .model = gpu.name,
      .details =
          fmt::format("compute capability {}.{}, {} multiprocessors, {}{}", gpu.major, gpu.minor,
                      gpu.multiprocessors, format_bytes(gpu.memory_bytes), suffix),
      .numerics = fmt::format("cuda f32, {} (sm_{}{}){}", gpu.name, gpu.major, gpu.minor, suffix)};
}

}  // namespace cuvae
