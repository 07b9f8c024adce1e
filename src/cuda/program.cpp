#include "cuda/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "api/declare.h"
#include "api/node_time.h"
#include "base/text.h"
#include "cuda/event_timer.h"
#include "cuvae/error.h"
#include "graph/batches.h"
#include "graph/plan_early.h"

namespace cuvae::cuda {
namespace {

constexpr std::int64_t alignment = 256;
// Outputs up to this size are fetched together at the first read after a run; of two that lie no
// further apart than `bridged`, one copy takes less time than two (a copy costs about 2 us).
constexpr std::int64_t small_output = 4096;
constexpr std::int64_t bridged = 32768;

std::int64_t padded(std::int64_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

class GpuProgram final : public CudaProgram, private FaultWatch {
 public:
  GpuProgram(Plan plan, CudaStore& store, const KernelTable& kernels, const ProgramOptions& options)
      : plan_(std::move(plan)), store_(store), context_(store.context()), options_(options) {
    context_->enter();
    prepare(kernels);
    require_memory();
    declare_values(store_, graph(), [&](const ValueInfo& value) { return !is_shadow(value); });
    for (const Narrowed::Shadow& each : options_.shadows)
      store_.declare_shadow(graph()[each.shadow].name, graph()[each.weight].name);
    arena_ = DeviceBuffer(runtime(), static_cast<std::size_t>(plan_.arena_bytes()),
                          "activations and gradients");
    workspace_ = DeviceBuffer(runtime(), static_cast<std::size_t>(workspace_bytes_), "workspace");
    control_ = DeviceBuffer(runtime(), static_cast<std::size_t>(control_bytes_), "counters");
    for (std::size_t k = 0; k < streams_.size(); ++k) {
      if (streams_[k].tasks == 0) continue;
      static_cast<void>(context_->stream(static_cast<int>(k)));
      if (k > 0) streams_[k].joined = Event(runtime());
    }
    if (forks_) forked_ = Event(runtime());
    make_steps();
    make_roundings(kernels);
    find_small_outputs();
    word = static_cast<unsigned*>(control_.get());
    clear_control();
    context_->watch(*this);
  }
  GpuProgram(const GpuProgram&) = delete;
  GpuProgram& operator=(const GpuProgram&) = delete;
  ~GpuProgram() override {
    context_->settle();  // what was launched uses the memory
    context_->unwatch(*this);
  }

  [[nodiscard]] const Graph& graph() const override { return plan_.graph(); }
  [[nodiscard]] int steps() const override { return plan_.options().steps; }
  [[nodiscard]] std::string_view exec() const override {
    return options_.graph ? "graph" : "eager";
  }
  [[nodiscard]] std::string note() const override { return options_.note; }
  [[nodiscard]] std::int64_t arena_bytes() const override { return plan_.arena_bytes(); }
  [[nodiscard]] std::int64_t shadow_bytes() const override {
    std::int64_t bytes = 0;
    for (const Narrowed::Shadow& each : options_.shadows)
      bytes += graph()[each.shadow].shape.elements() * 2;
    return bytes;
  }
  [[nodiscard]] std::int64_t persistent_bytes() const override { return plan_.persistent_bytes(); }
  [[nodiscard]] std::int64_t device_bytes() const override {
    return plan_.arena_bytes() + workspace_bytes_ + control_bytes_;
  }
  [[nodiscard]] std::int64_t launches_per_run() const override { return launches_; }
  [[nodiscard]] std::string dump_dot() const override { return plan_.dot(); }
  [[nodiscard]] std::string dump() const override {
    std::string text = plan_.str();
    text += fmt::format("workspace {}\n", format_bytes(workspace_bytes_));
    if (const std::string chosen = tuning(); !chosen.empty())
      text += fmt::format("algorithms: {}\n", chosen);
    return text;
  }
  [[nodiscard]] std::string tuning() const override {
    std::string text;
    for (std::size_t n = 0; n < prepared_.size(); ++n)
      if (!prepared_[n].algorithm.empty())
        text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", graph().nodes()[n].name,
                            prepared_[n].algorithm);
    return text;
  }

  void run() override {
    begin_run();
    guarded([&] { launch_run(); });
  }

  void run(const std::function<void(const TaskView&)>& observer) override {
    begin_run();
    struct Watched {
      explicit Watched(int& watching) : watching_(watching) { ++watching_; }
      ~Watched() { --watching_; }
      Watched(const Watched&) = delete;
      Watched& operator=(const Watched&) = delete;
      int& watching_;
    } watched(watching_);
    for (const Step& step : steps_) {
      guarded([&] {
        launch(step, 0, false);
        pending = true;
        context_->wait();
      });
      observer({step.step, step.node});
    }
  }

  std::vector<NodeTime> profile(int runs) override {
    if (runs < 1) throw Error(Status::usage, fmt::format("a profile of {} runs", runs), "profile");
    // An event tells about half a microsecond: a task is launched until this much has passed.
    constexpr double least_seconds = 200e-6;
    constexpr int most_launches = 20;
    begin_run();
    EventTimer timer(runtime());
    const auto seconds_of = [&](const Step& step, int launches) {
      guarded([&] {
        timer.start(context_->main());
        for (int i = 0; i < launches; ++i) launch(step, 0, false);
        timer.stop(context_->main());
        pending = true;
        context_->wait();
      });
      return timer.seconds() / launches;
    };
    std::vector<std::vector<double>> seconds(steps_.size());
    std::vector<int> launches;
    for (const Step& step : steps_) {
      const double once = seconds_of(step, 1);
      launches.push_back(once * most_launches < least_seconds
                             ? most_launches
                             : std::max(1, static_cast<int>(least_seconds / once)));
    }
    for (int run = 0; run < runs; ++run)
      for (std::size_t t = 0; t < steps_.size(); ++t)
        seconds[t].push_back(seconds_of(steps_[t], launches[t]));
    std::vector<NodeTime> times;
    for (std::size_t t = 0; t < steps_.size(); ++t)
      times.push_back(node_time(graph(), *steps_[t].node, steps_[t].step, std::move(seconds[t])));
    return times;
  }

  [[nodiscard]] Tensor read(std::string_view name, int step) const override {
    const Value value = find(name, step);
    const ValueInfo& info = graph()[value];
    if (const Value root = graph().root(value))
      return store_.read(graph()[root].name).to(info.dtype);
    Tensor copy(plan_.stored(value), info.shape);
    fetch(value, step, copy.bytes());
    return copy.to(info.dtype);
  }

  [[nodiscard]] Tensor read_steps(std::string_view name) const override {
    const Value value = find(name, 0);
    const ValueInfo& info = graph()[value];
    std::vector<std::int64_t> dims = {steps()};
    dims.insert(dims.end(), info.shape.dims().begin(), info.shape.dims().end());
    Tensor all(info.dtype, Shape(std::span<const std::int64_t>(dims)));
    const std::size_t size = all.bytes().size() / static_cast<std::size_t>(steps());
    for (int step = 0; step < steps(); ++step) {
      std::span<std::byte> one = all.bytes().subspan(static_cast<std::size_t>(step) * size, size);
      if (const Value root = graph().root(value)) {
        const Tensor whole = store_.read(graph()[root].name);
        std::copy(whole.bytes().begin(), whole.bytes().end(), one.begin());
      } else {
        fetch(value, step, one);
      }
    }
    return all;
  }

  [[nodiscard]] std::vector<Tensor> read_all(
      std::span<const std::string_view> names) const override {
    std::vector<Tensor> all;
    std::vector<Region> regions;
    if (!fresh_) regions = spans_;
    for (const std::string_view name : names) {
      const Value value = find(name, 0);
      const ValueInfo& info = graph()[value];
      if (graph().root(value) || plan_.stored(value) != info.dtype) return Program::read_all(names);
      all.emplace_back(info.dtype, info.shape);
      const bool small = watching_ == 0 && fetched_at_.contains({value.id, 0});
      if (!small)
        regions.push_back(
            {all.back().bytes().data(), address(0, value), all.back().bytes().size()});
    }
    context_->enter();
    if (!regions.empty()) context_->download(regions);
    fresh_ = true;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto known = fetched_at_.find({find(names[i], 0).id, 0});
      if (watching_ == 0 && known != fetched_at_.end())
        std::memcpy(all[i].bytes().data(), fetched_.data() + known->second, all[i].bytes().size());
    }
    return all;
  }

