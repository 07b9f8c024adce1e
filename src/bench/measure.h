#pragma once
// What the suites share: trainers as `cuvae train` makes them, steps and their checks.

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "bench/clock.h"
#include "bench/peers.h"
#include "bench/roof.h"
#include "cuvae/bench.h"
#include "cuvae/trainer.h"

namespace cuvae {

constexpr double repeat_seconds = 0.1;  // of one repeat, where the steps are not given

// What the configuration's [run] asks for; steps = 0 leaves to the trainer how many it unrolls.
[[nodiscard]] CompileOptions training_options(const Config& config, int steps = 0);

[[nodiscard]] bool on_cpu(const DeviceInfo& device);
[[nodiscard]] std::int64_t repeats_for(const BenchOptions& options, std::int64_t batch);
// Seconds that a repeat may take.
[[nodiscard]] double longest_repeat(const BenchOptions& options, const DeviceInfo& device);
void train_steps(Trainer& trainer, std::int64_t steps);

// Ours, for the peers' check: neg_elbo of the first images after some steps from the start.
// `step_seconds`: to tell how many, where the options do not.
[[nodiscard]] ElboCheck check_of(const Config& config,
                                 const std::shared_ptr<const Dataset>& dataset, Device& device,
                                 const BenchOptions& options, double step_seconds);
// The same of a trainer that has done its steps.
[[nodiscard]] ElboCheck check_of(Trainer& trainer, const BenchOptions& options);

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

// What the rows of a run share.
class Session {
 public:
  Session(Device& device, const BenchOptions& options) : roofs(device), options_(options) {}
  // Why a program runs by another executor than was asked for (Program::note()): said once.
  void tell(const std::string& note);

  Roofs roofs;

 private:
  const BenchOptions& options_;
  std::string told_;
};

// One row. `peers`: to be measured beside, or null. `gflops`: what the last row reached, to tell
// whether this one is too long; 0: not known. Suites keep rows that cannot be measured, with the
// reason; otherwise (`suite` false) that is an error.
[[nodiscard]] StepBench bench_step(const Config& config,
                                   const std::shared_ptr<const Dataset>& dataset, Device& device,
                                   const BenchOptions& options, Session& session, PeerSet* peers,
                                   bool suite, double gflops);

}  // namespace cuvae
