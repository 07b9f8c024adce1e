#include "cuda/cuda_device.h"

#include <fmt/format.h>

#include <utility>

#include "base/text.h"
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
  throw Error(Status::usage, fmt::format("run.precision = {}", name), "--precision, run.precision",
              near.empty() ? "use fp32, tf32 or bf16" : fmt::format("did you mean `{}`?", near));
}

// Whether runs are captured graphs.
bool graph_of(const std::string& exec) {
  if (exec == "auto" || exec == "graph") return true;
  if (exec == "eager") return false;
  if (exec == "persistent")
    throw Error(Status::usage, "no persistent kernel fits this program", "run.exec",
                "use graph or eager");
  throw Error(Status::usage, fmt::format("run.exec = {}", exec), "--exec, run.exec",
              "use auto, graph or eager");
}

class CudaDevice final : public Device {
 public:
  CudaDevice(std::unique_ptr<cuda::Runtime> runtime, const cuda::KernelTable& kernels,
             const CudaDeviceOptions& options)
      : kernels_(kernels),
        make_blas_(options.make_blas),
        blas_from_(options.blas_from),
        gpu_(std::make_shared<cuda::Gpu>(std::move(runtime), options.index, options.programmatic,
                                         options.multiprocessors)) {}

  [[nodiscard]] DeviceInfo info() const override {
    return cuda_device_info(gpu_->index(), gpu_->properties(), gpu_->runtime().version());
  }

  [[nodiscard]] std::optional<std::int64_t> free_bytes() const override {
    gpu_->enter();
    return gpu_->runtime().memory().free_bytes;
  }

  [[nodiscard]] std::unique_ptr<Store> make_store() override {
    gpu_->enter();
    return std::make_unique<cuda::CudaStore>(std::make_shared<cuda::Context>(gpu_));
  }

  void check(const CompileOptions& options) const override {
    static_cast<void>(precision_of(options.precision));
    static_cast<void>(graph_of(options.exec));
  }

  [[nodiscard]] std::unique_ptr<Program> compile(const Graph& graph, Store& store,
                                                 const CompileOptions& options) override {
    auto* memory = dynamic_cast<cuda::CudaStore*>(&store);
    if (memory == nullptr || memory->context()->device() != gpu_)
      throw Error(Status::usage, "a program on a store of another device",
                  fmt::format("cuda:{}", gpu_->index()));
    cuda::ProgramOptions program;
    program.precision = precision_of(options.precision);
    program.graph = graph_of(options.exec);
    program.blas_from = blas_from_;
    program.blas = [this] {
      // Asked for once, whatever came of it.
      if (make_blas_) blas_ = std::exchange(make_blas_, {})();
      return blas_;
    };
    const auto supports = [&](const Graph& in, const Node& node) {
      return kernels_.supports.at(static_cast<std::size_t>(node.op))(
          CudaNode{in, node, gpu_->properties(), program.precision});
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
    plan_options.steps = options.steps;
    plan_options.streams = options.streams;
    plan_options.reuse = options.reuse;
    plan_options.keep_all = options.keep_all;
    Plan plan = make_plan(std::move(chosen), plan_options);
    check_plan(plan);
    return cuda::make_cuda_program(std::move(plan), *memory, kernels_, program);
  }

 private:
  const cuda::KernelTable& kernels_;
  std::function<std::unique_ptr<cuda::Blas>()> make_blas_;
  std::int64_t blas_from_;
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
