#include "cuda/persistent.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "api/declare.h"
#include "base/text.h"
#include "cuvae/error.h"
#include "graph/passes.h"

namespace cuvae::cuda {
namespace {

// Counters count to 2^32: arrivals of every block in every step.
constexpr int most_persistent_steps = 1 << 20;

std::int64_t bytes_of(const ValueInfo& value) {
  return value.shape.elements() * static_cast<std::int64_t>(size_of(value.dtype));
}

class PersistentProgram final : public CudaProgram, private FaultWatch {
 public:
  PersistentProgram(PersistentChoice choice, CudaStore& store, const KernelTable& kernels,
                    const PersistentOptions& options)
      : graph_(std::move(choice.graph)),
        step_(choice.step),
        layout_(choice.layout),
        store_(store),
        context_(store.context()),
        kernels_(*kernels.persistent),
        options_(options) {
    const PersistentNeeds& needs = choice.needs;
    require_memory(needs);
    declare_values(store_, graph_);
    for (const ValueInfo& value : graph_.values()) {
      if (!value.version_of) continue;
      store_.mark_updated(graph_[value.version_of].name);
      updated_.push_back(&store_.contents(graph_[value.version_of].name));
    }
    losses_ = DeviceBuffer(runtime(), losses_bytes(), "losses");
    workspace_ =
        DeviceBuffer(runtime(), static_cast<std::size_t>(needs.workspace_bytes), "workspace");
    counters_ = DeviceBuffer(runtime(), static_cast<std::size_t>(needs.counter_bytes), "counters");
    fault_ = DeviceBuffer(runtime(), sizeof(unsigned), "fault word");
    host_ = HostBuffer(runtime(), sizeof(HostWords), "progress");
    new (host_.get()) HostWords();
    word = static_cast<unsigned*>(fault_.get());
    zero(fault_);
    make_task();
    context_->watch(*this);
  }
  PersistentProgram(const PersistentProgram&) = delete;
  PersistentProgram& operator=(const PersistentProgram&) = delete;
  ~PersistentProgram() override {
    context_->settle();  // what was launched uses the memory
    context_->unwatch(*this);
  }

  [[nodiscard]] const Graph& graph() const override { return graph_; }
  [[nodiscard]] int steps() const override { return options_.steps; }
  [[nodiscard]] int steps_done() const override {
    finish();
    return static_cast<int>(words().progress.load());
  }
  void stop() noexcept override { words().stop.store(1); }
  [[nodiscard]] std::string_view exec() const override { return "persistent"; }
  [[nodiscard]] std::int64_t arena_bytes() const override { return device_bytes(); }
  [[nodiscard]] std::int64_t persistent_bytes() const override {
    std::int64_t bytes = 0;
    for (const ValueInfo& value : graph_.values())
      if (value.producer < 0) bytes += bytes_of(value);
    return bytes;
  }
  [[nodiscard]] std::int64_t device_bytes() const override {
    return static_cast<std::int64_t>(losses_.bytes() + workspace_.bytes() + counters_.bytes() +
                                     fault_.bytes());
  }
  [[nodiscard]] std::int64_t launches_per_run() const override { return 1; }
  [[nodiscard]] std::string tuning() const override {
    return fmt::format("persistent: {}", layout_.str());
  }
  [[nodiscard]] std::string dump() const override {
    return fmt::format("persistent, {} steps in a launch\n{}\n", options_.steps, layout_.str());
  }
  [[nodiscard]] std::string dump_dot() const override {
    return fmt::format("digraph plan {{\n  persistent [shape=box, label=\"{} steps\\n{}\"];\n}}\n",
                       options_.steps, layout_.str());
  }

  void run() override {
    context_->enter();
    finish();
    fresh_ = false;
    if (dirty_) {
      zero(workspace_);
      zero(fault_);
      dirty_ = false;
    }
    words().progress.store(0);
    words().stop.store(0);
    for (std::uint64_t* contents : updated_) ++*contents;
    try {
      zero(counters_);
      const ProfilerRange range(runtime(), "persistent");
      Encoder& encoder = context_->encoder();
      // Its blocks wait for one another: two of these at once, each with some of its blocks on the
      // GPU, would wait for ever.
      Event& last = context_->device()->whole_gpu();
      context_->stream(0).wait(last);
      encoder.begin("persistent", context_->main(), accesses_, false);
      kernels_.launch(encoder, options_.precision, task_);
      last.record(context_->main());
      pending = true;
      running_ = true;
    } catch (...) {
      dirty_ = true;
      context_->settle();
      throw;
    }
  }

  void run(const std::function<void(const TaskView&)>&) override {
    throw Error(Status::usage, "the persistent path has no single nodes to look at", "persistent",
                "use --exec graph or eager");
  }

