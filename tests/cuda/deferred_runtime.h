#pragma once
// A GPU that does its work as late as it may, and in any order that streams and events allow:
// nothing is done before somebody waits for it. Memory starts as garbage, host memory is read and
// written when a copy is done, not when it is asked for. Kernels are host functions.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cuda/encoder.h"
#include "cuda/runtime.h"

namespace cuvae::cuda {

// A kernel as this runtime knows it.
struct HostKernel {
  std::vector<std::size_t> sizes;  // of the parameters
  void (*invoke)(void* const* arguments);
};

template <auto function, class... P, std::size_t... I>
const HostKernel& host_kernel(void (*)(P...), std::index_sequence<I...>) {
  static const HostKernel kernel{
      {sizeof(P)...}, [](void* const* arguments) { function(*static_cast<P*>(arguments[I])...); }};
  return kernel;
}
// typed_kernel<f>(f, "f"): f as something that an encoder launches.
template <auto function, class... P>
TypedKernel<P...> typed_kernel(void (*pointer)(P...), std::string_view name) {
  return {{&host_kernel<function>(pointer, std::index_sequence_for<P...>()), name}};
}

class DeferredRuntime : public Runtime {
 public:
  static constexpr Code out_of_memory = 2;
  static constexpr Code broken = 7;
  static constexpr Code deadlock = 8;
  static constexpr Code unjoined = 9;
  static constexpr Code misused = 10;

  struct Launch {
    std::string kernel;
    LaunchShape shape;
    std::vector<Access> accesses;
    bool captured = false;
  };

  explicit DeferredRuntime(std::uint64_t seed = 1) : random_(seed) {
    properties_.name = "a deferred GPU";
    properties_.major = 9;
    properties_.multiprocessors = 4;
    properties_.max_threads_per_block = 1024;
    properties_.max_threads_per_multiprocessor = 2048;
    properties_.shared_bytes_per_block = 48 * 1024;
    properties_.shared_bytes_per_block_optin = 200 * 1024;
    properties_.cooperative_launch = true;
  }
  ~DeferredRuntime() override {
    for (void* const memory : live_memory_) std::free(memory);
  }

  // These two outlive it: what was made and not given back, memory included, and what no GPU would
  // forgive.
  std::shared_ptr<int> handles = std::make_shared<int>(0);
  std::shared_ptr<std::vector<std::string>> violations =
      std::make_shared<std::vector<std::string>>();
  std::int64_t capacity = std::int64_t{1} << 30;
  std::int64_t used = 0;
  std::int64_t executed = 0;        // pieces of work done
  std::int64_t uploaded = 0;        // bytes copied to the device, when asked for
  std::vector<Launch> launches;     // as they were asked for
  std::vector<std::string> ranges;  // profiler ranges that are open
  std::set<std::string> seen_ranges;
  Properties properties_;

  [[nodiscard]] bool idle() const {
    return std::all_of(streams_.begin(), streams_.end(),
                       [](const auto& stream) { return stream->queue.empty(); });
  }
  void range_push(std::string_view name) noexcept override {
    ranges.emplace_back(name);
    seen_ranges.emplace(name);
  }
  void range_pop() noexcept override { ranges.pop_back(); }
  [[nodiscard]] std::string version() const override { return "deferred"; }

 protected:
  Code do_device_count(int& count) override {
    count = 1;
    return 0;
  }
  Code do_properties(int device, Properties& properties) override {
    properties = properties_;
    return device == 0 ? 0 : broken;
  }
  Code do_set_device(int device) override { return device == 0 ? 0 : broken; }
  Code do_memory(Memory& memory) override {
    memory = {capacity - used, capacity};
    return 0;
  }
  Code do_synchronize() override {
    return run_until([this] { return idle(); });
  }

