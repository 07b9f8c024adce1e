#pragma once
// One opened GPU, and contexts on it: each has streams of its own, its own way of data between host
// and device, and its own waiting. A store and the programs over it share one context, so that
// what runs over different stores runs side by side. A context lives as long as any of them, and
// the GPU as long as any context.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/encoder.h"
#include "cuda/runtime.h"
#include "cuvae/error.h"
#include "cuvae/tensor.h"

namespace cuvae::cuda {

// Pinned memory that copies pass through, so that the host need not wait for the device: a ring
// whose pieces are free again when the copy that used them has been done.
class Staging {
 public:
  static constexpr std::size_t capacity = std::size_t{4} << 20;
  static constexpr std::size_t largest = capacity / 4;  // of one piece

  explicit Staging(Runtime& runtime);
  // Memory for one piece of at most `largest` bytes, waiting for older copies where the ring is
  // full. It is in use until the event of used(), or until drained().
  [[nodiscard]] std::byte* reserve(std::size_t bytes);
  // The piece reserved last is in use by what stands in `stream` now.
  void used(Runtime::Raw stream);
  // Whatever used the ring has ended.
  void drained() noexcept;

 private:
  struct Piece {
    std::size_t begin = 0;
    std::size_t end = 0;
    Event event;
  };
  static constexpr std::size_t most_pieces = 256;

  void release_oldest();

  Runtime& runtime_;
  HostBuffer memory_;
  std::size_t head_ = 0;
  Piece reserved_;
  std::deque<Piece> in_use_;   // oldest first
  std::vector<Event> events_;  // not in use
};

// A program's fault word, as the context sees it.
struct FaultWatch {
  unsigned* word = nullptr;  // on the device
  bool pending = false;      // something ran since it was looked at
  virtual ~FaultWatch() = default;
  // What that code means.
  [[nodiscard]] virtual Error describe(unsigned code) const = 0;
};

// Device memory that is to be read.
struct Region {
  void* to = nullptr;
  const void* from = nullptr;
  std::size_t bytes = 0;
};

class Context;

class Gpu {
 public:
  // `multiprocessors`: instead of the GPU's own number, where it is not 0.
  Gpu(std::unique_ptr<Runtime> runtime, int index, bool programmatic, int multiprocessors = 0);
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  [[nodiscard]] Runtime& runtime() noexcept { return *runtime_; }
  [[nodiscard]] const Properties& properties() const noexcept { return properties_; }
  [[nodiscard]] int index() const noexcept { return index_; }
  [[nodiscard]] Encoder& encoder() noexcept { return encoder_; }
  // Makes it current on the calling thread.
  void enter();

  // What a store's memory holds of a bound tensor, for stores that want the same: `holder`'s main
  // stream has the upload.
  struct Resident {
    std::weak_ptr<const Tensor> tensor;
    std::weak_ptr<DeviceBuffer> memory;
    std::weak_ptr<Context> holder;
  };
  void add_resident(Resident resident);
  // Null memory where nobody holds that very tensor.
  [[nodiscard]] std::shared_ptr<DeviceBuffer> resident(const std::shared_ptr<const Tensor>& tensor,
                                                       std::shared_ptr<Context>& holder) const;
  void remove_resident(const std::shared_ptr<DeviceBuffer>& memory) noexcept;
  // After the last launch that needs the whole GPU to itself; such launches of all contexts wait
  // for it and record it.
  [[nodiscard]] Event& whole_gpu();

 private:
  std::unique_ptr<Runtime> runtime_;
  int index_;
  std::uint64_t id_;
  Properties properties_;
  Encoder encoder_;
  std::vector<Resident> residents_;
  Event whole_gpu_;
};

class Context {
 public:
  explicit Context(std::shared_ptr<Gpu> gpu);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  [[nodiscard]] const std::shared_ptr<Gpu>& device() const noexcept { return device_; }
  [[nodiscard]] Runtime& runtime() noexcept { return device_->runtime(); }
  [[nodiscard]] const Properties& gpu() const noexcept { return device_->properties(); }
  [[nodiscard]] int index() const noexcept { return device_->index(); }
  [[nodiscard]] std::string name() const { return "cuda:" + std::to_string(index()); }
  [[nodiscard]] Encoder& encoder() noexcept { return device_->encoder(); }
  // Stream 0 is the main one: what is launched elsewhere is joined to it before a run ends.
  [[nodiscard]] Stream& stream(int k);
  [[nodiscard]] Runtime::Raw main() { return stream(0).get(); }

  // Makes the GPU current on the calling thread. Everything public begins with it.
  void enter() { device_->enter(); }

  // Copies in the main stream, after what was launched before; does not wait for the device. `from`
  // is read before it returns.
  void upload(void* to, std::span<const std::byte> from);
  // Waits for what was launched, and copies.
  void download(std::span<const Region> regions);
  // Waits for the main stream. Throws the fault that a program has met since the last time.
  void wait();
  // Waits for all streams of this context, whatever state they are in; for what goes on after an
  // error or gives memory back.
  void settle() noexcept;

  void watch(FaultWatch& fault) { faults_.push_back(&fault); }
  void unwatch(const FaultWatch& fault) noexcept;

 private:
  std::shared_ptr<Gpu> device_;
  std::vector<Stream> streams_;
  Staging staging_;
  HostBuffer fault_codes_;
  std::vector<FaultWatch*> faults_;
};

}  // namespace cuvae::cuda