  void run_batches(std::string_view, const Tensor&, std::string_view, Tensor&) override {
    throw Error(Status::usage, "the persistent path trains, it has no batches of inputs",
                "persistent", "use --exec graph or eager");
  }

  [[nodiscard]] Tensor read(std::string_view name, int step) const override {
    const Value value = find(name);
    if (step < 0 || step >= steps())
      throw Error(Status::usage, fmt::format("step {} of {}", step, steps()), "program");
    if (const Value root = graph_.root(value)) return store_.read(graph_[root].name);
    Tensor one(DType::f32, Shape{});
    one.as<float>()[0] = losses_of(value)[step];
    return one;
  }
  [[nodiscard]] Tensor read_steps(std::string_view name) const override {
    const Value value = find(name);
    if (graph_.root(value))
      throw Error(Status::usage, fmt::format("`{}` has no value of each step", name), "program");
    Tensor all(DType::f32, Shape{steps()});
    std::copy_n(losses_of(value), steps(), all.as<float>().data());
    return all;
  }
  void write(std::string_view name, int, const Tensor& tensor) override {
    const Value root = graph_.root(find(name));
    if (!root)
      throw Error(Status::usage, fmt::format("`{}` is made by the program", name), "program");
    store_.write(graph_[root].name, tensor);
  }

  void fill_memory(std::byte value) override {
    context_->enter();
    finish();
    for (const DeviceBuffer* memory : {&losses_, &workspace_, &counters_})
      runtime().fill(memory->get(), static_cast<std::uint8_t>(value), memory->bytes(),
                     context_->main());
    dirty_ = true;
    fresh_ = false;
  }

 private:
  // What a running kernel tells, and is told.
  struct HostWords {
    std::atomic<unsigned> progress{0};
    std::atomic<unsigned> stop{0};
  };
  static_assert(sizeof(std::atomic<unsigned>) == sizeof(unsigned) &&
                std::atomic<unsigned>::is_always_lock_free);

  [[nodiscard]] Runtime& runtime() const { return context_->runtime(); }
  [[nodiscard]] HostWords& words() const { return *static_cast<HostWords*>(host_.get()); }
  [[nodiscard]] std::size_t losses_bytes() const {
    return sizeof(float) * 3 * static_cast<std::size_t>(options_.steps);
  }
  void zero(const DeviceBuffer& buffer) {
    runtime().fill(buffer.get(), 0, buffer.bytes(), context_->main());
  }

  void require_memory(const PersistentNeeds& needs) const {
    std::int64_t missing = 0;
    for (const ValueInfo& value : graph_.values())
      if (value.producer < 0 && !store_.has(value.name)) missing += bytes_of(value);
    const std::int64_t wanted = missing + needs.workspace_bytes + needs.counter_bytes +
                                static_cast<std::int64_t>(losses_bytes());
    const Memory memory = runtime().memory();
    if (wanted <= memory.free_bytes) return;
    throw Error(Status::device,
                fmt::format("too little GPU memory: {} are wanted, and {} of {} are free",
                            format_bytes(wanted), format_bytes(memory.free_bytes),
                            format_bytes(memory.total_bytes)),
                context_->name(), "use a smaller batch, or end other programs on this GPU");
  }

  template <class T = float>
  T* data(Value value, bool write) {
    const ValueInfo& info = graph_[value];
    void* const memory = store_.data(info.name);
    accesses_.push_back({memory, static_cast<std::size_t>(bytes_of(info)), write, false});
    return static_cast<T*>(memory);
  }
  PersistentTask::Layer layer(const VaeStep::Layer& values) {
    return {data(values.weight, true), data(values.weight_m, true), data(values.weight_v, true),
            data(values.bias, true),   data(values.bias_m, true),   data(values.bias_v, true)};
  }
  [[nodiscard]] unsigned node_of(Value value) const {
    return static_cast<unsigned>(graph_[value].producer);
  }
  [[nodiscard]] unsigned node_of(Op op) const {
    const auto nodes = graph_.nodes();
    const auto at =
        std::find_if(nodes.begin(), nodes.end(), [&](const Node& node) { return node.op == op; });
    return static_cast<unsigned>(at - nodes.begin());
  }

  void make_task() {
    task_.layout = &layout_;
    task_.step = &step_;
    task_.steps = options_.steps;
    task_.spins = options_.spins;
    task_.encode = layer(step_.encode);
    task_.heads = layer(step_.heads);
    task_.hidden = layer(step_.hidden);
    task_.out = layer(step_.out);
    task_.window = data<std::uint8_t>(step_.data, false);
    task_.clock = data<std::int64_t>(step_.clock, false);
    task_.hyper = data(step_.hyper, false);
    task_.commit = data<std::int64_t>(step_.commit, false);
    task_.losses = static_cast<float*>(losses_.get());
    task_.workspace = static_cast<std::byte*>(workspace_.get());
    task_.counters = static_cast<unsigned*>(counters_.get());
    task_.progress = reinterpret_cast<unsigned*>(&words().progress);
    task_.stop = reinterpret_cast<const unsigned*>(&words().stop);
    task_.fault = word;
    task_.batch_node = node_of(Op::batch_index);
    task_.gather_node = node_of(Op::gather);
    task_.sample_node = node_of(Op::linear_sample_kl);
    for (const DeviceBuffer* buffer : {&losses_, &workspace_, &counters_, &fault_})
      accesses_.push_back({buffer->get(), buffer->bytes(), true, false});
    accesses_.push_back({host_.get(), sizeof(HostWords), true, false});
  }

