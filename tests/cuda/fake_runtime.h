#pragma once
// The CUDA door on the CPU, for tests of what stands before it: work runs at once, memory comes
// from the heap, every resource is counted, and a captured stream records what it is given.

#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "cuda/runtime.h"

namespace cuvae::cuda {

class FakeRuntime : public Runtime {
 public:
  static constexpr Code out_of_memory = 2;
  static constexpr Code broken = 7;
  using Function = void (*)(void* const* arguments);
  struct Work {
    std::vector<std::function<void()>> tasks;
  };

  std::int64_t capacity = std::int64_t{1} << 30;
  std::int64_t used = 0;
  std::set<void*> live;  // whatever was made and not given back
  Code release_code = 0;
  std::vector<std::string> log;

 protected:
  Code do_device_count(int& count) override {
    count = 1;
    return 0;
  }
  Code do_properties(int device, Properties& properties) override {
    if (device != 0) return broken;
    properties.name = "fake";
    properties.multiprocessors = 1;
    return 0;
  }
  Code do_set_device(int device) override { return device == 0 ? 0 : broken; }
  Code do_memory(Memory& memory) override {
    memory = {capacity - used, capacity};
    return 0;
  }
  Code do_synchronize() override { return 0; }

  Code do_allocate(std::size_t bytes, Raw& pointer) override {
    if (used + static_cast<std::int64_t>(bytes) > capacity) return out_of_memory;
    pointer = std::malloc(bytes);
    used += static_cast<std::int64_t>(bytes);
    live.insert(pointer);
    return 0;
  }
  Code do_release_memory(Raw pointer) noexcept override {
    const Code code = forget(pointer);
    std::free(pointer);
    return code;
  }
  Code do_allocate_host(std::size_t bytes, Raw& pointer) override {
    return do_allocate(bytes, pointer);
  }
  Code do_release_host(Raw pointer) noexcept override { return do_release_memory(pointer); }

  Code do_copy_to_device(void* to, const void* from, std::size_t bytes, Raw) override {
    return put([=] { std::memcpy(to, from, bytes); });
  }
  Code do_copy_to_host(void* to, const void* from, std::size_t bytes, Raw) override {
    return put([=] { std::memcpy(to, from, bytes); });
  }
  Code do_copy_on_device(void* to, const void* from, std::size_t bytes, Raw) override {
    return put([=] { std::memcpy(to, from, bytes); });
  }
  Code do_fill(void* to, std::uint8_t value, std::size_t bytes, Raw) override {
    return put([=] { std::memset(to, value, bytes); });
  }

  Code do_create_stream(Raw& stream) override { return make(stream); }
  Code do_synchronize_stream(Raw) override { return 0; }
  Code do_wait_event(Raw, Raw) override { return 0; }
  Code do_release_stream(Raw stream) noexcept override { return unmake(stream); }
  Code do_create_event(bool, Raw& event) override { return make(event); }
  Code do_record_event(Raw, Raw) override { return 0; }
  Code do_synchronize_event(Raw) override { return 0; }
  Code do_elapsed(Raw, Raw, float& milliseconds) override {
    milliseconds = 1.5f;
    return 0;
  }
  Code do_release_event(Raw event) noexcept override { return unmake(event); }

  Code do_begin_capture(Raw) override {
    if (capturing_ != nullptr) return broken;
    capturing_ = new Work;
    live.insert(capturing_);
    return 0;
  }
  Code do_end_capture(Raw, Raw& graph) override {
    if (capturing_ == nullptr) return broken;
    graph = std::exchange(capturing_, nullptr);
    return 0;
  }
  Code do_instantiate(Raw graph, Raw& executable) override {
    executable = new Work(*static_cast<Work*>(graph));
    live.insert(executable);
    return 0;
  }
  Code do_launch_graph(Raw executable, Raw) override {
    for (const auto& task : static_cast<Work*>(executable)->tasks) task();
    return 0;
  }
  Code do_release_graph(Raw graph) noexcept override {
    const Code code = forget(graph);
    delete static_cast<Work*>(graph);
    return code;
  }
  Code do_release_executable(Raw executable) noexcept override {
    return do_release_graph(executable);
  }

  Code do_occupancy(const Kernel&, int block_threads, std::size_t, int& blocks) override {
    blocks = 2048 / block_threads;
    return 0;
  }
  Code do_set_shared_limit(const Kernel&, std::size_t bytes) override {
    return bytes <= 1024 ? 0 : broken;
  }
  Code do_launch(const Kernel& kernel, const LaunchShape&, std::span<void* const> arguments,
                 Raw) override {
    // As in CUDA, the values of the arguments are those at the launch: here one int*.
    int* target = *static_cast<int**>(arguments[0]);
    const auto function = reinterpret_cast<Function>(const_cast<void*>(kernel.function));
    return put([=] {
      void* argument = target;
      function(&argument);
    });
  }

  std::string text_of(Code code) const override {
    return code == out_of_memory ? "out of memory" : "broken, code " + std::to_string(code);
  }
  Failure kind_of(Code code) const noexcept override {
    return code == out_of_memory ? Failure::out_of_memory : Failure::other;
  }

 private:
  template <class F>
  Code put(F&& task) {
    if (capturing_ != nullptr) {
      capturing_->tasks.emplace_back(std::forward<F>(task));
    } else {
      task();
    }
    return 0;
  }
  Code make(Raw& raw) {
    raw = new char;
    live.insert(raw);
    return 0;
  }
  Code unmake(Raw raw) noexcept {
    const Code code = forget(raw);
    delete static_cast<char*>(raw);
    return code;
  }
  Code forget(Raw raw) noexcept {
    live.erase(raw);
    return release_code;
  }
  Work* capturing_ = nullptr;
};

}  // namespace cuvae::cuda
