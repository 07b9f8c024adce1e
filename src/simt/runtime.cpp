#include "simt/runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <unordered_map>

#include "simt/capture.h"
#include "simt/chip.h"
#include "simt/codes.h"
#include "simt/sanitizer.h"

namespace cuvae::simt {
namespace {

template <class T>
class Handles {
 public:
  void* add(std::unique_ptr<T> object) {
    void* const raw = object.get();
    objects_[raw] = std::move(object);
    return raw;
  }
  [[nodiscard]] T* find(void* raw) const {
    const auto it = objects_.find(raw);
    return it == objects_.end() ? nullptr : it->second.get();
  }
  bool remove(void* raw) { return objects_.erase(raw) != 0; }
  [[nodiscard]] std::size_t size() const noexcept { return objects_.size(); }
  [[nodiscard]] auto begin() const { return objects_.begin(); }
  [[nodiscard]] auto end() const { return objects_.end(); }

 private:
  std::unordered_map<void*, std::unique_ptr<T>> objects_;
};

class Runner final : public SimtRuntime {
 public:
  explicit Runner(const SimtOptions& options)
      : chip_(chip_of(options.chip)),
        memory_(options.memory_bytes != 0 ? options.memory_bytes : chip_.properties.memory_bytes),
        mutator_(options.mutation.kind != MutationKind::none || options.list_places
                     ? std::make_unique<Mutator>(options.mutation)
                     : nullptr),
        scheduler_(options.order, options.seed, options.async_copies,
                   static_cast<std::size_t>(chip_.properties.shared_bytes_per_block_optin),
                   options.switching, mutator_.get()),
        queue_(options.streams, options.programmatic_early, options.check_writes, options.seed,
               memory_, scheduler_),
        said_mutation_(options.say_mutation && options.mutation.kind != MutationKind::none
                           ? simt::text_of(options.mutation)
                           : "") {
    chip_.properties.memory_bytes = memory_.capacity();
    if (options.multiprocessors > 0) chip_.properties.multiprocessors = options.multiprocessors;
  }

  ~Runner() override {
    if (said_mutation_.empty() || statistics().threads == 0) return;
    std::fprintf(stderr, "cuvae-simt: mutation %s: %s\n", said_mutation_.c_str(),
                 mutator_->met() ? "made" : "no kernel came to such a place, nothing was changed");
  }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  Live live() const override {
    return {memory_.allocations(), pinned_.allocations(), streams_.size(),
            events_.size(),        graphs_.size(),        executables_.size()};
  }
  const SchedulerStatistics& statistics() const override { return scheduler_.statistics(); }
  std::vector<Mutation> places() const override {
    return mutator_ ? mutator_->places() : std::vector<Mutation>();
  }

 protected:
  Code do_device_count(int& count) override {
    count = 1;
    return success;
  }
  Code do_properties(int device, cuda::Properties& properties) override {
    if (device != 0) return invalid_device;
    properties = chip_.properties;
    return success;
  }
  Code do_set_device(int device) override { return device == 0 ? success : invalid_device; }
  Code do_memory(cuda::Memory& memory) override {
    memory = {memory_.capacity() - memory_.used(), memory_.capacity()};
    return success;
  }

  Code do_synchronize() override {
    if (spoil_captures()) return capture_unsupported;
    return wait_for_all();
  }
  Code do_allocate(std::size_t bytes, Raw& pointer) override {
    if (spoil_captures()) return capture_unsupported;
    pointer = memory_.allocate(bytes);
    return pointer != nullptr ? success : memory_allocation;
  }
  Code do_release_memory(Raw pointer) noexcept override {
    if (spoil_captures()) return capture_unsupported;
    const Code code = wait_for_all();  // cudaFree does
    if (!memory_.release(pointer)) return invalid_value;
    return keep_for_later(code);
  }
  Code do_allocate_host(std::size_t bytes, Raw& pointer) override {
    if (spoil_captures()) return capture_unsupported;
    pointer = pinned_.allocate(bytes);
    return pointer != nullptr ? success : memory_allocation;
  }
  Code do_release_host(Raw pointer) noexcept override {
    if (spoil_captures()) return capture_unsupported;
    const Code code = wait_for_all();
    if (!pinned_.release(pointer)) return invalid_value;
    return keep_for_later(code);
  }

