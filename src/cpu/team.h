#pragma once
// One team of threads. The caller is its first worker; the others spin for some tens of
// microseconds after a job and then sleep. Work is cut into chunks whose number depends on shapes
// only; who executes a chunk is left to chance, so no result may depend on it.

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace cuvae {

// Cores that this process may use: affinity and the control group's quota.
int available_cores();

class Team {
 public:
  // 0: one thread per available core. Throws Error(usage) for a negative or absurd number,
  // Error(device) where threads cannot be started.
  explicit Team(int threads = 0);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  [[nodiscard]] int threads() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  // Calls f(chunk, worker) for every chunk in [0, chunks), each once; worker < threads(). Returns
  // when all are done. The first exception is thrown to the caller and the rest of the chunks is
  // left undone. Several callers take turns. Throws Error(failed) from inside another call.
  template <class F>
  void parallel_for(std::int64_t chunks, F&& f) {
    using Function = std::remove_reference_t<F>;
    run(
        chunks,
        [](void* context, std::int64_t chunk, int worker) {
          (*static_cast<Function*>(context))(chunk, worker);
        },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Call = void (*)(void* context, std::int64_t chunk, int worker);
  void run(std::int64_t chunks, Call call, void* context);
  void take_chunks(int worker);
  void serve(int worker);
  void stop() noexcept;

  // state_: epoch << 32 | closed << 31 | workers inside. A worker joins an open job by adding one;
  // whoever comes late to a closed job goes back to waiting, so nobody waits for it.
  static constexpr std::uint64_t closed = std::uint64_t{1} << 31;
  std::atomic<std::uint64_t> state_{closed};
  std::atomic<std::uint32_t> epoch_{0};  // what sleepers wait on
  std::atomic<bool> stopping_{false};
  std::atomic<bool> failed_{false};
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::int64_t chunks_ = 0;
  Call call_ = nullptr;
  void* context_ = nullptr;
  std::exception_ptr error_;
  std::mutex error_mutex_;
  std::mutex turn_;
  bool spin_ = true;
  std::vector<std::thread> workers_;
};

}  // namespace cuvae
