#include "cuvae/bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include "base/text.h"
#include "bench/peer.h"
#include "bench/products.h"
#include "bench/statistics.h"
#include "cuvae/error.h"
#include "cuvae/model.h"
#include "cuvae/rng.h"
#include "cuvae/trainer.h"
#include "graph/op.h"

namespace cuvae {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr double repeat_seconds = 0.1;  // of one repeat, where the steps are not given
constexpr double peer_timeout = 600;    // a compiler may work for minutes

// Seeded images as sparse as MNIST: four pixels in five are zero.
std::shared_ptr<const Dataset> synthetic_dataset() {
  constexpr std::int64_t rows = 60000;
  constexpr std::int64_t features = 784;
  auto images = std::make_shared<Tensor>(DType::u8, Shape{rows, features});
  const auto pixels = images->as<std::uint8_t>();
  const RandomKey key{.seed = 20, .purpose = Purpose::augmentation};
  for (std::size_t i = 0; i < pixels.size(); i += 8) {
    const PhiloxWords words = random_words(key, i / 8);
    for (std::size_t j = 0; j < 8; ++j) {
      const std::uint32_t half = words[j / 2] >> (16 * (j % 2)) & 0xffff;
      pixels[i + j] = half % 5 == 0 ? static_cast<std::uint8_t>(1 + half / 5 % 255) : 0;
    }
  }
  auto dataset = std::make_shared<Dataset>();
  dataset->path = "synthetic";
  dataset->image = {.channels = 1, .height = 28, .width = 28};
  dataset->train = DatasetSplit{.images = std::move(images), .labels = {}};
  return dataset;
}

std::int64_t repeats_for(const BenchOptions& options, std::int64_t batch) {
  if (options.repeats > 0) return options.repeats;
  return batch <= 1024 ? 15 : 7;
}

void train_steps(Trainer& trainer, std::int64_t steps) {
  const std::int64_t end = trainer.step() + steps;
  while (trainer.step() < end) trainer.run(end - trainer.step());
}

Graph unfused_graph(const Model& model, const Config& config, std::int64_t batch,
                    std::int64_t rows) {
  TrainingSpec spec;
  spec.batch = batch;
  spec.dataset = rows;
  spec.window = rows;
  spec.objective = config.objective;
  spec.optimizer = config.train.optimizer;
  return model.training_graph(spec);
}

// The default architecture is what the peer script builds.
std::string not_the_peers_model(const Config& config, const InputSpec& input) {
  const ModelConfig& model = config.model;
  const auto one_relu = [](const std::vector<LayerConfig>& layers) {
    return layers.size() == 1 && layers[0].type == "linear" && layers[0].activation == "relu";
  };
  if (!one_relu(model.encoder.layers) || !one_relu(model.decoder.layers) ||
      model.encoder.layers[0].out != model.decoder.layers[0].out ||
      model.likelihood.type != "bernoulli") {
    return "the peers build one relu layer of equal width on both sides and a Bernoulli likelihood";
  }
  if (input.dtype != DType::u8) return "the peers read images of unsigned bytes";
  return {};
}

struct PeerProgram {
  const char* name;
  const char* script;
  const char* mode;
};
std::vector<PeerProgram> peer_programs(bool cuda) {
  if (!cuda) {
    return {{"pytorch eager", "torch_step.py", "eager"},
            {"pytorch compile", "torch_step.py", "compile"}};
  }
  return {{"pytorch eager", "torch_step.py", "eager"},
          {"pytorch compile", "torch_step.py", "max-autotune"},
          {"pytorch graph", "torch_step.py", "graph"},
          {"pytorch compiled graph", "torch_step.py", "compiled-graph"},
          {"jax scan", "jax_step.py", "scan"}};
}

// Error(usage) for a name that no peer of the device has.
void check_peers(const std::vector<std::string>& wanted, bool cuda) {
  const std::vector<PeerProgram> known = peer_programs(cuda);
  std::string names;
  for (const PeerProgram& program : known) {
    names += (names.empty() ? "" : ", ") + std::string(program.name);
  }
  for (const std::string& name : wanted) {
    if (!std::ranges::any_of(known, [&](const PeerProgram& p) { return p.name == name; })) {
      throw Error(Status::usage, "no peer is called `" + name + "`", "--peer", "use " + names);
    }
  }
}

struct RunningPeer {
  PeerBench result;
  std::unique_ptr<Peer> process;
  std::vector<double> step_seconds;
};

std::vector<RunningPeer> start_peers(const Config& config, const InputSpec& input,
                                     const DeviceInfo& device, std::int64_t rows,
                                     const BenchOptions& options) {
  std::vector<RunningPeer> peers;
  std::string absent = not_the_peers_model(config, input);
  std::string python = options.python;
  if (const char* variable = std::getenv("CUVAE_PEERS_PYTHON");
      python.empty() && variable != nullptr) {
    python = variable;
  }
  const std::filesystem::path folder = find_peers(options.peers_path);
  if (absent.empty() && python.empty()) {
    absent = "no Python with PyTorch is named: give --python \"$(scripts/peers-venv)\"";
  }
  if (absent.empty() && folder.empty()) {
    absent = "torch_step.py is not found: set CUVAE_PEERS_PATH to the folder bench/peers";
  }
  const bool cuda = device.name.starts_with("cuda");
  for (const PeerProgram& program : peer_programs(cuda)) {
    if (!options.peer_names.empty() && !std::ranges::count(options.peer_names, program.name)) {
      continue;
    }
    RunningPeer& peer = peers.emplace_back();
    peer.result.name = program.name;
    peer.result.absent = absent;
    if (!absent.empty()) continue;
    if (options.on_message) options.on_message("starting " + peer.result.name);
    std::vector<std::string> command = {
        python,      (folder / program.script).string(),
        "--device",  cuda ? "cuda" : "cpu",
        "--threads", std::to_string(std::max(device.threads, 1)),
        "--mode",    program.mode,
        "--samples", std::to_string(rows),
        "--input",   std::to_string(input.features()),
        "--hidden",  std::to_string(config.model.encoder.layers[0].out),
        "--latent",  std::to_string(config.model.latent.size)};
    if (cuda) command.insert(command.end(), {"--precision", config.run.precision});
    try {
      peer.process = std::make_unique<Peer>(command, peer_timeout);
      peer.result.version = peer.process->description().value("version", "");
    } catch (const Error& error) {
      peer.result.absent = error.what();
    }
  }
  return peers;
}

// Asks one peer for a repeat; a failure makes it absent from then on.
std::optional<double> peer_seconds(RunningPeer& peer, std::int64_t steps, std::int64_t batch) {
  if (!peer.process) return std::nullopt;
  try {
    const nlohmann::json reply = peer.process->ask({{"steps", steps}, {"batch", batch}});
    const double seconds = reply.at("seconds").get<double>() / static_cast<double>(steps);
    if (!(seconds > 0)) throw Error(Status::failed, "it measured no time", "peer");
    return seconds;
  } catch (const Error& error) {
    peer.result.absent = error.what();
  } catch (const nlohmann::json::exception&) {
    peer.result.absent = "its answer has no seconds";
  }
  peer.process.reset();
  return std::nullopt;
}

// Mean seconds of each product over one repeat's passes: as a repeat of steps is measured, so that
// noise from elsewhere weighs on both alike.
template <class Pass>
std::vector<double> mean_of(std::int64_t passes, Pass pass) {
  std::vector<double> sum = pass();  // warm-up
  std::ranges::fill(sum, 0.0);
  for (std::int64_t p = 0; p < passes; ++p) {
    const std::vector<double> seconds = pass();
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += seconds[i];
  }
  for (double& seconds : sum) seconds /= static_cast<double>(passes);
  return sum;
}

// Of each product, over the repeats.
std::vector<double> medians(const std::vector<std::vector<double>>& repeats) {
  std::vector<double> result;
  if (repeats.empty()) return result;
  for (std::size_t i = 0; i < repeats[0].size(); ++i) {
    std::vector<double> samples;
    for (const std::vector<double>& repeat : repeats) samples.push_back(repeat[i]);
    result.push_back(median(samples));
  }
  return result;
}

double total(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

StepBench bench_step(const Config& base, const std::shared_ptr<const Dataset>& dataset,
                     Device& device, const BenchOptions& options, std::int64_t batch) {
  Config config = base;
  config.train.batch_size = batch;
  const DeviceInfo info = device.info();
  auto trainable = std::make_shared<Dataset>(*dataset);
  trainable->test.reset();
  Trainer trainer(config, trainable, device);
  const std::int64_t rows = dataset->train->size();
  const std::vector<ProductShape> shapes =
      products_of(unfused_graph(trainer.model(), config, batch, rows));
  std::optional<Products> products;
  if (info.name.starts_with("cpu") && info.real == DType::f32) {
    products.emplace(shapes, std::max(info.threads, 1));
  }
  std::vector<RunningPeer> peers;
  if (options.peers) peers = start_peers(config, trainer.model().input(), info, rows, options);

  StepBench result;
  result.batch = batch;
  result.repeats = repeats_for(options, batch);
  result.step_gflop = flops_of(shapes) * 1e-9;
  // Warm-up, and how many steps fill a repeat.
  train_steps(trainer, 3);
  const auto probe = Clock::now();
  train_steps(trainer, 5);
  const double step_guess = seconds_since(probe) / 5;
  result.steps = options.steps > 0
                     ? options.steps
                     : std::clamp<std::int64_t>(std::llround(repeat_seconds / step_guess), 2, 1000);
  const std::int64_t warm = std::max<std::int64_t>(1, result.steps / 10);

  std::vector<double> ours;
  std::vector<std::vector<double>> openblas;
  std::vector<std::vector<double>> tiles;
  for (std::int64_t r = 0; r < result.repeats; ++r) {
    Products::settle();
    train_steps(trainer, warm);
    const auto start = Clock::now();
    train_steps(trainer, result.steps);
    ours.push_back(seconds_since(start) / static_cast<double>(result.steps));
    if (products) {
      Products::settle();
      openblas.push_back(mean_of(result.steps, [&] { return products->openblas(); }));
      Products::settle();
      tiles.push_back(mean_of(result.steps, [&] { return products->tiles(); }));
    }
    for (RunningPeer& peer : peers) {
      Products::settle();
      static_cast<void>(peer_seconds(peer, warm, batch));
      if (const auto seconds = peer_seconds(peer, result.steps, batch)) {
        peer.step_seconds.push_back(*seconds);
      }
    }
    if (options.on_message) {
      options.on_message("batch " + format_count(batch) + ": repeat " + std::to_string(r + 1) +
                         " of " + std::to_string(result.repeats) + ", " +
                         format_duration(ours.back()) + " a step");
    }
  }

  const double step = median(ours);
  result.step_ms = 1e3 * step;
  result.step_ms_spread = 1e3 * spread(ours);
  result.samples_per_second = static_cast<double>(batch) / step;
  result.gemm_gflops = result.step_gflop / step;
  double tiles_seconds = 0;
  if (products) {
    const std::vector<double> theirs = medians(openblas);
    const std::vector<double> own = medians(tiles);
    double best = 0;
    for (std::size_t i = 0; i < own.size(); ++i) best += std::min(theirs[i], own[i]);
    tiles_seconds = total(own);
    result.openblas_gflops = result.step_gflop / total(theirs);
    result.tiles_gflops = result.step_gflop / tiles_seconds;
    result.ceiling_gflops = result.step_gflop / best;
    result.share_of_ceiling = result.gemm_gflops / result.ceiling_gflops;
  }
  for (RunningPeer& peer : peers) {
    if (!peer.step_seconds.empty() && peer.result.absent.empty()) {
      const double theirs = median(peer.step_seconds);
      peer.result.step_ms = 1e3 * theirs;
      peer.result.step_ms_spread = 1e3 * spread(peer.step_seconds);
      peer.result.ratio = theirs / step;
      peer.result.bound = tiles_seconds > 0 ? theirs / tiles_seconds : 0;
    }
    result.peers.push_back(peer.result);
  }
  return result;
}

// Bytes per second of copying (read and written) over a footprint of `bytes` on `threads` threads.
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
        const auto start = Clock::now();
        while (seconds_since(start) < 0.2) {
          const auto one = Clock::now();
          std::memcpy(to.data() + first, from.data() + first, share);
          // Reading the copy keeps it from being left out.
          if (to[first + share / 2] == 2) break;
          samples.push_back(2.0 * static_cast<double>(share) / seconds_since(one));
        }
        rates[static_cast<std::size_t>(t)] = median(samples);
      });
    }
  }
  return total(rates);
}