  Code do_allocate(std::size_t bytes, Raw& pointer) override {
    if (capturing_) return misused;
    if (used + static_cast<std::int64_t>(bytes) > capacity) return out_of_memory;
    pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(pointer, 0xCB, bytes);
    extents_[pointer] = bytes;
    sizes_[pointer] = static_cast<std::int64_t>(bytes);
    used += static_cast<std::int64_t>(bytes);
    live_memory_.insert(pointer);
    ++*handles;
    return 0;
  }
  Code do_release_memory(Raw pointer) noexcept override {
    if (awaited(pointer)) violations->emplace_back("memory given back while work was waiting");
    used -= sizes_[pointer];
    live_memory_.erase(pointer);
    std::free(pointer);
    --*handles;
    return 0;
  }
  Code do_allocate_host(std::size_t bytes, Raw& pointer) override {
    const Code code = do_allocate(bytes, pointer);
    if (code == 0) {
      used -= static_cast<std::int64_t>(bytes);
      sizes_[pointer] = 0;
    }
    return code;
  }
  Code do_release_host(Raw pointer) noexcept override { return do_release_memory(pointer); }

  Code do_copy_to_device(void* to, const void* from, std::size_t bytes, Raw stream) override {
    uploaded += static_cast<std::int64_t>(bytes);
    return put(stream, {{to, bytes}, {from, bytes}}, [=] { std::memcpy(to, from, bytes); });
  }
  Code do_copy_to_host(void* to, const void* from, std::size_t bytes, Raw stream) override {
    return put(stream, {{to, bytes}, {from, bytes}}, [=] { std::memcpy(to, from, bytes); });
  }
  Code do_copy_on_device(void* to, const void* from, std::size_t bytes, Raw stream) override {
    return put(stream, {{to, bytes}, {from, bytes}}, [=] { std::memcpy(to, from, bytes); });
  }
  Code do_fill(void* to, std::uint8_t value, std::size_t bytes, Raw stream) override {
    return put(stream, {{to, bytes}}, [=] { std::memset(to, value, bytes); });
  }

  Code do_create_stream(Raw& stream) override {
    streams_.push_back(std::make_unique<FakeStream>());
    stream = streams_.back().get();
    ++*handles;
    return 0;
  }
  Code do_synchronize_stream(Raw stream) override {
    if (capturing_) return misused;
    return run_until([=] { return static_cast<FakeStream*>(stream)->queue.empty(); });
  }
  Code do_wait_event(Raw stream, Raw raw) override {
    auto* const to = static_cast<FakeStream*>(stream);
    auto* const event = static_cast<FakeEvent*>(raw);
    if (capturing_ && event->capture == capturing_) {
      to->capture = capturing_;
      to->last.insert(event->nodes.begin(), event->nodes.end());
      return 0;
    }
    if (to->capture != nullptr) return misused;  // waits for what is outside the capture
    const std::uint64_t version = event->recorded;
    if (version > 0) to->queue.push_back({[] {}, {}, event, version, nullptr, 0, nullptr});
    return 0;
  }
  Code do_release_stream(Raw stream) noexcept override {
    if (!static_cast<FakeStream*>(stream)->queue.empty())
      violations->emplace_back("a stream given back while work was waiting");
    std::erase_if(streams_, [=](const auto& each) { return each.get() == stream; });
    --*handles;
    return 0;
  }
  Code do_create_event(bool, Raw& event) override {
    event = new FakeEvent;
    ++*handles;
    return 0;
  }
  Code do_record_event(Raw raw, Raw stream) override {
    auto* const from = static_cast<FakeStream*>(stream);
    auto* const event = static_cast<FakeEvent*>(raw);
    if (from->capture != nullptr) {
      event->capture = from->capture;
      event->nodes = from->last;
      return 0;
    }
    event->capture = nullptr;
    from->queue.push_back({[] {}, {}, nullptr, 0, event, ++event->recorded, nullptr});
    return 0;
  }
  Code do_synchronize_event(Raw raw) override {
    auto* const event = static_cast<FakeEvent*>(raw);
    return run_until([event, version = event->recorded] { return event->done >= version; });
  }
  Code do_elapsed(Raw, Raw, float& milliseconds) override {
    milliseconds = 1;
    return 0;
  }
  Code do_release_event(Raw raw) noexcept override {
    // As in CUDA, one that is still waited for lives until then.
    auto* const event = static_cast<FakeEvent*>(raw);
    retired_.emplace_back(event);
    --*handles;
    return 0;
  }

