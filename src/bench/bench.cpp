#include "cuvae/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.h"
#include "bench/data.h"
#include "bench/measure.h"
#include "bench/replicas.h"
#include "bench/statistics.h"
#include "cuvae/error.h"
#include "cuvae/model.h"
#include "cuvae/rng.h"
#include "cuvae/run.h"
#include "train/inference.h"

namespace cuvae {
namespace {

using Data = std::shared_ptr<const Dataset>;

std::vector<std::int64_t> or_else(const std::vector<std::int64_t>& given,
                                  std::vector<std::int64_t> otherwise) {
  return given.empty() ? otherwise : given;
}

std::vector<std::int64_t> step_batches(const BenchOptions& options) {
  return or_else(options.batches, {128, 1024, 4096, 16384, 65536});
}
std::vector<std::int64_t> wide_batches(const BenchOptions& options, bool cpu) {
  return or_else(options.batches, cpu ? std::vector<std::int64_t>{128, 1024}
                                      : std::vector<std::int64_t>{4096, 16384});
}
std::vector<std::int64_t> decode_batches(const BenchOptions& options, bool cpu) {
  return or_else(options.batches, cpu ? std::vector<std::int64_t>{1, 128, 4096}
                                      : std::vector<std::int64_t>{1, 128, 4096, 65536});
}

// One run of a suite: the rows as they are measured.
class Suite {
 public:
  Suite(const Config& config, Data dataset, Device& device, const BenchOptions& options)
      : config_(config),
        dataset_(std::move(dataset)),
        device_(device),
        options_(options),
        info_(device.info()),
        session_(device, options) {
    report_.suite = options.suite;
    report_.device = info_.name;
    report_.machine = info_.model;
    report_.threads = info_.threads;
    report_.data = dataset_->path.string();
  }

  BenchReport run() {
    if (options_.suite.empty()) {
      const auto peers = peers_of(config_);
      report_.steps.push_back(
          bench_step(config_, dataset_, device_, options_, session_, peers.get(), false, 0));
    } else if (options_.suite == "step") {
      const auto peers = peers_of(config_);
      steps(config_, step_batches(options_), peers.get());
    } else if (options_.suite == "wide") {
      wide();
    } else if (options_.suite == "kernels") {
      kernels();
    } else if (options_.suite == "epochs") {
      epochs();
    } else if (options_.suite == "replicas") {
      replicas();
    } else {
      decode();
    }
    report_.complete = true;
    return report_;
  }

 private:
  void row() const {
    if (options_.on_row) options_.on_row(report_);
  }

  [[nodiscard]] std::unique_ptr<PeerSet> peers_of(const Config& config) const {
    if (!options_.peers) return nullptr;
    const Model model(config.model, input_spec(*dataset_, config.data));
    return std::make_unique<PeerSet>(config, model, *dataset_, info_, options_);
  }

  void steps(const Config& base, const std::vector<std::int64_t>& batches, PeerSet* peers) {
    double gflops = 0;
    for (const std::int64_t batch : batches) {
      Config config = base;
      config.train.batch_size = batch;
      report_.steps.push_back(
          bench_step(config, dataset_, device_, options_, session_, peers, true, gflops));
      if (const StepBench& step = report_.steps.back(); step.skipped.empty()) {
        gflops = step.gemm_gflops;
      }
      row();
    }
  }

  // Two hidden layers on each side, a sixteenth of their width in the latent space.
  void wide() {
    std::vector<std::string> precisions = options_.precisions;
    if (precisions.empty()) precisions = {config_.run.precision};
    for (const std::int64_t width : or_else(options_.widths, {2048, 4096})) {
      for (const std::string& precision : precisions) {
        Config config = config_;
        const LayerConfig layer{.out = width, .activation = "relu"};
        config.model.encoder.layers = {layer, layer};
        config.model.decoder.layers = {layer, layer};
        config.model.latent.size = std::max<std::int64_t>(width / 16, 1);
        config.run.precision = precision;
        const auto peers = peers_of(config);
        steps(config, wide_batches(options_, on_cpu(info_)), peers.get());
      }
    }
  }

