#include "cuda/cuda_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/text.h"
#include "cuda/autotune.h"
#include "cuda/event_timer.h"
#include "cuda/masks.h"
#include "cuda/narrow.h"
#include "cuda/persistent.h"
#include "cuda/program.h"
#include "cuvae/error.h"
#include "graph/op.h"
#include "graph/passes.h"

namespace cuvae {
namespace {

using cuda::CudaNode;

cuda::Precision precision_of(const std::string& name) {
  if (name == "fp32") return cuda::Precision::fp32;
  if (name == "tf32") return cuda::Precision::tf32;
  if (name == "bf16") return cuda::Precision::bf16;
  const std::string near = closest(name, {"fp32", "tf32", "bf16"});
  throw Error(Status::usage, fmt::format("run.precision = {}", name), "--precision, run.precision",
              near.empty() ? "use fp32, tf32 or bf16" : fmt::format("did you mean `{}`?", near));
}

// Whether runs are captured graphs; also where the persistent path does not fit.
bool graph_of(const std::string& exec) {
  if (exec == "auto" || exec == "graph" || exec == "persistent") return true;
  if (exec == "eager") return false;
  throw Error(Status::usage, fmt::format("run.exec = {}", exec), "--exec, run.exec",
              "use auto, graph, persistent or eager");
}

// Only training is done by the persistent path.
bool trains(const Graph& graph) {
  return std::ranges::any_of(graph.nodes(), [](const Node& node) { return node.op == Op::adam; });
}

// Two events in the main stream of a store, where all that a run launches is joined.
class CudaTimer final : public DeviceTimer {
 public:
  explicit CudaTimer(std::shared_ptr<cuda::Context> context)
      : context_(std::move(context)), timer_(context_->runtime()) {}
  void start() override {
    context_->enter();
    timer_.start(context_->main());
  }
  [[nodiscard]] double stop() override {
    context_->enter();
    timer_.stop(context_->main());
    context_->wait();
    return timer_.seconds();
  }

 private:
  std::shared_ptr<cuda::Context> context_;
  cuda::EventTimer timer_;
};

// A second stream takes the work beside the longest path, and ahead of it, which wants more memory.
// Where activations are many, kernels fill the chip by themselves and there is nothing to gain.
Plan plan_streams(const Graph& graph, PlanOptions options, bool captured) {
  constexpr std::int64_t most_bytes = std::int64_t{32} << 20;
  if (captured && !options.keep_all) {
    options.streams = 2;
    Plan plan = make_plan(graph, options);
    if (plan.arena_bytes() <= most_bytes) return plan;
  }
  options.streams = 1;
  return make_plan(graph, options);
}

class CudaDevice final : public Device {
 public:
  CudaDevice(std::unique_ptr<cuda::Runtime> runtime, const cuda::KernelTable& kernels,
             const CudaDeviceOptions& options)
      : kernels_(kernels),
        make_blas_(options.make_blas),
        blas_from_(options.blas_from),
        masks_(options.masks),
        gpu_(std::make_shared<cuda::Gpu>(std::move(runtime), options.index, options.programmatic,
                                         options.multiprocessors)) {}

  [[nodiscard]] DeviceInfo info() const override {
    return cuda_device_info(gpu_->index(), gpu_->properties(), gpu_->runtime().version());
  }

  [[nodiscard]] std::optional<std::int64_t> free_bytes() const override {
    gpu_->enter();
    return gpu_->runtime().memory().free_bytes;
  }

  [[nodiscard]] std::unique_ptr<DeviceTimer> make_timer(Store& store) override {
    gpu_->enter();
    return std::make_unique<CudaTimer>(
        of_this(store, "a timer on a store of another device").context());
  }

  [[nodiscard]] std::unique_ptr<Store> make_store() override {
    gpu_->enter();
    return std::make_unique<cuda::CudaStore>(std::make_shared<cuda::Context>(gpu_));
  }

  void check(const CompileOptions& options) const override {
    static_cast<void>(precision_of(options.precision));
    static_cast<void>(graph_of(options.exec));
  }

