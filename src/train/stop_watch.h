#pragma once
// An end in the middle of a run of many steps.

#include <atomic>
#include <functional>
#include <span>
#include <thread>

#include "train/train_run.h"

namespace cuvae {

// While it lives, asks `stop` every few milliseconds from a thread of its own, and once that says
// true tells the runs to end early. Without a thread where no run could (TrainRun::can_stop()).
class StopWatch {
 public:
  StopWatch(std::function<bool()> stop, std::span<TrainRun* const> runs);
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;
  [[nodiscard]] bool asked() const noexcept { return asked_.load(); }

 private:
  void watch(const std::stop_token& end);
  std::function<bool()> stop_;
  std::span<TrainRun* const> runs_;
  std::atomic<bool> asked_{false};
  std::jthread thread_;  // the last: ends before the others go
};

}  // namespace cuvae