  Code do_copy_to_device(void* to, const void* from, std::size_t bytes, Raw stream) override {
    if (!memory_.contains(to, bytes) || memory_.contains(from, 1)) return invalid_value;
    StreamState* state = stream_of(stream);
    if (state == nullptr) return invalid_resource_handle;
    Work work = copy_work(to, from, bytes);
    if (!state->capture && !pinned_.contains(from, bytes)) {
      // What is pageable is read before the call returns.
      const auto* source = static_cast<const std::byte*>(from);
      work.staged.assign(source, source + bytes);
      work.from = nullptr;
    }
    return put(*state, std::move(work), false);
  }
  Code do_copy_to_host(void* to, const void* from, std::size_t bytes, Raw stream) override {
    if (!memory_.contains(from, bytes) || memory_.contains(to, 1)) return invalid_value;
    StreamState* state = stream_of(stream);
    if (state == nullptr) return invalid_resource_handle;
    const bool pinned = pinned_.contains(to, bytes);
    // Until the copy has happened, nobody may count on what stands there.
    if (pinned && !state->capture && queue_.late() && !queue_.uses(to, bytes))
      std::memset(to, 0xFF, bytes);
    const Code code = put(*state, copy_work(to, from, bytes), false);
    if (code != success || pinned || state->capture) return code;
    if (mutator_) mutator_->waits().host_waits_for(state);
    return wait_for(state->last);  // into pageable memory: done when the call returns
  }
  Code do_copy_on_device(void* to, const void* from, std::size_t bytes, Raw stream) override {
    if (!memory_.contains(to, bytes) || !memory_.contains(from, bytes)) return invalid_value;
    StreamState* state = stream_of(stream);
    if (state == nullptr) return invalid_resource_handle;
    return put(*state, copy_work(to, from, bytes), false);
  }
  Code do_fill(void* to, std::uint8_t value, std::size_t bytes, Raw stream) override {
    if (!memory_.contains(to, bytes)) return invalid_value;
    StreamState* state = stream_of(stream);
    if (state == nullptr) return invalid_resource_handle;
    Work work;
    work.kind = WorkKind::fill;
    work.to = to;
    work.bytes = bytes;
    work.value = value;
    return put(*state, std::move(work), false);
  }