  [[nodiscard]] std::string unfit(const Graph& graph, const CompileOptions& options) override {
    if (options.exec != "persistent" || !trains(graph)) return {};
    return choose(graph, options).reason;
  }

  [[nodiscard]] std::unique_ptr<Program> compile(const Graph& graph, Store& store,
                                                 const CompileOptions& options) override {
    cuda::CudaStore& memory = of_this(store, "a program on a store of another device");
    cuda::ProgramOptions program;
    program.precision = precision_of(options.precision);
    program.graph = graph_of(options.exec);
    if (options.exec == "persistent" && trains(graph)) {
      cuda::PersistentChoice choice = choose(graph, options);
      if (choice.reason.empty())
        return cuda::make_persistent_program(
            std::move(choice), memory, kernels_,
            {.precision = program.precision, .steps = options.steps});
      program.note = fmt::format(
          "the persistent path does not fit ({}): the graph path runs instead", choice.reason);
    }
    Planned planned = make(graph, options);
    check_plan(planned.plan);
    Tuning own;
    Tuning& record = options.tuning ? *options.tuning : own;
    for (const auto& product : planned.products)
      program.products.push_back(
          product ? chosen(*memory.context(), *product, record, options.autotune) : nullptr);
    program.shadows = std::move(planned.shadows);
    return cuda::make_cuda_program(std::move(planned.plan), memory, kernels_, program);
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
    std::vector<cuda::Narrowed::Shadow> shadows;
  };

  // Null where there is none; asked for once, whatever came of it.
  cuda::Blas* library() {
    if (make_blas_) {
      gpu_->enter();
      blas_ = std::exchange(make_blas_, {})();
    }
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
    const auto made = [&](const cuda::BlasProduct& product) {
      if (!worth_a_library(product, blas_from_)) return false;
      const auto [at, fresh] = known.try_emplace(product.str(), false);
      if (fresh) at->second = available(product, narrows);
      return at->second;
    };
    const auto by_library = [&](const Graph& in, const Node& node) {
      const auto product = blas_product(in, node, precision);
      return product && made(*product);
    };
    const auto supports = [&](const Graph& in, const Node& node) {
      if (by_library(in, node)) return cuda::is_library_node(node);
      if (std::ranges::any_of(cuda::inner_products(in, node, precision), made)) return false;
      return kernels_.supports.at(static_cast<std::size_t>(node.op))(
          CudaNode{in, node, gpu_->properties(), precision});
    };
    // What nobody reads must not stand in the way of a fusion.
    Graph chosen = options.keep_all ? graph : prune(graph).graph;
    if (options.fuse) chosen = fuse(chosen).graph;
    chosen = lower(chosen, supports).graph;
    if (options.fuse && !options.keep_all) chosen = fuse_gather(chosen, supports).graph;
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
    // What only a mask is read of is not what whoever wants to see every value expects.
    if (wide && masks_ && options.fuse && !options.keep_all)
      chosen = cuda::with_masks(chosen, mask_offers(chosen, precision, narrows, made));
    const bool narrowed_here = narrows && wide;
    std::vector<cuda::Narrowed::Shadow> shadows;
    if (narrowed_here) {
      cuda::Narrowed narrowed =
          cuda::narrow(chosen, [&](const Node& node) { return by_library(chosen, node); });
      chosen = std::move(narrowed.graph);
      plan_options.stored = std::move(narrowed.stored);
      shadows = std::move(narrowed.shadows);
    }
    plan_options.beside.assign(chosen.values().size(), 0);
    for (const Node& node : chosen.nodes())
      if (node.op == Op::linear_dgrad_activation && by_library(chosen, node))
        plan_options.beside[static_cast<std::size_t>(node.inputs[2].id)] =
            blas_product(chosen, node, precision)->mask_bytes();
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
      using Epilogue = cuda::BlasProduct::Epilogue;
      if (node.op == Op::linear_dgrad_activation)
        product.epilogue =
            node.outputs.size() > 1 ? Epilogue::relu_bias_gradient : Epilogue::relu_gradient;
      else if (plan_options.beside[static_cast<std::size_t>(node.outputs[0].id)] > 0)
        product.epilogue = cuda::with_mask(product.epilogue);
      plan_options.notes.back() = "library: " + product.str();
      products.back() = product;
    }
    plan_options.steps = options.steps;
    plan_options.streams = options.streams;
    plan_options.reuse = options.reuse;
    plan_options.keep_all = options.keep_all;
    Plan plan = options.streams == 0 ? plan_streams(chosen, plan_options, graph_of(options.exec))
                                     : make_plan(std::move(chosen), plan_options);
    return {std::move(plan), std::move(products), std::move(shadows)};
  }