void bench_kernels(const Config& config, const std::shared_ptr<const Dataset>& dataset,
                   Device& device, const BenchOptions& options, BenchReport& report) {
  const std::int64_t batch = config.train.batch_size;
  // The whole step first: its ceiling is the roof of the products.
  BenchOptions plain = options;
  plain.peers = false;
  report.steps.push_back(bench_step(config, dataset, device, plain, batch));
  const StepBench& step = report.steps.back();
  auto trainable = std::make_shared<Dataset>(*dataset);
  trainable->test.reset();
  Trainer trainer(config, trainable, device);
  train_steps(trainer, 5);
  Program& program = trainer.program();
  const Graph& graph = program.graph();
  const std::int64_t window = dataset->train->images->elements();
  const int threads = std::max(device.info().threads, 1);
  const double bandwidth =
      copy_bandwidth(program.arena_bytes() + program.persistent_bytes() - window, threads);
  const double ceiling = 1e9 * step.ceiling_gflops;
  report.node_ceiling_gflops = step.ceiling_gflops;
  report.node_bandwidth_gbytes = 1e-9 * bandwidth;

  std::map<const Node*, std::vector<double>> times;
  const std::int64_t runs = step.repeats * std::clamp<std::int64_t>(step.steps, 3, 30);
  for (std::int64_t r = 0; r < runs; ++r) {
    auto last = Clock::now();
    program.run([&](const TaskView& task) {
      const auto now = Clock::now();
      times[task.node].push_back(std::chrono::duration<double>(now - last).count());
      last = Clock::now();
    });
  }
  double sum = 0;
  for (const auto& [node, samples] : times) sum += median(samples);
  for (const Node& node : graph.nodes()) {
    const auto found = times.find(&node);
    if (found == times.end()) continue;
    const Cost cost = op_def(node.op).cost(graph, node);
    const double seconds = median(found->second);
    double least = cost.bytes / bandwidth;
    if (ceiling > 0) least = std::max(least, cost.flops / ceiling);
    report.nodes.push_back({.node = node.name,
                            .op = std::string(op_def(node.op).name),
                            .us = 1e6 * seconds,
                            .mflop = 1e-6 * cost.flops,
                            .mbytes = 1e-6 * cost.bytes,
                            .share_of_step = seconds / sum,
                            .share_of_roof = least / seconds});
  }
}