  Code do_create_stream(Raw& stream) override {
    stream = streams_.add(std::make_unique<StreamState>());
    return success;
  }
  Code do_synchronize_stream(Raw stream) override {
    StreamState* state = stream_of(stream);
    if (state == nullptr) return invalid_resource_handle;
    if (state->capture) {
      state->capture->valid = false;
      return capture_unsupported;
    }
    if (mutator_) mutator_->waits().host_waits_for(state);
    return wait_for(state->last);
  }
  Code do_wait_event(Raw stream, Raw event) override {
    StreamState* state = stream_of(stream);
    const EventState* waited = events_.find(event);
    if (state == nullptr || waited == nullptr) return invalid_resource_handle;
    if (mutator_) mutator_->waits().wait(state, waited);
    if (mutator_ && mutator_->next_event()) {
      // A stream that begins to capture by this wait does so all the same, before everything.
      if (!waited->capture || state->capture || waited->frontier.empty()) return success;
      const Code code = wait_captured(*state, *waited);
      state->frontier.clear();
      return code;
    }
    if (waited->capture) return wait_captured(*state, *waited);
    if (!waited->last) return success;  // never recorded: nothing to wait for
    if (state->capture) {
      state->capture->valid = false;
      return capture_isolation;
    }
    state->last = queue_.put(std::make_shared<Work>(), {state->last, waited->last}, false);
    return after_put();
  }
  Code do_release_stream(Raw stream) noexcept override {
    StreamState* state = streams_.find(stream);
    if (state == nullptr) return invalid_resource_handle;
    leave_capture(*state);
    streams_.remove(stream);  // what it was given happens all the same
    return success;
  }
  Code do_create_event(bool timing, Raw& event) override {
    auto state = std::make_unique<EventState>();
    state->timing = timing;
    event = events_.add(std::move(state));
    return success;
  }
  Code do_record_event(Raw event, Raw stream) override {
    StreamState* state = stream_of(stream);
    EventState* recorded = events_.find(event);
    if (state == nullptr || recorded == nullptr) return invalid_resource_handle;
    if (mutator_) mutator_->waits().record(recorded, state);
    if (state->capture) {
      record_event(*recorded, *state);
      return success;
    }
    Work work;
    work.kind = WorkKind::record;
    work.time = recorded->time = std::make_shared<EventTime>();
    const Code code = put(*state, std::move(work), false);
    recorded->capture = nullptr;
    recorded->last = state->last;
    return code;
  }
  Code do_synchronize_event(Raw event) override {
    const EventState* state = events_.find(event);
    if (state == nullptr) return invalid_resource_handle;
    if (state->capture) {
      state->capture->valid = false;
      return captured_event;
    }
    if (mutator_) mutator_->waits().host_waits_for(state);
    return wait_for(state->last);
  }
  Code do_elapsed(Raw start, Raw stop, float& milliseconds) override {
    const EventState* first = events_.find(start);
    const EventState* second = events_.find(stop);
    if (first == nullptr || second == nullptr || !first->timing || !second->timing ||
        !first->last || !second->last)
      return invalid_resource_handle;
    if (!first->last->done || !second->last->done) return not_ready;
    milliseconds =
        std::chrono::duration<float, std::milli>(second->time->at - first->time->at).count();
    return success;
  }
  Code do_release_event(Raw event) noexcept override {
    return events_.remove(event) ? success : invalid_resource_handle;
  }

  Code do_begin_capture(Raw stream) override {
    if (stream == nullptr) return capture_unsupported;
    StreamState* state = stream_of(stream);
    if (state == nullptr) return invalid_resource_handle;
    if (state->capture) return illegal_state;
    begin_capture(*state);
    return success;
  }
  Code do_end_capture(Raw stream, Raw& graph) override {
    StreamState* state = stream_of(stream);
    if (state == nullptr) return invalid_resource_handle;
    auto made = std::make_unique<WorkGraph>();
    const Code code = end_capture(*state, *made);
    if (code == success) graph = graphs_.add(std::move(made));
    return code;
  }
  Code do_instantiate(Raw graph, Raw& executable) override {
    const WorkGraph* from = graphs_.find(graph);
    if (from == nullptr) return invalid_value;
    auto made = std::make_unique<ExecutableGraph>();
    made->graph = *from;
    executable = executables_.add(std::move(made));
    return success;
  }
  Code do_launch_graph(Raw executable, Raw stream) override {
    ExecutableGraph* graph = executables_.find(executable);
    StreamState* state = stream_of(stream);
    if (graph == nullptr) return invalid_value;
    if (state == nullptr) return invalid_resource_handle;
    if (state->capture) {
      state->capture->valid = false;
      return capture_unsupported;  // graphs within graphs
    }
    if (mutator_) mutator_->waits().work(state);
    const auto begin = queue_.put(std::make_shared<Work>(), {state->last, graph->last}, false);
    std::vector<OperationPtr> made;
    std::vector<OperationPtr> all{begin};
    for (const Node& node : graph->graph.nodes) {
      std::vector<OperationPtr> after;
      for (const int before : node.after) after.push_back(made[static_cast<std::size_t>(before)]);
      if (after.empty()) after.push_back(begin);
      made.push_back(queue_.put(node.work, std::move(after), node.programmatic));
      all.push_back(made.back());
    }
    state->last = graph->last = queue_.put(std::make_shared<Work>(), std::move(all), false);
    return after_put();
  }
  Code do_release_graph(Raw graph) noexcept override {
    return graphs_.remove(graph) ? success : invalid_value;
  }
  Code do_release_executable(Raw executable) noexcept override {
    return executables_.remove(executable) ? success : invalid_value;
  }

