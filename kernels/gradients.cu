// Penalties, the norm over all gradients and clipping by it.

#include "ops/gradients.h"

#include <cmath>

#include "kernels/reduction.cuh"

namespace CUVAE_KERNELS {

struct AddPenalty {
  float l1, l2;
  const float* g;
  const float* w;
  float* y;
  __device__ void operator()(std::int64_t i) const {
    const float weight = w[i];
    const float slope = weight > 0.0f ? l1 : weight < 0.0f ? -l1 : 0.0f;
    y[i] = g[i] + l2 * weight + slope;
  }
};

struct ScaleBy {
  const float* factor;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t i) const { y[i] = *factor * x[i]; }
};

// Some of the gradients: what one launch reads. A block adds one chunk of one of them.
inline constexpr int group_gradients = 48;
struct GradientGroup {
  const float* x[group_gradients];
  std::int64_t n[group_gradients];
  unsigned first[group_gradients];  // block of its first chunk
  int count;
};

struct Clip {
  double limit;
  unsigned before;  // blocks of the launches before, of which there are `all` altogether
  unsigned all;
  double* parts;
  unsigned* counter;
  const std::int64_t* wanted;
  float* norm;
  float* factor;
  std::int64_t* commit;
  std::int64_t* skipped;
};

// Parts in double; the last block of the last launch adds them in order.
__global__ void __launch_bounds__(block_threads) clip_norm_kernel(GradientGroup group, Clip clip) {
  device::wait_for_producers();
  device::let_dependents_start();
  int which = 0;
  while (which + 1 < group.count && group.first[which + 1] <= blockIdx.x) ++which;
  const std::int64_t begin = std::int64_t{blockIdx.x - group.first[which]} * sum_chunk;
  const std::int64_t end = min(group.n[which], begin + sum_chunk);
  double sum = 0.0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += block_threads) {
    const auto value = static_cast<double>(group.x[which][i]);
    sum += value * value;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) clip.parts[clip.before + blockIdx.x] = sum;
  if (!last_to_arrive(clip.counter, clip.all)) return;
  sum = 0.0;
  for (unsigned i = threadIdx.x; i < clip.all; i += block_threads) sum += clip.parts[i];
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  const double norm = sqrt(sum);
  const Clipping clipped = clipping(norm, clip.limit);
  const bool wanted = *clip.wanted != 0;
  *clip.norm = static_cast<float>(norm);
  *clip.factor = static_cast<float>(clipped.factor);
  *clip.commit = wanted && clipped.finite ? 1 : 0;
  if (wanted && !clipped.finite) *clip.skipped += 1;
}

using GradientChange = OneOf<AddPenalty, ScaleBy>;

CudaKernel cuda_add_penalty(CudaNode& node) {
  const PenaltyAttrs penalty = penalty_of(node.attrs());
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<GradientChange>),
                        elementwise_size(args.encoder, n), n,
                        one_of<GradientChange>(AddPenalty{static_cast<float>(penalty.l1),
                                                          static_cast<float>(penalty.l2),
                                                          args.in(0), args.in(1), args.out(0)}));
  };
}

CudaKernel cuda_scale_by(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise<GradientChange>),
                        elementwise_size(args.encoder, n), n,
                        one_of<GradientChange>(ScaleBy{args.in(1), args.in(0), args.out(0)}));
  };
}

CudaKernel cuda_clip_norm(CudaNode& node) {
  const double limit = clip_of(node.attrs()).limit;
  struct Launch {
    GradientGroup group{};
    std::vector<int> inputs;
    unsigned blocks = 0;
  };
  std::vector<Launch> launches(1);
  std::int64_t all = 0;
  for (std::size_t i = clip_input::first; i < node.node.inputs.size(); ++i) {
    const std::int64_t n = node.in(i).elements();
    if (n == 0) continue;
    if (launches.back().group.count == group_gradients) launches.emplace_back();
    Launch& launch = launches.back();
    GradientGroup& group = launch.group;
    group.n[group.count] = n;
    group.first[group.count++] = launch.blocks;
    launch.inputs.push_back(static_cast<int>(i));
    launch.blocks += static_cast<unsigned>(divide_up(n, sum_chunk));
    all += divide_up(n, sum_chunk);
  }
  // Without any element one block adds nothing.
  if (all == 0) {
    launches.front().group.count = 1;
    launches.front().blocks = 1;
    all = 1;
  }
  node.workspace_bytes = all * static_cast<std::int64_t>(sizeof(double));
  node.counters = 1;
  return [=, launches = std::move(launches)](const CudaArgs& args) {
    unsigned before = 0;
    for (const Launch& launch : launches) {
      GradientGroup group = launch.group;
      for (std::size_t i = 0; i < launch.inputs.size(); ++i) group.x[i] = args.in(launch.inputs[i]);
      args.encoder.launch(
          CUVAE_KERNEL(clip_norm_kernel), {.blocks_x = launch.blocks, .threads = block_threads},
          group,
          Clip{limit, before, static_cast<unsigned>(all), reinterpret_cast<double*>(args.workspace),
               args.counters, args.in<std::int64_t>(clip_input::commit), args.out(0), args.out(1),
               args.out<std::int64_t>(2), args.out<std::int64_t>(3)});
      before += launch.blocks;
    }
  };
}

CUVAE_CUDA_ALWAYS(add_penalty)
CUVAE_CUDA_ALWAYS(clip_norm)
CUVAE_CUDA_ALWAYS(scale_by)

}  // namespace CUVAE_KERNELS
