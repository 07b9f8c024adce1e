// Optimisers beside adam: one kernel for all rows of ops/optimizers.def.

#include "ops/optimizers.h"

#include "kernels/elementwise.cuh"
#include "kernels/hyper.cuh"

namespace CUVAE_KERNELS {

enum class Optimizer : int {
#define CUVAE_OPTIMIZER(name, Type) name,
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
};

// What is known when a node is launched, and where a step finds the rest. One of the settings is
// meant.
struct OptimizerRun {
  Optimizer optimizer;
  int step;            // unrolled step
  const float* hyper;  // its {lr, beta}
  const std::int64_t* clock;
  const std::int64_t* commit;
  float* states[most_states];  // null where state k is not kept
#define CUVAE_OPTIMIZER(name, Type) OptimizerSetting<Type> name;
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
};

template <class O>
__device__ void update_all(std::int64_t n, const OptimizerRun& run,
                           const OptimizerSetting<O>& setting, const float* g, float* w) {
  using Step = OptimizerStep<O, float>;
  CUVAE_SHARED(Step, step, [1]);
  if (threadIdx.x == 0)
    step[0] =
        setting.template step<float>(static_cast<double>(run.hyper[0]),
                                     static_cast<double>(run.clock[clock_step] + run.step + 1));
  __syncthreads();
  const std::int64_t stride = std::int64_t{gridDim.x} * block_threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * block_threads + threadIdx.x; i < n;
       i += stride) {
    float s[O::state_count];
    for (int k = 0; k < O::state_count; ++k)
      s[k] = run.states[k] != nullptr ? run.states[k][i] : 0.0f;
    float weight = w[i];
    apply_update<PlainMath, O, float>(step[0], g[i], weight, s);
    w[i] = weight;
    for (int k = 0; k < O::state_count; ++k)
      if (run.states[k] != nullptr) run.states[k][i] = s[k];
  }
}

// Updates in place. Without the commit flag nothing is written at all.
__global__ void __launch_bounds__(block_threads)
    optimizer_kernel(std::int64_t n, OptimizerRun run, const float* g, float* w) {
  device::wait_for_producers();
  device::let_dependents_start();
  if (*run.commit == 0) return;
  switch (run.optimizer) {
#define CUVAE_OPTIMIZER(name, Type) \
  case Optimizer::name:             \
    return update_all<Type>(n, run, run.name, g, w);
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
  }
}

template <class O>
static OptimizerRun bind_optimizer(Optimizer optimizer, const OptimizerSetting<O>& setting,
                                   OptimizerSetting<O> OptimizerRun::*own, const CudaArgs& args) {
  namespace in = optimizer_input;
  OptimizerRun run{};
  run.optimizer = optimizer;
  run.step = args.step;
  run.hyper = hyper_row(args, in::hyper);
  run.clock = args.in<std::int64_t>(in::clock);
  run.commit = args.in<std::int64_t>(in::commit);
  run.*own = setting;
  for (int k = 0, next = 1; k < O::state_count; ++k)
    run.states[k] = setting.own.keeps(k) ? args.out(next++) : nullptr;
  return run;
}

#define CUVAE_OPTIMIZER(name, Type)                                                             \
  CudaKernel cuda_##name(CudaNode& node) {                                                      \
    const OptimizerSetting<Type> setting = optimizer_of<Type>(node.attrs());                    \
    const std::int64_t n = node.out(0).elements();                                              \
    return [=](const CudaArgs& args) {                                                          \
      args.encoder.launch(CUVAE_KERNEL(optimizer_kernel), elementwise_size(args.encoder, n), n, \
                          bind_optimizer(Optimizer::name, setting, &OptimizerRun::name, args),  \
                          args.in(optimizer_input::g), args.out(0));                            \
    };                                                                                          \
  }                                                                                             \
  CUVAE_CUDA_ALWAYS(name)
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER

}  // namespace CUVAE_KERNELS
