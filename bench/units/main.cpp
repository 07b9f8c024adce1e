// What one barrier, graph node, launch, copy or matrix instruction costs on this GPU.
//
//   cuvae-units --list        the groups, one a line
//   cuvae-units GROUP...      measures them (all without one): a JSON line for each figure
//
// Status 0: all measured or unavailable with a reason; 1: a check failed; 2: no such group; 4: no
// GPU. Every loop's result is checked; loops that wait have an end.

#include <cstdio>
#include <exception>
#include <string_view>

#include "units/measure.h"

namespace cuvae::units {

const std::vector<Group>& groups() {
  static const std::vector<Group> all = {
      {"barriers", "a counter's hop, flat barriers, grid.sync", measure_barriers},
      {"clusters", "barriers of clusters, distributed shared memory", measure_clusters},
      {"graphs", "a node of a graph, with and without programmatic launch", measure_graphs},
      {"while", "an iteration of a WHILE node", measure_while},
      {"launches", "launches and events, on the GPU and on the host", measure_launches},
      {"l2", "latency and bandwidth of the L2 cache", measure_l2},
      {"bulk", "bulk copies from L2 into shared memory", measure_bulk},
      {"hbm", "latency and bandwidth of device memory", measure_hbm},
      {"copies", "copies between pinned host memory and the GPU", measure_copies},
      {"mma", "mma.sync in tf32 and bf16", measure_mma},
      {"ffma", "FFMA, and the clock meanwhile", measure_ffma},
      {"syncthreads", "__syncthreads", measure_syncthreads},
      {"products", "the step's 11 products by our kernels and by cuBLASLt", measure_products},
  };
  return all;
}

namespace {

int run(int argc, char** argv) {
  std::vector<const Group*> chosen;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--list") {
      for (const Group& group : groups()) std::printf("%s\t%s\n", group.name, group.what);
      return 0;
    }
    const std::size_t before = chosen.size();
    for (const Group& group : groups())
      if (name == group.name) chosen.push_back(&group);
    if (chosen.size() == before) {
      std::fprintf(stderr, "cuvae-units: error: no group `%s`: see cuvae-units --list\n", argv[i]);
      return 2;
    }
  }
  if (chosen.empty())
    for (const Group& group : groups()) chosen.push_back(&group);
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess || count == 0) {
    std::fprintf(stderr, "cuvae-units: error: no GPU: %s\n",
                 found != cudaSuccess ? cudaGetErrorString(found) : "the driver shows none");
    return 4;
  }
  const Context context;
  for (const Group* group : chosen) {
    try {
      group->run(context);
    } catch (const Unavailable& error) {
      context.unavailable(group->name, "", error.what());
    }
  }
  return 0;
}

}  // namespace
}  // namespace cuvae::units

int main(int argc, char** argv) {
  try {
    return cuvae::units::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuvae-units: error: %s\n", error.what());
    return 1;
  }
}
