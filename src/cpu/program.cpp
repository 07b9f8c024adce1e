#include "cpu/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <map>

#include "api/declare.h"
#include "api/node_time.h"
#include "cuvae/error.h"
#include "graph/batches.h"

namespace cuvae {
namespace {

template <class T>
class ProgramOf final : public CpuProgram {
 public:
  ProgramOf(Plan plan, Team& team, HostStore& store)
      : plan_(std::move(plan)),
        team_(team),
        store_(store),
        arena_(static_cast<std::size_t>(plan_.arena_bytes()), "activations and gradients") {
    declare_values(store_, graph());
    std::vector<CpuKernel<T>> kernels;
    std::int64_t scratch = 0;
    std::int64_t shared = 0;
    for (const Node& node : graph().nodes()) {
      CpuNode prepared{graph(), node};
      kernels.push_back(cpu_kernel<T>(prepared));
      scratch = std::max(scratch, prepared.scratch);
      shared = std::max(shared, prepared.shared);
    }
    // An odd number of cache lines apart, so that workers do not meet in the same sets.
    scratch_stride_ = static_cast<std::size_t>(scratch + 127) / 128 * 128 + 64;
    scratch_ = GuardedMemory(scratch_stride_ * static_cast<std::size_t>(team_.threads()),
                             "scratch memory");
    shared_ = GuardedMemory(static_cast<std::size_t>(shared), "scratch memory");
    for (const Task& task : plan_.tasks()) {
      const Node& node = graph().nodes()[static_cast<std::size_t>(task.node)];
      Step step{.kernel = kernels[static_cast<std::size_t>(task.node)],
                .node = &node,
                .step = task.step,
                .inputs = references_.size(),
                .outputs = references_.size() + node.inputs.size()};
      for (const Value value : node.inputs) references_.push_back(reference(task.step, value));
      for (const Value value : node.outputs) references_.push_back(reference(task.step, value));
      steps_.push_back(std::move(step));
    }
    pointers_.resize(references_.size());
  }

  [[nodiscard]] const Graph& graph() const override { return plan_.graph(); }
  [[nodiscard]] int steps() const override { return plan_.options().steps; }
  [[nodiscard]] std::int64_t arena_bytes() const override { return plan_.arena_bytes(); }
  [[nodiscard]] std::int64_t persistent_bytes() const override { return plan_.persistent_bytes(); }
  [[nodiscard]] std::string dump() const override { return plan_.str(); }
  [[nodiscard]] std::string dump_dot() const override { return plan_.dot(); }

  void run() override {
    resolve();
    for (const Step& step : steps_) execute(step);
  }

  void run(const std::function<void(const TaskView&)>& observer) override {
    struct Watched {
      explicit Watched(int& watching) : watching_(watching) { ++watching_; }
      ~Watched() { --watching_; }
      Watched(const Watched&) = delete;
      Watched& operator=(const Watched&) = delete;
      int& watching_;
    } watched(watching_);
    for (const Step& step : steps_) {
      resolve();  // the observer may have written to the store
      execute(step);
      observer({step.step, step.node});
    }
  }

  std::vector<NodeTime> profile(int runs) override {
    if (runs < 1) throw Error(Status::usage, fmt::format("a profile of {} runs", runs), "profile");
    using Clock = std::chrono::steady_clock;
    std::vector<std::vector<double>> seconds(steps_.size());
    run();
    for (int i = 0; i < runs; ++i) {
      resolve();
      auto before = Clock::now();
      for (std::size_t task = 0; task < steps_.size(); ++task) {
        execute(steps_[task]);
        const auto after = Clock::now();
        seconds[task].push_back(std::chrono::duration<double>(after - before).count());
        before = after;
      }
    }
    std::vector<NodeTime> times;
    for (std::size_t task = 0; task < steps_.size(); ++task)
      times.push_back(
          node_time(graph(), *steps_[task].node, steps_[task].step, std::move(seconds[task])));
    return times;
  }

  [[nodiscard]] Tensor read(std::string_view name, int step) const override {
    const Value value = find(name, step);
    const ValueInfo& info = graph()[value];
    if (const Value root = graph().root(value)) return store_.read(graph()[root].name);
    Tensor copy(stored(info.dtype), info.shape);
    if (!copy.bytes().empty())
      std::memcpy(copy.bytes().data(), address(step, value), copy.bytes().size());
    return copy;
  }

  [[nodiscard]] std::string_view exec() const override { return "eager"; }

  [[nodiscard]] Tensor read_steps(std::string_view name) const override {
    const Tensor first = read(name, 0);
    std::vector<std::int64_t> dims = {steps()};
    dims.insert(dims.end(), first.shape().dims().begin(), first.shape().dims().end());
    Tensor all(first.dtype(), Shape(std::span<const std::int64_t>(dims)));
    const std::size_t size = first.bytes().size();
    for (int step = 0; step < steps() && size > 0; ++step) {
      const Tensor one = step == 0 ? first : read(name, step);
      std::memcpy(all.bytes().data() + static_cast<std::size_t>(step) * size, one.bytes().data(),
                  size);
    }
    return all;
  }

