#pragma once
// The persistent path on the host's side: a program that trains many steps in one launch, and what
// it asks of the kernels (kernels/persistent.cu).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "cuda/cuda_device.h"
#include "cuda/kernel.h"
#include "cuda/persistent_layout.h"
#include "cuda/store.h"
#include "cuda/vae_step.h"

namespace cuvae::cuda {

struct PersistentNeeds {
  Kernel kernel;
  std::int64_t workspace_bytes = 0;  // zero before the first launch
  std::int64_t counter_bytes = 0;    // zero before each launch
};

// One launch. All memory is the device's, but for progress and stop: pinned memory of the host.
struct PersistentTask {
  struct Layer {
    float *weight, *weight_m, *weight_v;
    float *bias, *bias_m, *bias_v;
  };
  const PersistentLayout* layout = nullptr;
  const VaeStep* step = nullptr;
  int steps = 0;
  unsigned spins = 0;  // looks at a counter until a block gives up
  Layer encode{}, heads{}, hidden{}, out{};
  const std::uint8_t* window = nullptr;
  const std::int64_t* clock = nullptr;
  const float* hyper = nullptr;  // [steps, 2]
  const std::int64_t* commit = nullptr;
  float* losses = nullptr;  // [3][steps]
  std::byte* workspace = nullptr;
  unsigned* counters = nullptr;
  unsigned* progress = nullptr;
  const unsigned* stop = nullptr;
  unsigned* fault = nullptr;
  unsigned batch_node = 0, gather_node = 0, sample_node = 0;  // who a fault is blamed on
};

struct PersistentKernels {
  PersistentNeeds (*needs)(Precision, const PersistentLayout&);
  void (*launch)(Encoder&, Precision, const PersistentTask&);
};

struct PersistentOptions {
  Precision precision = Precision::fp32;
  int steps = 1;                 // of a run
  unsigned spins = 200'000'000;  // tens of seconds
};

// A training graph as the path takes it, and how it is spread; or the reason why it is not.
struct PersistentChoice {
  Graph graph;  // fused
  VaeStep step;
  PersistentLayout layout;
  PersistentNeeds needs;
  std::string reason;
};
[[nodiscard]] PersistentChoice choose_persistent(const Graph& graph, Gpu& gpu,
                                                 const KernelTable& kernels, Precision precision);

// Its program: one launch does all steps of a run, with nothing unrolled. REQUIRES: no reason.
// Declares what is missing in the store, which outlives it. Throws Error(device) where the GPU has
// too little free memory, Error(usage) where there are fewer rows of hyper-parameters than steps.
std::unique_ptr<CudaProgram> make_persistent_program(PersistentChoice choice, CudaStore& store,
                                                     const KernelTable& kernels,
                                                     const PersistentOptions& options);

}  // namespace cuvae::cuda
