#include "cuda/context.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

namespace cuvae::cuda {
namespace {

constexpr std::size_t alignment = 256;
constexpr std::size_t most_faults = 64;  // looked at in one go

std::size_t padded(std::size_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

// The GPU that is current on this thread; 0 where another may be.
thread_local std::uint64_t current_gpu = 0;

Properties choose(Runtime& runtime, int index, int multiprocessors) {
  current_gpu = 0;
  runtime.set_device(index);
  Properties gpu = runtime.properties(index);
  if (multiprocessors > 0) gpu.multiprocessors = multiprocessors;
  return gpu;
}

}  // namespace

Staging::Staging(Runtime& runtime)
    : runtime_(runtime), memory_(runtime, capacity, "pinned memory for copies") {
  events_.reserve(most_pieces + 1);  // so that giving one back cannot fail
}

void Staging::release_oldest() {
  in_use_.front().event.synchronize();
  events_.push_back(std::move(in_use_.front().event));
  in_use_.pop_front();
}

std::byte* Staging::reserve(std::size_t bytes) {
  const std::size_t size = padded(bytes);
  if (head_ + size > capacity) head_ = 0;
  const auto overlaps = [&](const Piece& piece) {
    return piece.begin < head_ + size && head_ < piece.end;
  };
  // They were given out in order, so that those in the way are the oldest.
  while (in_use_.size() >= most_pieces || std::any_of(in_use_.begin(), in_use_.end(), overlaps))
    release_oldest();
  if (!reserved_.event) {
    if (events_.empty()) {
      reserved_.event = Event(runtime_);
    } else {
      reserved_.event = std::move(events_.back());
      events_.pop_back();
    }
  }
  reserved_.begin = head_;
  reserved_.end = head_ + size;
  return static_cast<std::byte*>(memory_.get()) + head_;
}

void Staging::used(Runtime::Raw stream) {
  reserved_.event.record(stream);
  head_ = reserved_.end;
  in_use_.push_back(std::move(reserved_));
  reserved_ = {};
}

void Staging::drained() noexcept {
  while (!in_use_.empty()) {
    events_.push_back(std::move(in_use_.front().event));
    in_use_.pop_front();
  }
  head_ = 0;
}

Gpu::Gpu(std::unique_ptr<Runtime> runtime, int index, bool programmatic, int multiprocessors)
    : runtime_(std::move(runtime)),
      index_(index),
      id_(next_id()),
      properties_(choose(*runtime_, index, multiprocessors)),
      encoder_(*runtime_, properties_, programmatic) {}

void Gpu::enter() {
  if (current_gpu == id_) return;
  runtime_->set_device(index_);
  current_gpu = id_;
}

void Gpu::add_resident(Resident resident) {
  std::erase_if(residents_, [](const Resident& each) { return each.memory.expired(); });
  residents_.push_back(std::move(resident));
}

std::shared_ptr<DeviceBuffer> Gpu::resident(const std::shared_ptr<const Tensor>& tensor,
                                            std::shared_ptr<Context>& holder) const {
  for (const Resident& each : residents_) {
    if (each.tensor.lock() != tensor) continue;
    if (auto memory = each.memory.lock()) {
      holder = each.holder.lock();
      return memory;
    }
  }
  return nullptr;
}

void Gpu::remove_resident(const std::shared_ptr<DeviceBuffer>& memory) noexcept {
  std::erase_if(residents_, [&](const Resident& each) { return each.memory.lock() == memory; });
}

Event& Gpu::whole_gpu() {
  if (!whole_gpu_) whole_gpu_ = Event(*runtime_);
  return whole_gpu_;
}

Context::Context(std::shared_ptr<Gpu> gpu)
    : device_(std::move(gpu)),
      staging_(device_->runtime()),
      fault_codes_(device_->runtime(), most_faults * sizeof(unsigned), "pinned memory for faults") {
  static_cast<void>(stream(0));
}

Context::~Context() {
  settle();
}

Stream& Context::stream(int k) {
  while (streams_.size() <= static_cast<std::size_t>(k)) streams_.emplace_back(runtime());
  return streams_[static_cast<std::size_t>(k)];
}

void Context::upload(void* to, std::span<const std::byte> from) {
  auto* target = static_cast<std::byte*>(to);
  while (!from.empty()) {
    const std::size_t bytes = std::min(from.size(), Staging::largest);
    std::byte* const piece = staging_.reserve(bytes);
    std::memcpy(piece, from.data(), bytes);
    runtime().copy_to_device(target, piece, bytes, main());
    try {
      staging_.used(main());
    } catch (...) {
      settle();  // the copy reads the piece
      throw;
    }
    target += bytes;
    from = from.subspan(bytes);
  }
}

void Context::download(std::span<const Region> regions) {
  std::vector<Region> pieces;
  for (Region region : regions)
    while (region.bytes > 0) {
      const std::size_t bytes = std::min(region.bytes, Staging::largest);
      pieces.push_back({region.to, region.from, bytes});
      region = {static_cast<std::byte*>(region.to) + bytes,
                static_cast<const std::byte*>(region.from) + bytes, region.bytes - bytes};
    }
  if (pieces.empty()) {
    wait();
    return;
  }
  // As many at once as fit one piece of the ring.
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t last = first;
    std::size_t bytes = 0;
    while (last < pieces.size() && bytes + padded(pieces[last].bytes) <= Staging::largest)
      bytes += padded(pieces[last++].bytes);
    std::byte* const staged = staging_.reserve(bytes);
    try {
      std::size_t at = 0;
      for (std::size_t i = first; i < last; at += padded(pieces[i++].bytes))
        runtime().copy_to_host(staged + at, pieces[i].from, pieces[i].bytes, main());
      staging_.used(main());
    } catch (...) {
      settle();
      throw;
    }
    wait();
    std::size_t at = 0;
    for (std::size_t i = first; i < last; at += padded(pieces[i++].bytes))
      std::memcpy(pieces[i].to, staged + at, pieces[i].bytes);
    first = last;
  }
}

void Context::wait() {
  auto* const codes = static_cast<unsigned*>(fault_codes_.get());
  std::optional<Error> fault;
  for (;;) {
    std::vector<FaultWatch*> looked_at;
    try {
      for (FaultWatch* watch : faults_) {
        if (!watch->pending || looked_at.size() == most_faults) continue;
        runtime().copy_to_host(codes + looked_at.size(), watch->word, sizeof(unsigned), main());
        looked_at.push_back(watch);
      }
      stream(0).synchronize();
    } catch (...) {
      settle();
      throw;
    }
    staging_.drained();
    for (std::size_t i = 0; i < looked_at.size(); ++i) {
      looked_at[i]->pending = false;
      if (codes[i] == 0) continue;
      if (!fault) fault.emplace(looked_at[i]->describe(codes[i]));
      runtime().fill(looked_at[i]->word, 0, sizeof(unsigned), main());
    }
    if (looked_at.size() < most_faults) break;
  }
  if (fault) throw Error(*fault);
}

void Context::settle() noexcept {
  for (Stream& stream : streams_) {
    try {
      stream.synchronize();
    } catch (...) {  // a device that fails here fails at the next checked call too
    }
  }
  staging_.drained();
}

void Context::unwatch(const FaultWatch& fault) noexcept {
  std::erase(faults_, &fault);
}

}  // namespace cuvae::cuda
