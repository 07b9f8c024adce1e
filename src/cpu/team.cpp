#include "cpu/team.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

#include "cuvae/error.h"

namespace cuvae {
namespace {

thread_local bool inside_team = false;

struct InsideTeam {
  InsideTeam() { inside_team = true; }
  ~InsideTeam() { inside_team = false; }
  InsideTeam(const InsideTeam&) = delete;
  InsideTeam& operator=(const InsideTeam&) = delete;
};

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Until `done` or about 50 us have gone by, which covers the gaps within a training step.
template <class Done>
bool spin_until(Done done) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < limit);
  return false;
}

// The quota of control groups, version 2, in cores; 0: none.
double quota_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || !(period > 0)) return 0;
  try {
    return std::stod(quota) / period;
  } catch (const std::exception&) {
    return 0;
  }
}

}  // namespace

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  if (const double quota = quota_cores(); quota > 0)
    cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(quota))));
  return cores;
}

Team::Team(int threads) {
  constexpr int most = 1024;
  if (threads < 0 || threads > most)
    throw Error(Status::usage, fmt::format("{} threads", threads), "threads",
                fmt::format("use 1 to {}, or 0 for one per core", most));
  const int cores = available_cores();
  if (threads == 0) threads = cores;
  spin_ = threads <= cores;
  try {
    for (int worker = 1; worker < threads; ++worker)
      workers_.emplace_back([this, worker] { serve(worker); });
  } catch (const std::system_error& error) {
    stop();
    throw Error(Status::device, fmt::format("cannot start {} threads: {}", threads, error.what()),
                "threads", "use fewer");
  }
}

Team::~Team() {
  stop();
}

void Team::stop() noexcept {
  stopping_.store(true);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void Team::take_chunks(int worker) {
  const InsideTeam inside;
  for (;;) {
    const std::int64_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= chunks_ || failed_.load(std::memory_order_relaxed)) return;
    try {
      call_(context_, chunk, worker);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
      failed_.store(true, std::memory_order_relaxed);
    }
  }
}

void Team::serve(int worker) {
  std::uint32_t seen = 0;
  for (;;) {
    const auto changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!spin_ || !spin_until(changed)) epoch_.wait(seen, std::memory_order_acquire);
    if (stopping_.load()) return;
    seen = epoch_.load(std::memory_order_acquire);
    std::uint64_t state = state_.load(std::memory_order_acquire);
    bool joined = false;
    while ((state & closed) == 0 && !joined)
      joined = state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel);
    if (!joined) continue;
    take_chunks(worker);
    if (((state_.fetch_sub(1, std::memory_order_acq_rel) - 1) &
         ~(std::uint64_t{0xffffffff} << 32)) == closed)
      state_.notify_one();
  }
}

void Team::run(std::int64_t chunks, Call call, void* context) {
  if (inside_team)
    throw Error(Status::failed, "the thread team was asked for work from inside its own work");
  if (chunks <= 0) return;
  const std::lock_guard turn(turn_);
  if (workers_.empty() || chunks == 1) {
    const InsideTeam inside;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) call(context, chunk, 0);
    return;
  }
  chunks_ = chunks;
  call_ = call;
  context_ = context;
  error_ = nullptr;
  failed_.store(false, std::memory_order_relaxed);
  next_.store(0, std::memory_order_relaxed);
  const std::uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  state_.store(std::uint64_t{epoch} << 32, std::memory_order_release);
  epoch_.store(epoch, std::memory_order_release);
  epoch_.notify_all();
  take_chunks(0);
  std::uint64_t state = state_.fetch_or(closed, std::memory_order_acq_rel) | closed;
  const auto alone = [&] {
    state = state_.load(std::memory_order_acquire);
    return (state & (closed - 1)) == 0;
  };
  if (!spin_ || !spin_until(alone))
    while (!alone()) state_.wait(state, std::memory_order_acquire);
  context_ = nullptr;
  if (error_) {
    const std::exception_ptr error = std::exchange(error_, nullptr);
    std::rethrow_exception(error);
  }
}

}  // namespace cuvae
