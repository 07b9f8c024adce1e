#pragma once
// The only door to the CUDA API. runtime_cuda.cpp implements it over the CUDA runtime; the SIMT
// runner and the tests implement it on the CPU. Nothing else calls CUDA.
//
// Every call that can fail passes through Runtime::call(), which turns a failure into
// Error(device) with the call, its context and what the implementation says about the code. There
// a test can put a fault in front of any call (set_fault). What has to be given back is held by
// the handle classes below, whose destructors never throw; a failing release is counted
// (failed_releases), because a device that fails there fails at the next checked call too.
//
// Thread safety: one thread at a time for each Runtime. The Runtime must outlive its handles.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace cuvae::cuda {

struct Dim3 {
  std::uint32_t x = 1;
  std::uint32_t y = 1;
  std::uint32_t z = 1;
};

struct Properties {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  int multiprocessors = 0;
  int max_threads_per_block = 0;
  int max_threads_per_multiprocessor = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t shared_bytes_per_block = 0;        // without opting in
  std::int64_t shared_bytes_per_block_optin = 0;  // the most a kernel can ask for
  std::int64_t shared_bytes_per_multiprocessor = 0;
  std::int64_t l2_bytes = 0;
  bool cooperative_launch = false;
};

struct Memory {
  std::int64_t free_bytes = 0;
  std::int64_t total_bytes = 0;
};

// A device function as its launcher knows it.
struct Kernel {
  const void* function = nullptr;
  std::string_view name;  // for messages and ranges
};

// Memory that a launch may touch. CUDA takes no notice of it; the SIMT runner holds kernels to it.
struct Access {
  void* memory = nullptr;
  std::size_t bytes = 0;
  bool write = false;
  bool early = false;  // read before the kernel waits for its producers
};

struct LaunchShape {
  Dim3 grid = {};
  Dim3 block = {};
  std::size_t shared_bytes = 0;           // dynamic
  bool cooperative = false;               // all blocks run at once
  bool programmatic = false;              // may start before the kernel before it has ended
  std::span<const Access> accesses = {};  // none: not said
};

enum class Call : std::uint8_t {
  device_count,
  properties,
  set_device,
  memory,
  synchronize,
  allocate,
  allocate_host,
  copy_to_device,
  copy_to_host,
  copy_on_device,
  fill,
  create_stream,
  synchronize_stream,
  wait_event,
  create_event,
  record_event,
  synchronize_event,
  elapsed,
  begin_capture,
  end_capture,
  instantiate,
  launch_graph,
  occupancy,
  set_shared_limit,
  launch,
  load,
  release,  // of any handle; its failures are counted, not thrown
};
[[nodiscard]] std::string_view name_of(Call call) noexcept;

// What an implementation's codes mean. 0 is success in all of them.
enum class Failure : std::uint8_t { other, out_of_memory };

class Runtime {
 public:
  using Code = int;
  // Returns 0 to let the call happen, or the code that it shall fail with.
  using Fault = std::function<Code(Call)>;
  using Raw = void*;  // a handle of the implementation; null is none

  virtual ~Runtime() = default;
  Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  [[nodiscard]] int device_count();
  [[nodiscard]] Properties properties(int device);
  void set_device(int device);
  [[nodiscard]] Memory memory();
  void synchronize();

  // All copies and fills are asynchronous in `stream` (host memory must be pinned for that) and
  // take sizes in bytes; 0 bytes is nothing to do.
  void copy_to_device(void* to, const void* from, std::size_t bytes, Raw stream);
  void copy_to_host(void* to, const void* from, std::size_t bytes, Raw stream);
  void copy_on_device(void* to, const void* from, std::size_t bytes, Raw stream);
  void fill(void* to, std::uint8_t value, std::size_t bytes, Raw stream);

  // Blocks of `kernel` that fit one multiprocessor at once.
  [[nodiscard]] int occupancy(const Kernel& kernel, int block_threads, std::size_t shared_bytes);
  // Lets `kernel` use that much dynamic shared memory, or more if it was let before.
  void set_shared_limit(const Kernel& kernel, std::size_t bytes);
  // `arguments` point to the kernel's parameters, in order. Throws for an empty grid or block.
  void launch(const Kernel& kernel, const LaunchShape& shape, std::span<void* const> arguments,
              Raw stream);
  // Makes the kernel's code ready, which may not happen while a capture is open.
  void load(const Kernel& kernel);