  void kernels() {
    // The whole step first: its ceiling is the roof of the products.
    report_.steps.push_back(
        bench_step(config_, dataset_, device_, options_, session_, nullptr, false, 0));
    const StepBench& step = report_.steps.back();
    row();
    Trainer trainer(config_, training_only(*dataset_), device_,
                    {.compile = training_options(config_, 1)});
    trainer.warm_up();
    train_steps(trainer, 5);
    report_.node_ceiling_gflops = step.ceiling_gflops;
    report_.node_bandwidth_gbytes = step.bandwidth_gbytes;
    if (step.bandwidth_gbytes <= 0) {  // a device whose ceiling is not measured
      report_.node_bandwidth_gbytes =
          1e-9 * copy_bandwidth(trainer.program().arena_bytes(), std::max(info_.threads, 1));
    }
    const auto runs = static_cast<int>(step.repeats * std::clamp<std::int64_t>(step.steps, 3, 30));
    report_.node_exec = trainer.program().exec();
    const std::vector<NodeTime> times = trainer.program().profile(runs);
    double sum = 0;
    for (const NodeTime& node : times) sum += node.seconds;
    for (const NodeTime& node : times) {
      const double least = node_roof().seconds(node.flops, node.bytes);
      report_.nodes.push_back({.node = node.node,
                               .op = node.op,
                               .us = 1e6 * node.seconds,
                               .mflop = 1e-6 * node.flops,
                               .mbytes = 1e-6 * node.bytes,
                               .share_of_step = node.seconds / sum,
                               .share_of_roof = least / node.seconds});
    }
    row();
  }

  // That of the report.
  [[nodiscard]] Roof node_roof() const {
    return {.gflops = report_.node_ceiling_gflops, .gbytes = report_.node_bandwidth_gbytes};
  }

  void epochs() {
    EpochsBench result;
    result.precision = config_.run.precision;
    result.batch = config_.train.batch_size;
    result.epochs = options_.epochs > 0 ? options_.epochs : on_cpu(info_) ? 3 : 100;
    result.context_seconds = options_.context_seconds;
    auto start = BenchClock::now();
    Trainer trainer(config_, dataset_, device_, {.compile = training_options(config_)});
    // The constructor has begun the upload, which warm_up() tells.
    result.build_seconds = seconds_since(start) - trainer.upload_seconds();
    result.exec = trainer.program().exec();
    session_.tell(trainer.note());
    const Trainer::WarmUp warm = trainer.warm_up();
    result.upload_seconds = warm.upload;
    result.capture_seconds = warm.capture;
    result.steps = result.epochs * trainer.steps_per_epoch();
    const std::unique_ptr<DeviceTimer> timer = device_.make_timer(trainer.store());
    std::int64_t samples = 0;
    const Times times = timed(timer.get(), [&] {
      while (trainer.step() < result.steps) {
        for (const StepResult& step : trainer.run(result.steps - trainer.step())) samples += step.n;
      }
    });
    result.seconds = times.wall;
    result.device_seconds = times.device;
    result.seconds_per_epoch = result.seconds / static_cast<double>(result.epochs);
    result.samples_per_second = static_cast<double>(samples) / result.seconds;
    start = BenchClock::now();
    if (const auto metrics = trainer.evaluate_test()) {
      result.evaluate_seconds = seconds_since(start);
      result.neg_elbo = metrics->neg_elbo;
    }
    report_.epochs.push_back(result);
    row();
    const auto peers = peers_of(config_);
    if (!peers) return;
    // Once each: epochs of their own are repeats enough.
    const double step = result.seconds / static_cast<double>(result.steps);
    peers->begin(result.batch);
    if (peers->any()) {
      const bool all = options_.check_steps == 0 || options_.check_steps == result.steps;
      result.check =
          all ? check_of(trainer, options_) : check_of(config_, dataset_, device_, options_, step);
      peers->check(result.check);
      peers->repeat(0, result.steps);
    }
    result.peers = peers->results(step, 0);
    report_.epochs.back() = result;
    row();
  }

  void replicas() {
    report_.replicas = bench_replicas(config_, dataset_, device_, options_, session_);
    row();
  }

  void decode() {
    const Model model(config_.model, input_spec(*dataset_, config_.data));
    const Roof roof = session_.roofs.of(config_);
    report_.node_ceiling_gflops = roof.gflops;
    report_.node_bandwidth_gbytes = roof.gbytes;
    for (const std::int64_t batch : decode_batches(options_, on_cpu(info_))) {
      report_.decodes.push_back(decode_row(model, batch));
      row();
    }
    for (const std::int64_t batch : decode_batches(options_, on_cpu(info_))) {
      if (const std::int64_t images = dataset_->train->size(); batch > images) {
        report_.decodes.push_back(
            {.what = "encode",
             .batch = batch,
             .skipped = "the data has " + format_count(images) + " images only"});
      } else {
        report_.decodes.push_back(encode_row(model, batch));
      }
      row();
    }
  }