  void run_batches(std::string_view input, const Tensor& rows, std::string_view output,
                   Tensor& results) override {
    const Batches batches = batches_of(graph(), steps(), input, rows, output, results);
    if (batches.count == 0) return;
    store_.mark_updated(input);
    if (batches.count == 1 && options_.graph)
      run_call(batches, rows.bytes().data(), results.bytes().data());
    else
      run_pipeline(batches, rows.bytes().data(), results.bytes().data());
  }

  void write(std::string_view name, int step, const Tensor& tensor) override {
    const Value value = find(name, step);
    const ValueInfo& info = graph()[value];
    if (const Value root = graph().root(value)) {
      store_.write(graph()[root].name, tensor);
      return;
    }
    if (!(tensor.shape() == info.shape) || tensor.dtype() != info.dtype)
      throw Error(Status::usage,
                  fmt::format("the value `{}` is {} {}, not {} {}", name, name_of(info.dtype),
                              info.shape.str(), name_of(tensor.dtype()), tensor.shape().str()),
                  "program");
    context_->enter();
    fresh_ = false;
    const DType stored = plan_.stored(value);
    if (stored == tensor.dtype())
      context_->upload(address(step, value), tensor.bytes());
    else
      context_->upload(address(step, value), tensor.to(stored).bytes());
  }

