#pragma once
// Where graphs run. A Device compiles a graph into a Program over a Store of persistent tensors.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cuvae/error.h"
#include "cuvae/graph.h"
#include "cuvae/tensor.h"
#include "cuvae/tuning.h"

namespace cuvae {

// Persistent tensors of one device, by name: parameters, moments, dataset windows, counters.
// Programs compiled over the same store share them, and run one after the other; programs over
// different stores of one GPU run side by side. f32 tensors of a double device are stored as f64;
// write() and read() convert.
class Store {
 public:
  virtual ~Store() = default;
  [[nodiscard]] virtual bool has(std::string_view name) const = 0;
  // Makes a zeroed tensor; an existing one of the same dtype and shape is left as it is, of
  // another throws Error(usage).
  virtual void declare(std::string_view name, DType dtype, const Shape& shape) = 0;
  // Host to device. Declares it where missing; otherwise shape and dtype must match.
  virtual void write(std::string_view name, const Tensor& tensor) = 0;
  // Lets the device use the host's tensor (a CPU does not copy; a GPU uploads). The store shares
  // ownership. Replaces what was there, if its dtype and shape are the same.
  virtual void bind(std::string_view name, std::shared_ptr<const Tensor> tensor) = 0;
  // Where another store of the same GPU has bound that very tensor: uses its memory as `name`,
  // which must not be declared yet; nobody can write it as long as they share it. Otherwise false,
  // and nothing happens. (A CPU's bind() copies nothing anyway.)
  virtual bool share(std::string_view name, const std::shared_ptr<const Tensor>& tensor) {
    static_cast<void>(name);
    static_cast<void>(tensor);
    return false;
  }
  // Device to host, after everything launched over this store has finished. f64 stays f64.
  [[nodiscard]] virtual Tensor read(std::string_view name) const = 0;
  [[nodiscard]] virtual std::vector<std::string> names() const = 0;
};

// Where a program stands during run(observer).
struct TaskView {
  int step = 0;                // unrolled step
  const Node* node = nullptr;  // just finished
};

// What one node of a program takes.
struct NodeTime {
  int step = 0;
  std::string node;
  std::string op;
  double seconds = 0;  // median over the runs
  double flops = 0;
  double bytes = 0;  // the least traffic
};

// A compiled graph: one or several unrolled steps per run.
class Program {
 public:
  virtual ~Program() = default;
  [[nodiscard]] virtual const Graph& graph() const = 0;  // after fusion and lowering
  [[nodiscard]] virtual int steps() const = 0;
  // How it runs: "eager", and with CUDA "graph" or "persistent".
  [[nodiscard]] virtual std::string_view exec() const = 0;
  // May return before the device has finished; read() and Store::read() wait.
  virtual void run() = 0;
  // Node by node, calling back after each (comparison, debugging). The callback may read() and
  // write() transient values of that step.
  virtual void run(const std::function<void(const TaskView&)>& observer) = 0;
  // Measures every task by itself, `runs` times after one more: a CPU by its clock, a GPU by
  // events around as many launches as fill the time that an event can tell. What the program
  // updates is updated meanwhile. Error(usage) for runs < 1, or where it has no nodes to be told
  // apart.
  [[nodiscard]] virtual std::vector<NodeTime> profile(int) {
    throw Error(Status::usage, "the program cannot be measured node by node", std::string(exec()),
                "use another --exec, as eager");
  }
  // A graph output (any value, where the program was compiled with keep_all), by its name.
  [[nodiscard]] virtual Tensor read(std::string_view value, int step = 0) const = 0;
  // A graph output of every unrolled step at once: [steps, ...its shape].
  [[nodiscard]] virtual Tensor read_steps(std::string_view value) const = 0;
  // Several of them; a GPU is waited for once.
  [[nodiscard]] virtual std::vector<Tensor> read_all(
      std::span<const std::string_view> values) const {
    std::vector<Tensor> all;
    for (const std::string_view value : values) all.push_back(read(value));
    return all;
  }
  virtual void write(std::string_view value, int step, const Tensor& tensor) = 0;
  // Inference from host to host, of a program of one step with an input [B, ...] and an output
  // [B, ...]: a run for each B rows of `rows`, whose output goes to the same rows of `results`. On
  // a GPU one batch is one launch and one wait (copies stand in the captured graph), and of several
  // the copies of one overlap with the run of the next. Throws Error(usage) for other names, types
  // and shapes, and where B does not divide the rows.
  virtual void run_batches(std::string_view input, const Tensor& rows, std::string_view output,
                           Tensor& results) = 0;
  // Steps of the last run that were done: all of them, unless it was stopped. Waits for it.
  [[nodiscard]] virtual int steps_done() const { return steps(); }
  // Asks the run under way to end after one of its next steps, where it can (the persistent path);
  // between two runs it asks nothing.
  // Any thread may call it, and so may a signal handler.
  virtual void stop() noexcept {}
  // What a user should know of how it runs: why it is not the executor that was asked for. One line
  // or empty.
  [[nodiscard]] virtual std::string note() const { return {}; }
  // Which of several algorithms its operators took, where there was a choice; results depend on it
  // bit for bit. "encoder.0: tile 64x64x16; ..."
  [[nodiscard]] virtual std::string tuning() const { return {}; }
  [[nodiscard]] virtual std::int64_t arena_bytes() const = 0;
  // What it keeps in the store beside the graph's persistent values: weights rounded to bf16.
  [[nodiscard]] virtual std::int64_t shadow_bytes() const { return 0; }
  [[nodiscard]] virtual std::int64_t persistent_bytes() const = 0;
  [[nodiscard]] virtual std::string dump() const = 0;      // the plan as a table
  [[nodiscard]] virtual std::string dump_dot() const = 0;  // the plan as Graphviz
};

struct CompileOptions {
  int steps = 1;  // unrolled; a Trainer takes 0 for as many as suit the device
  // On a GPU: what may run side by side. 0: 2 where runs are captured graphs of small batches, for
  // what the next step does not wait for at once; else 1. Results do not depend on it.
  int streams = 0;
  bool fuse = true;
  bool reuse = true;
  bool keep_all = false;
  std::string exec = "auto";       // auto | eager; with CUDA also graph | persistent
  std::string precision = "fp32";  // with CUDA also tf32 | bf16
  // Algorithms of a library's products that are not in the record yet are timed on the device and
  // the fastest is taken; else the library's own heuristic chooses.
  bool autotune = false;
  std::shared_ptr<Tuning> tuning = {};  // the record; null: one of this program's own
};

// The plan of a graph, node by node: what compile() would make of it for every executor but the
// persistent one, which has no plan (Device::unfit says whether it fits). Nothing of that size is
// allocated.
struct PlanSummary {
  std::int64_t arena_bytes = 0;
  std::int64_t persistent_bytes = 0;
  std::string table;
  std::string dot;                                           // Graphviz
  std::vector<std::pair<std::string, std::string>> library;  // nodes whose product a library does
};

struct DeviceInfo {
  std::string name;     // "cpu", "cuda:0"
  std::string model;    // "AMD EPYC ... (x86-64-v4)", "NVIDIA H200"
  std::string details;  // threads, BLAS core, memory
  // What bitwise repeatability holds within, beside the build: "cpu f32, OpenBLAS SkylakeX".
  std::string numerics;
  DType real = DType::f32;
  int threads = 0;  // of a CPU
};

// Time by the device's own clock between two points of what it is given to do.
class DeviceTimer {
 public:
  virtual ~DeviceTimer() = default;
  virtual void start() = 0;
  // Seconds since start(), once what was launched until now has finished; waits for it.
  [[nodiscard]] virtual double stop() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  [[nodiscard]] virtual DeviceInfo info() const = 0;
  // Memory that programs and stores may still take; nothing where that is not known.
  [[nodiscard]] virtual std::optional<std::int64_t> free_bytes() const { return std::nullopt; }
  // Of what programs over this store do. Null for a device that has no clock of its own (a CPU).
  // The store outlives the timer.
  [[nodiscard]] virtual std::unique_ptr<DeviceTimer> make_timer(Store&) { return nullptr; }
  [[nodiscard]] virtual std::unique_ptr<Store> make_store() = 0;
  // Throws Error(usage) for options that it has not, as compile() does.
  virtual void check(const CompileOptions& options) const = 0;
  // Why this graph cannot run by the executor that was asked for, so that compile() would take
  // another one: part of a sentence; empty where it can.
  [[nodiscard]] virtual std::string unfit(const Graph&, const CompileOptions&) { return {}; }
  // Fuses, lowers, plans, checks the plan, and binds to the store (declaring what is missing).
  // The device and the store must outlive the program.
  [[nodiscard]] virtual std::unique_ptr<Program> compile(const Graph& graph, Store& store,
                                                         const CompileOptions& options) = 0;
  [[nodiscard]] virtual PlanSummary plan(const Graph& graph, const CompileOptions& options) = 0;
};

struct DeviceOptions {
  int threads = 0;          // CPU; 0: one per core this process may use
  DType real = DType::f32;  // f64: the double reference (CPU only)
};

// `name`: auto | cpu | cuda | cuda:N. `auto` takes the first usable GPU, else the CPU. Throws
// Error(device) where the device is not there, saying why.
[[nodiscard]] std::unique_ptr<Device> open_device(std::string_view name,
                                                  const DeviceOptions& options = {});
// All devices this build can use on this machine, the CPU last, and why there is no GPU if so.
struct DeviceList {
  std::vector<DeviceInfo> devices;
  std::string no_gpu;  // empty where there is one
};
[[nodiscard]] DeviceList list_devices();

}  // namespace cuvae
