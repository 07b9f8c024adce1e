#pragma once
// Measurements behind `cuvae bench`. Everything that is compared is measured in one process run,
// turn by turn (ours, products, peers, ours, ...), with the same number of threads, after warm-up;
// times are medians over the repeats, and spreads are interquartile ranges.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"

namespace cuvae {

struct BenchOptions {
  // "": the config's model at its own batch size. step: batches 128, 1024, 4096, 16384. kernels:
  // node by node. epochs: wall time of `epochs` epochs. decode: latents to images. replicas: 1, 2,
  // 4, ... `replicas` models side by side.
  std::string suite = {};
  std::int64_t repeats = 0;  // 0: 15 up to batch 1024, else 7
  std::int64_t steps = 0;    // training steps per repeat; 0: what takes about 0.1 s
  std::int64_t epochs = 1;
  std::int64_t replicas = 8;
  bool peers = false;  // also PyTorch and, on a GPU, JAX (bench/peers), in its precision
  std::vector<std::string> peer_names = {};  // of PeerBench; none: all
  std::string python = {};  // that can import torch; empty: the environment's CUVAE_PEERS_PYTHON
  std::string peers_path = {};  // folder of torch_step.py; empty: CUVAE_PEERS_PATH, else
                                // bench/peers above the executable or the current directory
  std::function<void(const std::string&)> on_message = {};
};

struct PeerBench {
  std::string name;    // "pytorch eager", "pytorch compile"; on a GPU also "pytorch graph",
                       // "pytorch compiled graph", "jax scan"
  std::string absent;  // why there is no measurement; empty where there is one
  std::string version;
  double step_ms = 0;
  double step_ms_spread = 0;
  double ratio = 0;  // its step time / ours: above 1 we are faster
  double bound = 0;  // its step time / our matrix products alone: the most that `ratio` could be
};

// One training step, end to end: batch, forward, loss, backward, Adam, losses read back.
struct StepBench {
  std::int64_t batch = 0;
  std::int64_t steps = 0;  // per repeat
  std::int64_t repeats = 0;
  double step_ms = 0;
  double step_ms_spread = 0;
  double samples_per_second = 0;
  double step_gflop = 0;       // of the step's matrix products
  double gemm_gflops = 0;      // step_gflop / step time
  double openblas_gflops = 0;  // the products alone: OpenBLAS with its own threads,
  double tiles_gflops = 0;     // and our tiles on our team
  double ceiling_gflops = 0;   // the better of the two for each shape; 0: not measured (no CPU)
  double share_of_ceiling = 0;
  std::vector<PeerBench> peers;
};

struct NodeBench {
  std::string node;
  std::string op;
  double us = 0;
  double mflop = 0;
  double mbytes = 0;  // least traffic
  double share_of_step = 0;
  double share_of_roof = 0;  // least possible time by ceiling_gflops and bandwidth / time
};

struct EpochsBench {
  std::int64_t epochs = 0;
  std::int64_t steps = 0;
  double seconds = 0;
  double seconds_per_epoch = 0;
  double samples_per_second = 0;
};

struct DecodeBench {
  std::int64_t batch = 0;
  double us = 0;
  double us_spread = 0;
  double images_per_second = 0;
};

struct ReplicasBench {
  std::int64_t replicas = 1;
  std::int64_t batch = 0;
  std::int64_t steps = 0;  // of each, per repeat
  std::int64_t repeats = 0;
  std::string exec = {};
  double samples_per_second = 0;  // of all
  double samples_per_second_spread = 0;
  double ratio = 0;  // to one model's, measured in turn
};

struct BenchReport {
  std::string suite;
  std::string device;
  std::string machine;
  int threads = 0;
  std::string data;  // "synthetic", or the data's path
  std::vector<StepBench> steps;
  std::vector<NodeBench> nodes;
  double node_ceiling_gflops = 0;  // the roof of `nodes`
  double node_bandwidth_gbytes = 0;
  std::vector<EpochsBench> epochs;
  std::vector<DecodeBench> decodes;
  std::vector<ReplicasBench> replicas;
};

// The training split may be missing: then `dataset` is 60,000 synthetic images of 28 x 28, seeded
// and as sparse as MNIST. Errors: Error(usage) for an unknown suite or peer, or negative counts.
[[nodiscard]] BenchReport bench(const Config& config, std::shared_ptr<const Dataset> dataset,
                                Device& device, const BenchOptions& options);

// One JSON object. Suite "": flat {schema, device, machine, threads, data, batch, steps, repeats,
// step_ms, step_ms_spread, samples_per_second, gemm_gflops, ceiling_gflops, share_of_ceiling, ...};
// others: {schema, suite, device, machine, threads, data, results: [...]}. What was not measured is
// null.
[[nodiscard]] std::string bench_json(const BenchReport& report);
// The same as a table for people.
[[nodiscard]] std::string bench_table(const BenchReport& report);

}  // namespace cuvae
