#pragma once
// What the suites share: time by both clocks, trainers as `cuvae train` makes them.

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "bench/peers.h"
#include "bench/roof.h"
#include "cuvae/bench.h"
#include "cuvae/trainer.h"

namespace cuvae {

using BenchClock = std::chrono::steady_clock;

[[nodiscard]] inline double seconds_since(BenchClock::time_point start) {
  return std::chrono::duration<double>(BenchClock::now() - start).count();
}

constexpr double repeat_seconds = 0.1;  // of one repeat, where the steps are not given

struct Times {
  double wall = 0;
  double device = 0;  // 0: the device has no clock
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

// Executor, precision and autotune of the configuration; steps = 0 leaves to the trainer how many
// it unrolls.
[[nodiscard]] CompileOptions compile_options(const Config& config, int steps);
// For what is not training: the persistent kernel is of training steps.
[[nodiscard]] CompileOptions inference_options(const Config& config);

[[nodiscard]] bool on_cpu(const DeviceInfo& device);
[[nodiscard]] std::int64_t repeats_for(const BenchOptions& options, std::int64_t batch);
// Seconds that a repeat may take.
[[nodiscard]] double longest_repeat(const BenchOptions& options, const DeviceInfo& device);
void train_steps(Trainer& trainer, std::int64_t steps);

// Ours, for the peers' check: neg_elbo of the first images after some steps from the start.
// `step_seconds`: to tell how many, where the options do not.
[[nodiscard]] ElboCheck check_of(const Config& config, const Dataset& dataset, Device& device,
                                 const BenchOptions& options, double step_seconds);

// "784-512-32": input, encoder, latent.
[[nodiscard]] std::string name_of(const Model& model);

// The roof of a device, measured once for each precision.
class Roofs {
 public:
  explicit Roofs(Device& device) : device_(device) {}
  [[nodiscard]] Roof of(const Config& config);

 private:
  Device& device_;
  std::string precision_;
  Roof roof_;
};

// One row. `peers`: to be measured beside, or null. `gflops`: what the last row reached, to tell
// whether this one is too long; 0: not known. Suites keep rows that cannot be measured, with the
// reason; otherwise (`suite` false) that is an error.
[[nodiscard]] StepBench bench_step(const Config& config,
                                   const std::shared_ptr<const Dataset>& dataset, Device& device,
                                   const BenchOptions& options, Roofs& roofs, PeerSet* peers,
                                   bool suite, double gflops);

}  // namespace cuvae
