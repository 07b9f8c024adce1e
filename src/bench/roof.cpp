#include "bench/roof.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "bench/clock.h"
#include "bench/statistics.h"
#include "cuvae/rng.h"

namespace cuvae {
namespace {

// Normals that repeat after a while: zeros would let a GPU run faster than data do.
Tensor random_tensor(const Shape& shape, std::uint16_t stream) {
  constexpr std::size_t period = 1 << 18;
  Tensor tensor(DType::f32, shape);
  const auto values = tensor.as<float>();
  const RandomKey key{.seed = 20, .purpose = Purpose::augmentation, .stream = stream};
  for (std::size_t i = 0; i < std::min(period, values.size()); ++i) {
    values[i] = random_normal(key, i);
  }
  for (std::size_t i = period; i < values.size(); ++i) values[i] = values[i - period];
  return tensor;
}

struct Work {
  double flops = 0;
  double bytes = 0;
  double seconds = 0;  // of one run
};

// One node over two inputs of these shapes.
Work measure(Device& device, const CompileOptions& options, const char* op, const Shape& a,
             const Shape& b) {
  const std::unique_ptr<Store> store = device.make_store();
  Graph graph;
  const Value x = graph.input("a", DType::f32, a);
  const Value y = graph.input("b", DType::f32, b);
  graph.output(graph.apply(op, "c", {x, y}));
  CompileOptions plain = options;
  plain.steps = 1;
  plain.fuse = false;
  const std::unique_ptr<Program> program = device.compile(graph, *store, plain);
  store->write("a", random_tensor(a, 2));
  store->write("b", random_tensor(b, 3));
  const std::unique_ptr<DeviceTimer> timer = device.make_timer(*store);
  const auto seconds_of = [&](int runs) {
    return timed(timer.get(),
                 [&] {
                   for (int i = 0; i < runs; ++i) program->run();
                 })
               .best() /
           runs;
  };
  static_cast<void>(seconds_of(1));
  const double once = seconds_of(1);
  std::vector<double> samples;
  const int runs = std::clamp(static_cast<int>(2e-3 / std::max(once, 1e-7)), 1, 100);
  for (int i = 0; i < 5; ++i) samples.push_back(seconds_of(runs));
  const Cost cost = cost_of(graph);
  return {cost.flops, cost.bytes, median(samples)};
}

}  // namespace

Cost cost_of(const Graph& graph) {
  Cost sum;
  for (const Node& node : graph.nodes()) {
    const Cost cost = op_def(node.op).cost(graph, node);
    sum.flops += cost.flops;
    sum.bytes += cost.bytes;
  }
  return sum;
}

Roof measure_roof(Device& device, const CompileOptions& options) {
  constexpr double enough_seconds = 4e-3;
  Roof roof;
  for (std::int64_t n = 256; n <= 8192; n *= 2) {
    const Work work = measure(device, options, "linear", Shape{n, n}, Shape{n, n});
    roof.gflops = std::max(roof.gflops, 1e-9 * work.flops / work.seconds);
    if (work.seconds > enough_seconds) break;
  }
  // The largest counts, not the best: small ones stay in the caches.
  for (std::int64_t n = std::int64_t{1} << 16; n <= std::int64_t{1} << 27; n *= 8) {
    const Work work = measure(device, options, "add", Shape{n}, Shape{n});
    roof.gbytes = 1e-9 * work.bytes / work.seconds;
    if (work.seconds > enough_seconds) break;
  }
  return roof;
}

double copy_bandwidth(std::int64_t bytes, int threads) {
  const auto half = static_cast<std::size_t>(std::max<std::int64_t>(bytes / 2, 1 << 16));
  const std::size_t share = half / static_cast<std::size_t>(threads);
  std::vector<char> from(half, 1);
  std::vector<char> to(half, 2);
  std::vector<double> rates(static_cast<std::size_t>(threads));
  {
    std::vector<std::jthread> team;
    for (int t = 0; t < threads; ++t) {
      team.emplace_back([&, t] {
        const std::size_t first = share * static_cast<std::size_t>(t);
        std::vector<double> samples;
        const auto start = BenchClock::now();
        while (seconds_since(start) < 0.2) {
          const auto one = BenchClock::now();
          std::memcpy(to.data() + first, from.data() + first, share);
          // Reading the copy keeps it from being left out.
          if (to[first + share / 2] == 2) break;
          samples.push_back(2.0 * static_cast<double>(share) / seconds_since(one));
        }
        rates[static_cast<std::size_t>(t)] = median(samples);
      });
    }
  }
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum;
}

}  // namespace cuvae