  Code do_begin_capture(Raw stream) override {
    if (capturing_) return misused;
    captures_.push_back(std::make_unique<Work>());
    capturing_ = captures_.back().get();
    origin_ = static_cast<FakeStream*>(stream);
    origin_->capture = capturing_;
    origin_->last.clear();
    return 0;
  }
  Code do_end_capture(Raw stream, Raw& graph) override {
    if (!capturing_ || stream != origin_) return misused;
    // Everything must lead to what the origin follows.
    std::set<std::size_t> joined = origin_->last;
    for (std::size_t n = capturing_->nodes.size(); n-- > 0;)
      if (joined.count(n) != 0)
        joined.insert(capturing_->nodes[n].after.begin(), capturing_->nodes[n].after.end());
    const bool whole = joined.size() == capturing_->nodes.size();
    for (const auto& each : streams_) {
      each->capture = nullptr;
      each->last.clear();
    }
    Work* const work = std::exchange(capturing_, nullptr);
    if (!whole) return unjoined;
    graph = new Work(*work);
    ++*handles;
    return 0;
  }
  Code do_instantiate(Raw graph, Raw& executable) override {
    executable = new Work(*static_cast<Work*>(graph));
    ++*handles;
    return 0;
  }
  Code do_launch_graph(Raw executable, Raw stream) override {
    auto* const work = static_cast<Work*>(executable);
    auto* const queue = &static_cast<FakeStream*>(stream)->queue;
    const Code code = put(stream, work->touched(), [this, work] { replay(*work); });
    if (!queue->empty()) queue->back().replays = work;
    return code;
  }
  Code do_release_graph(Raw graph) noexcept override {
    delete static_cast<Work*>(graph);
    --*handles;
    return 0;
  }
  Code do_release_executable(Raw executable) noexcept override {
    for (const auto& stream : streams_)
      for (const Task& task : stream->queue)
        if (task.replays == executable)
          violations->emplace_back("a graph given back while its run was waiting");
    return do_release_graph(executable);
  }

  Code do_occupancy(const Kernel&, int block_threads, std::size_t, int& blocks) override {
    blocks = properties_.max_threads_per_multiprocessor / block_threads;
    return 0;
  }
  Code do_set_shared_limit(const Kernel& kernel, std::size_t bytes) override {
    shared_limits[kernel.function].push_back(bytes);
    return 0;
  }
  Code do_launch(const Kernel& kernel, const LaunchShape& shape, std::span<void* const> arguments,
                 Raw stream) override {
    const auto* const function = static_cast<const HostKernel*>(kernel.function);
    if (arguments.size() != function->sizes.size()) return misused;
    launches.push_back({std::string(kernel.name),
                        shape,
                        {shape.accesses.begin(), shape.accesses.end()},
                        static_cast<FakeStream*>(stream)->capture != nullptr});
    // As in CUDA, the values of the arguments are those at the launch.
    std::vector<std::vector<std::byte>> values;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const auto* const from = static_cast<const std::byte*>(arguments[i]);
      values.emplace_back(from, from + function->sizes[i]);
    }
    Ranges touched;
    for (const Access& access : shape.accesses) touched.push_back({access.memory, access.bytes});
    return put(stream, touched, [function, values = std::move(values)]() mutable {
      std::vector<void*> pointers;
      for (auto& value : values) pointers.push_back(value.data());
      function->invoke(pointers.data());
    });
  }

  std::string text_of(Code code) const override {
    switch (code) {
      case out_of_memory: return "out of memory";
      case deadlock: return "the streams wait for each other";
      case unjoined: return "a stream of the capture was not joined";
      case misused: return "a call that is not allowed here";
      default: return "broken, code " + std::to_string(code);
    }
  }
  Failure kind_of(Code code) const noexcept override {
    return code == out_of_memory ? Failure::out_of_memory : Failure::other;
  }

 public:
  std::map<const void*, std::vector<std::size_t>> shared_limits;