  // A named range for profilers, around what is called until range_pop(); nothing where there is no
  // profiler. Ranges nest.
  virtual void range_push(std::string_view) noexcept {}
  virtual void range_pop() noexcept {}
  // What the implementation calls itself, for the record of a run: "CUDA 13.0".
  [[nodiscard]] virtual std::string version() const { return {}; }
  // Why the kernels of this build cannot run on such a GPU; empty where they can.
  [[nodiscard]] virtual std::string unsuitable(const Properties&) const { return {}; }
  // The architecture (90 for sm_90) whose code would run on such a GPU: below its own where only
  // older code or PTX was compiled.
  [[nodiscard]] virtual int code_architecture(const Properties& gpu) const {
    return 10 * gpu.major + gpu.minor;
  }

  void set_fault(Fault fault) { fault_ = std::move(fault); }
  [[nodiscard]] int failed_releases() const noexcept { return failed_releases_; }

 protected:
  virtual Code do_device_count(int& count) = 0;
  virtual Code do_properties(int device, Properties& properties) = 0;
  virtual Code do_set_device(int device) = 0;
  virtual Code do_memory(Memory& memory) = 0;
  virtual Code do_synchronize() = 0;
  virtual Code do_allocate(std::size_t bytes, Raw& pointer) = 0;
  virtual Code do_release_memory(Raw pointer) noexcept = 0;
  virtual Code do_allocate_host(std::size_t bytes, Raw& pointer) = 0;
  virtual Code do_release_host(Raw pointer) noexcept = 0;
  virtual Code do_copy_to_device(void* to, const void* from, std::size_t bytes, Raw stream) = 0;
  virtual Code do_copy_to_host(void* to, const void* from, std::size_t bytes, Raw stream) = 0;
  virtual Code do_copy_on_device(void* to, const void* from, std::size_t bytes, Raw stream) = 0;
  virtual Code do_fill(void* to, std::uint8_t value, std::size_t bytes, Raw stream) = 0;
  virtual Code do_create_stream(Raw& stream) = 0;
  virtual Code do_synchronize_stream(Raw stream) = 0;
  virtual Code do_wait_event(Raw stream, Raw event) = 0;
  virtual Code do_release_stream(Raw stream) noexcept = 0;
  virtual Code do_create_event(bool timing, Raw& event) = 0;
  virtual Code do_record_event(Raw event, Raw stream) = 0;
  virtual Code do_synchronize_event(Raw event) = 0;
  virtual Code do_elapsed(Raw start, Raw stop, float& milliseconds) = 0;
  virtual Code do_release_event(Raw event) noexcept = 0;
  virtual Code do_begin_capture(Raw stream) = 0;
  virtual Code do_end_capture(Raw stream, Raw& graph) = 0;
  virtual Code do_instantiate(Raw graph, Raw& executable) = 0;
  virtual Code do_launch_graph(Raw executable, Raw stream) = 0;
  virtual Code do_release_graph(Raw graph) noexcept = 0;
  virtual Code do_release_executable(Raw executable) noexcept = 0;
  virtual Code do_occupancy(const Kernel& kernel, int block_threads, std::size_t shared_bytes,
                            int& blocks) = 0;
  virtual Code do_set_shared_limit(const Kernel& kernel, std::size_t bytes) = 0;
  virtual Code do_launch(const Kernel& kernel, const LaunchShape& shape,
                         std::span<void* const> arguments, Raw stream) = 0;
  virtual Code do_load(const Kernel&) { return 0; }
  // "out of memory (cudaErrorMemoryAllocation)", and what kind of failure it is.
  [[nodiscard]] virtual std::string text_of(Code code) const = 0;
  [[nodiscard]] virtual Failure kind_of(Code code) const noexcept = 0;

 private:
  friend class DeviceBuffer;
  friend class HostBuffer;
  friend class Stream;
  friend class Event;
  friend class CapturedGraph;
  friend class GraphExec;
  friend class Capture;

  template <class F>
  void call(Call which, std::string_view context, F&& f) {
    Code code = fault_ ? fault_(which) : 0;
    if (code == 0) code = std::forward<F>(f)();
    if (code != 0) fail(which, code, context);
  }
  [[noreturn]] void fail(Call which, Code code, std::string_view context);
  void* allocate(Call which, std::size_t bytes, std::string_view what);
  void count_release(Code code) noexcept {
    if (code != 0) ++failed_releases_;
  }