  void fill_memory(std::byte value) override {
    context_->enter();
    fresh_ = false;
    for (const DeviceBuffer* memory : {&arena_, &workspace_})
      if (*memory)
        runtime().fill(memory->get(), static_cast<std::uint8_t>(value), memory->bytes(),
                       context_->main());
  }

 private:
  struct Prepared {
    CudaKernel kernel;
    std::shared_ptr<Blas::Plan> product;  // instead of the kernel
    std::int64_t workspace_bytes = 0;
    std::int64_t counters = 0;
    std::vector<int> early_inputs;
    std::string algorithm;
  };
  // What the tasks of one stream share: they run one after the other.
  struct StreamShare {
    int tasks = 0;
    std::int64_t workspace_bytes = 0;
    std::int64_t workspace_offset = 0;
    std::int64_t counters = 0;
    std::int64_t counters_offset = 0;
    Event joined;
    bool chained = false;  // while encoding: the stream's last work was a kernel of this run
  };
  // What makes a shadow where it is not the copy of what its weight holds.
  struct Rounding {
    const Node* node = nullptr;
    CudaKernel kernel;
    void* weight = nullptr;
    void* shadow = nullptr;
    const std::uint64_t* contents = nullptr;
    std::uint64_t* copied = nullptr;
    std::vector<Access> accesses;
  };
  struct Step {
    const Prepared* prepared = nullptr;
    const Node* node = nullptr;
    unsigned node_index = 0;
    int step = 0;
    int stream = 0;
    std::span<const int> waits;       // tasks
    bool overlaps = false;            // may start before its predecessor has ended
    bool early = false;               // ... and read its early inputs then
    std::size_t inputs = 0;           // into pointers_
    std::size_t outputs = 0;          // into pointers_
    std::size_t accesses = 0;         // into accesses_
    std::size_t access_count = 0;     // ...
    std::vector<std::size_t> earlys;  // those of the early inputs, into accesses_
    void* mask = nullptr;             // of a library's product
    Event done;                       // where another stream waits for it
  };
  [[nodiscard]] Runtime& runtime() const { return context_->runtime(); }

  void prepare(const KernelTable& kernels) {
    for (std::size_t n = 0; n < graph().nodes().size(); ++n) {
      const Node& node = graph().nodes()[n];
      CudaNode wanted{graph(), node, context_->gpu(), options_.precision, plan_.options().stored};
      Prepared prepared;
      if (!options_.products.empty() && options_.products[n]) {
        prepared.product = options_.products[n];
        prepared.workspace_bytes = prepared.product->workspace_bytes();
        prepared.algorithm = prepared.product->algorithm();
        prepared_.push_back(std::move(prepared));
        continue;
      }
      prepared.kernel = kernels.prepare.at(static_cast<std::size_t>(node.op))(wanted);
      prepared.workspace_bytes = wanted.workspace_bytes;
      prepared.counters = wanted.counters;
      prepared.early_inputs = std::move(wanted.early_inputs);
      prepared.algorithm = std::move(wanted.algorithm);
      prepared_.push_back(std::move(prepared));
    }
    streams_.resize(static_cast<std::size_t>(plan_.options().streams));
    for (const Task& task : plan_.tasks()) {
      StreamShare& share = streams_[static_cast<std::size_t>(task.stream)];
      const Prepared& prepared = prepared_[static_cast<std::size_t>(task.node)];
      ++share.tasks;
      share.workspace_bytes = std::max(share.workspace_bytes, prepared.workspace_bytes);
      share.counters = std::max(share.counters, prepared.counters);
    }
    control_bytes_ = alignment;  // the fault word
    for (std::size_t k = 0; k < streams_.size(); ++k) {
      StreamShare& share = streams_[k];
      share.workspace_offset = workspace_bytes_;
      workspace_bytes_ += padded(share.workspace_bytes);
      share.counters_offset = control_bytes_;
      control_bytes_ += padded(share.counters * static_cast<std::int64_t>(sizeof(unsigned)));
      forks_ = forks_ || (k > 0 && share.tasks > 0);
    }
  }

