#pragma once
// Time by the host's clock and by the device's.

#include <chrono>

#include "cuvae/device.h"

namespace cuvae {

using BenchClock = std::chrono::steady_clock;

[[nodiscard]] inline double seconds_since(BenchClock::time_point start) {
  return std::chrono::duration<double>(BenchClock::now() - start).count();
}

struct Times {
  double wall = 0;
  double device = 0;  // 0: the device has no clock
  // By the device's clock where it has one.
  [[nodiscard]] double best() const { return device > 0 ? device : wall; }
};

template <class Work>
Times timed(DeviceTimer* timer, Work work) {
  Times times;
  const auto start = BenchClock::now();
  if (timer != nullptr) timer->start();
  work();
  if (timer != nullptr) times.device = timer->stop();
  times.wall = seconds_since(start);
  return times;
}

}  // namespace cuvae
