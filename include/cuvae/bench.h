#pragma once
// Measurements behind `cuvae bench`. Everything that is compared is measured in one process run,
// turn by turn (ours, products, peers, ours, ...), with the same number of threads, after warm-up;
// times are medians over the repeats, and spreads are interquartile ranges. Where the device has a
// clock of its own (a GPU's events), its time stands beside that of the host's clock.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"

namespace cuvae {

struct BenchReport;

struct BenchOptions {
  // "": the config's model at its own batch size. step: the same at several batch sizes. wide: two
  // hidden layers of 2048 and of 4096. kernels: node by node. epochs: wall time of `epochs` epochs.
  // decode: latents to images and back. replicas: 1, 2, 4, ... `replicas` models side by side;
  // before the device is opened, ask_for_queues() of run.h.
  std::string suite = {};
  std::int64_t repeats = 0;   // 0: 15 up to batch 1024, else 7
  std::int64_t steps = 0;     // training steps per repeat; 0: what takes about 0.1 s
  std::int64_t epochs = 0;    // 0: 100 on a GPU, 3 on a CPU
  std::int64_t replicas = 8;  // of the suite replicas
  // Of the suites step, wide and decode; none: 128, 1024, 4096, 16384, 65536; 4096 and 16384 (a
  // CPU: 128 and 1024); 1, 128, 4096 and on a GPU 65536.
  std::vector<std::int64_t> batches = {};
  std::vector<std::int64_t> widths = {};     // of the suite wide; none: 2048, 4096
  std::vector<std::string> precisions = {};  // of the suite wide; none: the config's
  // A row whose repeat would take longer, in seconds, is left out and says so. 0: 5 on a CPU, none
  // on a GPU; below 0: none.
  double longest = 0;
  bool peers = false;                        // also PyTorch and JAX (bench/peers), in its precision
  std::vector<std::string> peer_names = {};  // of PeerBench; none: all
  std::string python = {};  // that can import torch; empty: the environment's CUVAE_PEERS_PYTHON
  std::string peers_path = {};  // folder of torch_step.py; empty: CUVAE_PEERS_PATH, else
                                // bench/peers above the executable or the current directory
  // Before a ratio to a peer is told, both train so many steps from the same weights on the same
  // rows, and their neg_elbo on the same images must agree. 0: 300, fewer where that takes more
  // than 5 s; the suite epochs takes all its steps.
  std::int64_t check_steps = 0;
  // Nats per image. 0: 0.5 from 4000 steps on; before, where the figure still falls fast, 2 % of
  // ours: four standard deviations of the difference that other noise makes after 300 steps on
  // MNIST.
  double check_tolerance = 0;
  double context_seconds = 0;  // what opening the device took; 0: not known
  std::function<void(const std::string&)> on_message = {};
  std::function<void(const BenchReport&)> on_row = {};  // after each row, with all until then
};

struct PeerBench {
  std::string name;      // "pytorch eager", "pytorch compile", "jax jit", "jax scan"; on a GPU also
                         // "pytorch reduce-overhead", "pytorch max-autotune", "pytorch graph",
                         // "pytorch compiled graph", "pytorch tuned graph"
  std::string absent;    // why there is no measurement; empty where there is one
  std::string withheld;  // why there is no ratio although both sides were measured
  std::string version;
  double step_ms = 0;
  double step_ms_spread = 0;
  double ratio = 0;     // its step time / ours: above 1 we are faster
  double bound = 0;     // its step time / our matrix products alone: the most that `ratio` could be
  double neg_elbo = 0;  // after the check's steps
};

// What both sides are held to before a ratio is told.
struct ElboCheck {
  std::int64_t steps = 0;  // 0: not made
  std::int64_t rows = 0;   // images that neg_elbo is averaged over
  double neg_elbo = 0;     // ours
  double tolerance = 0;
};

// One training step, end to end: batch, forward, loss, backward, Adam, losses read back.
struct StepBench {
  std::string model;  // "784-512-32"
  std::string precision;
  std::string exec;  // how the program ran
  std::int64_t batch = 0;
  std::string skipped;     // why it was not measured; then the figures below are 0
  std::int64_t steps = 0;  // per repeat
  std::int64_t repeats = 0;
  double step_ms = 0;
  double step_ms_spread = 0;
  double device_ms = 0;  // by the device's clock; 0: it has none
  double device_ms_spread = 0;
  double samples_per_second = 0;
  double step_gflop = 0;       // of the step's matrix products
  double step_mbytes = 0;      // least traffic of the plan's nodes
  double gemm_gflops = 0;      // step_gflop / step time
  double openblas_gflops = 0;  // the products alone: OpenBLAS with its own threads,
  double tiles_gflops = 0;     // and our tiles on our team
  // CPU: the better of the two for each shape; a GPU: the best rate of a large product. 0: not
  // measured.
  double ceiling_gflops = 0;
  double share_of_ceiling = 0;
  double bandwidth_gbytes = 0;  // of copying as many bytes as the step holds; 0: not measured
  double roof_ms = 0;  // the longer of FLOPs / ceiling and bytes / bandwidth; 0: not measured
  ElboCheck check;
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

// Training alone, from the first launch to the final synchronise, and apart from it what a program
// pays once.
struct EpochsBench {
  std::string precision;
  std::string exec;
  std::int64_t batch = 0;
  std::int64_t epochs = 0;
  std::int64_t steps = 0;
  double seconds = 0;
  double device_seconds = 0;  // by the device's clock; 0: it has none
  double seconds_per_epoch = 0;
  double samples_per_second = 0;
  double context_seconds = 0;   // opening the device; 0: not known
  double build_seconds = 0;     // graph, plan, memory, initial weights
  double upload_seconds = 0;    // the data
  double capture_seconds = 0;   // programs made ready
  double evaluate_seconds = 0;  // of the test split
  double neg_elbo = 0;          // ... and its figure
  ElboCheck check;
  std::vector<PeerBench> peers;  // step_ms: of a step within as many epochs
};

// One call of the decoder or of the encoder: as `cuvae decode` and `encode` run so many rows, in
// programs of at most 1000 of them on a CPU and 4096 on a GPU.
struct DecodeBench {
  std::string what;       // "decode" or "encode"
  std::string exec = {};  // how the programs ran
  std::int64_t batch = 0;
  std::string skipped;  // why it was not measured; then the figures below are 0
  double us = 0;        // host to host
  double us_spread = 0;
  double run_us = 0;  // the programs alone, operands on the device, by its clock where it has one
  double run_us_spread = 0;
  double images_per_second = 0;      // host to host
  double run_images_per_second = 0;  // ... alone
  double mbytes = 0;                 // least traffic of the program
  double gbytes_per_second = 0;      // mbytes / run_us
  double share_of_roof = 0;          // of the longer of bytes / bandwidth and FLOPs / ceiling
};

struct ReplicasBench {
  std::int64_t replicas = 1;
  std::int64_t batch = 0;
  std::int64_t steps = 0;  // of each, per repeat
  std::int64_t repeats = 0;
  std::string precision = {};
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
  bool complete = false;
  std::vector<StepBench> steps;
  std::vector<NodeBench> nodes;
  std::string node_exec;           // how the program of `nodes` runs
  double node_ceiling_gflops = 0;  // the roof of `nodes` and `decodes`
  double node_bandwidth_gbytes = 0;
  std::vector<EpochsBench> epochs;
  std::vector<DecodeBench> decodes;
  std::vector<ReplicasBench> replicas;
};

// Error(usage) for an unknown suite or precision, or counts, sizes or a tolerance that cannot be.
void validate(const BenchOptions& options);

// The training split may be missing: then `dataset` is synthetic images of 28 x 28, seeded and as
// sparse as MNIST: 60,000, or twice the largest batch. Errors: Error(usage) for an unknown suite or
// peer, a precision or executor that the device has not, or negative counts.
[[nodiscard]] BenchReport bench(const Config& config, std::shared_ptr<const Dataset> dataset,
                                Device& device, const BenchOptions& options);

// One JSON object. Suite "": flat {schema, device, machine, threads, data, batch, steps, repeats,
// step_ms, step_ms_spread, samples_per_second, gemm_gflops, ceiling_gflops, share_of_ceiling, ...};
// others: {schema, suite, device, machine, threads, data, complete, results: [...]}. What was not
// measured is null.
[[nodiscard]] std::string bench_json(const BenchReport& report);
// The same as a table for people. With more rows it only grows at its end.
[[nodiscard]] std::string bench_table(const BenchReport& report);

}  // namespace cuvae
