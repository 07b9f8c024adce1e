#include "cuda/runtime.h"

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae::cuda {
namespace {

std::string bytes_text(std::size_t bytes) {
  return format_bytes(static_cast<std::int64_t>(bytes));
}

std::string dim_text(const Dim3& d) {
  return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z);
}

std::string launch_text(const Kernel& kernel, const LaunchShape& shape) {
  return std::string(kernel.name) + ", grid " + dim_text(shape.grid) + ", block " +
         dim_text(shape.block) + ", " + std::to_string(shape.shared_bytes) +
         " bytes of shared memory";
}

bool empty(const Dim3& d) {
  return d.x == 0 || d.y == 0 || d.z == 0;
}

}  // namespace

std::string_view name_of(Call call) noexcept {
  switch (call) {
    case Call::device_count: return "counting the GPUs";
    case Call::properties: return "asking for a GPU's properties";
    case Call::set_device: return "choosing a GPU";
    case Call::memory: return "asking for the free memory";
    case Call::synchronize: return "waiting for the GPU";
    case Call::allocate: return "allocating GPU memory";
    case Call::allocate_host: return "allocating pinned host memory";
    case Call::copy_to_device: return "copying to the GPU";
    case Call::copy_to_host: return "copying from the GPU";
    case Call::copy_on_device: return "copying on the GPU";
    case Call::fill: return "filling GPU memory";
    case Call::create_stream: return "making a stream";
    case Call::synchronize_stream: return "waiting for a stream";
    case Call::wait_event: return "making a stream wait";
    case Call::create_event: return "making an event";
    case Call::record_event: return "recording an event";
    case Call::synchronize_event: return "waiting for an event";
    case Call::elapsed: return "measuring time";
    case Call::begin_capture: return "beginning a capture";
    case Call::end_capture: return "ending a capture";
    case Call::instantiate: return "instantiating a graph";
    case Call::launch_graph: return "launching a graph";
    case Call::occupancy: return "asking for a kernel's occupancy";
    case Call::set_shared_limit: return "raising a kernel's shared memory";
    case Call::launch: return "launching a kernel";
    case Call::load: return "loading a kernel";
    case Call::release: return "giving a resource back";
  }
  return "an unknown call";
}

void Runtime::fail(Call which, Code code, std::string_view context) {
  std::string what = "CUDA: ";
  what.append(name_of(which)).append(" failed, ").append(text_of(code));
  std::string_view mend;
  if (kind_of(code) == Failure::out_of_memory) {
    Memory m;
    if (do_memory(m) == 0) {
      what.append("; ").append(format_bytes(m.free_bytes)).append(" of ");
      what.append(format_bytes(m.total_bytes)).append(" are free");
    }
    mend = "use a smaller batch, or end other programs on this GPU";
  }
  throw Error(Status::device, what, context, mend);
}

void* Runtime::allocate(Call which, std::size_t bytes, std::string_view what) {
  Raw pointer = nullptr;
  if (bytes == 0) return pointer;
  call(which, std::string(what) + ", " + bytes_text(bytes), [&] {
    return which == Call::allocate ? do_allocate(bytes, pointer) : do_allocate_host(bytes, pointer);
  });
  return pointer;
}

int Runtime::device_count() {
  int count = 0;
  call(Call::device_count, {}, [&] { return do_device_count(count); });
  return count;
}

Properties Runtime::properties(int device) {
  Properties p;
  call(Call::properties, "cuda:" + std::to_string(device),
       [&] { return do_properties(device, p); });
  return p;
}

void Runtime::set_device(int device) {
  call(Call::set_device, "cuda:" + std::to_string(device), [&] { return do_set_device(device); });
}

Memory Runtime::memory() {
  Memory m;
  call(Call::memory, {}, [&] { return do_memory(m); });
  return m;
}

void Runtime::synchronize() {
  call(Call::synchronize, {}, [&] { return do_synchronize(); });
}

void Runtime::copy_to_device(void* to, const void* from, std::size_t bytes, Raw stream) {
  if (bytes == 0) return;
  call(Call::copy_to_device, bytes_text(bytes),
       [&] { return do_copy_to_device(to, from, bytes, stream); });
}

void Runtime::copy_to_host(void* to, const void* from, std::size_t bytes, Raw stream) {
  if (bytes == 0) return;
  call(Call::copy_to_host, bytes_text(bytes),
       [&] { return do_copy_to_host(to, from, bytes, stream); });
}

void Runtime::copy_on_device(void* to, const void* from, std::size_t bytes, Raw stream) {
  if (bytes == 0) return;
  call(Call::copy_on_device, bytes_text(bytes),
       [&] { return do_copy_on_device(to, from, bytes, stream); });
}

void Runtime::fill(void* to, std::uint8_t value, std::size_t bytes, Raw stream) {
  if (bytes == 0) return;
  call(Call::fill, bytes_text(bytes), [&] { return do_fill(to, value, bytes, stream); });
}

int Runtime::occupancy(const Kernel& kernel, int block_threads, std::size_t shared_bytes) {
  int blocks = 0;
  call(Call::occupancy, kernel.name,
       [&] { return do_occupancy(kernel, block_threads, shared_bytes, blocks); });
  return blocks;
}

