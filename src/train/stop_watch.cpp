#include "train/stop_watch.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <utility>

namespace cuvae {

StopWatch::StopWatch(std::function<bool()> stop, std::span<TrainRun* const> runs)
    : stop_(std::move(stop)), runs_(runs) {
  if (!stop_ || std::ranges::none_of(runs_, [](const TrainRun* run) { return run->can_stop(); }))
    return;
  try {
    thread_ = std::jthread([this](const std::stop_token& end) { watch(end); });
  } catch (const std::system_error&) {  // without it, training ends after the steps under way
  }
}

void StopWatch::watch(const std::stop_token& end) {
  constexpr std::chrono::milliseconds interval{5};
  std::mutex mutex;
  std::condition_variable_any ended;
  try {
    std::unique_lock lock(mutex);
    while (!ended.wait_for(lock, end, interval, [&] { return end.stop_requested(); })) {
      if (!asked() && !stop_()) continue;
      asked_.store(true);
      // Again and again: what is launched meanwhile has not heard it.
      for (TrainRun* run : runs_) run->stop();
    }
  } catch (...) {  // whoever asks after the steps under way meets it too
  }
}

}  // namespace cuvae