  [[nodiscard]] Error describe(unsigned code) const override { return fault_error(graph_, code); }

  // Waits for the run under way.
  void finish() const {
    if (!running_) return;
    running_ = false;
    context_->enter();
    context_->wait();
  }

  Value find(std::string_view name) const {
    const Value value = graph_.find(name);
    if (!value || (!graph_.root(value) && value != step_.loss && value != step_.reconstruction &&
                   value != step_.kl))
      throw Error(Status::usage, fmt::format("the persistent path keeps no value `{}`", name),
                  "program", "use --exec graph");
    return value;
  }

  // The loss or one of its parts for every step; those that were not done stay as they were.
  const float* losses_of(Value value) const {
    if (!fresh_) {
      context_->enter();
      fetched_.resize(3 * static_cast<std::size_t>(options_.steps));
      const Region region{fetched_.data(), losses_.get(), losses_bytes()};
      running_ = false;
      context_->download({&region, 1});
      fresh_ = true;
    }
    const std::ptrdiff_t row = value == step_.loss ? 0 : value == step_.reconstruction ? 1 : 2;
    return fetched_.data() + row * options_.steps;
  }

  Graph graph_;
  VaeStep step_;
  PersistentLayout layout_;
  CudaStore& store_;
  std::shared_ptr<Context> context_;
  const PersistentKernels& kernels_;
  PersistentOptions options_;
  std::vector<std::uint64_t*> updated_;  // contents of what a run writes, in the store
  DeviceBuffer losses_;
  DeviceBuffer workspace_;
  DeviceBuffer counters_;
  DeviceBuffer fault_;
  HostBuffer host_;
  PersistentTask task_;
  std::vector<Access> accesses_;
  bool dirty_ = true;  // the workspace has to be zeroed
  mutable bool running_ = false;
  mutable bool fresh_ = false;
  mutable std::vector<float> fetched_;
};

}  // namespace

PersistentChoice choose_persistent(const Graph& graph, Gpu& gpu, const KernelTable& kernels,
                                   Precision precision) {
  PersistentChoice choice;
  const auto refuse = [&](std::string reason) {
    choice.reason = std::move(reason);
    return choice;
  };
  if (kernels.persistent == nullptr) return refuse("this build has no persistent kernel");
  FuseOptions layers;  // each layer by itself
  layers.linear_bottleneck = false;
  layers.linear_dgrad_bottleneck = false;
  choice.graph = prune(fuse(prune(graph).graph, layers).graph).graph;
  const RecognisedStep recognised = recognise_vae_step(choice.graph);
  if (!recognised.step) return refuse(recognised.reason);
  choice.step = *recognised.step;
  const PersistentFit fit = persistent_layout(choice.step.sizes, gpu.properties());
  if (!fit.layout) return refuse(fit.reason);
  choice.layout = *fit.layout;
  gpu.enter();
  choice.needs = kernels.persistent->needs(precision, choice.layout);
  // Blocks wait for one another: all of them have to be there at once.
  const auto shared = static_cast<std::size_t>(choice.layout.shared_bytes);
  gpu.runtime().set_shared_limit(choice.needs.kernel, shared);
  const int resident =
      gpu.runtime().occupancy(choice.needs.kernel, PersistentLayout::threads, shared);
  const int blocks = choice.layout.owners + choice.layout.middles;
  if (std::int64_t{resident} * gpu.properties().multiprocessors < blocks)
    return refuse(fmt::format("{} blocks of {} can be on the GPU at once",
                              resident * gpu.properties().multiprocessors, blocks));
  return choice;
}

std::unique_ptr<CudaProgram> make_persistent_program(PersistentChoice choice, CudaStore& store,
                                                     const KernelTable& kernels,
                                                     const PersistentOptions& options) {
  const std::int64_t rows = choice.graph[choice.step.hyper].shape[0];
  if (options.steps < 1 || options.steps > most_persistent_steps || rows < options.steps)
    throw Error(
        Status::usage,
        fmt::format("{} steps in a launch with {} rows of hyper-parameters", options.steps, rows),
        "persistent", fmt::format("from 1 to {}", most_persistent_steps));
  return std::make_unique<PersistentProgram>(std::move(choice), store, kernels, options);
}

}  // namespace cuvae::cuda