EpochsBench bench_epochs(const Config& config, const std::shared_ptr<const Dataset>& dataset,
                         Device& device, const BenchOptions& options) {
  auto trainable = std::make_shared<Dataset>(*dataset);
  trainable->test.reset();
  Trainer trainer(config, trainable, device);
  EpochsBench result;
  result.epochs = options.epochs;
  result.steps = options.epochs * trainer.steps_per_epoch();
  std::int64_t samples = 0;
  const auto start = Clock::now();
  while (trainer.step() < result.steps) {
    for (const StepResult& step : trainer.run(result.steps - trainer.step())) samples += step.n;
  }
  result.seconds = seconds_since(start);
  result.seconds_per_epoch = result.seconds / static_cast<double>(result.epochs);
  result.samples_per_second = static_cast<double>(samples) / result.seconds;
  return result;
}

DecodeBench bench_decode(const Config& config, const InputSpec& input, Device& device,
                         const BenchOptions& options, std::int64_t batch) {
  const Model model(config.model, input);
  const std::unique_ptr<Store> store = device.make_store();
  const std::unique_ptr<Program> program =
      device.compile(model.decoder_graph(batch), *store, CompileOptions{});
  // load() declares what the decoder does not use as well.
  model.load(*store, model.initial_weights(0), "initial weights");
  Tensor latents(DType::f32, Shape{batch, config.model.latent.size});
  const auto z = latents.as<float>();
  const RandomKey key{.seed = 0, .purpose = Purpose::generation};
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = random_normal(key, i);
  // Host to host: latents in, images out.
  Tensor decoded(DType::f32, Shape{batch, input.features()});
  const auto decode = [&] {
    program->run_batches(store_name::latents(batch), latents, "decoded", decoded);
  };
  for (int i = 0; i < 3; ++i) decode();
  const auto probe = Clock::now();
  decode();
  const std::int64_t calls =
      std::clamp<std::int64_t>(std::llround(0.25 * repeat_seconds / seconds_since(probe)), 1, 1000);
  std::vector<double> samples;
  for (std::int64_t r = 0; r < repeats_for(options, batch); ++r) {
    const auto start = Clock::now();
    for (std::int64_t c = 0; c < calls; ++c) decode();
    samples.push_back(seconds_since(start) / static_cast<double>(calls));
  }
  const double seconds = median(samples);
  return {.batch = batch,
          .us = 1e6 * seconds,
          .us_spread = 1e6 * spread(samples),
          .images_per_second = static_cast<double>(batch) / seconds};
}

}  // namespace