void Runtime::set_shared_limit(const Kernel& kernel, std::size_t bytes) {
  // All programs of a device share their kernels: what one was given another may not take away.
  std::size_t& limit = shared_limits_[kernel.function];
  if (bytes <= limit) return;
  call(Call::set_shared_limit, std::string(kernel.name) + ", " + bytes_text(bytes),
       [&] { return do_set_shared_limit(kernel, bytes); });
  limit = bytes;
}

void Runtime::launch(const Kernel& kernel, const LaunchShape& shape,
                     std::span<void* const> arguments, Raw stream) {
  if (empty(shape.grid) || empty(shape.block)) {
    throw Error(Status::device, "CUDA: an empty launch", launch_text(kernel, shape));
  }
  // The text is made for failures only: launches are on the hot path.
  Code code = fault_ ? fault_(Call::launch) : 0;
  if (code == 0) code = do_launch(kernel, shape, arguments, stream);
  if (code != 0) fail(Call::launch, code, launch_text(kernel, shape));
}

void Runtime::load(const Kernel& kernel) {
  call(Call::load, kernel.name, [&] { return do_load(kernel); });
}

DeviceBuffer::DeviceBuffer(Runtime& runtime, std::size_t bytes, std::string_view what)
    : Handle(&runtime, runtime.allocate(Call::allocate, bytes, what)), bytes_(bytes) {}
void DeviceBuffer::release(Runtime& runtime, Runtime::Raw raw) noexcept {
  runtime.count_release(runtime.do_release_memory(raw));
}

HostBuffer::HostBuffer(Runtime& runtime, std::size_t bytes, std::string_view what)
    : Handle(&runtime, runtime.allocate(Call::allocate_host, bytes, what)), bytes_(bytes) {}
void HostBuffer::release(Runtime& runtime, Runtime::Raw raw) noexcept {
  runtime.count_release(runtime.do_release_host(raw));
}

Event::Event(Runtime& runtime, bool timing) {
  Runtime::Raw raw = nullptr;
  runtime.call(Call::create_event, {}, [&] { return runtime.do_create_event(timing, raw); });
  runtime_ = &runtime;
  raw_ = raw;
}
void Event::record(Runtime::Raw stream) {
  runtime_->call(Call::record_event, {}, [&] { return runtime_->do_record_event(raw_, stream); });
}
void Event::synchronize() {
  runtime_->call(Call::synchronize_event, {}, [&] { return runtime_->do_synchronize_event(raw_); });
}
float Event::milliseconds_since(const Event& start) {
  float milliseconds = 0.0f;
  runtime_->call(Call::elapsed, {},
                 [&] { return runtime_->do_elapsed(start.raw_, raw_, milliseconds); });
  return milliseconds;
}
void Event::release(Runtime& runtime, Runtime::Raw raw) noexcept {
  runtime.count_release(runtime.do_release_event(raw));
}

Stream::Stream(Runtime& runtime) {
  Runtime::Raw raw = nullptr;
  runtime.call(Call::create_stream, {}, [&] { return runtime.do_create_stream(raw); });
  runtime_ = &runtime;
  raw_ = raw;
}
void Stream::synchronize() {
  runtime_->call(Call::synchronize_stream, {},
                 [&] { return runtime_->do_synchronize_stream(raw_); });
}
void Stream::wait(const Event& event) {
  runtime_->call(Call::wait_event, {}, [&] { return runtime_->do_wait_event(raw_, event.get()); });
}
void Stream::release(Runtime& runtime, Runtime::Raw raw) noexcept {
  runtime.count_release(runtime.do_release_stream(raw));
}

void GraphExec::launch(Runtime::Raw stream) {
  runtime_->call(Call::launch_graph, {}, [&] { return runtime_->do_launch_graph(raw_, stream); });
}
void GraphExec::release(Runtime& runtime, Runtime::Raw raw) noexcept {
  runtime.count_release(runtime.do_release_executable(raw));
}

GraphExec CapturedGraph::instantiate() const {
  Runtime::Raw executable = nullptr;
  runtime_->call(Call::instantiate, {}, [&] { return runtime_->do_instantiate(raw_, executable); });
  return {runtime_, executable};
}
void CapturedGraph::release(Runtime& runtime, Runtime::Raw raw) noexcept {
  runtime.count_release(runtime.do_release_graph(raw));
}

Capture::Capture(Runtime& runtime, const Stream& stream)
    : runtime_(&runtime), stream_(stream.get()) {
  runtime.call(Call::begin_capture, {}, [&] { return runtime.do_begin_capture(stream_); });
}

CapturedGraph Capture::finish() {
  Runtime::Raw graph = nullptr;
  // A fault leaves the capture open, so that the destructor ends it.
  runtime_->call(Call::end_capture, {}, [&] {
    open_ = false;
    return runtime_->do_end_capture(stream_, graph);
  });
  return {runtime_, graph};
}

Capture::~Capture() {
  if (!open_) return;
  Runtime::Raw graph = nullptr;
  try {
    // What is thrown away need not be whole: streams that were not joined yet make this fail.
    static_cast<void>(runtime_->do_end_capture(stream_, graph));
  } catch (...) {  // an implementation that throws here has failed to release
    runtime_->count_release(1);
  }
  if (graph != nullptr) runtime_->count_release(runtime_->do_release_graph(graph));
}

}  // namespace cuvae::cuda