  DecodeBench decode_row(const Model& model, std::int64_t batch) {
    const std::unique_ptr<Store> store = device_.make_store();
    Decoder decoder(device_, *store, model, compile_options(config_.run));
    const std::vector<ProgramRuns> programs = decoder.programs(batch);
    // load() declares what the decoder does not use as well.
    model.load(*store, model.initial_weights(0), "initial weights");
    // Others in every call.
    std::array<Tensor, 4> latents;
    for (std::size_t k = 0; k < latents.size(); ++k) {
      latents[k] = Tensor(DType::f32, Shape{batch, model.decoder_width()});
      const RandomKey key{.seed = k, .purpose = Purpose::generation};
      const auto z = latents[k].as<float>();
      for (std::size_t i = 0; i < z.size(); ++i) z[i] = random_normal(key, i);
    }
    Tensor decoded(DType::f32, Shape{batch, dataset_->image.features()});
    std::size_t calls = 0;
    return inference_row(
        "decode", batch, programs, *store,
        [&] { decoder.run(latents[calls++ % latents.size()], decoded); },
        [&] {
          for (const ProgramRuns& part : programs)
            for (std::int64_t r = 0; r < part.runs; ++r) part.program->run();
        });
  }

  DecodeBench encode_row(const Model& model, std::int64_t batch) {
    const std::unique_ptr<Store> store = device_.make_store();
    Encoder encoder(device_, *store, model, batch, config_.train.seed,
                    compile_options(config_.run));
    model.load(*store, model.initial_weights(0), "initial weights");
    // Others in every call, as far as there are; never the same tensor twice, which a GPU would not
    // upload again.
    const DatasetSplit& split = *dataset_->train;
    const std::int64_t sets = std::clamp<std::int64_t>(split.size() / batch, 1, 4);
    std::vector<std::shared_ptr<const Tensor>> images;
    for (std::int64_t k = 0; k < std::max<std::int64_t>(sets, 2); ++k) {
      images.push_back(
          std::make_shared<const Tensor>(take_rows(*split.images, k % sets * batch, batch)));
    }
    std::shared_ptr<const Tensor> labels;
    if (model.told_labels()) labels = std::make_shared<const Tensor>(DType::u8, Shape{batch});
    Tensor mean(DType::f32, Shape{batch, config_.model.latent.size});
    Tensor logvar(DType::f32, mean.shape());
    std::size_t calls = 0;
    return inference_row(
        "encode", batch, encoder.programs(), *store,
        [&] { encoder.run(images[calls++ % images.size()], labels, mean, logvar); },
        [&] { encoder.run_programs(); });
  }

  // `call`: host to host. `alone`: the same runs of the same programs, nothing read back.
  template <class Call, class Alone>
  DecodeBench inference_row(const char* what, std::int64_t batch,
                            const std::vector<ProgramRuns>& programs, Store& store, Call call,
                            Alone alone_call) {
    DecodeBench result;
    result.what = what;
    result.batch = batch;
    result.exec = programs.front().program->exec();
    session_.tell(programs.front().program->note());
    for (int i = 0; i < 3; ++i) call();
    const double once = timed(nullptr, call).wall;
    const std::int64_t calls =
        std::clamp<std::int64_t>(std::llround(0.25 * repeat_seconds / once), 1, 1000);
    const std::unique_ptr<DeviceTimer> timer = device_.make_timer(store);
    const auto seconds_of = [&](DeviceTimer* clock, const auto& work) {
      const Times times = timed(clock, [&] {
        for (std::int64_t c = 0; c < calls; ++c) work();
      });
      return times.best() / static_cast<double>(calls);
    };
    std::vector<double> whole;
    std::vector<double> alone;
    for (std::int64_t r = 0; r < repeats_for(options_, batch); ++r) {
      whole.push_back(seconds_of(nullptr, call));
      alone.push_back(seconds_of(timer.get(), alone_call));
    }
    Cost cost;
    for (const ProgramRuns& part : programs) {
      const Cost one = cost_of(part.program->graph());
      cost.flops += static_cast<double>(part.runs) * one.flops;
      cost.bytes += static_cast<double>(part.runs) * one.bytes;
    }
    const double seconds = median(whole);
    const double run = median(alone);
    result.us = 1e6 * seconds;
    result.us_spread = 1e6 * spread(whole);
    result.run_us = 1e6 * run;
    result.run_us_spread = 1e6 * spread(alone);
    result.images_per_second = static_cast<double>(batch) / seconds;
    result.run_images_per_second = static_cast<double>(batch) / run;
    result.mbytes = 1e-6 * cost.bytes;
    result.gbytes_per_second = 1e-9 * cost.bytes / run;
    result.share_of_roof = node_roof().seconds(cost.flops, cost.bytes) / run;
    return result;
  }

