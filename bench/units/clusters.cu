// Barriers of a cluster's blocks, how many clusters run at once, loads from a neighbour's shared
// memory. Compute capability 9.0 or later.

#include <cooperative_groups.h>

#include <string>

#include "kernels/device/device.cuh"
#include "units/measure.h"

namespace cuvae::units {
namespace {

namespace cg = cooperative_groups;

// out [blocks]: what each block found in its neighbour's shared memory at the end.
template <bool relaxed>
__global__ void cluster_barrier(unsigned* out, int rounds) {
#if __CUDA_ARCH__ >= 900
  const cg::cluster_group cluster = cg::this_cluster();
  CUVAE_SHARED(unsigned, place, [1]);
  for (int round = 1; round <= rounds; ++round) {
    if (threadIdx.x == 0) place[0] = static_cast<unsigned>(round);
    if constexpr (relaxed) {
      // Orders no memory: what an exchange costs at the least.
      asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::
                       : "memory");
    } else {
      cluster.sync();
    }
  }
  cluster.sync();
  if (threadIdx.x == 0) {
    const unsigned next = (cluster.block_rank() + 1) % cluster.num_blocks();
    out[blockIdx.x] = *cluster.map_shared_rank(&place[0], next);
  }
  cluster.sync();
#endif
}

// One thread follows indices through a neighbour's shared memory.
constexpr unsigned chain = 1024;
constexpr unsigned loads = 4095;
__global__ void remote_chain(unsigned* out, int steps, int distance) {
#if __CUDA_ARCH__ >= 900
  const cg::cluster_group cluster = cg::this_cluster();
  CUVAE_SHARED(unsigned, next, [chain]);
  for (unsigned i = threadIdx.x; i < chain; i += blockDim.x) next[i] = (i + 33) % chain;
  cluster.sync();
  if (threadIdx.x == 0 && cluster.block_rank() == 0) {
    const unsigned* const from = cluster.map_shared_rank(&next[0], static_cast<unsigned>(distance));
    unsigned place = 0;
    const long long start = clock64();
    for (int i = 0; i < steps; ++i) place = *static_cast<const volatile unsigned*>(from + place);
    const long long stop = clock64();
    out[0] = place;
    out[1] = static_cast<unsigned>(stop - start);
  }
  cluster.sync();
#endif
}

template <class Kernel>
int active_clusters(const Context& context, Kernel kernel, unsigned size, std::size_t shared) {
  const Launch how({.blocks = size * static_cast<unsigned>(context.multiprocessors),
                    .threads = 256,
                    .shared_bytes = shared,
                    .cluster = size},
                   context.stream);
  int count = 0;
  const cudaError_t code =
      cudaOccupancyMaxActiveClusters(&count, reinterpret_cast<const void*>(kernel), &how.config);
  if (code == cudaErrorInvalidClusterSize) {
    static_cast<void>(cudaGetLastError());
    count = 0;
  } else {
    check(code, "cudaOccupancyMaxActiveClusters");
  }
  if (count == 0) throw Unavailable("no cluster of " + std::to_string(size) + " fits");
  return count;
}

template <bool relaxed>
Sample barrier(const Context& context, unsigned size, unsigned clusters) {
  static_cast<void>(active_clusters(context, cluster_barrier<relaxed>, size, 0));
  Memory<unsigned> out(size * clusters);
  const Sample one = context.slope(1000, 5000, [&](int rounds) {
    launch(context, cluster_barrier<relaxed>,
           {.blocks = size * clusters, .threads = 256, .cluster = size}, out.get(), rounds);
  });
  for (const unsigned round : out.read(out.size())) expect(round == 5000, "rounds were left out");
  return one * 1e9;
}

void allow_large(const void* kernel) {
  CUVAE_UNITS_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
}

}  // namespace

void measure_clusters(const Context& context) {
  if (context.gpu.major < 9) throw Unavailable("clusters need compute capability 9.0");
  allow_large(reinterpret_cast<const void*>(cluster_barrier<false>));
  allow_large(reinterpret_cast<const void*>(cluster_barrier<true>));
  const std::size_t most = context.gpu.sharedMemPerBlockOptin - 1024;
  CUVAE_UNITS_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(cluster_barrier<false>),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(most)));
  for (const unsigned size : {2u, 4u, 8u, 16u}) {
    const std::string of = "of " + std::to_string(size);
    context.attempt(
        "clusters at once", of + ", one block a multiprocessor",
        [&] {
          const double count = active_clusters(context, cluster_barrier<false>, size, most);
          return Sample{count, count, count};
        },
        "clusters");
    context.attempt(
        "cluster barrier", of + ", one cluster", [&] { return barrier<false>(context, size, 1); },
        "ns");
    context.attempt(
        "cluster barrier", of + ", as many as run at once",
        [&] {
          const int fit = active_clusters(context, cluster_barrier<false>, size, most);
          return barrier<false>(context, size, static_cast<unsigned>(fit));
        },
        "ns");
    context.attempt(
        "cluster barrier", of + ", one cluster, relaxed arrival",
        [&] { return barrier<true>(context, size, 1); }, "ns");
  }
  Memory<unsigned> out(2);
  for (const int distance : {0, 1, 3}) {
    std::vector<double> cycles;
    for (int i = 0; i < 9; ++i) {
      launch(context, remote_chain, {.blocks = 4, .threads = 128, .cluster = 4}, out.get(), loads,
             distance);
      const std::vector<unsigned> got = out.read(2);
      expect(got[0] == loads * 33u % chain, "the chain was not followed");
      cycles.push_back(static_cast<double>(got[1]) / loads);
    }
    context.figure("load of shared memory",
                   distance == 0 ? "own, through the cluster's address"
                                 : "of block " + std::to_string(distance) + " of 4",
                   sample_of(cycles), "cycles");
  }
}

}  // namespace cuvae::units