  void run_batches(std::string_view input, const Tensor& rows, std::string_view output,
                   Tensor& results) override {
    const Batches batches = batches_of(graph(), steps(), input, rows, output, results);
    const ValueInfo& from = graph()[batches.input];
    Tensor batch(from.dtype, from.shape);
    for (std::int64_t i = 0; i < batches.count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (batches.input_bytes > 0)
        std::memcpy(batch.bytes().data(), rows.bytes().data() + at * batches.input_bytes,
                    batches.input_bytes);
      store_.write(input, batch);
      run();
      const Tensor made = read(output, 0).to(results.dtype());
      if (batches.output_bytes > 0)
        std::memcpy(results.bytes().data() + at * batches.output_bytes, made.bytes().data(),
                    batches.output_bytes);
    }
  }

  void write(std::string_view name, int step, const Tensor& tensor) override {
    const Value value = find(name, step);
    const ValueInfo& info = graph()[value];
    if (const Value root = graph().root(value)) {
      store_.write(graph()[root].name, tensor);
      return;
    }
    const bool widens = stored(info.dtype) == DType::f64 && tensor.dtype() == DType::f32;
    if (!(tensor.shape() == info.shape) || !(tensor.dtype() == stored(info.dtype) || widens))
      throw Error(
          Status::usage,
          fmt::format("the value `{}` is {} {}, not {} {}", name, name_of(stored(info.dtype)),
                      info.shape.str(), name_of(tensor.dtype()), tensor.shape().str()),
          "program");
    const Tensor converted = tensor.to(stored(info.dtype));
    if (!converted.bytes().empty())
      std::memcpy(address(step, value), converted.bytes().data(), converted.bytes().size());
  }

  void fill_memory(std::byte value) override {
    for (const GuardedMemory* memory : {&arena_, &scratch_, &shared_})
      if (memory->size() > 0) std::memset(memory->data(), static_cast<int>(value), memory->size());
  }

  [[nodiscard]] bool guards_intact() const override {
    return arena_.intact() && scratch_.intact() && shared_.intact();
  }

 private:
  // Where an operand lives: in the store, in the arena, or nowhere.
  struct Reference {
    std::string persistent;
    bool written = false;
    std::int64_t offset = -1;
  };
  struct Step {
    CpuKernel<T> kernel;
    const Node* node;
    int step;
    std::size_t inputs;  // into pointers_
    std::size_t outputs;
  };

  static DType stored(DType dtype) { return dtype == DType::f32 ? dtype_of<T>() : dtype; }

  Reference reference(int step, Value value) const {
    if (!value) return {};
    const Place& place = plan_.place(step, value);
    if (place.root) return {graph()[place.root].name, graph().latest(place.root) != place.root, -1};
    return {{}, false, place.offset};
  }

  void resolve() {
    if (resolved_ == store_.version()) return;
    for (const Reference& reference : references_)
      if (reference.written) store_.writable(reference.persistent);
    for (std::size_t i = 0; i < references_.size(); ++i) {
      const Reference& from = references_[i];
      if (!from.persistent.empty())
        // Inputs are only read; the kernels' operands are untyped and not const.
        pointers_[i] = const_cast<std::byte*>(store_.data(from.persistent));
      else
        pointers_[i] = from.offset < 0 ? nullptr : arena_.data() + from.offset;
    }
    resolved_ = store_.version();
  }

  void execute(const Step& step) {
    step.kernel(CpuArgs<T>{.team = team_,
                           .loops = loops_,
                           .step = step.step,
                           .inputs = pointers_.data() + step.inputs,
                           .outputs = pointers_.data() + step.outputs,
                           .scratch_base = scratch_.data(),
                           .scratch_stride = scratch_stride_,
                           .shared_base = shared_.data()});
  }

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

  std::byte* address(int step, Value value) const {
    return arena_.data() + plan_.place(step, value).offset;
  }

  Plan plan_;
  Team& team_;
  HostStore& store_;
  const Loops<T>& loops_ = loops<T>();
  GuardedMemory arena_;
  GuardedMemory scratch_;
  GuardedMemory shared_;
  std::size_t scratch_stride_ = 0;
  std::vector<Step> steps_;
  std::vector<Reference> references_;
  std::vector<void*> pointers_;
  std::uint64_t resolved_ = 0;
  int watching_ = 0;
};

}  // namespace

template <class T>
std::unique_ptr<CpuProgram> make_cpu_program(Plan plan, Team& team, HostStore& store) {
  return std::make_unique<ProgramOf<T>>(std::move(plan), team, store);
}
template std::unique_ptr<CpuProgram> make_cpu_program<float>(Plan, Team&, HostStore&);
template std::unique_ptr<CpuProgram> make_cpu_program<double>(Plan, Team&, HostStore&);

}  // namespace cuvae
