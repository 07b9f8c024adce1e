#include "kernels/persistent.cuh"

#include "cuda/persistent.h"
#include "kernels/persistent_middle.cuh"
#include "kernels/persistent_owner.cuh"
#include "kernels/table.cuh"
#include "ops/gaussian_constant.h"

namespace CUVAE_KERNELS {

// One block a multiprocessor; all of them run at once.
template <class Format>
__global__ void __launch_bounds__(Layout::threads, 1)
    persistent(const __grid_constant__ PersistentRun run) {
  CUVAE_DYNAMIC_SHARED(unsigned char, shared);
  CUVAE_SHARED(OwnerShared, small, [1]);
  // It is never launched programmatically: all of its blocks have to be there at once.
  // What is never written is zero: rows and columns beyond the sizes.
  for (int i = static_cast<int>(threadIdx.x); i < run.layout.shared_bytes / 16;
       i += Layout::threads)
    reinterpret_cast<float4*>(shared)[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (threadIdx.x == 0) small[0].place = owner_place(run.layout, static_cast<int>(blockIdx.x));
  __syncthreads();
  if (static_cast<int>(blockIdx.x) < run.layout.owners) {
    Owner<Format> owner(run, shared, small);
    if (owner.train()) return;
  } else {
    Middle<Format> middle(run, shared, &small[0].adam);
    if (middle.train()) return;
  }
  device::cp_async_wait<0>();  // some block gave up: a block may not end with copies under way
}

template <class Format>
static cuda::TypedKernel<PersistentRun> kernel_of() {
  return CUVAE_KERNEL(persistent<Format>);
}
static cuda::TypedKernel<PersistentRun> kernel_for(cuda::Precision precision) {
  switch (precision) {
    case cuda::Precision::tf32: return kernel_of<Tf32>();
    case cuda::Precision::bf16: return kernel_of<Bf16>();
    default: return kernel_of<Tf32x3>();
  }
}

// Cuts the workspace, for which null gives its size.
class Cutter {
 public:
  explicit Cutter(std::byte* memory) : memory_(memory) {}
  float* floats(std::int64_t count) {
    const std::int64_t at = bytes_;
    bytes_ += divide_up(count * static_cast<std::int64_t>(sizeof(float)), 256) * 256;
    return memory_ == nullptr ? nullptr : reinterpret_cast<float*>(memory_ + at);
  }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  std::int64_t bytes_ = 0;
};

static std::int64_t cut_workspace(PersistentRun& run, std::byte* memory) {
  const Layout& l = run.layout;
  const std::int64_t batch = l.sizes.batch;
  Cutter cutter(memory);
  run.encode_parts = cutter.floats(l.encode.pieces * batch * l.encoder_ld);
  const std::int64_t rows = l.rows;
  run.h1 = cutter.floats(l.encoder_ld * rows);
  run.z = cutter.floats(l.latent_ld * rows);
  run.h2 = cutter.floats(batch * l.decoder_ld);
  run.kl = cutter.floats(2 * batch);
  run.logit_parts = cutter.floats(l.decode.pieces * batch * l.out_ld);
  run.nll_parts = cutter.floats(l.decode.tiles * batch);
  run.dlogits = cutter.floats(batch * l.out_ld);
  run.back_parts = cutter.floats(l.back.pieces * batch * l.decoder_ld);
  run.dh2 = cutter.floats(l.decoder_ld * rows);
  run.dheads = cutter.floats(l.heads_ld * rows);
  run.dh1 = cutter.floats(l.encoder_ld * rows);
  run.out_copy = cutter.floats(std::int64_t{2} * l.out_ld * l.decoder_ld);
  run.heads_copy = cutter.floats(std::int64_t{2} * l.heads_ld * l.encoder_ld);
  run.hidden_copy = cutter.floats(std::int64_t{2} * l.decoder_ld * l.latent_ld);
  return cutter.bytes();
}

static std::int64_t counter_bytes(const Layout& layout) {
  return (static_cast<std::int64_t>(Counter::logits) + layout.decode.tiles) * counter_stride *
         static_cast<std::int64_t>(sizeof(unsigned));
}

static cuda::PersistentNeeds persistent_needs(cuda::Precision precision, const Layout& layout) {
  PersistentRun run{};
  run.layout = layout;
  return {.kernel = kernel_for(precision).kernel,
          .workspace_bytes = cut_workspace(run, nullptr),
          .counter_bytes = counter_bytes(layout)};
}

static Scheduled scheduled(const cuda::VaeStep::Scaled& scaled) {
  return {static_cast<float>(scaled.value), scaled.slot};
}
static LayerState layer_state(const cuda::PersistentTask::Layer& layer) {
  return {layer.weight, layer.weight_m, layer.weight_v, layer.bias, layer.bias_m, layer.bias_v};
}

static void launch_persistent(cuda::Encoder& encoder, cuda::Precision precision,
                              const cuda::PersistentTask& task) {
  const cuda::VaeStep& step = *task.step;
  PersistentRun run{};
  run.layout = *task.layout;
  run.steps = task.steps;
  run.spins = task.spins;
  run.encode = layer_state(task.encode);
  run.heads = layer_state(task.heads);
  run.hidden = layer_state(task.hidden);
  run.out = layer_state(task.out);
  run.window = task.window;
  run.window_rows = step.window_rows;
  run.whole_rows =
      run.layout.sizes.in % 16 == 0 && reinterpret_cast<std::uintptr_t>(task.window) % 16 == 0;
  run.shift = static_cast<float>(step.shift);
  run.scale = static_cast<float>(step.scale);
  const std::int64_t batch = run.layout.sizes.batch;
  run.batch = {
      .positions = {.stride = batch, .times = 1, .last = step.rows - batch, .beside = false},
      .rows = step.rows,
      .half_bits = step.shuffle ? shuffle_half_bits(step.rows) : 0,
      .staged = step.staged,
      .clock = task.clock,
      .fault = {task.fault, task.batch_node}};
  run.draws = {.purpose = step.purpose,
               .stream = step.stream,
               .d = run.layout.sizes.latent,
               .clock = task.clock,
               .fault = {task.fault, task.sample_node}};
  run.hyper = task.hyper;
  run.adam = prepare_adam(step.adam);
  run.adam.clock = task.clock;
  run.adam.commit = task.commit;
  run.encoder = device_activation(step.encoder);
  run.decoder = device_activation(step.decoder);
  run.bernoulli = step.bernoulli;
  run.inverse_sigma = static_cast<float>(1.0 / step.sigma);
  run.nll_constant = step.bernoulli
                         ? 0.0f
                         : static_cast<float>(gaussian_constant(run.layout.sizes.in, step.sigma));
  run.dnll = scheduled(step.dnll);
  run.dkl = scheduled(step.dkl);
  run.beta = scheduled(step.beta);
  run.losses = task.losses;
  cut_workspace(run, task.workspace);
  run.counters = task.counters;
  run.progress = task.progress;
  run.stop = task.stop;
  run.fault = {task.fault, task.gather_node};
  encoder.launch(kernel_for(precision),
                 {.blocks_x = std::int64_t{run.layout.owners} + run.layout.middles,
                  .threads = Layout::threads,
                  .shared_bytes = static_cast<std::size_t>(run.layout.shared_bytes),
                  .cooperative = true},
                 run);
}

const cuda::PersistentKernels& persistent_kernels() {
  static const cuda::PersistentKernels kernels = {persistent_needs, launch_persistent};
  return kernels;
}

}  // namespace CUVAE_KERNELS