  void require_memory() const {
    std::int64_t persistent = 0;
    for (const ValueInfo& value : graph().values())
      if (value.producer < 0 && !store_.has(value.name))
        persistent += padded(
            value.shape.elements() *
            static_cast<std::int64_t>(size_of(is_shadow(value) ? DType::bf16 : value.dtype)));
    const std::int64_t wanted = device_bytes() + persistent;
    const Memory memory = runtime().memory();
    if (wanted <= memory.free_bytes) return;
    throw Error(
        Status::device,
        fmt::format("too little GPU memory: {} for activations and gradients, {} of workspace and "
                    "{} for parameters, moments and data are {}, and {} of {} are free",
                    format_bytes(plan_.arena_bytes()),
                    format_bytes(workspace_bytes_ + control_bytes_), format_bytes(persistent),
                    format_bytes(wanted), format_bytes(memory.free_bytes),
                    format_bytes(memory.total_bytes)),
        context_->name(), "use a smaller batch, or end other programs on this GPU");
  }

  [[nodiscard]] std::byte* arena() const { return static_cast<std::byte*>(arena_.get()); }
  [[nodiscard]] std::byte* address(int step, Value value) const {
    return arena() + plan_.place(step, value).offset;
  }
  [[nodiscard]] void* pointer(int step, Value value) const {
    if (!value) return nullptr;
    const Place& place = plan_.place(step, value);
    if (place.root) return store_.data(graph()[place.root].name);
    return place.bytes == 0 ? nullptr : arena() + place.offset;
  }

