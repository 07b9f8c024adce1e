#pragma once
// Time between two points of a stream, by the GPU's clock.

#include "cuda/runtime.h"

namespace cuvae::cuda {

class EventTimer {
 public:
  explicit EventTimer(Runtime& runtime) : start_(runtime, true), stop_(runtime, true) {}
  void start(Runtime::Raw stream) { start_.record(stream); }
  void stop(Runtime::Raw stream) { stop_.record(stream); }
  // From start() to stop(); waits until the stream has come there.
  [[nodiscard]] double seconds() {
    stop_.synchronize();
    return 1e-3 * static_cast<double>(stop_.milliseconds_since(start_));
  }

 private:
  Event start_;
  Event stop_;
};

}  // namespace cuvae::cuda