  Config config_;
  Data dataset_;
  Device& device_;
  const BenchOptions& options_;
  DeviceInfo info_;
  Session session_;
  BenchReport report_;
};

// Rows of synthetic data: 60,000 as MNIST has, or two of the largest batch, which then come from
// memory and not from a GPU's cache.
std::int64_t synthetic_rows(const Config& config, const BenchOptions& options, bool cpu) {
  constexpr std::int64_t mnist = 60000;
  std::vector<std::int64_t> batches = {config.train.batch_size};
  if (options.suite == "step") batches = step_batches(options);
  if (options.suite == "wide") batches = wide_batches(options, cpu);
  if (options.suite == "decode") batches = decode_batches(options, cpu);
  return std::max(mnist, 2 * *std::ranges::max_element(batches));
}

}  // namespace

void validate(const BenchOptions& options) {
  for (const auto& [name, count] :
       {std::pair("--repeats", options.repeats), std::pair("--steps", options.steps),
        std::pair("--epochs", options.epochs), std::pair("--check-steps", options.check_steps)}) {
    if (count < 0) {
      throw Error(Status::usage, "a count is too small", name, "give a positive number");
    }
  }
  for (const auto& [name, list] :
       {std::pair("--batches", &options.batches), std::pair("--widths", &options.widths)}) {
    if (std::ranges::any_of(*list, [](std::int64_t value) { return value < 1; })) {
      throw Error(Status::usage, "a size is too small", name, "give positive numbers");
    }
  }
  for (const std::string& precision : options.precisions) {
    if (precision == "fp32" || precision == "tf32" || precision == "bf16") continue;
    const std::string near = closest(precision, {"fp32", "tf32", "bf16"});
    throw Error(Status::usage, "there is no precision `" + precision + "`", "--precisions",
                near.empty() ? "use fp32, tf32 or bf16" : "did you mean `" + near + "`?");
  }
  if (options.replicas < 1) {
    throw Error(Status::usage, "no replicas to measure", "--replicas", "give a positive number");
  }
  if (!(options.check_tolerance >= 0)) {
    throw Error(Status::usage, "a tolerance is below 0", "--check-tolerance",
                "give nats per image, as 0.5");
  }
  constexpr std::string_view suites = "use step, wide, decode, epochs, kernels, replicas or units";
  if (!options.suite.empty() && options.suite != "step" && options.suite != "wide" &&
      options.suite != "kernels" && options.suite != "epochs" && options.suite != "decode" &&
      options.suite != "replicas") {
    const std::string near = closest(
        options.suite, {"step", "wide", "kernels", "epochs", "decode", "replicas", "units"});
    throw Error(Status::usage, "there is no suite `" + options.suite + "`", "--suite",
                near.empty() ? std::string(suites) : "did you mean `" + near + "`?");
  }
}

BenchReport bench(const Config& config, std::shared_ptr<const Dataset> dataset, Device& device,
                  const BenchOptions& options) {
  const DeviceInfo info = device.info();
  validate(options);
  check_peers(options.peer_names, !on_cpu(info));
  device.check(training_options(config));
  for (const std::string& precision : options.precisions) {
    Config other = config;
    other.run.precision = precision;
    try {
      device.check(training_options(other));
    } catch (const Error& error) {
      if (error.status() != Status::usage) throw;
      throw Error(Status::usage, fmt::format("{} computes not in {}", info.name, precision),
                  "--precisions", "leave it out; a CPU has fp32 alone");
    }
  }
  if (options.suite == "kernels" && config.run.exec == "persistent") {
    throw Error(Status::usage, "the persistent path has no single nodes to measure", "--exec",
                "use graph or eager with --suite kernels");
  }
  if (!dataset || !dataset->train) {
    dataset = synthetic_dataset(synthetic_rows(config, options, on_cpu(info)));
  }
  return Suite(config, std::move(dataset), device, options).run();
}

}  // namespace cuvae