  void make_steps() {
    const auto& tasks = plan_.tasks();
    std::vector<bool> awaited(tasks.size(), false);
    for (const Task& task : tasks)
      for (const int wait : task.waits) awaited[static_cast<std::size_t>(wait)] = true;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const Task& task = tasks[t];
      const Node& node = graph().nodes()[static_cast<std::size_t>(task.node)];
      const StreamShare& share = streams_[static_cast<std::size_t>(task.stream)];
      Step step;
      step.prepared = &prepared_[static_cast<std::size_t>(task.node)];
      step.node = &node;
      step.node_index = static_cast<unsigned>(task.node);
      step.step = task.step;
      step.stream = task.stream;
      step.waits = task.waits;
      step.overlaps = may_overlap(plan_, static_cast<int>(t));
      const auto& early_inputs = step.prepared->early_inputs;
      step.early = !early_inputs.empty() &&
                   std::all_of(early_inputs.begin(), early_inputs.end(), [&](int input) {
                     return may_read_early(plan_, static_cast<int>(t), input);
                   });
      step.accesses = accesses_.size();
      const auto access = [&](Value value, bool write) {
        if (!value) return;
        const auto bytes = static_cast<std::size_t>(plan_.place(task.step, value).bytes);
        if (bytes > 0) accesses_.push_back({pointer(task.step, value), bytes, write, false});
      };
      step.inputs = pointers_.size();
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        pointers_.push_back(pointer(task.step, node.inputs[i]));
        const std::size_t before = accesses_.size();
        access(node.inputs[i], false);
        if (step.early && accesses_.size() > before &&
            std::find(early_inputs.begin(), early_inputs.end(), static_cast<int>(i)) !=
                early_inputs.end())
          step.earlys.push_back(before);
      }
      step.mask = mask_of(task.step, node);
      step.outputs = pointers_.size();
      for (const Value output : node.outputs) {
        pointers_.push_back(pointer(task.step, output));
        access(output, true);
      }
      if (step.prepared->workspace_bytes > 0)
        accesses_.push_back(
            {workspace(share), static_cast<std::size_t>(share.workspace_bytes), true, false});
      if (step.prepared->counters > 0)
        accesses_.push_back({counters(share),
                             static_cast<std::size_t>(share.counters) * sizeof(unsigned), true,
                             false});
      accesses_.push_back({control_.get(), sizeof(unsigned), true, false});
      step.access_count = accesses_.size() - step.accesses;
      if (awaited[t]) step.done = Event(runtime());
      steps_.push_back(std::move(step));
    }
    for (const ValueInfo& info : graph().values())
      if (info.version_of) {
        store_.mark_updated(graph()[info.version_of].name);
        updated_.push_back(&store_.contents(graph()[info.version_of].name));
      }
  }

  // Where a relu's mask is: beside its output.
  [[nodiscard]] void* mask_of(int step, const Node& node) const {
    Value masked;
    if (node.op == Op::linear_activation) masked = node.outputs[0];
    if (node.op == Op::linear_dgrad_activation) masked = node.inputs[2];
    if (!masked) return nullptr;
    const Place& place = plan_.place(step, masked);
    return place.beside == 0 ? nullptr : arena() + place.offset + place.bytes - place.beside;
  }

  [[nodiscard]] bool is_shadow(const ValueInfo& value) const {
    return std::ranges::any_of(options_.shadows, [&](const Narrowed::Shadow& each) {
      return graph()[each.shadow].name == value.name;
    });
  }

  // Shadows are made by the kernels of a graph of their own, before a run.
  void make_roundings(const KernelTable& kernels) {
    std::vector<DType> stored;
    for (const Narrowed::Shadow& each : options_.shadows) {
      const ValueInfo& weight = graph()[each.weight];
      const Value from = roundings_graph_.parameter(weight.name, weight.shape);
      static_cast<void>(
          roundings_graph_.apply("scale", graph()[each.shadow].name, {from}, {{"factor", 1.0}}));
      stored.insert(stored.end(), {DType::f32, DType::bf16});
    }
    for (std::size_t i = 0; i < options_.shadows.size(); ++i) {
      const Narrowed::Shadow& each = options_.shadows[i];
      Rounding rounding;
      rounding.node = &roundings_graph_.nodes()[i];
      CudaNode wanted{roundings_graph_, *rounding.node, context_->gpu(), options_.precision,
                      stored};
      rounding.kernel = kernels.prepare.at(static_cast<std::size_t>(Op::scale))(wanted);
      rounding.weight = pointer(0, each.weight);
      rounding.shadow = pointer(0, each.shadow);
      rounding.contents = &store_.contents(graph()[each.weight].name);
      rounding.copied = &store_.copied(graph()[each.shadow].name);
      const auto bytes = static_cast<std::size_t>(plan_.place(0, each.weight).bytes);
      if (bytes > 0)
        rounding.accesses = {{rounding.weight, bytes, false, false},
                             {rounding.shadow, bytes / 2, true, false},
                             {control_.get(), sizeof(unsigned), true, false}};
      roundings_.push_back(std::move(rounding));
    }
  }

  // Shadows become the copies of what their weights hold; those of weights that the run updates it
  // keeps so by itself.
  void round_weights() {
    for (const Rounding& rounding : roundings_) {
      if (*rounding.copied == *rounding.contents || rounding.accesses.empty()) continue;
      guarded([&] {
        void* const inputs[] = {rounding.weight};
        void* const outputs[] = {rounding.shadow};
        Encoder& encoder = context_->encoder();
        encoder.begin(rounding.node->name, context_->main(), rounding.accesses, false);
        rounding.kernel(CudaArgs{.encoder = encoder,
                                 .inputs = inputs,
                                 .outputs = outputs,
                                 .fault = {static_cast<unsigned*>(control_.get()), 0}});
      });
    }
    for (std::uint64_t* contents : updated_) ++*contents;
    for (const Rounding& rounding : roundings_) *rounding.copied = *rounding.contents;
  }

  [[nodiscard]] std::byte* workspace(const StreamShare& share) const {
    return static_cast<std::byte*>(workspace_.get()) + share.workspace_offset;
  }
  [[nodiscard]] unsigned* counters(const StreamShare& share) const {
    return reinterpret_cast<unsigned*>(static_cast<std::byte*>(control_.get()) +
                                       share.counters_offset);
  }

  void find_small_outputs() {
    struct Output {
      Value value;
      int step = 0;
      std::int64_t offset = 0;
      std::int64_t bytes = 0;
    };
    std::vector<Output> outputs;
    for (const Value value : graph().outputs())
      for (int step = 0; step < steps(); ++step) {
        const Place& place = plan_.place(step, value);
        if (place.bytes > 0 && place.bytes <= small_output)
          outputs.push_back({value, step, place.offset, place.bytes});
      }
    std::sort(outputs.begin(), outputs.end(),
              [](const Output& a, const Output& b) { return a.offset < b.offset; });
    std::size_t total = 0;  // bytes of the spans so far
    std::int64_t end = 0;
    for (const Output& output : outputs) {
      if (spans_.empty() || output.offset - end > bridged) {
        spans_.push_back({nullptr, arena() + output.offset, 0});
        end = output.offset;
      }
      total += static_cast<std::size_t>(output.offset - end);
      fetched_at_[{output.value.id, output.step}] = total;
      total += static_cast<std::size_t>(output.bytes);
      spans_.back().bytes += static_cast<std::size_t>(output.offset + output.bytes - end);
      end = output.offset + output.bytes;
    }
    fetched_.resize(total);
    std::size_t at = 0;
    for (Region& span : spans_) {
      span.to = fetched_.data() + at;
      at += span.bytes;
    }
  }

  void begin_run() {
    context_->enter();
    fresh_ = false;
    if (dirty_) {
      clear_control();
      dirty_ = false;
    }
    round_weights();
  }
  void clear_control() {
    runtime().fill(control_.get(), 0, static_cast<std::size_t>(control_bytes_), context_->main());
  }

  // After an error nothing of the run is left on the device, and the next run starts anew.
  template <class F>
  void guarded(F f) {
    try {
      f();
      pending = true;
    } catch (...) {
      dirty_ = true;
      for (const Rounding& rounding : roundings_) *rounding.copied = 0;
      context_->settle();
      throw;
    }
  }

  // The whole run, into the streams.
  void launch_run() {
    if (!options_.graph) {
      encode();
      return;
    }
    if (!executable_) {
      load();
      Capture capture(runtime(), context_->stream(0));
      encode();
      executable_ = capture.finish().instantiate();
    }
    const ProfilerRange range(runtime(), "run");
    executable_.launch(context_->main());
  }

  // A run between two copies, captured as one: what a call with little data costs is the host's
  // calls of the runtime, of which two are left.
  struct HostCall {
    HostBuffer in;
    HostBuffer out;  // the output, and the fault word behind it
    GraphExec executable;
  };

  void run_call(const Batches& batches, const std::byte* rows, std::byte* results) {
    begin_run();
    const std::size_t word_at =
        static_cast<std::size_t>(padded(static_cast<std::int64_t>(batches.output_bytes)));
    HostCall& call = calls_[{batches.input.id, batches.output.id}];
    unsigned code = 0;
    guarded([&] {
      if (!call.executable) {
        load();
        call.in = HostBuffer(runtime(), batches.input_bytes, "pinned memory of an input");
        call.out = HostBuffer(runtime(), word_at + sizeof code, "pinned memory of an output");
        auto* const out = static_cast<std::byte*>(call.out.get());
        Capture capture(runtime(), context_->stream(0));
        runtime().copy_to_device(pointer(0, batches.input), call.in.get(), batches.input_bytes,
                                 context_->main());
        encode();
        runtime().copy_to_host(out, address(0, batches.output), batches.output_bytes,
                               context_->main());
        runtime().copy_to_host(out + word_at, control_.get(), sizeof code, context_->main());
        call.executable = capture.finish().instantiate();
      }
      if (batches.input_bytes > 0) std::memcpy(call.in.get(), rows, batches.input_bytes);
      const ProfilerRange range(runtime(), "call");
      call.executable.launch(context_->main());
      context_->stream(0).synchronize();
      const auto* const out = static_cast<const std::byte*>(call.out.get());
      std::memcpy(&code, out + word_at, sizeof code);
      if (batches.output_bytes > 0) std::memcpy(results, out, batches.output_bytes);
    });
    pending = code != 0;
    if (pending) context_->wait();  // says what it is, and clears it
  }

  // Many batches: while one runs, the results of the one before are on their way to the host, and
  // the host copies those of two before out of pinned memory. The device keeps results of two
  // batches besides the program's own.
  void run_pipeline(const Batches& batches, const std::byte* rows, std::byte* results) {
    struct Slot {
      HostBuffer in;
      HostBuffer out;
      DeviceBuffer kept;
      Event computed;
      Event done;
      std::int64_t batch = -1;  // whose results are on their way
    };
    begin_run();
    std::array<Slot, 2> slots;
    const auto finish = [&](Slot& slot) {
      if (slot.batch < 0) return;
      slot.done.synchronize();
      if (batches.output_bytes > 0)
        std::memcpy(results + static_cast<std::size_t>(slot.batch) * batches.output_bytes,
                    slot.out.get(), batches.output_bytes);
      slot.batch = -1;
    };
    guarded([&] {
      Stream& back = context_->stream(static_cast<int>(streams_.size()));
      for (std::int64_t i = 0; i < batches.count; ++i) {
        Slot& slot = slots[static_cast<std::size_t>(i % 2)];
        finish(slot);
        if (!slot.done) {
          slot.in = HostBuffer(runtime(), batches.input_bytes, "pinned memory of an input");
          slot.out = HostBuffer(runtime(), batches.output_bytes, "pinned memory of an output");
          slot.kept = DeviceBuffer(runtime(), batches.output_bytes, "results on their way");
          slot.computed = Event(runtime());
          slot.done = Event(runtime());
        }
        if (batches.input_bytes > 0)
          std::memcpy(slot.in.get(), rows + static_cast<std::size_t>(i) * batches.input_bytes,
                      batches.input_bytes);
        runtime().copy_to_device(pointer(0, batches.input), slot.in.get(), batches.input_bytes,
                                 context_->main());
        launch_run();
        runtime().copy_on_device(slot.kept.get(), pointer(0, batches.output), batches.output_bytes,
                                 context_->main());
        slot.computed.record(context_->main());
        back.wait(slot.computed);
        runtime().copy_to_host(slot.out.get(), slot.kept.get(), batches.output_bytes, back.get());
        slot.done.record(back.get());
        slot.batch = i;
      }
      for (std::int64_t i = 0; i < 2; ++i)
        finish(slots[static_cast<std::size_t>((batches.count + i) % 2)]);
      pending = true;
      context_->wait();
    });
    pending = false;
  }

  // The whole run, into the streams or into a capture that is open on the main one.
  void encode() {
    Encoder& encoder = context_->encoder();
    const std::int64_t before = encoder.launches();
    products_ = 0;
    if (forks_) {
      forked_.record(context_->main());
      for (std::size_t k = 1; k < streams_.size(); ++k)
        if (streams_[k].tasks > 0) context_->stream(static_cast<int>(k)).wait(forked_);
    }
    for (StreamShare& share : streams_) share.chained = false;
    for (Step& step : steps_) {
      Stream& stream = context_->stream(step.stream);
      for (const int wait : step.waits) stream.wait(steps_[static_cast<std::size_t>(wait)].done);
      launch(step, step.stream, step.overlaps);
      if (step.done) step.done.record(stream.get());
    }
    for (std::size_t k = 1; k < streams_.size(); ++k) {
      if (streams_[k].tasks == 0) continue;
      streams_[k].joined.record(context_->stream(static_cast<int>(k)).get());
      context_->stream(0).wait(streams_[k].joined);
    }
    launches_ = encoder.launches() - before + products_;
  }

  // Makes the kernels ready: code that is loaded at its first use may not be while a capture is
  // open. A library's products run once, on whatever the arena holds: what they write there, the
  // run writes anew.
  void load() {
    for (const Step& step : steps_)
      if (step.step == 0 && step.prepared->product) launch(step, 0, false);
    const Encoder::Loading loading(context_->encoder());
    for (const Step& step : steps_)
      if (step.step == 0 && !step.prepared->product) launch(step, 0, false);
  }

  void launch(const Step& step, int stream, bool overlaps) {
    StreamShare& share = streams_[static_cast<std::size_t>(step.stream)];
    // A predecessor that launched nothing, or ended with a fill, is none to overlap with.
    const bool overlap = overlaps && share.chained;
    const bool early = overlap && step.early && context_->encoder().programmatic();
    if (step.prepared->product) {
      const ProfilerRange range(runtime(), step.node->name);
      BlasOperands operands = blas_operands(*step.node, pointers_.data() + step.inputs,
                                            pointers_.data() + step.outputs);
      operands.mask = step.mask;
      operands.workspace = workspace(share);
      step.prepared->product->run(runtime(), operands,
                                  std::span(accesses_).subspan(step.accesses, step.access_count),
                                  context_->stream(stream).get());
      share.chained = false;  // its kernels know nothing of ours
      ++products_;
      return;
    }
    for (const std::size_t access : step.earlys) accesses_[access].early = early;
    const ProfilerRange range(runtime(), step.node->name);
    Encoder& encoder = context_->encoder();
    encoder.begin(step.node->name, context_->stream(stream).get(),
                  std::span(accesses_).subspan(step.accesses, step.access_count), overlap);
    step.prepared->kernel(
        CudaArgs{.encoder = encoder,
                 .step = step.step,
                 .inputs = pointers_.data() + step.inputs,
                 .outputs = pointers_.data() + step.outputs,
                 .workspace = step.prepared->workspace_bytes > 0 ? workspace(share) : nullptr,
                 .counters = step.prepared->counters > 0 ? counters(share) : nullptr,
                 .fault = {static_cast<unsigned*>(control_.get()), step.node_index},
                 .early = early});
    share.chained = encoder.ends_with_kernel();
  }

  [[nodiscard]] Error describe(unsigned code) const override { return fault_error(graph(), code); }

  Value find(std::string_view name, int step) const {
    const Value value = graph().find(name);
    if (!value)
      throw Error(Status::usage, fmt::format("the program has no value `{}`", name), "program",
                  "it may have been fused away or dropped: compile with keep_all, without fusion");
    if (step < 0 || step >= steps())
      throw Error(Status::usage, fmt::format("step {} of {}", step, steps()), "program");
    if (!graph().root(value) && watching_ == 0 && !plan_.options().keep_all &&
        !graph().is_output(value))
      throw Error(Status::usage,
                  fmt::format("the value `{}` does not outlive its last reader", name), "program",
                  "make it a graph output, or compile with keep_all");
    return value;
  }

  // A transient value of a step.
  void fetch(Value value, int step, std::span<std::byte> to) const {
    context_->enter();
    const auto known = fetched_at_.find({value.id, step});
    if (known == fetched_at_.end() || watching_ > 0) {
      const Region region{to.data(), address(step, value), to.size()};
      context_->download({&region, 1});
      return;
    }
    if (!fresh_) {
      context_->download(spans_);
      fresh_ = true;
    }
    std::memcpy(to.data(), fetched_.data() + known->second, to.size());
  }

  Plan plan_;
  CudaStore& store_;
  std::shared_ptr<Context> context_;
  ProgramOptions options_;
  std::vector<Prepared> prepared_;  // by node
  std::vector<StreamShare> streams_;
  std::int64_t workspace_bytes_ = 0;
  std::int64_t control_bytes_ = 0;  // the fault word, and the counters
  bool forks_ = false;              // more than the main stream has tasks
  DeviceBuffer arena_;
  DeviceBuffer workspace_;
  DeviceBuffer control_;
  Event forked_;
  std::vector<Step> steps_;  // by task
  Graph roundings_graph_;
  std::vector<Rounding> roundings_;
  std::vector<std::uint64_t*> updated_;  // contents of what a run writes, in the store
  std::vector<void*> pointers_;
  std::vector<Access> accesses_;
  GraphExec executable_;
  std::map<std::pair<std::int32_t, std::int32_t>, HostCall> calls_;  // by input and output
  std::int64_t launches_ = 0;
  std::int64_t products_ = 0;  // of a library, in the run that is encoded
  bool dirty_ = false;         // a run was broken off: counters may be anything
  int watching_ = 0;
  // Small outputs: where the arena holds them, what was fetched of it, and where each is in that,
  // by value and step.
  std::vector<Region> spans_;
  mutable std::vector<std::byte> fetched_;
  mutable bool fresh_ = false;  // fetched since the last run
  std::map<std::pair<std::int32_t, int>, std::size_t> fetched_at_;
};

}  // namespace

std::unique_ptr<CudaProgram> make_cuda_program(Plan plan, CudaStore& store,
                                               const KernelTable& kernels,
                                               const ProgramOptions& options) {
  return std::make_unique<GpuProgram>(std::move(plan), store, kernels, options);
}

}  // namespace cuvae::cuda