 private:
  struct Range {
    const void* memory = nullptr;
    std::size_t bytes = 0;
  };
  using Ranges = std::vector<Range>;
  struct Work {
    struct Node {
      std::function<void()> task;
      std::set<std::size_t> after;
      Ranges touches;
    };
    std::vector<Node> nodes;
    [[nodiscard]] Ranges touched() const {
      Ranges all;
      for (const Node& node : nodes)
        all.insert(all.end(), node.touches.begin(), node.touches.end());
      return all;
    }
  };
  struct FakeEvent {
    std::uint64_t recorded = 0;
    std::uint64_t done = 0;
    Work* capture = nullptr;
    std::set<std::size_t> nodes;  // of the capture
  };
  struct Task {
    std::function<void()> work;
    Ranges touches;
    FakeEvent* waits = nullptr;
    std::uint64_t waits_version = 0;
    FakeEvent* records = nullptr;
    std::uint64_t records_version = 0;
    const void* replays = nullptr;  // a graph
  };
  struct FakeStream {
    std::deque<Task> queue;
    Work* capture = nullptr;
    std::set<std::size_t> last;  // nodes of the capture that what comes next follows
  };

  template <class F>
  Code put(Raw raw, Ranges touches, F&& task) {
    auto* const stream = static_cast<FakeStream*>(raw);
    if (stream->capture != nullptr) {
      stream->capture->nodes.push_back({std::forward<F>(task), stream->last, std::move(touches)});
      stream->last = {stream->capture->nodes.size() - 1};
      return 0;
    }
    stream->queue.push_back(
        {std::forward<F>(task), std::move(touches), nullptr, 0, nullptr, 0, nullptr});
    return 0;
  }

  // Whether work that is not done yet touches that memory.
  [[nodiscard]] bool awaited(Raw memory) {
    const auto* const begin = static_cast<const std::byte*>(memory);
    const std::byte* const end = begin + extents_[memory];
    for (const auto& stream : streams_)
      for (const Task& task : stream->queue)
        for (const Range& range : task.touches) {
          const auto* const first = static_cast<const std::byte*>(range.memory);
          if (first < end && begin < first + range.bytes) return true;
        }
    return false;
  }

  // Works on until `done`, each time on any stream that can go on.
  template <class Done>
  Code run_until(Done done) {
    while (!done()) {
      std::vector<FakeStream*> able;
      for (const auto& stream : streams_) {
        if (stream->queue.empty()) continue;
        const Task& task = stream->queue.front();
        if (task.waits == nullptr || task.waits->done >= task.waits_version)
          able.push_back(stream.get());
      }
      if (able.empty()) return deadlock;
      FakeStream* const stream = able[random_() % able.size()];
      const Task task = std::move(stream->queue.front());
      task.work();
      ++executed;
      if (task.records != nullptr)
        task.records->done = std::max(task.records->done, task.records_version);
      stream->queue.pop_front();
    }
    return 0;
  }

  // A captured graph, in any order that its edges allow.
  void replay(const Work& work) {
    std::vector<bool> done(work.nodes.size(), false);
    for (std::size_t count = 0; count < work.nodes.size(); ++count) {
      std::vector<std::size_t> able;
      for (std::size_t n = 0; n < work.nodes.size(); ++n)
        if (!done[n] && std::all_of(work.nodes[n].after.begin(), work.nodes[n].after.end(),
                                    [&](std::size_t before) { return bool(done[before]); }))
          able.push_back(n);
      const std::size_t next = able[random_() % able.size()];
      work.nodes[next].task();
      done[next] = true;
    }
  }

  std::mt19937_64 random_;
  std::vector<std::unique_ptr<FakeStream>> streams_;
  std::vector<std::unique_ptr<FakeEvent>> retired_;
  std::vector<std::unique_ptr<Work>> captures_;
  std::set<void*> live_memory_;
  std::map<void*, std::int64_t> sizes_;  // as counted in `used`
  std::map<void*, std::size_t> extents_;
  Work* capturing_ = nullptr;
  FakeStream* origin_ = nullptr;
};

}  // namespace cuvae::cuda