  Code do_occupancy(const cuda::Kernel& kernel, int block_threads, std::size_t shared_bytes,
                    int& blocks) override {
    const KernelEntry* entry = entry_of(kernel);
    if (entry == nullptr) return invalid_value;
    blocks = resident_blocks(chip_, static_cast<std::size_t>(block_threads),
                             shared_bytes + entry->static_shared_bytes);
    return success;
  }
  Code do_set_shared_limit(const cuda::Kernel& kernel, std::size_t bytes) override {
    const KernelEntry* entry = entry_of(kernel);
    if (entry == nullptr) return invalid_value;
    if (bytes + entry->static_shared_bytes >
        static_cast<std::size_t>(chip_.properties.shared_bytes_per_block_optin))
      return invalid_value;
    shared_limits_[entry] = bytes;
    return success;
  }
  Code do_launch(const cuda::Kernel& kernel, const cuda::LaunchShape& shape,
                 std::span<void* const> arguments, Raw stream) override;

  std::string text_of(Code code) const override {
    if (code >= first_finding && code < first_finding + static_cast<int>(findings_.size()))
      return findings_[static_cast<std::size_t>(code - first_finding)];
    return std::string(text_of_code(code));
  }
  cuda::Failure kind_of(Code code) const noexcept override {
    return code == memory_allocation ? cuda::Failure::out_of_memory : cuda::Failure::other;
  }

 private:
  static const KernelEntry* entry_of(const cuda::Kernel& kernel) {
    return static_cast<const KernelEntry*>(kernel.function);
  }
  StreamState* stream_of(Raw raw) { return raw == nullptr ? &default_stream_ : streams_.find(raw); }

  static Work copy_work(void* to, const void* from, std::size_t bytes) {
    Work work;
    work.kind = WorkKind::copy;
    work.to = to;
    work.from = from;
    work.bytes = bytes;
    return work;
  }

  Code check_launch(const KernelEntry& kernel, const cuda::LaunchShape& shape,
                    std::size_t& most_resident);
  Code put(StreamState& stream, Work work, bool programmatic);
  Code after_put() {
    queue_.after_put();
    return finding();
  }
  Code wait_for(const OperationPtr& last) {
    if (last) queue_.wait(last.get());
    return finding();
  }
  Code wait_for_all() {
    if (mutator_) mutator_->waits().host_waits_for_all();
    queue_.wait(nullptr);
    return finding();
  }
  Code finding() {
    if (const Code kept = std::exchange(kept_, Code{0}); kept != success) return kept;
    if (!queue_.has_finding()) return success;
    return new_finding(queue_.take_finding() + (queue_.late() ? ", deferred streams" : ""));
  }
  Code new_finding(std::string text) {
    findings_.push_back(std::move(text));
    return first_finding + static_cast<Code>(findings_.size()) - 1;
  }
  // A release cannot say what a kernel did wrong: the next call does.
  Code keep_for_later(Code code) {
    kept_ = code;
    return success;
  }
  // What waits for the device may not be called while something is being captured.
  bool spoil_captures() {
    bool any = false;
    for (const auto& [raw, stream] : streams_) {
      if (!stream->capture) continue;
      stream->capture->valid = false;
      any = true;
    }
    return any;
  }