BenchReport bench(const Config& config, std::shared_ptr<const Dataset> dataset, Device& device,
                  const BenchOptions& options) {
  for (const auto& [name, count] :
       {std::pair("--repeats", options.repeats), std::pair("--steps", options.steps),
        std::pair("--epochs", options.epochs - 1)}) {
    if (count < 0) {
      throw Error(Status::usage, "a count is too small", name, "give a positive number");
    }
  }
  const DeviceInfo info = device.info();
  check_peers(options.peer_names, info.name.starts_with("cuda"));
  if (!dataset || !dataset->train) dataset = synthetic_dataset();
  BenchReport report;
  report.suite = options.suite;
  report.device = info.name;
  report.machine = info.model;
  report.threads = info.threads;
  report.data = dataset->path.string();
  if (options.suite.empty()) {
    report.steps.push_back(bench_step(config, dataset, device, options, config.train.batch_size));
  } else if (options.suite == "step") {
    for (const std::int64_t batch : {128, 1024, 4096, 16384}) {
      if (batch > dataset->train->size()) continue;
      report.steps.push_back(bench_step(config, dataset, device, options, batch));
    }
  } else if (options.suite == "kernels") {
    bench_kernels(config, dataset, device, options, report);
  } else if (options.suite == "epochs") {
    report.epochs.push_back(bench_epochs(config, dataset, device, options));
  } else if (options.suite == "decode") {
    for (const std::int64_t batch : {1, 128, 4096}) {
      report.decodes.push_back(
          bench_decode(config, input_spec(*dataset, config.data), device, options, batch));
    }
  } else {
    const std::string near = closest(options.suite, {"step", "kernels", "epochs", "decode"});
    throw Error(
        Status::usage, "there is no suite `" + options.suite + "`", "--suite",
        near.empty() ? "use step, kernels, epochs or decode" : "did you mean `" + near + "`?");
  }
  return report;
}

}  // namespace cuvae