  Fault fault_;
  std::unordered_map<const void*, std::size_t> shared_limits_;  // by kernel
  int failed_releases_ = 0;
};

// What all handles have in common: move-only, empty when default-made or moved from.
// `Derived::release(Runtime&, Raw)` gives the handle back.
template <class Derived>
class Handle {
 public:
  Handle() = default;
  Handle(Handle&& other) noexcept
      : runtime_(std::exchange(other.runtime_, nullptr)),
        raw_(std::exchange(other.raw_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      runtime_ = std::exchange(other.runtime_, nullptr);
      raw_ = std::exchange(other.raw_, nullptr);
    }
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { reset(); }

  [[nodiscard]] Runtime::Raw get() const noexcept { return raw_; }
  explicit operator bool() const noexcept { return raw_ != nullptr; }

 protected:
  Handle(Runtime* runtime, Runtime::Raw raw) noexcept : runtime_(runtime), raw_(raw) {}
  void reset() noexcept {
    if (raw_ != nullptr) Derived::release(*runtime_, raw_);
    runtime_ = nullptr;
    raw_ = nullptr;
  }
  Runtime* runtime_ = nullptr;
  Runtime::Raw raw_ = nullptr;
};

// Device memory. `what` names it in the message where there is too little of it. 0 bytes is a
// buffer without memory.
class DeviceBuffer : public Handle<DeviceBuffer> {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Runtime& runtime, std::size_t bytes, std::string_view what = "memory");
  [[nodiscard]] std::size_t bytes() const noexcept { return get() == nullptr ? 0 : bytes_; }

 private:
  friend class Handle<DeviceBuffer>;
  static void release(Runtime& runtime, Runtime::Raw raw) noexcept;
  std::size_t bytes_ = 0;
};

// Pinned host memory, for copies that do not wait.
class HostBuffer : public Handle<HostBuffer> {
 public:
  HostBuffer() = default;
  HostBuffer(Runtime& runtime, std::size_t bytes, std::string_view what = "host memory");
  [[nodiscard]] std::size_t bytes() const noexcept { return get() == nullptr ? 0 : bytes_; }

 private:
  friend class Handle<HostBuffer>;
  static void release(Runtime& runtime, Runtime::Raw raw) noexcept;
  std::size_t bytes_ = 0;
};

class Event : public Handle<Event> {
 public:
  Event() = default;
  explicit Event(Runtime& runtime, bool timing = false);
  void record(Runtime::Raw stream);
  void synchronize();
  // From `start` to this one; both recorded, both with timing.
  [[nodiscard]] float milliseconds_since(const Event& start);

 private:
  friend class Handle<Event>;
  static void release(Runtime& runtime, Runtime::Raw raw) noexcept;
};

class Stream : public Handle<Stream> {
 public:
  Stream() = default;
  explicit Stream(Runtime& runtime);
  void synchronize();
  void wait(const Event& event);  // what follows in this stream starts after the event

 private:
  friend class Handle<Stream>;
  static void release(Runtime& runtime, Runtime::Raw raw) noexcept;
};

// A graph made ready to run.
class GraphExec : public Handle<GraphExec> {
 public:
  GraphExec() = default;
  void launch(Runtime::Raw stream);

 private:
  friend class Handle<GraphExec>;
  friend class CapturedGraph;
  GraphExec(Runtime* runtime, Runtime::Raw raw) noexcept : Handle(runtime, raw) {}
  static void release(Runtime& runtime, Runtime::Raw raw) noexcept;
};

// Captured work.
class CapturedGraph : public Handle<CapturedGraph> {
 public:
  CapturedGraph() = default;
  [[nodiscard]] GraphExec instantiate() const;

 private:
  friend class Handle<CapturedGraph>;
  friend class Capture;
  CapturedGraph(Runtime* runtime, Runtime::Raw raw) noexcept : Handle(runtime, raw) {}
  static void release(Runtime& runtime, Runtime::Raw raw) noexcept;
};

// Records what is put into `stream` (which must outlive it) from here to finish(). Without
// finish(), as when an exception passes, the recording is thrown away.
class Capture {
 public:
  Capture(Runtime& runtime, const Stream& stream);
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture();
  [[nodiscard]] CapturedGraph finish();

 private:
  Runtime* runtime_;
  Runtime::Raw stream_;
  bool open_ = true;
};

}  // namespace cuvae::cuda