  Chip chip_;
  DeviceMemory memory_;
  PinnedMemory pinned_;
  std::unique_ptr<Mutator> mutator_;
  Scheduler scheduler_;
  Queue queue_;
  std::string said_mutation_;
  StreamState default_stream_;
  Handles<StreamState> streams_;
  Handles<EventState> events_;
  Handles<WorkGraph> graphs_;
  Handles<ExecutableGraph> executables_;
  std::unordered_map<const KernelEntry*, std::size_t> shared_limits_;
  std::vector<std::string> findings_;
  Code kept_ = 0;
};

Runner::Code Runner::put(StreamState& stream, Work work, bool programmatic) {
  if (mutator_ && work.kind != WorkKind::record) mutator_->waits().work(&stream);
  auto shared = std::make_shared<const Work>(std::move(work));
  if (stream.capture) {
    record(stream, std::move(shared), programmatic);
    return success;
  }
  // Only a kernel that follows a kernel directly may begin early.
  const bool early = programmatic && stream.last && stream.last->work->kind == WorkKind::kernel &&
                     !stream.last->done;
  stream.last = queue_.put(std::move(shared), {stream.last}, early);
  return after_put();
}

Runner::Code Runner::check_launch(const KernelEntry& kernel, const cuda::LaunchShape& shape,
                                  std::size_t& most_resident) {
  const cuda::Properties& p = chip_.properties;
  const std::uint64_t threads = std::uint64_t{shape.block.x} * shape.block.y * shape.block.z;
  if (threads > static_cast<std::uint64_t>(p.max_threads_per_block) || shape.block.x > 1024 ||
      shape.block.y > 1024 || shape.block.z > 64)
    return invalid_configuration;
  if (shape.grid.x > 0x7fffffffu || shape.grid.y > 65535 || shape.grid.z > 65535)
    return invalid_configuration;
  const auto limit = shared_limits_.find(&kernel);
  const std::size_t most_shared = limit != shared_limits_.end()
                                      ? limit->second
                                      : static_cast<std::size_t>(p.shared_bytes_per_block);
  if (shape.shared_bytes > most_shared) return invalid_value;
  const int blocks =
      resident_blocks(chip_, threads, shape.shared_bytes + kernel.static_shared_bytes);
  if (blocks == 0) return out_of_resources;
  most_resident = static_cast<std::size_t>(blocks) * static_cast<std::size_t>(p.multiprocessors);
  const std::uint64_t grid = std::uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  if (shape.cooperative && grid > most_resident) return cooperative_launch_too_large;
  if (shape.programmatic && p.major < 9) return not_supported;
  for (const cuda::Access& access : shape.accesses)
    if (access.bytes != 0 && !memory_.contains(access.memory, access.bytes) &&
        !pinned_.contains(access.memory, access.bytes))
      return new_finding("an access of the launch lies neither in device nor in pinned memory: " +
                         std::to_string(access.bytes) + " bytes; kernel " +
                         std::string(kernel.name));
  return success;
}

Runner::Code Runner::do_launch(const cuda::Kernel& kernel, const cuda::LaunchShape& shape,
                               std::span<void* const> arguments, Raw stream) {
  const KernelEntry* entry = entry_of(kernel);
  StreamState* state = stream_of(stream);
  if (entry == nullptr || arguments.size() != entry->parameters) return invalid_value;
  if (state == nullptr) return invalid_resource_handle;
  Work work;
  work.kind = WorkKind::kernel;
  if (const Code code = check_launch(*entry, shape, work.most_resident); code != success)
    return code;
  work.kernel = entry;
  work.shape = shape;
  work.says_accesses = !shape.accesses.empty();
  work.accesses.assign(shape.accesses.begin(), shape.accesses.end());
  work.shape.accesses = {};
  // Their values are those at the launch.
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::size_t offset = (work.argument_bytes.size() + entry->alignment[i] - 1) /
                               entry->alignment[i] * entry->alignment[i];
    work.argument_bytes.resize(offset + entry->bytes[i]);
    std::memcpy(work.argument_bytes.data() + offset, arguments[i], entry->bytes[i]);
    work.argument_offsets.push_back(offset);
  }
  return put(*state, std::move(work), shape.programmatic);
}

}  // namespace

std::unique_ptr<SimtRuntime> make_simt_runtime(const SimtOptions& options) {
  return std::make_unique<Runner>(options);
}

const KernelEntry* first_kernel() noexcept;

std::vector<const KernelEntry*> all_kernels() {
  std::vector<const KernelEntry*> kernels;
  for (const KernelEntry* k = first_kernel(); k != nullptr; k = k->next) kernels.push_back(k);
  return kernels;
}

}  // namespace cuvae::simt