  // What the library has of relu's derivative within its products. `made`: whether it makes one.
  [[nodiscard]] static cuda::MaskOffers mask_offers(
      const Graph& graph, cuda::Precision precision, bool narrows,
      const std::function<bool(const cuda::BlasProduct&)>& made) {
    using Epilogue = cuda::BlasProduct::Epilogue;
    const auto with = [=, &graph](const Node& node, const std::function<Epilogue(Epilogue)>& to) {
      auto product = cuda::blas_product(graph, node, precision);
      if (!product || !made(*product)) return false;
      product->epilogue = to(product->epilogue);
      return made(*product);
    };
    return {.writes = [=](const Node& layer) { return with(layer, cuda::with_mask); },
            .reads =
                [=](const Node& dgrad) {
                  return with(dgrad, [](Epilogue) { return Epilogue::relu_gradient; });
                },
            // Its sums are of the result's type, and gradients of parameters stay f32: where
            // results may be bf16, the weight's product makes them.
            .reads_and_sums =
                [=](const Node& dgrad, const Node& wgrad) {
                  return !narrows &&
                         with(dgrad, [](Epilogue) { return Epilogue::relu_bias_gradient; }) &&
                         with(wgrad, [](Epilogue) { return Epilogue::none; });
                }};
  }

  // The recorded algorithm; where there is none, or this library has it not, the library's own
  // choice or the fastest of its candidates.
  std::shared_ptr<cuda::Blas::Plan> chosen(cuda::Context& context, const cuda::BlasProduct& product,
                                           Tuning& record, bool autotune) {
    constexpr int most_candidates = 16;
    const std::string name = product.str();
    if (const auto known = record.find(name))
      if (std::shared_ptr<cuda::Blas::Plan> plan = blas_->make(product, *known)) return plan;
    auto candidates = blas_->candidates(product, autotune ? most_candidates : 1);
    if (candidates.empty())
      throw Error(Status::device, fmt::format("the library has no algorithm for {}", name),
                  context.name(), "use another --precision, or --device cpu");
    const std::size_t best = autotune ? cuda::fastest(context, product, candidates) : 0;
    std::shared_ptr<cuda::Blas::Plan> plan = std::move(candidates[best]);
    record.set(name, plan->algorithm());
    return plan;
  }

  [[nodiscard]] cuda::CudaStore& of_this(Store& store, const char* otherwise) const {
    auto* memory = dynamic_cast<cuda::CudaStore*>(&store);
    if (memory == nullptr || memory->context()->device() != gpu_)
      throw Error(Status::usage, otherwise, fmt::format("cuda:{}", gpu_->index()));
    return *memory;
  }
  [[nodiscard]] cuda::PersistentChoice choose(const Graph& graph, const CompileOptions& options) {
    if (options.fuse && !options.keep_all)
      return cuda::choose_persistent(graph, *gpu_, kernels_, precision_of(options.precision));
    cuda::PersistentChoice choice;
    choice.reason = "single operators were asked for";
    return choice;
  }

  const cuda::KernelTable& kernels_;
  std::function<std::unique_ptr<cuda::Blas>()> make_blas_;
  std::int64_t blas_from_;
  bool masks_;
  std::shared_ptr<cuda::Blas> blas_;
  std::shared_ptr<cuda::Gpu> gpu_;
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
